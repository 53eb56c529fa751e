// SPDX-License-Identifier: GPL-2.0

//! kernel/module/dedup/, unchanged, under loom: two tasks exhaustively, and three on two keys; three
//! on one key, one of which may leave, and circles of three, if `EXHAUSTIVE` is set; and what more
//! they do with a bound on how often they are interrupted.

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
