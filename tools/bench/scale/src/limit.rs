// SPDX-License-Identifier: GPL-2.0

//! The limit that locks and shared cache lines set to a number of CPUs.
//!
//! A lock serves one CPU at a time, and so does a cache line that is written. The time for which a
//! call needs such a resource bounds the rate of calls of all CPUs together. Mean value analysis of
//! a closed queueing network gives the rate for any number of CPUs: each CPU makes one call after
//! the other, queues for each resource and works without any for the rest of the call.

use crate::{
    measure::{name_of, LockUse, Measured},
    workload::Workload,
    CPUS,
};

/// Instructions that a CPU executes in a nanosecond: an assumption.
const SPEED: f64 = 3.0;

pub(crate) struct Limit {
    workload: Workload,
    /// Each lock and kind of line: its name, and the time for which a call needs it, in
    /// nanoseconds.
    resources: Vec<(&'static str, f64)>,
    /// The rest of a call.
    parallel: f64,
}

impl Limit {
    /// `transfer` is the time to move a cache line to another CPU, in nanoseconds.
    pub(crate) fn new(measured: &Measured, transfer: f64) -> Self {
        // A contended lock is handed over with its line, and its new owner finds the lines that the
        // last owner used in the cache of another CPU.
        let is_herd = measured.workload.is_herd();
        let is_shared = |lock: &&LockUse| is_herd || lock.lock.0 != "completion";
        let locks = measured.locks.iter().filter(is_shared).map(|lock| {
            let time = lock.hold + (1.0 + lock.lines) * transfer;

            (name_of(lock.lock), lock.count * time)
        });
        let lines = measured
            .lines
            .iter()
            .map(|line| (line.kind, line.most * transfer));
        let reads: f64 = measured.lines.iter().map(|line| line.reads).sum();
        let held: f64 = measured
            .locks
            .iter()
            .map(|lock| lock.count * lock.hold)
            .sum();
        let own = measured.times.first().map_or(0.0, |(_, time)| time - held);
        let work = measured
            .workload
            .instructions()
            .map_or(own, |count| f64::from(count) / SPEED);

        Self {
            workload: measured.workload,
            resources: locks.chain(lines).collect(),
            parallel: work.max(0.0) + reads * transfer,
        }
    }

    fn busiest(&self) -> (&'static str, f64) {
        let most = |one: &&(_, f64), other: &&(_, f64)| one.1.total_cmp(&other.1);

        *self.resources.iter().max_by(most).unwrap_or(&("", 0.0))
    }

    /// Returns the number of calls in a nanosecond that `cpus` CPUs make together.
    fn rate(&self, cpus: usize) -> f64 {
        let mut queues = vec![0.0; self.resources.len()];
        let mut rate = 0.0;

        for cpus in 1..=cpus {
            let times: Vec<_> = self
                .resources
                .iter()
                .zip(&queues)
                .map(|((_, time), queue)| time * (1.0 + queue))
                .collect();

            rate = cpus as f64 / (self.parallel + times.iter().sum::<f64>());
            queues = times.iter().map(|time| rate * time).collect();
        }
        rate
    }

    pub(crate) fn print_head() {
        println!(
            "  {:<58}{:<20}{:>8}{:>11}{:>9}{:>13}",
            "calls", "busiest", "ns/call", "calls/s", "full at", "all at once"
        );
    }

    pub(crate) fn print(&self) {
        let (name, time) = self.busiest();
        let all: f64 = self.resources.iter().map(|(_, time)| time).sum();
        // With more CPUs than that, the busiest resource is busy all the time.
        let saturated = (self.parallel + all) / time;
        let rate = match self.workload.is_herd() {
            true => "-".into(),
            false => format!("{:.0}", self.rate(CPUS) * 1e9),
        };

        println!(
            "  {:<58}{name:<20}{time:>8.0}{rate:>11}{saturated:>9.0}{:>10.1} ms",
            self.workload.text(),
            time * CPUS as f64 / 1e6
        );
    }
}
