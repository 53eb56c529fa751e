// SPDX-License-Identifier: GPL-2.0

//! The table of pending work: own an entry, wait for one, complete one.
//!
//! One generic table serves loads of files, loads of module names, and requests. Entries are found
//! by key; an unload removes those of its module.
//!
//! The crate documentation lists the numbered invariants.

use core::ptr;

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        new_spinlock,
        Arc,
        Completion,
        SetOnce,
        SpinLock,
        SpinLockGuard, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    }, //
};

use crate::{
    content::ImageId,
    key::Key,
    stats::DEDUP_STATS,
    target::{
        Name,
        Target, //
    },
    task::TaskId,
    trace,
    wait::{
        Patience,
        WaitError,
        WaitMode, //
    },
    wait_graph::{
        WaitGraph,
        WaitGuard,
        Waitable,
        WithModule, //
    }, //
};

/// Number of hash buckets: one for each value of [`Key::bucket`], so that no index is out of
/// bounds.
const BUCKETS: usize = 1 << u8::BITS;

/// The outcome of pending work for its waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The result of the work, which holds for every waiter. It need not be an errno: an init
    /// function may return anything.
    Shared(c_int),
    /// The loader did not accept the image. The error holds for loads of the same image, if its
    /// identity is known.
    BadImage(Error, Option<ImageId>),
    /// The outcome concerns the owner alone. The waiters start over, and one of them becomes the
    /// next owner.
    Retry,
}

/// Work in flight.
///
/// The table, the owner and the waiters each hold a reference; nothing in it lies on a stack
/// (invariant 5).
#[pin_data]
pub(crate) struct Pending<K> {
    key: K,
    /// The bucket of `key`.
    bucket: u8,
    owner: TaskId,
    /// The module that the owner loads, once the module has joined the module list.
    module: SetOnce<Name>,
    /// Number of waiting tasks, for display, and for [`Load::set_image`](crate::load::Load) to skip
    /// the hash of an image that nobody waits for. Relaxed: nothing depends on it.
    waiters: Atomic<u32>,
    /// Age of the work, in seconds, when a waiter last logged that the wait is long, or 0. One
    /// waiter logs for all of them. Relaxed: nothing depends on it.
    reported: Atomic<u32>,
    /// Written once, under the lock of the table, in the critical section that unlinks the entry.
    /// Read by waiters without the lock: [`SetOnce`] orders the write before any read that sees it.
    outcome: SetOnce<Outcome>,
    /// Completed after `outcome` is set.
    #[pin]
    done: Completion,
    /// Protected by the lock of the table.
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl{K} ListArcSafe<0> for Pending<K> { untracked; }
}

impl_list_item! {
    impl{K} ListItem<0> for Pending<K> { using ListLinks { self.links }; }
}

const SECOND: Delta = Delta::from_secs(1);

/// Time until the first report of a long wait, in milliseconds.
const FIRST_REPORT: u32 = 30_000;
/// Time between later reports, in milliseconds.
const NEXT_REPORT: u32 = 60_000;

/// Time after which a possible deadlock is treated as a deadlock, in milliseconds.
const DEADLOCK_TIMEOUT: u32 = 1_000;

/// Time that a task waits for a load whose module has not joined the module list, in milliseconds.
pub(crate) const UNLISTED_TIMEOUT: u32 = 5_000;

