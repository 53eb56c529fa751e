// SPDX-License-Identifier: GPL-2.0

//! kernel/module/dedup/ on real threads, unchanged: where the time goes, and which lock or cache
//! line would limit a machine of 1,024 CPUs.
//!
//! The stand-in for the kernel crate is that of the models, `tools/testing/loom/kernel/`, on the
//! locks of std. There is no loader: a call takes as long as deduplication takes.

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
#[path = "../../../testing/loom/src/stats.rs"]
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

mod limit;
mod measure;
mod workload;

use std::{env, process::ExitCode};

use limit::Limit;
use measure::{name_of, transfer_time, Measured};

/// Number of CPUs to predict.
const CPUS: usize = 1024;

/// Time to move a cache line between the sockets of a large machine, in nanoseconds: an assumption.
const FAR_TRANSFER: f64 = 400.0;

/// Maximum number of times that a call may take one lock.
const MAX_ACQUISITIONS: f64 = 4.0;

fn main() -> ExitCode {
    let threads: &[usize] = match &env::args().skip(1).collect::<Vec<_>>()[..] {
        [] => &[1, 2, 4, 8, 16, 32, 64],
        [quick] if quick == "--quick" => &[1, 2, 8],
        _ => {
            eprintln!("usage: module-dedup-scale [--quick]");
            return ExitCode::FAILURE;
        }
    };
    let Some(near) = transfer_time() else {
        eprintln!("error: fewer than two cores are free");
        return ExitCode::FAILURE;
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);

    println!(
        "{cores} cores; a cache line moves between them in {near:.0} ns. More threads than cores \
         take turns: their\ncounts show what more CPUs would do, and their times do not. The times \
         include the measurement.\n"
    );
    let mut limits = Vec::new();
    let mut status = ExitCode::SUCCESS;
    for workload in workload::ALL {
        let measured = Measured::new(workload, threads);

        measured.print();
        limits.push([near, FAR_TRANSFER].map(|transfer| Limit::new(&measured, transfer)));
        for lock in &measured.locks {
            if lock.count > MAX_ACQUISITIONS {
                eprintln!(
                    "error: {}: {:.0} acquisitions of the lock of the {} in a call, at most \
                     {MAX_ACQUISITIONS} expected",
                    workload.text(),
                    lock.count,
                    name_of(lock.lock)
                );
                status = ExitCode::FAILURE;
            }
        }
    }

    for (far, transfer) in [near, FAR_TRANSFER].into_iter().enumerate() {
        println!("{CPUS} CPUs, if a cache line moves in {transfer:.0} ns:");
        Limit::print_head();
        for limits in &limits {
            limits[far].print();
        }
        println!();
    }
    status
}
