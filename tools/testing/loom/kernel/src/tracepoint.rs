// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, to which a model can attach one probe.

use std::{cell::RefCell, ffi::CStr};

pub use crate::declare_trace;

/// A value that a tracepoint records.
pub trait Field {
    fn value(self) -> i64;
}

macro_rules! fields {
    ($($number:ty)*) => {
        $(
            impl Field for $number {
                fn value(self) -> i64 {
                    self as i64
                }
            }
        )*
    };
}

fields!(i32 u32 i64 u64);

/// Strings are not recorded.
impl Field for &CStr {
    fn value(self) -> i64 {
        0
    }
}

/// An event: its name, and its fields in the order in which they are declared.
pub struct Event<'a> {
    pub name: &'a str,
    fields: &'a [(&'a str, i64)],
}

impl Event<'_> {
    /// Returns the value of a field, which the event must have.
    pub fn get(&self, field: &str) -> i64 {
        let found = self.fields.iter().find(|(name, _)| *name == field);

        found.expect("the event has that field").1
    }
}

type Probe = Box<dyn Fn(&Event<'_>)>;

std::thread_local! {
    static PROBE: RefCell<Option<Probe>> = const { RefCell::new(None) };
}

/// Calls `probe` at each tracepoint from now on, in the task that reaches it.
pub fn register_probe(probe: impl Fn(&Event<'_>) + 'static) {
    PROBE.with(|slot| *slot.borrow_mut() = Some(Box::new(probe)));
}

/// Detaches the probe.
pub fn unregister_probe() {
    PROBE.with(|slot| *slot.borrow_mut() = None);
}

#[doc(hidden)]
pub fn hit(name: &str, fields: &[(&str, i64)]) {
    PROBE.with(|probe| {
        if let Some(probe) = &*probe.borrow() {
            probe(&Event { name, fields });
        }
    });
}

#[macro_export]
macro_rules! declare_trace {
    ($($(#[$attribute:meta])* fn $name:ident($($field:ident: $type:ty),* $(,)?);)*) => {
        $(
            $(#[$attribute])*
            fn $name($($field: $type),*) {
                $crate::tracepoint::hit(
                    stringify!($name),
                    &[$((stringify!($field), $crate::tracepoint::Field::value($field))),*],
                );
            }
        )*
    };
}