impl<K: Key> Pending<K> {
    // Not inlined, to keep the stack frames of loads small.
    #[inline(never)]
    fn new(key: &K, owner: &TaskId) -> Result<ListArc<Self>>
    where
        K: Clone,
    {
        ListArc::pin_init(
            try_pin_init!(Self {
                bucket: key.bucket(),
                key: key.clone(),
                owner: *owner,
                module: SetOnce::new(),
                waiters: Atomic::new(0),
                reported: Atomic::new(0),
                outcome: SetOnce::new(),
                done <- Completion::new(),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns the key of the work.
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Returns the module that the owner loads, once the module has joined the module list.
    pub(crate) fn module(&self) -> Option<Name> {
        self.module.copy()
    }

    /// Returns the number of tasks that wait.
    pub(crate) fn waiters(&self) -> u32 {
        self.waiters.load(Relaxed)
    }

    /// Waits until the owner has completed, and returns the outcome.
    ///
    /// Fails with [`WaitError::Signal`] if a signal ends the wait, with [`WaitError::Deadlock`] if
    /// the owner waits for the caller, directly or not, and with [`WaitError::Timeout`] if the wait
    /// reaches the limit that `patience` sets. `module` is the module that the caller loads, if
    /// any, for display.
    ///
    /// The owner always wakes its waiters (invariant 1). A waiter may leave at any time (invariant
    /// 5): only the wait queue of the completion and `graph` refer to it, and it leaves both before
    /// this returns.
    ///
    /// Sleeps. Must be called without locks held.
    // Not inlined, for the same reason as above.
    #[inline(never)]
    pub(crate) fn wait(
        this: &Arc<Self>,
        graph: &WaitGraph,
        mode: WaitMode,
        patience: Patience,
        module: Option<Name>,
    ) -> Result<Outcome, WaitError> {
        let guard = graph.begin(this.clone(), mode, patience, module)?;
        let start = Instant::<Monotonic>::now();

        trace::wait_begin(&this.target(), this.owner());
        this.waiters.add(1, Relaxed);
        let ended = this.sleep_until_done(graph, &guard, mode, patience, start);
        this.waiters.fetch_sub(1, Relaxed);
        drop(guard);

        // If a signal comes while the owner publishes, the outcome wins, as in C: how the sleep
        // ended makes no difference then.
        let waited = start.elapsed();
        let result = match (this.outcome.copy(), ended) {
            (Some(outcome), _) => Ok(outcome),
            (None, Err(err)) => Err(err),
            // Cannot happen: the outcome is set before the completion is done.
            (None, Ok(())) => Err(WaitError::Signal),
        };
        let errno = match result {
            Ok(Outcome::Shared(result)) => result,
            Ok(Outcome::BadImage(err, _)) => err.to_errno(),
            Ok(Outcome::Retry) => EAGAIN.to_errno(),
            Err(WaitError::Signal) => EINTR.to_errno(),
            Err(WaitError::Deadlock) => EDEADLK.to_errno(),
            Err(WaitError::Timeout) => ETIMEDOUT.to_errno(),
        };
        DEDUP_STATS.waited(waited, result == Err(WaitError::Signal));
        trace::wait_end(&this.target(), this.owner(), errno, waited);
        result
    }

    /// Sleeps until the owner has completed. Wakes up in between: to check whether a possible
    /// deadlock has become a certain one, to give up if `patience` says so, and to log a long wait.
    fn sleep_until_done(
        &self,
        graph: &WaitGraph,
        guard: &WaitGuard<'_>,
        mode: WaitMode,
        patience: Patience,
        start: Instant<Monotonic>,
    ) -> Result<(), WaitError> {
        let mut slept = 0;

        // The first three sleeps end at these times after the start; later ones only for reports.
        for until in [DEADLOCK_TIMEOUT, UNLISTED_TIMEOUT, FIRST_REPORT] {
            match self.sleep(mode, msecs_to_jiffies(until - slept)) {
                Err(ETIMEDOUT) => slept = until,
                result => return result.map(drop).map_err(|_| WaitError::Signal),
            }
            match until {
                DEADLOCK_TIMEOUT => guard.check_again()?,
                UNLISTED_TIMEOUT => {
                    if patience == Patience::UntilListed && self.module().is_none() {
                        return Err(WaitError::Timeout);
                    }
                }
                _ => self.report(graph, start.elapsed()),
            }
        }
        loop {
            match self.sleep(mode, msecs_to_jiffies(NEXT_REPORT)) {
                Err(ETIMEDOUT) => self.report(graph, start.elapsed()),
                result => return result.map(drop).map_err(|_| WaitError::Signal),
            }
        }
    }

    /// Sleeps until the owner has completed. Fails with `ERESTARTSYS` on a signal and with
    /// `ETIMEDOUT` after `timeout`.
    fn sleep(&self, mode: WaitMode, timeout: Jiffies) -> Result<Jiffies> {
        match mode {
            WaitMode::Interruptible => self.done.wait_for_completion_interruptible_timeout(timeout),
            WaitMode::Killable => self.done.wait_for_completion_killable_timeout(timeout),
        }
    }

    /// Logs that the current task has been waiting for a long time, unless another waiter has just
    /// logged it.
    fn report(&self, graph: &WaitGraph, waited: Delta) {
        let age = u32::try_from(self.owner.age() / SECOND).unwrap_or(u32::MAX);
        let last = self.reported.load(Relaxed);

        if (last != 0 && age.saturating_sub(last) < NEXT_REPORT / 1000)
            || self.reported.cmpxchg(last, age, Relaxed).is_err()
        {
            return;
        }
        // Look the module up first: printk() formats its arguments with interrupts disabled, so the
        // formatting must not take the lock of the graph.
        let module = self.module().or_else(|| graph.module_of(&self.owner));

        pr_warn!(
            "{} has been waiting for {} of {} for {} s; {} waiters\n",
            TaskId::current(),
            self.target(),
            WithModule(&self.owner, module),
            waited / SECOND,
            self.waiters()
        );
    }
}

impl<K: Key> Waitable for Pending<K> {
    fn target(&self) -> Target {
        self.key.target()
    }

    fn owner(&self) -> &TaskId {
        &self.owner
    }

    fn is_listed(&self) -> bool {
        self.module().is_some()
    }

    fn is_done(&self) -> bool {
        self.outcome.copy().is_some()
    }
}

/// The result of [`Table::enter`]: the part that the task has in the work.
pub(crate) enum Role<'a, K: Key> {
    /// No other task does this work: do it, then [complete](Owner::complete).
    Owner(Owner<'a, K>),
    /// Another task does this work: [wait](Pending::wait) for it.
    Waiter(Arc<Pending<K>>),
    /// No other task does this work, and there was no memory for an entry that others could wait
    /// for: do it all the same (invariant 4).
    Untracked,
}

/// The entries, hashed by key.
struct Buckets<K>([List<Pending<K>>; BUCKETS]);

impl<K: Key> Buckets<K> {
    const fn new() -> Self {
        Self([const { List::new() }; BUCKETS])
    }

    fn at(&mut self, bucket: u8) -> &mut List<Pending<K>> {
        // Never panics: there is a bucket for every value of a byte.
        &mut self.0[usize::from(bucket)]
    }

    fn find(&mut self, bucket: u8, key: &K) -> Option<Arc<Pending<K>>> {
        self.at(bucket)
            .iter()
            .find(|pending| pending.key == *key)
            .map(Arc::from)
    }

    fn unlink(&mut self, pending: &Pending<K>) -> Option<ListArc<Pending<K>>> {
        let mut cursor = self.at(pending.bucket).cursor_front();

        while let Some(found) = cursor.peek_next() {
            if ptr::eq::<Pending<K>>(&*found, pending) {
                return Some(found.remove());
            }
            cursor.move_next();
        }

        None
    }
}

/// The table of pending work.
///
/// # Invariants
///
/// There is at most one entry of each key in the table, and it has an [`Owner`].
#[pin_data]
pub(crate) struct Table<K> {
    /// Process context only. Held to walk one bucket or, when a module is unloaded, all entries:
    /// their number is independent of the number of waiters (invariant 6). Never held while
    /// allocating, loading, waking or sleeping (invariant 3). A leaf lock.
    #[pin]
    buckets: SpinLock<Buckets<K>>,
}

impl<K: Key> Table<K> {
    /// Makes an empty table.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            buckets <- new_spinlock!(Buckets::new(), "module_dedup_table"),
        })
    }

    /// Finds the entry of `key`, or makes one that `task`, the current task, owns.
    ///
    /// Allocates with `GFP_KERNEL`: may sleep, must be called without locks held.
    pub(crate) fn enter(&self, key: &K, task: &TaskId) -> Role<'_, K>
    where
        K: Clone,
    {
        // Allocate before taking the lock (invariant 3). A waiter frees the entry again, but most
        // loads find no other load to wait for.
        self.enter_with(key, Pending::new(key, task).ok())
    }

    /// Returns the entry of `key`, if there is one. Does not sleep.
    pub(crate) fn find(&self, key: &K) -> Option<Arc<Pending<K>>> {
        let bucket = key.bucket();

        self.buckets.lock().find(bucket, key)
    }

    /// Finds the entry of `key`, or makes `fresh` that entry.
    fn enter_with(&self, key: &K, fresh: Option<ListArc<Pending<K>>>) -> Role<'_, K> {
        let bucket = fresh
            .as_ref()
            .map_or_else(|| key.bucket(), |fresh| fresh.bucket);
        // Declared after `fresh`, so that the lock is dropped before an unused `fresh` is freed.
        let mut buckets = self.buckets.lock();

        if let Some(pending) = buckets.find(bucket, key) {
            return Role::Waiter(pending);
        }

        let Some(fresh) = fresh else {
            return Role::Untracked;
        };

        let pending = fresh.clone_arc();
        // INVARIANT: This critical section found no entry of `key`; this one gets its owner.
        buckets.at(bucket).push_front(fresh);
        Role::Owner(Owner {
            table: self,
            pending,
        })
    }

