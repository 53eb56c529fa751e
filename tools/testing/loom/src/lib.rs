// SPDX-License-Identifier: GPL-2.0

//! kernel/module/dedup/, unchanged, under loom. Each model says how far it goes: `model` takes all
//! interleavings, which is what can be done with two tasks, and with three on two keys;
//! `model_exhaustively` those of three tasks if `EXHAUSTIVE` is set, and else, like the rest, those
//! in which a task is interrupted a few times at most where it could have gone on.

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
