// SPDX-License-Identifier: GPL-2.0

//! The table of pending loads: own one, wait for one, complete one.
//!
//! The same table serves whatever is to be done once for all who want it at the same time: loads of
//! a file, loads of a module name, requests. It knows them by their key only.
//!
//! The numbered invariants are listed in the crate's documentation.

use core::ptr;

use kernel::{
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
        SpinLock, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    },
};

use crate::{
    key::{
        Key,
        Subject, //
    },
    stats::SAVED,
    trace,
    waits::{
        Awaited,
        Caller,
        Leave,
        NameOf,
        Named,
        Waits, //
    },
};

/// As many as [`Key::bucket`] tells apart, so that no index is ever out of bounds.
const BUCKETS: usize = 1 << u8::BITS;

/// A load in flight.
///
/// It is shared by the table, the owner and the waiters, each with a reference of its own, and
/// lives until the last of them is done with it. Nothing in it lies on anyone's stack
/// (invariant 5).
#[pin_data]
pub(crate) struct Pending<K> {
    key: K,
    /// That of the key.
    bucket: u8,
    owner: Caller,
    /// The tasks that wait for it, for people to see: nothing depends on it, so it is not ordered
    /// with anything.
    waiters: Atomic<u32>,
    /// How old the load was, in seconds, when the log last said who is waited for; or 0. By this,
    /// one of the waiters says it for all of them.
    reported: Atomic<u32>,
    /// What the owner's load returned, or that this is nothing to others. Written once, by the
    /// owner, under the lock of the table, together with the unlinking; read by waiters without the
    /// lock. [`SetOnce`] orders the write before any read that sees it.
    result: SetOnce<Option<c_int>>,
    /// Done once `result` is set.
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

/// After how many milliseconds the log first says who is waited for, and how often it does then.
const FIRST_REPORT: u32 = 30_000;
const NEXT_REPORT: u32 = 60_000;

impl<K: Key> Pending<K> {
    fn new(key: K, owner: Caller) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                bucket: key.bucket(),
                key,
                owner,
                waiters: Atomic::new(0),
                reported: Atomic::new(0),
                result: SetOnce::new(),
                done <- Completion::new(),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// What is being loaded.
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// How many tasks wait for it.
    pub(crate) fn waiters(&self) -> u32 {
        self.waiters.load(Relaxed)
    }

    /// Waits until the owner's load is over and returns what it returned; [`None`] if that is
    /// nothing to others, who start again: the owner left before it had tried, or failed too early.
    ///
    /// Fails with `EINTR` if a signal comes first, and with `EDEADLK` at once if that would never
    /// be over, because the owner waits for the caller. `name_of` finds what to tell people.
    ///
    /// The owner wakes all its waiters whatever happens to its load (invariant 1). A waiter that a
    /// signal takes away leaves nothing behind: it is in no list but that of the completion, which
    /// it has left when the wait returns (invariant 5), and in `waits`, which holds references.
    ///
    /// Sleeps. To be called without locks.
    pub(crate) fn wait(
        this: &Arc<Self>,
        waits: &Waits,
        leave: Leave,
        name_of: NameOf<'_>,
    ) -> Result<Option<c_int>> {
        let waiting = waits.begin(this.clone(), leave, name_of)?;
        let begun = Instant::<Monotonic>::now();
        let mut timeout = msecs_to_jiffies(FIRST_REPORT);

        trace::wait(this.subject(), this.owner());
        this.waiters.add(1, Relaxed);
        // A signal may come while the owner publishes the result. As in C, the result wins
        // wherever it is there, so how the wait ended is of no interest.
        while this.sleep(leave, timeout) == Err(ETIMEDOUT) {
            this.report(begun.elapsed(), name_of);
            timeout = msecs_to_jiffies(NEXT_REPORT);
        }
        this.waiters.fetch_sub(1, Relaxed);
        drop(waiting);

        let waited = begun.elapsed();
        let result = this.result.copy().ok_or(EINTR);
        SAVED.waited(waited, result.is_err());
        trace::done(
            this.subject(),
            this.owner(),
            result.map_or_else(Error::to_errno, |result| {
                result.unwrap_or(EAGAIN.to_errno())
            }),
            waited,
        );
        result
    }