    /// Completes the entry of `key`, if there is one, before its owner returns. Does not sleep.
    /// Must be called without locks held.
    pub(crate) fn publish(&self, key: &K, outcome: Outcome) {
        let bucket = key.bucket();
        let mut buckets = self.buckets.lock();

        if let Some(pending) = buckets.find(bucket, key) {
            Self::complete(buckets, &pending, outcome);
        }
    }

    /// Completes an entry, unless that has been done before.
    fn complete(
        mut buckets: SpinLockGuard<'_, Buckets<K>>,
        pending: &Pending<K>,
        outcome: Outcome,
    ) {
        // Publish and unlink in one critical section (invariant 2): a task that has found the entry
        // gets its outcome, and a task that comes later finds no entry.
        if !pending.outcome.populate(outcome) {
            return;
        }
        // INVARIANT: The entry has its owner until it is unlinked here, if it has not been detached
        // before.
        let unlinked = buckets.unlink(pending);
        drop(buckets);

        // One call wakes all waiters, outside of the lock of the table (invariants 3 and 6): the
        // completion has its own lock. Waiters may drop their references at once; that of the
        // caller keeps the completion alive until the call returns (invariant 5).
        pending.done.complete_all();
        drop(unlinked);
    }

    /// Removes the entries of `module`, so that no other task finds them. Their owners still
    /// complete them, for the tasks that wait already.
    pub(crate) fn detach(&self, module: &Name) {
        let mut detached = List::new();
        let mut buckets = self.buckets.lock();

        for list in &mut buckets.0 {
            let mut cursor = list.cursor_front();

            while let Some(pending) = cursor.peek_next() {
                if pending.module().as_ref() == Some(module) {
                    detached.push_front(pending.remove());
                } else {
                    cursor.move_next();
                }
            }
        }
        drop(buckets);
        // Freed without the lock.
        drop(detached);
    }

