// SPDX-License-Identifier: GPL-2.0

//! kernel/module/dedup/ under the model checker [loom](https://docs.rs/loom), unchanged: each model
//! runs a few tasks in all orders in which they can interleave and in all ways in which memory can
//! be ordered. Loads go through [`load::Loads`], so the loop and the state machine that run here
//! are those of the kernel; only C is imitated, in `models/loader.rs`.
//!
//! ```ignore
//! /// Two loads of a file at the same time. Exhaustive.
//! #[test]
//! fn two_tasks() {
//!     model(|| {
//!         let world = World::new();
//!         // Another task loads file 0. If its loader is called, that returns 1.
//!         let other = spawn(&world, |world| world.load(0, 1));
//!         let this = world.load(0, 2);
//!         let other = other.join().unwrap();
//!
//!         // One of them did the work, and the other one may have shared it.
//!         assert!(succeeded(this) && succeeded(other));
//!         assert!(this == End::Owned || other == End::Owned);
//!         world.assert_empty();
//!     });
//! }
//! ```

// The entry points, debugfs and the log use the rest.
#![allow(dead_code)]

#[path = "../../../../kernel/module/dedup/content.rs"]
mod content;
#[path = "../../../../kernel/module/dedup/helper.rs"]
mod helper;
#[path = "../../../../kernel/module/dedup/key.rs"]
mod key;
#[path = "../../../../kernel/module/dedup/live.rs"]
mod live;
#[path = "../../../../kernel/module/dedup/load.rs"]
mod load;
#[path = "../../../../kernel/module/dedup/peek.rs"]
mod peek;
#[path = "../../../../kernel/module/dedup/pending.rs"]
mod pending;
#[path = "../../../../kernel/module/dedup/request.rs"]
mod request;
mod stats;
#[path = "../../../../kernel/module/dedup/target.rs"]
mod target;
#[path = "../../../../kernel/module/dedup/task.rs"]
mod task;
#[path = "../../../../kernel/module/dedup/trace.rs"]
mod trace;
#[path = "../../../../kernel/module/dedup/wait.rs"]
mod wait;
#[path = "../../../../kernel/module/dedup/wait_graph.rs"]
mod wait_graph;

#[cfg(test)]
mod models;
