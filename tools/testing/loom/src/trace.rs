// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the tracepoints, on which nothing depends.

use kernel::{error::Error, prelude::c_int, time::Delta};

use crate::{key::Subject, waits::Caller};

pub(crate) enum Reason {
    Circle,
}

pub(crate) fn wait(_: Subject, _: &Caller) {}

pub(crate) fn done(_: Subject, _: &Caller, _: c_int, _: Delta) {}

pub(crate) fn refused(_: Subject, _: Reason, _: Error) {}
