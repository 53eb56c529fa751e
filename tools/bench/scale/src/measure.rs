// SPDX-License-Identifier: GPL-2.0

//! The measurement of one workload.

use kernel::profile::{self, Lock, Place, Profile, Uses};
use std::{
    collections::{BTreeMap, HashMap},
    hint,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crate::workload::{self, Workload};

/// A thread holds a lock for longer, in nanoseconds, only if it is preempted, which the kernel does
/// not do. The second time is for the lock of a completion, under which all waiters are woken.
const PREEMPTED: [u32; 2] = [50_000, 1_000_000];

/// The critical sections of a lock.
pub(crate) struct LockUse {
    pub(crate) lock: Lock,
    /// Number of acquisitions in a call.
    pub(crate) count: f64,
    /// Share of the acquisitions that found the lock held.
    pub(crate) contended: f64,
    /// Mean time of a critical section, in nanoseconds, if it is not preempted.
    pub(crate) hold: f64,
    /// The time that 1 % exceed.
    pub(crate) longest: f64,
    /// Shared lines used in a critical section, apart from that of the lock.
    pub(crate) lines: f64,
}

/// The uses of shared lines outside of critical sections.
pub(crate) struct LineUse {
    pub(crate) kind: &'static str,
    /// Uses in a call that write.
    pub(crate) writes: f64,
    /// Those of the line that is written most. In a round, each pending load has its own.
    pub(crate) most: f64,
    /// Uses in a call that only read.
    pub(crate) reads: f64,
}

pub(crate) struct Measured {
    pub(crate) workload: Workload,
    /// Number of threads, and the mean time of a call, in nanoseconds.
    pub(crate) times: Vec<(usize, f64)>,
    /// The remaining fields are from the largest number of threads.
    pub(crate) locks: Vec<LockUse>,
    pub(crate) lines: Vec<LineUse>,
    pub(crate) wakeups: f64,
}

impl Measured {
    pub(crate) fn new(workload: Workload, threads: &[usize]) -> Self {
        let most = threads.iter().copied().max().unwrap_or(1);
        let is_herd = workload.is_herd();
        let mut profiles = Vec::new();
        let times = threads
            .iter()
            .map(|&threads| {
                let time = workload::run(workload, threads, workload.calls(threads));

                profiles = profile::take();
                (threads, time)
            })
            .collect();
        let calls = most * workload.calls(most);

        profile::count_lines(true);
        let count = if is_herd { 5 } else { 50 };
        workload::run(workload, most, count);
        profile::count_lines(false);
        let lines = shared_lines(&profile::take());

        Self {
            workload,
            times,
            locks: lock_uses(&profiles, calls, &lines, most * count),
            lines: line_uses(&lines, is_herd, most * count),
            wakeups: profiles.iter().map(|profile| profile.wakeups).sum::<u64>() as f64
                / calls as f64,
        }
    }

    pub(crate) fn print(&self) {
        println!("{}\n", self.workload.text());
        print!("  threads         ");
        for (threads, _) in &self.times {
            print!("{threads:>9}");
        }
        print!("\n  ns of a call    ");
        for (_, time) in &self.times {
            print!("{time:>9.0}");
        }
        println!(
            "\n\n  {:<22}{:>10}{:>11}{:>10}{:>10}{:>14}",
            "lock", "of a call", "contended", "mean ns", "p99 ns", "shared lines"
        );
        for lock in &self.locks {
            println!(
                "  {:<22}{:>10.2}{:>9.1} %{:>10.0}{:>10.0}{:>14.1}",
                name_of(lock.lock),
                lock.count,
                lock.contended * 100.0,
                lock.hold,
                lock.longest,
                lock.lines
            );
        }
        println!(
            "\n  {:<22}{:>10}{:>11}",
            "shared lines without", "written", "read"
        );
        for line in &self.lines {
            println!(
                "  {:<22}{:>10.2}{:>11.2}",
                line.kind, line.writes, line.reads
            );
        }
        println!("  {:<22}{:>10.2}\n", "wakeups", self.wakeups);
    }
}

/// Returns what a lock protects.
pub(crate) fn name_of((name, data): Lock) -> &'static str {
    match name {
        "module_dedup_table" if data.contains("FileKey") => "table of files",
        "module_dedup_table" if data.contains("RequestKey") => "table of requests",
        "module_dedup_table" => "table of names",
        "module_dedup_waits" => "wait graph",
        "module_dedup_done" => "recent requests",
        "module_dedup_images" => "known images",
        "completion" if data == "wait" => "completion: wait",
        "completion" => "completion: wake all",
        name => name,
    }
}

