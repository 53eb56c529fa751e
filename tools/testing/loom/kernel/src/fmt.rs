// SPDX-License-Identifier: GPL-2.0

//! Formatting, which is std's here.

pub use std::fmt::{Display, Formatter, Result, Write};

#[macro_export]
macro_rules! fmt {
    ($($args:tt)*) => { format_args!($($args)*) };
}

/// Nobody reads the log of a model, but what is written there has to be there.
#[macro_export]
macro_rules! pr_warn {
    ($($args:tt)*) => { drop(format!($($args)*)) };
}

/// Bytes to be shown to people.
pub struct BStr;

impl BStr {
    pub fn from_bytes(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }
}
