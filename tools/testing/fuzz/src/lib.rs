// SPDX-License-Identifier: GPL-2.0

//! kernel/module/dedup/peek.rs, unchanged, against an ELF crate that others rely on.

// Nothing here compares keys or prints names.
#![allow(dead_code)]

#[path = "../../../../kernel/module/dedup/target.rs"]
mod target;
// Its own tests use the prelude.
#[allow(unused_imports)]
#[path = "../../../../kernel/module/dedup/peek.rs"]
mod peek;

mod oracle;
#[cfg(test)]
mod property;
mod relaid;

pub use oracle::{check, Kind, KINDS};
pub use relaid::{relaid, RELAID_MODULE_SIZE};
