// SPDX-License-Identifier: GPL-2.0

//! Statistics of module loading.
//!
//! All accesses to counters are relaxed: nothing depends on their order. A file shows the value
//! that each counter had at some time while the file was read.

use kernel::sync::atomic::Atomic;

mod dedup;
mod module;

pub(crate) use dedup::{
    DedupStats,
    LoadCounters,
    DEDUP_STATS,
    FROM_FILE,
    FROM_MEMORY, //
};
pub(crate) use module::{
    counters,
    FailedModules,
    Reason, //
};

/// A sum of bytes: `atomic_long_t` in C.
pub(crate) type Bytes = Atomic<usize>;
/// A number of events: `atomic_t` in C.
pub(crate) type Events = Atomic<i32>;