    /// Sleeps until the load is over, a signal comes or, with `ETIMEDOUT`, time is up.
    fn sleep(&self, leave: Leave, timeout: Jiffies) -> Result<Jiffies> {
        match leave {
            Leave::Signal => self.done.wait_for_completion_interruptible_timeout(timeout),
            Leave::FatalSignal => self.done.wait_for_completion_killable_timeout(timeout),
        }
    }

    /// Says in the log that the current task has waited for so long, unless another one has said so
    /// of this load lately.
    fn report(&self, waited: Delta, name_of: NameOf<'_>) {
        let age = u32::try_from(self.owner.age().as_millis() / 1000).unwrap_or(u32::MAX);
        let last = self.reported.load(Relaxed);

        if (last != 0 && age.saturating_sub(last) < NEXT_REPORT / 1000)
            || self.reported.cmpxchg(last, age, Relaxed).is_err()
        {
            return;
        }
        let name = name_of(&self.owner);

        pr_warn!(
            "{} waits for {} of {} for {} s now; {} wait for that\n",
            Caller::current(),
            self.subject(),
            Named(&self.owner, name),
            waited.as_millis() / 1000,
            self.waiters()
        );
    }
}

impl<K: Key> Awaited for Pending<K> {
    fn subject(&self) -> Subject {
        self.key.subject()
    }

    fn owner(&self) -> &Caller {
        &self.owner
    }

    fn is_over(&self) -> bool {
        self.result.copy().is_some()
    }
}

/// What a load is to do, as [`Table::enter`] finds.
pub(crate) enum Role<'a, K: Key> {
    /// Nobody else is loading this: load it, then [complete](Owner::complete).
    Owner(Owner<'a, K>),
    /// Somebody else is loading this: [wait](Pending::wait) for it.
    Waiter(Arc<Pending<K>>),
    /// Nobody else is loading this, and there was no memory to let others know that this caller
    /// is: load it all the same (invariant 4).
    Alone,
}

/// The pending loads, hashed by key.
struct Buckets<K>([List<Pending<K>>; BUCKETS]);

impl<K: Key> Buckets<K> {
    const fn new() -> Self {
        Self([const { List::new() }; BUCKETS])
    }

    fn at(&mut self, bucket: u8) -> &mut List<Pending<K>> {
        // Cannot panic: there is a bucket for every value of a byte.
        &mut self.0[usize::from(bucket)]
    }

    fn find(&mut self, bucket: u8, key: &K) -> Option<Arc<Pending<K>>> {
        self.at(bucket)
            .iter()
            .find(|load| load.key == *key)
            .map(Arc::from)
    }

    fn unlink(&mut self, load: &Pending<K>) -> Option<ListArc<Pending<K>>> {
        let mut cursor = self.at(load.bucket).cursor_front();

        while let Some(found) = cursor.peek_next() {
            if ptr::eq::<Pending<K>>(&*found, load) {
                return Some(found.remove());
            }
            cursor.move_next();
        }

        None
    }
}

/// The table of pending loads.
///
/// # Invariants
///
/// There is at most one load of each key, and it has an [`Owner`].
#[pin_data]
pub(crate) struct Table<K> {
    /// Process context only. Held for a walk along one bucket, whose length is the number of
    /// loads in flight that share it, however many tasks wait for them (invariant 6). Never held
    /// while allocating, loading, waking or sleeping (invariant 3). No other lock is taken under
    /// it.
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

    /// Finds out who is to do the load of `key`: `caller`, which is the task that calls this, or
    /// somebody it can wait for.
    ///
    /// Allocates with `GFP_KERNEL`, and so may sleep. To be called without locks.
    pub(crate) fn enter(&self, key: &K, caller: Caller) -> Role<'_, K>
    where
        K: Clone,
    {
        // Before the lock is taken (invariant 3), and thus before it is known whether it is needed:
        // most loads are the only ones of what they load.
        self.enter_with(key, Pending::new(key.clone(), caller).ok())
    }

    /// Finds the pending load of `key`, if there is one.
    pub(crate) fn find(&self, key: &K) -> Option<Arc<Pending<K>>> {
        let bucket = key.bucket();

        self.buckets.lock().find(bucket, key)
    }