/// Adds up the uses of the lines that several threads use and at least one of them writes.
fn shared_lines(profiles: &[Profile]) -> HashMap<(Place, usize), Uses> {
    let mut users = HashMap::<usize, (usize, bool)>::new();
    let mut sum = HashMap::<_, Uses>::new();

    for profile in profiles {
        let mut mine = HashMap::<usize, bool>::new();

        for ((_, line), uses) in &profile.lines {
            *mine.entry(*line).or_default() |= uses.writes > 0;
        }
        for (line, writes) in mine {
            let (count, is_written) = users.entry(line).or_default();

            *count += 1;
            *is_written |= writes;
        }
    }
    for profile in profiles {
        for ((place, line), uses) in &profile.lines {
            if let Some((2.., true)) = users.get(line) {
                let sum = sum.entry((*place, *line)).or_default();

                sum.all += uses.all;
                sum.writes += uses.writes;
            }
        }
    }
    sum
}

fn lock_uses(
    profiles: &[Profile],
    calls: usize,
    lines: &HashMap<(Place, usize), Uses>,
    calls_to_count: usize,
) -> Vec<LockUse> {
    let mut locks = BTreeMap::<Lock, (Vec<u32>, u64)>::new();
    let overhead = overhead();

    for profile in profiles {
        for (lock, sections) in &profile.locks {
            let (times, contended) = locks.entry(*lock).or_default();

            times.extend(&sections.times);
            *contended += sections.contended;
        }
    }
    locks
        .into_iter()
        .map(|(lock, (mut times, contended))| {
            let all = times.len() as f64;
            let uses: u64 = lines
                .iter()
                .filter(|((place, _), _)| *place == Place::Under(lock))
                .map(|(_, uses)| uses.all)
                .sum();
            let count = all / calls as f64;

            let preempted = PREEMPTED[usize::from(lock.0 == "completion")];
            times.retain(|time| *time < preempted);
            times.sort_unstable();
            let sum: u64 = times.iter().copied().map(u64::from).sum();

            LockUse {
                lock,
                count,
                contended: contended as f64 / all,
                hold: (sum as f64 / times.len() as f64 - overhead).max(0.0),
                longest: f64::from(*times.get(times.len() * 99 / 100).unwrap_or(&0)) - overhead,
                lines: uses as f64 / calls_to_count as f64 / count,
            }
        })
        .collect()
}

fn line_uses(lines: &HashMap<(Place, usize), Uses>, is_herd: bool, calls: usize) -> Vec<LineUse> {
    let mut kinds = BTreeMap::<_, (u64, u64, u64)>::new();

    for ((place, _), uses) in lines {
        if let Place::Outside(kind) = place {
            let (writes, most, reads) = kinds.entry(*kind).or_default();

            *writes += uses.writes;
            *most = (*most).max(uses.writes);
            *reads += uses.all.saturating_sub(uses.writes);
        }
    }
    // The line of a lock is a part of its acquisition.
    kinds.remove("locks");
    kinds
        .into_iter()
        .map(|(kind, (writes, most, reads))| {
            let of_a_call = |uses: u64| uses as f64 / calls as f64;

            LineUse {
                kind,
                writes: of_a_call(writes),
                most: of_a_call(if is_herd { writes } else { most }),
                reads: of_a_call(reads),
            }
        })
        .collect()
}

/// Returns the time that a critical section seems to take if it does nothing.
fn overhead() -> f64 {
    let mut times: Vec<_> = (0..10_000)
        .map(|_| {
            let start = Instant::now();

            start.elapsed().as_nanos() as f64
        })
        .collect();

    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Returns the time in which a cache line moves from one core to another, in nanoseconds, or
/// [`None`] if other programs keep the two threads from running at the same time.
pub(crate) fn transfer_time() -> Option<f64> {
    const TURNS: u32 = 10;
    /// It takes longer only if one of the threads does not run.
    const MAX: f64 = 2_000.0;
    let turn = AtomicU32::new(0);
    let is_over = AtomicBool::new(false);
    let wait_for = |mine: u32| {
        for tries in 1_u32.. {
            if turn.load(SeqCst) % 2 == mine || is_over.load(SeqCst) {
                break;
            }
            match tries % 1_000 {
                // The other thread may not be running.
                0 => thread::yield_now(),
                _ => hint::spin_loop(),
            }
        }
    };

    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                wait_for(1);
                turn.fetch_add(1, SeqCst);
            }
        });
        let begin = Instant::now();
        let mut times = Vec::new();

        while begin.elapsed() < Duration::from_secs(5) && times.len() < 10_000 {
            let start = Instant::now();

            for _ in 0..TURNS {
                wait_for(0);
                turn.fetch_add(1, SeqCst);
            }
            let time = start.elapsed().as_nanos() as f64 / f64::from(2 * TURNS);
            if time < MAX {
                times.push(time);
            }
        }
        is_over.store(true, SeqCst);
        times.sort_unstable_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    })
}
