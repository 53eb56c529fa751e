// SPDX-License-Identifier: GPL-2.0

//! kernel/module/dedup/, unchanged, under loom: two tasks exhaustively, three with a bound on how
//! often they are interrupted, or, where a model says so and `EXHAUSTIVE` is set, without.

#![allow(dead_code)]

#[path = "../../../../kernel/module/dedup/autoload.rs"]
mod autoload;
#[path = "../../../../kernel/module/dedup/idempotent.rs"]
mod idempotent;
#[path = "../../../../kernel/module/dedup/key.rs"]
mod key;
mod stats;
mod trace;
#[path = "../../../../kernel/module/dedup/waits.rs"]
mod waits;

#[cfg(test)]
mod models;
