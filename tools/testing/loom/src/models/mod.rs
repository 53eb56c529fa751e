// SPDX-License-Identifier: GPL-2.0

//! The models. Each of them also checks, see [`common::World`]:
//!
//! - a file has one owner at a time, except for tasks that found no memory for an entry;
//! - a waiter gets the result of the very load that it waited for, or an error of its own;
//! - every task returns (loom reports a task that sleeps forever);
//! - each load is counted once, and has at most one audit record;
//! - at the end, nothing is left of a load, a request or a wait.
//!
//! Each model says how far it goes: "exhaustive" stands for all interleavings, a number of
//! preemptions for those in which tasks are preempted at most that often where they could have
//! continued. Two tasks, or three on different files, can be explored exhaustively; another
//! preemption of three tasks takes many times as long.

mod common;
mod deadlock;
mod history;
mod load;
mod loader;
mod request;
mod table;

use loom::model::Builder;
use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        Arc,
    },
    thread,
};

type Model = Box<dyn Fn() + Sync + Send>;

/// Explores all interleavings.
fn model(f: impl Fn() + Sync + Send + 'static) {
    check(&Builder::new(), f);
}

/// Explores the interleavings with at most `bound` preemptions.
fn model_with_preemptions(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();

    // Mutants are given fewer, in the environment.
    let most = builder.preemption_bound.unwrap_or(bound);

    builder.preemption_bound = Some(most.min(bound));
    check(&builder, f);
}

/// Prints the number of interleavings, which `cargo test -- --nocapture` shows.
fn check(builder: &Builder, f: impl Fn() + Sync + Send + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();

    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        f();
    });
    println!(
        "{}: {} interleavings",
        thread::current().name().unwrap_or_default(),
        count.load(SeqCst)
    );
}

/// Explores the interleavings of three tasks with at most five preemptions, which takes seconds.
fn model_of_three(f: impl Fn() + Sync + Send + 'static) {
    model_with_preemptions(5, f);
}

/// Explores all interleavings of three tasks if `EXHAUSTIVE` is set, which takes minutes, and else
/// those with at most five preemptions.
fn model_exhaustively(f: impl Fn() + Sync + Send + 'static) {
    if std::env::var_os("EXHAUSTIVE").is_some() {
        model(f);
    } else {
        model_of_three(f);
    }
}

/// Explores the interleavings of loads that go through the loader with at most two preemptions, or
/// three if `EXHAUSTIVE` is set: such a load takes many steps.
fn model_of_loads(f: impl Fn() + Sync + Send + 'static) {
    let bound = 2 + usize::from(std::env::var_os("EXHAUSTIVE").is_some());

    model_with_preemptions(bound, f);
}

/// Explores a model, with `explore`, in which the nth allocation of a task fails, for one n after
/// the other. The model returns whether there was an nth one.
fn for_each_allocation(explore: fn(Model), f: fn(u32) -> bool) {
    for nth in 1.. {
        let has_failed = Arc::new(AtomicBool::new(false));
        let seen = has_failed.clone();

        explore(Box::new(move || {
            seen.fetch_or(f(nth), SeqCst);
        }));
        if !has_failed.load(SeqCst) {
            return assert!(nth > 1, "there are allocations");
        }
    }
}
