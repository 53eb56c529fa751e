// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the counters: statics, which loom cannot have, counted for each model.

use kernel::{profile, sync::atomic::ordering::Relaxed, time::Delta};
use std::cell::Cell;

const COUNTERS: usize = 13;

std::thread_local! {
    static VALUES: [Cell<usize>; COUNTERS] = const { [const { Cell::new(0) }; COUNTERS] };
}

/// A counter, known by its number. Not for loom: nothing depends on it.
pub(crate) struct Counter(usize);

impl Counter {
    pub(crate) fn add(&self, count: usize, _: Relaxed) {
        profile::write("counters", self);
        VALUES.with(|values| values[self.0].set(values[self.0].get() + count));
    }

    #[cfg(test)]
    pub(crate) fn get(&self) -> usize {
        VALUES.with(|values| values[self.0].get())
    }
}

/// The counters that the code under test bumps itself.
pub(crate) struct DedupStats {
    pub(crate) loads: Counter,
    pub(crate) performed: Counter,
    pub(crate) same_file: Counter,
    pub(crate) same_name: Counter,
    pub(crate) already_loaded: Counter,
    pub(crate) from_memory: Counter,
    pub(crate) aborted: Counter,
    pub(crate) requests_joined: Counter,
    pub(crate) requests_replayed: Counter,
    pub(crate) untracked: Counter,
    pub(crate) deadlocks: Counter,
    pub(crate) waits: Counter,
    pub(crate) bytes_saved: Counter,
}

pub(crate) static DEDUP_STATS: DedupStats = DedupStats {
    loads: Counter(0),
    performed: Counter(1),
    same_file: Counter(2),
    same_name: Counter(3),
    already_loaded: Counter(4),
    from_memory: Counter(5),
    aborted: Counter(6),
    requests_joined: Counter(7),
    requests_replayed: Counter(8),
    untracked: Counter(9),
    deadlocks: Counter(10),
    waits: Counter(11),
    bytes_saved: Counter(12),
};

impl DedupStats {
    pub(crate) fn waited(&self, _: Delta, _: bool) {
        self.waits.add(1, Relaxed);
    }

    /// Begins to count for a new model.
    #[cfg(test)]
    pub(crate) fn reset(&self) {
        VALUES.with(|values| values.iter().for_each(|value| value.set(0)));
    }

    /// Fails the model unless each load was counted once when it began and once when it ended.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        let ended = [
            &self.performed,
            &self.same_file,
            &self.same_name,
            &self.already_loaded,
            &self.from_memory,
            &self.aborted,
        ];

        assert_eq!(
            self.loads.get(),
            ended.iter().map(|counter| counter.get()).sum(),
            "a load is not counted once"
        );
    }
}

/// The counters of rejected loads, by their source.
pub(crate) struct LoadCounters {
    pub(crate) pending: &'static Counter,
    pub(crate) already_loaded: &'static Counter,
}

pub(crate) static FROM_FILE: LoadCounters = LoadCounters {
    pending: &DEDUP_STATS.same_name,
    already_loaded: &DEDUP_STATS.already_loaded,
};

pub(crate) static FROM_MEMORY: LoadCounters = LoadCounters {
    pending: &DEDUP_STATS.from_memory,
    already_loaded: &DEDUP_STATS.from_memory,
};