    /// Calls `f` for each entry, under the lock, which is dropped after each bucket that is not
    /// empty: an entry that is added or removed meanwhile may be missed. `f` must not sleep.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Pending<K>)) {
        let mut next = 0;

        loop {
            let buckets = self.buckets.lock();
            // Most buckets are empty. Skip them in one critical section: each request_module() call
            // comes here, and the lock is that of all loads.
            let mut rest = buckets.0.iter().enumerate().skip(next);
            let Some((bucket, list)) = rest.find(|(_, list)| !list.is_empty()) else {
                return;
            };

            for pending in list.iter() {
                f(&pending);
            }
            next = bucket + 1;
        }
    }
}

/// The owner of an entry. Dropping it completes the entry, so that no path leaves waiters behind
/// (invariant 1).
pub(crate) struct Owner<'a, K: Key> {
    table: &'a Table<K>,
    pending: Arc<Pending<K>>,
}

impl<K: Key> Owner<'_, K> {
    /// Records that the module of the owner has joined the module list.
    pub(crate) fn set_module(&self, name: Name) {
        self.pending.module.populate(name);
    }

    /// Returns whether other tasks wait. More may follow.
    pub(crate) fn has_waiters(&self) -> bool {
        self.pending.waiters() != 0
    }

    /// Completes the work: every waiter gets `outcome`, unless one has been
    /// [published](Table::publish) before.
    pub(crate) fn complete(&self, outcome: Outcome) {
        // Common case: this was done before. Check before taking the lock.
        if !self.pending.is_done() {
            Table::complete(self.table.buckets.lock(), &self.pending, outcome);
        }
    }
}