    /// Finds the pending load of `key`, or makes `fresh`, if there is one, that load.
    fn enter_with(&self, key: &K, fresh: Option<ListArc<Pending<K>>>) -> Role<'_, K> {
        let bucket = fresh
            .as_ref()
            .map_or_else(|| key.bucket(), |fresh| fresh.bucket);
        // Declared after `fresh`, and thus unlocked before an unused `fresh` is freed.
        let mut buckets = self.buckets.lock();

        if let Some(load) = buckets.find(bucket, key) {
            return Role::Waiter(load);
        }

        let Some(fresh) = fresh else {
            return Role::Alone;
        };

        let load = fresh.clone_arc();
        // INVARIANT: There was no load of `key` in this critical section; this one gets its owner.
        buckets.at(bucket).push_front(fresh);
        Role::Owner(Owner {
            table: self,
            load,
            result: None,
        })
    }

    /// Calls `f` for the pending loads, under the lock, which is dropped between buckets: a load
    /// that comes or goes meanwhile may be seen or not.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Pending<K>)) {
        for bucket in 0..BUCKETS {
            // Cannot panic: there are as many.
            for load in self.buckets.lock().0[bucket].iter() {
                f(&load);
            }
        }
    }
}

/// The duty to complete a pending load, and the right to do it.
///
/// Completes when dropped, so that no path of the owner can leave its waiters behind
/// (invariant 1).
pub(crate) struct Owner<'a, K: Key> {
    table: &'a Table<K>,
    load: Arc<Pending<K>>,
    /// What the waiters get: until there is anything better, that they are to start again.
    result: Option<c_int>,
}

impl<K: Key> Owner<'_, K> {
    /// Completes the load: everybody who waits for it gets `result`.
    ///
    /// The result is handed through as it is: what a module's init function made up need not be an
    /// errno.
    pub(crate) fn complete(mut self, result: c_int) {
        self.result = Some(result);
    }
}

