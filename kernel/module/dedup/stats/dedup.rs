// SPDX-License-Identifier: GPL-2.0

//! Counters of deduplication: the file `dedup`.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    time::Delta, //
};

use super::{
    Bytes,
    Events, //
};

/// Counters of deduplication, in the order of the file `dedup`.
/// Documentation/ABI/testing/debugfs-module-dedup describes them.
///
/// Each load is counted in `loads` when it begins, and in one of `performed`, `same_file`,
/// `same_name`, `already_loaded`, `from_memory` and `aborted` when it ends.
pub(crate) struct DedupStats {
    pub(crate) loads: Events,
    pub(crate) performed: Events,
    pub(crate) same_file: Events,
    pub(crate) same_name: Events,
    pub(crate) already_loaded: Events,
    pub(crate) from_memory: Events,
    pub(crate) aborted: Events,
    pub(crate) requests_joined: Events,
    pub(crate) requests_replayed: Events,
    pub(crate) untracked: Events,
    pub(crate) deadlocks: Events,
    waits: Events,
    waits_interrupted: Events,
    pub(crate) bytes_saved: Bytes,
    wait_time_ns: Atomic<i64>,
    max_wait_ns: Atomic<i64>,
}

/// The counters since boot.
pub(crate) static DEDUP_STATS: DedupStats = DedupStats::new();

/// The counters of rejected loads of one system call.
pub(crate) struct LoadCounters {
    /// Another load of the name was pending.
    pub(crate) pending: &'static Events,
    /// A module of the name was live.
    pub(crate) already_loaded: &'static Events,
}

/// The counters of finit_module().
pub(crate) static FROM_FILE: LoadCounters = LoadCounters {
    pending: &DEDUP_STATS.same_name,
    already_loaded: &DEDUP_STATS.already_loaded,
};

/// The counters of init_module().
pub(crate) static FROM_MEMORY: LoadCounters = LoadCounters {
    pending: &DEDUP_STATS.from_memory,
    already_loaded: &DEDUP_STATS.from_memory,
};

impl DedupStats {
    const fn new() -> Self {
        Self {
            loads: Events::new(0),
            performed: Events::new(0),
            same_file: Events::new(0),
            same_name: Events::new(0),
            already_loaded: Events::new(0),
            from_memory: Events::new(0),
            aborted: Events::new(0),
            requests_joined: Events::new(0),
            requests_replayed: Events::new(0),
            untracked: Events::new(0),
            deadlocks: Events::new(0),
            waits: Events::new(0),
            waits_interrupted: Events::new(0),
            bytes_saved: Bytes::new(0),
            wait_time_ns: Atomic::new(0),
            max_wait_ns: Atomic::new(0),
        }
    }

    /// Counts a wait that took `time`. A signal ended it if `is_interrupted` is set.
    pub(crate) fn waited(&self, time: Delta, is_interrupted: bool) {
        let time = time.as_nanos();
        let mut max = self.max_wait_ns.load(Relaxed);

        self.waits.add(1, Relaxed);
        self.waits_interrupted
            .add(i32::from(is_interrupted), Relaxed);
        self.wait_time_ns.add(time, Relaxed);
        while max < time {
            match self.max_wait_ns.cmpxchg(max, time, Relaxed) {
                Ok(_) => break,
                Err(current) => max = current,
            }
        }
    }

    /// Writes the contents of the file `dedup`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, count) in [
            ("loads", &self.loads),
            ("performed", &self.performed),
            ("same_file", &self.same_file),
            ("same_name", &self.same_name),
            ("already_loaded", &self.already_loaded),
            ("from_memory", &self.from_memory),
            ("aborted", &self.aborted),
            ("requests_joined", &self.requests_joined),
            ("requests_replayed", &self.requests_replayed),
            ("untracked", &self.untracked),
            ("deadlocks", &self.deadlocks),
            ("waits", &self.waits),
            ("waits_interrupted", &self.waits_interrupted),
        ] {
            writeln!(f, "{label}\t{}", count.load(Relaxed) as u32)?;
        }
        writeln!(f, "bytes_saved\t{}", self.bytes_saved.load(Relaxed))?;
        for (label, time) in [
            ("wait_time_ms", &self.wait_time_ns),
            ("max_wait_ms", &self.max_wait_ns),
        ] {
            let time = Delta::from_nanos(time.load(Relaxed));

            f.write_fmt(fmt!("{label}\t{}\n", time.as_millis()))?;
        }
        Ok(())
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_stats_dedup)]
mod tests {
    use super::*;

    #[test]
    fn longest_wait_is_kept() {
        let stats = DedupStats::new();

        for nanoseconds in [5, 9, 7] {
            stats.waited(Delta::from_nanos(nanoseconds), false);
        }
        assert_eq!(stats.waits.load(Relaxed), 3);
        assert_eq!(stats.wait_time_ns.load(Relaxed), 21);
        assert_eq!(stats.max_wait_ns.load(Relaxed), 9);
    }
}