impl<K: Key> Drop for Owner<'_, K> {
    fn drop(&mut self) {
        self.complete(Outcome::Retry);
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_pending)]
mod tests {
    use super::*;
    use crate::key::{
        Args,
        FileKey, //
    };
    use kernel::{
        sync::atomic::ordering::Full,
        workqueue, //
    };

    type Table = super::Table<FileKey>;
    type Owner<'a> = super::Owner<'a, FileKey>;
    type Pending = super::Pending<FileKey>;

    const KEY: FileKey = FileKey {
        inode: 0x8123_4560,
        dev: 0,
        ino: 0,
        flags: 0,
        args: Args::Empty,
        changes: 0,
    };

    fn table() -> Result<Arc<Table>> {
        Arc::pin_init(Table::new(), GFP_KERNEL)
    }

    /// Becomes the owner of `key`, or fails the test.
    fn own<'a>(table: &'a Table, key: &FileKey) -> Result<Owner<'a>> {
        match table.enter(key, &TaskId::current()) {
            Role::Owner(owner) => Ok(owner),
            Role::Waiter(_) => Err(EEXIST),
            Role::Untracked => Err(ENOMEM),
        }
    }

    /// Becomes a waiter for `key`, or fails the test.
    fn find(table: &Table, key: &FileKey) -> Result<Arc<Pending>> {
        match table.enter(key, &TaskId::current()) {
            Role::Waiter(load) => Ok(load),
            _ => Err(ENOENT),
        }
    }

    /// Waits for `load`, in a graph of its own.
    fn wait(load: &Arc<Pending>) -> Result<Result<Outcome, WaitError>> {
        let graph = Arc::pin_init(WaitGraph::new(), GFP_KERNEL)?;

        Ok(Pending::wait(
            load,
            &graph,
            WaitMode::Interruptible,
            Patience::Unlimited,
            None,
        ))
    }

    fn is_empty(table: &Table) -> bool {
        table.buckets.lock().0.iter().all(List::is_empty)
    }

    #[test]
    fn second_waits_and_gets_result() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        owner.complete(Outcome::Shared(-71));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(-71)));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn result_need_not_be_an_errno() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        owner.complete(Outcome::Shared(c_int::MIN));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(c_int::MIN)));
        Ok(())
    }

    #[test]
    fn next_task_owns_again() -> Result {
        let table = table()?;
        let first = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;
        first.complete(Outcome::Shared(0));

        let second = own(&table, &KEY)?;
        second.complete(Outcome::Shared(-17));
        // An entry keeps the outcome of its own owner.
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(0)));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn dropped_owner_completes() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        drop(owner);
        assert_eq!(wait(&load)?, Ok(Outcome::Retry));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn published_outcome_wins() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        table.publish(&KEY, Outcome::Shared(0));
        assert!(is_empty(&table));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(0)));
        owner.complete(Outcome::Shared(-5));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(0)));
        Ok(())
    }

    #[test]
    fn detached_entry_is_not_found() -> Result {
        let table = table()?;
        let name = Name::new(b"module");
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        table.detach(&name);
        drop(find(&table, &KEY)?);
        owner.set_module(name);
        table.detach(&name);
        // Another task becomes the owner, and neither disturbs the other.
        let next = own(&table, &KEY)?;
        owner.complete(Outcome::Shared(1));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(1)));
        drop(find(&table, &KEY)?);
        next.complete(Outcome::Shared(2));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn waiter_may_leave_first() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;

        drop(find(&table, &KEY)?);
        let load = find(&table, &KEY)?;
        owner.complete(Outcome::Shared(3));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(3)));
        Ok(())
    }

    #[test]
    fn keys_in_one_bucket_are_distinct() -> Result {
        let table = table()?;
        let other = (1..=4096)
            .map(|i| FileKey {
                inode: KEY.inode + i * 64,
                ..KEY
            })
            .find(|key| key.bucket() == KEY.bucket())
            .ok_or(ENOENT)?;
        let owner = own(&table, &KEY)?;
        let other_owner = own(&table, &other)?;
        let load = find(&table, &KEY)?;
        let other_load = find(&table, &other)?;

        owner.complete(Outcome::Shared(1));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(1)));
        // The remaining entry is still found.
        drop(find(&table, &other)?);
        other_owner.complete(Outcome::Shared(2));
        assert_eq!(wait(&other_load)?, Ok(Outcome::Shared(2)));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn without_memory_untracked() -> Result {
        let table = table()?;

        assert!(matches!(table.enter_with(&KEY, None), Role::Untracked));
        assert!(is_empty(&table));

        // It still waits for an existing owner.
        let owner = own(&table, &KEY)?;
        assert!(matches!(table.enter_with(&KEY, None), Role::Waiter(_)));
        owner.complete(Outcome::Shared(0));
        Ok(())
    }

    #[test]
    fn lost_race_waits() -> Result {
        let table = table()?;
        // A task found no entry and allocated one; meanwhile another task became the owner.
        let fresh = Pending::new(&KEY, &TaskId::current())?;
        let owner = own(&table, &KEY)?;
        let Role::Waiter(load) = table.enter_with(&KEY, Some(fresh)) else {
            return Err(EEXIST);
        };

        owner.complete(Outcome::Shared(5));
        assert_eq!(wait(&load)?, Ok(Outcome::Shared(5)));
        assert!(is_empty(&table));
        Ok(())
    }

    /// Shared by the tasks of a test.
    #[pin_data]
    struct Race {
        #[pin]
        table: Table,
        /// Number of tasks that have no role yet.
        arriving: Atomic<i32>,
        #[pin]
        all_arrived: Completion,
        /// Number of tasks that have not finished.
        running: Atomic<i32>,
        #[pin]
        all_done: Completion,
        owners: Atomic<i32>,
        sum: Atomic<i32>,
    }

    impl Race {
        fn new(tasks: i32) -> Result<Arc<Self>> {
            Arc::pin_init(
                pin_init!(Self {
                    table <- Table::new(),
                    arriving: Atomic::new(tasks),
                    all_arrived <- Completion::new(),
                    running: Atomic::new(tasks),
                    all_done <- Completion::new(),
                    owners: Atomic::new(0),
                    sum: Atomic::new(0),
                }),
                GFP_KERNEL,
            )
        }

        fn arrive(&self) {
            if self.arriving.fetch_sub(1, Relaxed) == 1 {
                self.all_arrived.complete_all();
            }
        }

        fn finish(&self) {
            // Full: the last task must see what the others did before they finished, so that the
            // main task, which it wakes, sees it as well.
            if self.running.fetch_sub(1, Full) == 1 {
                self.all_done.complete_all();
            }
        }

        /// Runs one task. The owner completes with 9 once all tasks have arrived.
        fn run(&self) {
            let result = match self.table.enter(&KEY, &TaskId::current()) {
                Role::Owner(owner) => {
                    self.owners.fetch_add(1, Relaxed);
                    self.arrive();
                    self.all_arrived.wait_for_completion();
                    owner.complete(Outcome::Shared(9));
                    9
                }
                Role::Waiter(load) => {
                    self.arrive();
                    match wait(&load) {
                        Ok(Ok(Outcome::Shared(result))) => result,
                        _ => 0,
                    }
                }
                Role::Untracked => {
                    self.arrive();
                    0
                }
            };

            self.sum.fetch_add(result, Relaxed);
            self.finish();
        }
    }

    #[test]
    fn one_owner_among_many() -> Result {
        const TASKS: i32 = 16;

        for _ in 0..100 {
            let race = Race::new(TASKS)?;

            let mut spawned = Ok(());
            for _ in 0..TASKS {
                let task = race.clone();
                let one = workqueue::system_unbound().try_spawn(GFP_KERNEL, move || task.run());

                if one.is_err() {
                    // The others must not wait for this task.
                    race.arrive();
                    race.finish();
                    spawned = one;
                }
            }
            race.all_done.wait_for_completion();
            spawned?;
            assert_eq!(race.owners.load(Relaxed), 1);
            assert_eq!(race.sum.load(Relaxed), 9 * TASKS);
            assert!(is_empty(&race.table));
        }
        Ok(())
    }
}