impl<K: Key> Drop for Owner<'_, K> {
    fn drop(&mut self) {
        // Published and unlinked in one critical section (invariant 2): whoever still found this
        // load gets its result, and whoever comes later finds nothing and loads anew.
        let mut buckets = self.table.buckets.lock();
        self.load.result.populate(self.result);
        // INVARIANT: The load leaves the table with its owner.
        let unlinked = buckets.unlink(&self.load);
        drop(buckets);

        // One call for all waiters, whose number is thus of no concern to the lock of the table
        // (invariants 3 and 6): the completion has a lock of its own. They may drop their
        // references at once: `self.load` keeps the completion alive until this call is over
        // (invariant 5).
        self.load.done.complete_all();
        drop(unlinked);
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_idempotent)]
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
        device: 0,
        number: 0,
        flags: 0,
        args: Args::Empty,
    };

    fn table() -> Result<Arc<Table>> {
        Arc::pin_init(Table::new(), GFP_KERNEL)
    }

    /// Becomes the owner of `key`, or fails the test.
    fn own<'a>(table: &'a Table, key: &FileKey) -> Result<Owner<'a>> {
        match table.enter(key, Caller::current()) {
            Role::Owner(owner) => Ok(owner),
            Role::Waiter(_) => Err(EEXIST),
            Role::Alone => Err(ENOMEM),
        }
    }

    /// Becomes a waiter for `key`, or fails the test.
    fn find(table: &Table, key: &FileKey) -> Result<Arc<Pending>> {
        match table.enter(key, Caller::current()) {
            Role::Waiter(load) => Ok(load),
            _ => Err(ENOENT),
        }
    }

    /// Waits for `load`, in a graph of its own.
    fn wait(load: &Arc<Pending>) -> Result<Result<Option<c_int>>> {
        let waits = Arc::pin_init(Waits::new(), GFP_KERNEL)?;

        Ok(Pending::wait(load, &waits, Leave::Signal, &|_| None))
    }

    fn is_empty(table: &Table) -> bool {
        table.buckets.lock().0.iter().all(List::is_empty)
    }

    #[test]
    fn second_waits_and_gets_result() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        owner.complete(-71);
        assert_eq!(wait(&load)?, Ok(Some(-71)));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn result_need_not_be_an_errno() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        owner.complete(c_int::MIN);
        assert_eq!(wait(&load)?, Ok(Some(c_int::MIN)));
        Ok(())
    }

    #[test]
    fn late_comer_owns_anew() -> Result {
        let table = table()?;
        let first = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;
        first.complete(0);

        let second = own(&table, &KEY)?;
        second.complete(-17);
        // A load keeps the result of its own owner.
        assert_eq!(wait(&load)?, Ok(Some(0)));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn dropped_owner_completes() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;
        let load = find(&table, &KEY)?;

        drop(owner);
        assert_eq!(wait(&load)?, Ok(None));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn waiter_may_leave_first() -> Result {
        let table = table()?;
        let owner = own(&table, &KEY)?;

        drop(find(&table, &KEY)?);
        let load = find(&table, &KEY)?;
        owner.complete(3);
        assert_eq!(wait(&load)?, Ok(Some(3)));
        Ok(())
    }

    #[test]
    fn keys_that_share_a_bucket_are_apart() -> Result {
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

        owner.complete(1);
        assert_eq!(wait(&load)?, Ok(Some(1)));
        // The load that remains is still found.
        drop(find(&table, &other)?);
        other_owner.complete(2);
        assert_eq!(wait(&other_load)?, Ok(Some(2)));
        assert!(is_empty(&table));
        Ok(())
    }

    #[test]
    fn without_memory_alone() -> Result {
        let table = table()?;

        assert!(matches!(table.enter_with(&KEY, None), Role::Alone));
        assert!(is_empty(&table));

        // It still waits where there is somebody to wait for.
        let owner = own(&table, &KEY)?;
        assert!(matches!(table.enter_with(&KEY, None), Role::Waiter(_)));
        owner.complete(0);
        Ok(())
    }

    #[test]
    fn lost_race_waits() -> Result {
        let table = table()?;
        // What a task holds that found no load, and allocated one while another became owner.
        let fresh = Pending::new(KEY, Caller::current())?;
        let owner = own(&table, &KEY)?;
        let Role::Waiter(load) = table.enter_with(&KEY, Some(fresh)) else {
            return Err(EEXIST);
        };

        owner.complete(5);
        assert_eq!(wait(&load)?, Ok(Some(5)));
        assert!(is_empty(&table));
        Ok(())
    }

    /// What the main task and the others of a test share.
    #[pin_data]
    struct Race {
        #[pin]
        table: Table,
        /// Tasks that have not found out their role.
        coming: Atomic<i32>,
        #[pin]
        all_came: Completion,
        /// Tasks that have not left.
        inside: Atomic<i32>,
        #[pin]
        all_left: Completion,
        owners: Atomic<i32>,
        sum: Atomic<i32>,
    }

    impl Race {
        fn new(tasks: i32) -> Result<Arc<Self>> {
            Arc::pin_init(
                pin_init!(Self {
                    table <- Table::new(),
                    coming: Atomic::new(tasks),
                    all_came <- Completion::new(),
                    inside: Atomic::new(tasks),
                    all_left <- Completion::new(),
                    owners: Atomic::new(0),
                    sum: Atomic::new(0),
                }),
                GFP_KERNEL,
            )
        }

        fn came(&self) {
            if self.coming.fetch_sub(1, Relaxed) == 1 {
                self.all_came.complete_all();
            }
        }

        fn left(&self) {
            // Full: who is last has to have seen what the others did before they left, so that the
            // main task, which it wakes, sees it too.
            if self.inside.fetch_sub(1, Full) == 1 {
                self.all_left.complete_all();
            }
        }

        /// One task: whoever becomes the owner completes with 9 when all have come.
        fn run(&self) {
            let result = match self.table.enter(&KEY, Caller::current()) {
                Role::Owner(owner) => {
                    self.owners.fetch_add(1, Relaxed);
                    self.came();
                    self.all_came.wait_for_completion();
                    owner.complete(9);
                    9
                }
                Role::Waiter(load) => {
                    self.came();
                    wait(&load).map_or(0, |result| result.ok().flatten().unwrap_or(0))
                }
                Role::Alone => {
                    self.came();
                    0
                }
            };

            self.sum.fetch_add(result, Relaxed);
            self.left();
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
                    // The others must not wait for this one.
                    race.came();
                    race.left();
                    spawned = one;
                }
            }
            race.all_left.wait_for_completion();
            spawned?;
            assert_eq!(race.owners.load(Relaxed), 1);
            assert_eq!(race.sum.load(Relaxed), 9 * TASKS);
            assert!(is_empty(&race.table));
        }
        Ok(())
    }
}
