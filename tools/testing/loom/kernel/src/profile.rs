// SPDX-License-Identifier: GPL-2.0

//! Records how real threads use the locks and the cache lines that they share. Does nothing under
//! loom.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        Mutex,
    },
    time::Instant,
};

/// Size of a cache line, in bytes.
const LINE: usize = 64;

/// A lock: its name and what it protects. All locks of one kind are one.
pub type Lock = (&'static str, &'static str);

/// The critical sections of one lock.
#[derive(Default)]
pub struct Sections {
    /// Number of acquisitions that found the lock held.
    pub contended: u64,
    /// The time that each section took, in nanoseconds.
    pub times: Vec<u32>,
}

/// The place of an access to memory: the critical section of a lock, or what is accessed outside
/// of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Under(Lock),
    Outside(&'static str),
}

/// The uses of a cache line. Accesses of one thread without an access to another line in between
/// are one use, and so are all accesses in one critical section.
#[derive(Clone, Copy, Default)]
pub struct Uses {
    pub all: u64,
    /// Those that write.
    pub writes: u64,
}

/// The record of one thread.
#[derive(Default)]
pub struct Profile {
    pub locks: HashMap<Lock, Sections>,
    /// By place, and by the number of the line.
    pub lines: HashMap<(Place, usize), Uses>,
    /// Number of sleeps that another thread ended.
    pub wakeups: u64,
    /// The lock that is held, and the lines that its critical section has used.
    held: Option<Lock>,
    used: HashSet<usize>,
    /// The use of a line that has not ended.
    last: Option<(usize, bool)>,
}

thread_local! {
    static PROFILE: RefCell<Profile> = RefCell::default();
}

/// The profiles of the threads that have called [`end`].
static PROFILES: Mutex<Vec<Profile>> = Mutex::new(Vec::new());

/// Count cache lines: this takes longer than what the times of critical sections are.
static COUNTS_LINES: AtomicBool = AtomicBool::new(false);

/// Sets whether to count cache lines. Must be called before the threads start.
pub fn count_lines(count: bool) {
    COUNTS_LINES.store(count, Relaxed);
}

/// Returns whether cache lines are counted. Nothing is freed then, so that no two objects have the
/// same address.
pub(crate) fn counts_lines() -> bool {
    cfg!(not(feature = "loom")) && COUNTS_LINES.load(Relaxed)
}

/// Forgets what the current thread has done so far.
pub fn begin() {
    PROFILE.take();
}

/// Hands in what the current thread has done.
pub fn end() {
    PROFILES.lock().unwrap().push(PROFILE.take());
}

/// Returns the profiles of the threads that have ended since the last call.
pub fn take() -> Vec<Profile> {
    std::mem::take(&mut PROFILES.lock().unwrap())
}

/// The current thread has been woken.
pub(crate) fn woken() {
    if cfg!(not(feature = "loom")) {
        PROFILE.with_borrow_mut(|profile| {
            profile.wakeups += 1;
            profile.last = None;
        });
    }
}

/// The current thread reads `object`, which is a `kind`.
pub fn read<T: ?Sized>(kind: &'static str, object: &T) {
    if counts_lines() {
        used(kind, object, false);
    }
}

/// The current thread writes to `object`, which is a `kind`.
pub fn write<T: ?Sized>(kind: &'static str, object: &T) {
    if counts_lines() {
        used(kind, object, true);
    }
}

fn used<T: ?Sized>(kind: &'static str, object: &T, is_write: bool) {
    PROFILE.with_borrow_mut(|profile| {
        let line = std::ptr::from_ref(object).cast::<()>().addr() / LINE;
        let place = profile.held.map_or(Place::Outside(kind), Place::Under);
        let uses = profile.lines.entry((place, line)).or_default();
        let (mut is_same, has_written) = match profile.last {
            Some((last, has_written)) if last == line => (true, has_written),
            _ => (false, false),
        };

        if profile.held.is_some() {
            is_same = !profile.used.insert(line);
        }
        uses.all += u64::from(!is_same);
        uses.writes += u64::from(is_write && !has_written);
        profile.last = Some((line, is_write || has_written));
    });
}

/// A critical section.
pub(crate) struct Section {
    lock: Lock,
    is_contended: bool,
    start: Option<Instant>,
}

impl Section {
    /// Must be called when the current thread has taken `lock`. `is_contended` tells whether
    /// another thread held it.
    pub(crate) fn new(lock: Lock, is_contended: bool) -> Self {
        if counts_lines() {
            PROFILE.with_borrow_mut(|profile| profile.held = Some(lock));
        }
        Self {
            lock,
            is_contended,
            start: cfg!(not(feature = "loom")).then(Instant::now),
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        let Some(start) = self.start else {
            return;
        };
        let time = start.elapsed().as_nanos().try_into().unwrap_or(u32::MAX);

        PROFILE.with_borrow_mut(|profile| {
            let sections = profile.locks.entry(self.lock).or_default();

            sections.contended += u64::from(self.is_contended);
            sections.times.push(time);
            profile.held = None;
            profile.used.clear();
        });
    }
}
