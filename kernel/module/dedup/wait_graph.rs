// SPDX-License-Identifier: GPL-2.0

//! The wait-for graph: who waits for whom, and which wait would deadlock.
//!
//! A module whose init function requests another module waits for modprobe. modprobe may come back
//! to the same module, by an alias or through other modules, and wait for the very load that waits
//! for it. A wait completes such a cycle if it leads back to its own task by these rules:
//!
//! - a task that waits for a load or a request waits for the owner;
//! - a task that has called modprobe waits for that helper process;
//! - a helper makes progress when the tasks that descend from it do: modprobe itself, or the
//!   commands of a shell that an `install` line runs.
//!
//! Only a new wait can complete a cycle: nobody waits yet for a task that begins to own something,
//! and a new helper has no descendants. So each wait is checked when it begins, and the wait that
//! would complete a cycle fails.
//!
//! A cycle through a descendant of a helper is only *possible*: the helper may have started that
//! process in the background and exit without waiting for it. Such a wait begins, is checked again
//! after a second, and fails if the cycle is still there. A wait that ends by itself after a few
//! seconds completes no cycle.
//!
//! The graph does not contain all waits: it misses waits that found no memory for a node, waits for
//! other resources, and the link from a helper to descendants whose parent has exited. Deadlocks
//! through these are not detected.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fmt,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    prelude::*,
    ratelimit::RateLimit,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        new_spinlock,
        Arc,
        SetOnce,
        SpinLock,
        UniqueArc, //
    },
    task::{
        Pid,
        Task, //
    },
    time::msecs_to_jiffies, //
};

use crate::{
    helper::Helper,
    stats::DEDUP_STATS,
    target::{
        Name,
        Target, //
    },
    task::{
        bucket_of,
        TaskId, //
    },
    trace,
    wait::{
        Patience,
        WaitError,
        WaitMode, //
    }, //
};

/// Shows a task and the module that it loads, if it loads one.
pub(crate) struct WithModule<'a>(pub(crate) &'a TaskId, pub(crate) Option<Name>);

impl fmt::Display for WithModule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(task, module) = self;

        f.write_fmt(fmt!("{task}"))?;
        match module {
            Some(name) => f.write_fmt(fmt!(", which loads module {name},")),
            None => Ok(()),
        }
    }
}

/// A load or request that tasks can wait for.
pub(crate) trait Waitable: Send + Sync {
    /// Returns what is loaded or requested.
    fn target(&self) -> Target;

    /// Returns the task that has to complete it, which lives at least until then.
    fn owner(&self) -> &TaskId;

    /// Returns whether the module of its owner has joined the module list. Called under a spinlock.
    fn is_listed(&self) -> bool;

    /// Returns whether it has been completed. Called under a spinlock.
    fn is_done(&self) -> bool;
}

/// The reason why a task is blocked.
enum BlockedOn {
    /// The load or request of another task.
    Owner(Arc<dyn Waitable>, WaitMode, Patience),
    /// The modprobe of its own request. The process is known once it runs.
    Helper {
        request: Name,
        ticket: usize,
        process: SetOnce<Helper>,
    },
}

/// A wait that has begun and has not ended.
#[pin_data]
struct Wait {
    waiter: TaskId,
    /// The waiter, which removes the wait from the graph before it can exit.
    task: ARef<Task>,
    /// The module that the waiter loads, for display.
    module: Option<Name>,
    /// The helper that the waiter belonged to when it began to wait. If its parent exits, the
    /// waiter may no longer belong to it, but it never joins another helper.
    helper: Option<Helper>,
    blocked_on: BlockedOn,
    /// Number of the last search that has visited this wait. This and the fields below belong to
    /// the search and are protected by the lock of the graph.
    visited: Atomic<u32>,
    /// PID and bucket of the wait from which the search came here.
    parent: Atomic<i32>,
    parent_bucket: Atomic<u32>,
    /// PID and bucket of the next wait in the work list of the search; PID 0 ends the list.
    next: Atomic<i32>,
    next_bucket: Atomic<u32>,
    #[pin]
    task_links: ListLinks<0>,
    #[pin]
    helper_links: ListLinks<1>,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Wait { untracked; }
    impl ListArcSafe<1> for Wait { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Wait { using ListLinks { self.task_links }; }
    impl ListItem<1> for Wait { using ListLinks { self.helper_links }; }
}

/// A wait that is not in the graph yet, with a reference for each of the two lists.
type NewWait = (ListArc<Wait, 0>, ListArc<Wait, 1>);

/// The references that [`Graph::remove`] takes out. The caller must free them without the lock.
type Removed = (Option<ListArc<Wait, 0>>, Option<ListArc<Wait, 1>>);

impl Wait {
    /// Makes a wait of the current task.
    fn new(blocked_on: BlockedOn, module: Option<Name>) -> Result<NewWait> {
        Self::new_of(
            TaskId::current(),
            Helper::of(current!()),
            blocked_on,
            module,
        )
    }

    fn new_of(
        waiter: TaskId,
        helper: Option<Helper>,
        blocked_on: BlockedOn,
        module: Option<Name>,
    ) -> Result<NewWait> {
        let wait = UniqueArc::pin_init(
            try_pin_init!(Self {
                waiter,
                task: ARef::from(&**current!()),
                module,
                helper,
                blocked_on,
                visited: Atomic::new(0),
                parent: Atomic::new(0),
                parent_bucket: Atomic::new(0),
                next: Atomic::new(0),
                next_bucket: Atomic::new(0),
                task_links <- ListLinks::new(),
                helper_links <- ListLinks::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;

        Ok(ListArc::pair_from_pin_unique(wait))
    }

    /// Returns whether only `blocked_on` can end this wait: it is not done, and neither a signal
    /// nor the end of the waiter's patience is about to end the wait.
    fn is_blocking(&self) -> bool {
        match &self.blocked_on {
            BlockedOn::Owner(waitable, mode, patience) => {
                !waitable.is_done()
                    && (*patience == Patience::Unlimited || waitable.is_listed())
                    && !mode.has_signal(&self.task)
            }
            BlockedOn::Helper { .. } => !WaitMode::Killable.has_signal(&self.task),
        }
    }

    /// Returns whether the waiter is, still, a part of `helper`: the helper itself or, for a
    /// [possible](Certainty::Possible) cycle, a descendant.
    fn is_part_of(&self, helper: Helper, certainty: Certainty) -> bool {
        self.helper == Some(helper)
            && (certainty == Certainty::Possible || self.task.tgid() == helper.tgid)
            && Helper::of(&self.task) == Some(helper)
    }
}

/// Shows who waits for what.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{} waits for ", WithModule(&self.waiter, self.module)))?;
        match &self.blocked_on {
            BlockedOn::Owner(waitable, ..) => {
                f.write_fmt(fmt!("{} of {}", waitable.target(), waitable.owner()))
            }
            BlockedOn::Helper {
                request, process, ..
            } => f.write_fmt(fmt!(
                "request {request} of its helper {}",
                process.copy().map_or(0, |process| process.tgid)
            )),
        }
    }
}

/// The cycles to search for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certainty {
    /// Only cycles that cannot end by themselves.
    Certain,
    /// All cycles, including those through a descendant of a helper. Such a cycle ends if the
    /// helper exits without waiting for the descendant.
    Possible,
}

/// The waits of a cycle, from the last to the first. Keeps only as many as a line of the log has
/// room for.
struct Cycle {
    waits: [Option<Arc<Wait>>; Self::MAX_SHOWN],
    len: usize,
}

impl Cycle {
    const MAX_SHOWN: usize = 8;
}

/// Formats the cycle for the log.
impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len > Self::MAX_SHOWN {
            f.write_fmt(fmt!("; of {} tasks", self.len))?;
        }
        for wait in self.waits.iter().rev().flatten() {
            f.write_fmt(fmt!("; {}", **wait))?;
        }
        Ok(())
    }
}

/// Number of hash buckets: one for each value of a byte.
const BUCKETS: usize = 1 << u8::BITS;

/// The waits of all tasks. A task has at most one.
struct Graph {
    /// All waits, by their task.
    by_task: [List<Wait, 0>; BUCKETS],
    /// The waits of tasks that are a part of a helper, by the helper.
    by_helper: [List<Wait, 1>; BUCKETS],
    /// The number of the last search.
    search: u32,
}

impl Graph {
    const fn new() -> Self {
        Self {
            by_task: [const { List::new() }; BUCKETS],
            by_helper: [const { List::new() }; BUCKETS],
            search: 0,
        }
    }

    fn helper_bucket(helper: Helper) -> usize {
        bucket_of(helper.tgid as u64).into()
    }

    fn add(&mut self, (wait, of_helper): NewWait) {
        // Never panics, here and below: there is a list for each value of a byte.
        if let Some(helper) = wait.helper {
            self.by_helper[Self::helper_bucket(helper)].push_front(of_helper);
        }
        self.by_task[usize::from(wait.waiter.bucket())].push_front(wait);
    }

    fn remove(&mut self, wait: &Wait) -> Removed {
        let of_helper = wait.helper.and_then(|helper| {
            let list = &mut self.by_helper[Self::helper_bucket(helper)];

            Self::unlink(list, wait.waiter.pid())
        });
        let list = &mut self.by_task[usize::from(wait.waiter.bucket())];

        (Self::unlink(list, wait.waiter.pid()), of_helper)
    }

    fn unlink<const ID: u64>(list: &mut List<Wait, ID>, pid: Pid) -> Option<ListArc<Wait, ID>>
    where
        Wait: kernel::list::ListItem<ID>,
    {
        let mut cursor = list.cursor_front();

        while let Some(found) = cursor.peek_next() {
            if found.waiter.pid() == pid {
                return Some(found.remove());
            }
            cursor.move_next();
        }
        None
    }

    /// Returns the wait of the task with that PID, whose bucket is `bucket`.
    fn find(&self, pid: Pid, bucket: usize) -> Option<Arc<Wait>> {
        self.by_task
            .get(bucket)?
            .iter()
            .find(|wait| wait.waiter.pid() == pid)
            .map(Arc::from)
    }

    /// Returns the wait of `task`.
    fn wait_of(&self, task: &TaskId) -> Option<Arc<Wait>> {
        self.find(task.pid(), task.bucket().into())
    }

    /// Searches for a cycle that `start` is on. Visits each wait at most once.
    fn find_cycle(&mut self, start: &Arc<Wait>, certainty: Certainty) -> Option<Cycle> {
        let mut stack = WorkList::new();
        let mut current = Some(start.clone());

        self.search = self.search.wrapping_add(1);
        while let Some(wait) = current {
            if let Some(last) = self.follow(wait, start, certainty, &mut stack) {
                return Some(self.path_to(last, start));
            }
            current = stack.pop(self);
        }
        None
    }

    /// Follows `wait` from owner to owner. Returns the predecessor of `start`, if the chain leads
    /// there. If it leads to a task that waits for a helper, pushes the waits of all processes of
    /// that helper on `stack`.
    fn follow(
        &self,
        mut wait: Arc<Wait>,
        start: &Arc<Wait>,
        certainty: Certainty,
        stack: &mut WorkList,
    ) -> Option<Arc<Wait>> {
        loop {
            if !wait.is_blocking() {
                return None;
            }
            let next = match &wait.blocked_on {
                BlockedOn::Owner(waitable, ..) => self.wait_of(waitable.owner())?,
                BlockedOn::Helper { process, .. } => {
                    let helper = process.copy()?;
                    let parts = &self.by_helper[Self::helper_bucket(helper)];

                    for next in parts.iter() {
                        if !next.is_part_of(helper, certainty) {
                            continue;
                        }
                        if next.waiter.pid() == start.waiter.pid() {
                            return Some(wait);
                        }
                        if self.visit(&next, &wait) {
                            stack.push(&next);
                        }
                    }
                    return None;
                }
            };
            if next.waiter.pid() == start.waiter.pid() {
                return Some(wait);
            }
            if !self.visit(&next, &wait) {
                return None;
            }
            wait = next;
        }
    }

    /// Marks `wait` as visited, coming from `parent`. Returns false if it has been visited before.
    fn visit(&self, wait: &Wait, parent: &Wait) -> bool {
        if wait.visited.load(Relaxed) == self.search {
            return false;
        }
        wait.visited.store(self.search, Relaxed);
        wait.parent.store(parent.waiter.pid(), Relaxed);
        wait.parent_bucket
            .store(parent.waiter.bucket().into(), Relaxed);
        true
    }

    /// Returns the path that the search took from `start` to `last`.
    fn path_to(&self, last: Arc<Wait>, start: &Wait) -> Cycle {
        let mut cycle = Cycle {
            waits: [const { None }; Cycle::MAX_SHOWN],
            len: 0,
        };
        let mut next = Some(last);

        while let Some(wait) = next {
            next = (wait.waiter.pid() != start.waiter.pid())
                .then(|| {
                    self.find(
                        wait.parent.load(Relaxed),
                        wait.parent_bucket.load(Relaxed) as usize,
                    )
                })
                .flatten();
            if let Some(slot) = cycle.waits.get_mut(cycle.len) {
                *slot = Some(wait);
            }
            cycle.len += 1;
        }
        cycle
    }
}

/// Waits that a search has visited and not followed yet. Linked through the waits themselves: a
/// search must not allocate.
struct WorkList {
    pid: Pid,
    bucket: u32,
}

impl WorkList {
    fn new() -> Self {
        Self { pid: 0, bucket: 0 }
    }

    fn push(&mut self, wait: &Wait) {
        wait.next.store(self.pid, Relaxed);
        wait.next_bucket.store(self.bucket, Relaxed);
        self.pid = wait.waiter.pid();
        self.bucket = wait.waiter.bucket().into();
    }

    fn pop(&mut self, graph: &Graph) -> Option<Arc<Wait>> {
        // PID 0 ends the list: no waiting task has it, so find() returns None.
        let wait = graph.find(self.pid, self.bucket as usize)?;

        self.pid = wait.next.load(Relaxed);
        self.bucket = wait.next_bucket.load(Relaxed);
        Some(wait)
    }
}

/// The most messages about deadlocks in a period of time: a boot that deadlocks is shown whole.
const LOG_INTERVAL_MS: u32 = 10_000;
const LOG_BURST: c_int = 256;

/// The wait-for graph.
#[pin_data]
pub(crate) struct WaitGraph {
    /// Process context only. A leaf lock; nothing is allocated or freed under it.
    #[pin]
    graph: SpinLock<Graph>,
    /// The number of the last [ticket](WaitGraph::begin_helper). Relaxed: it only has to be unique.
    tickets: Atomic<u32>,
    /// Limits the messages about deadlocks: any user can make the kernel load some modules.
    #[pin]
    log_limit: RateLimit,
}

impl WaitGraph {
    /// Makes an empty graph.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            graph <- new_spinlock!(Graph::new(), "module_dedup_waits"),
            tickets: Atomic::new(0),
            log_limit <- RateLimit::new(msecs_to_jiffies(LOG_INTERVAL_MS), LOG_BURST),
        })
    }

    /// Begins a wait of the current task for `waitable`, which lasts until the guard is dropped.
    /// `module` is the module that the task loads, for display.
    ///
    /// Fails with [`WaitError::Deadlock`] if the wait would complete a cycle, and logs the cycle.
    ///
    /// May sleep. Must be called without locks held.
    pub(crate) fn begin(
        &self,
        waitable: Arc<dyn Waitable>,
        mode: WaitMode,
        patience: Patience,
        module: Option<Name>,
    ) -> Result<WaitGuard<'_>, WaitError> {
        let target = waitable.target();
        // Without memory, the wait is unknown to the graph (invariant 4).
        let Ok(wait) = Wait::new(BlockedOn::Owner(waitable, mode, patience), module) else {
            return Ok(WaitGuard {
                graph: self,
                wait: None,
            });
        };
        let start = wait.0.clone_arc();

        // Add, search and remove in one critical section: if two waits together complete a cycle,
        // exactly one of them fails, and no other search sees the wait that fails.
        let mut graph = self.graph.lock();
        graph.add(wait);
        let cycle = graph.find_cycle(&start, Certainty::Certain);
        let removed = cycle.as_ref().map(|_| graph.remove(&start));
        drop(graph);
        drop(removed);

        match cycle {
            Some(cycle) => Err(self.deadlock(&target, &cycle)),
            None => Ok(WaitGuard {
                graph: self,
                wait: Some(start),
            }),
        }
    }

    /// Reports a deadlock, and returns the error for it.
    fn deadlock(&self, target: &Target, cycle: &Cycle) -> WaitError {
        DEDUP_STATS.deadlocks.add(1, Relaxed);
        trace::deadlock(target);
        if self.log_limit.allows(c"module_dedup") {
            pr_warn!("deadlock detected, failing the wait with -EDEADLK{cycle}\n");
        }
        WaitError::Deadlock
    }

    /// Begins a wait of the current task for a helper that it is about to start, for `request`.
    /// Returns a ticket for [`WaitGraph::helper_started`] and [`WaitGraph::end_helper`], or 0 if
    /// there is no memory. `module` is the module that the task loads, for display.
    ///
    /// May sleep. Must be called without locks held.
    pub(crate) fn begin_helper(&self, request: Name, module: Option<Name>) -> usize {
        let number = self.tickets.fetch_add(1, Relaxed).wrapping_add(1);
        // The low byte is the bucket, so that helper_started() searches one list.
        let ticket = (number as usize) << u8::BITS | usize::from(TaskId::current().bucket());
        let wait = Wait::new(
            BlockedOn::Helper {
                request,
                ticket,
                process: SetOnce::new(),
            },
            module,
        );

        match wait {
            Ok(wait) if ticket != 0 => {
                self.graph.lock().add(wait);
                ticket
            }
            _ => 0,
        }
    }

    /// Records the current process as the helper of `ticket`. Must be called by the helper before
    /// it runs anything. The task that started it may have stopped waiting.
    ///
    /// Must be called without locks held.
    pub(crate) fn helper_started(&self, ticket: usize) {
        let Some(helper) = Helper::of(current!()) else {
            return;
        };
        let graph = self.graph.lock();

        // Never panics: the bucket is a byte.
        for wait in graph.by_task[usize::from(ticket as u8)].iter() {
            match &wait.blocked_on {
                BlockedOn::Helper {
                    ticket: other,
                    process,
                    ..
                } if *other == ticket => {
                    process.populate(helper);
                }
                _ => (),
            }
        }
    }

    /// Ends the wait for a helper. Must be called by the task that called
    /// [`WaitGraph::begin_helper`], without locks held.
    pub(crate) fn end_helper(&self, ticket: usize) {
        if ticket == 0 {
            return;
        }
        let wait = self.graph.lock().wait_of(&TaskId::current());

        if let Some(wait) = wait {
            self.end(&wait);
        }
    }

    /// Returns the module that `task` loads, if it waits.
    pub(crate) fn module_of(&self, task: &TaskId) -> Option<Name> {
        let wait = self.graph.lock().wait_of(task);

        wait.and_then(|wait| wait.module)
    }

    fn end(&self, wait: &Wait) {
        // A statement of its own: the wait is freed without the lock.
        let removed = self.graph.lock().remove(wait);

        drop(removed);
    }

    /// Calls `f` for each wait, under the lock, which is dropped between buckets: a wait that
    /// begins or ends meanwhile may be missed.
    fn for_each(&self, mut f: impl FnMut(&Wait)) {
        for bucket in 0..BUCKETS {
            let graph = self.graph.lock();

            for wait in graph.by_task.get(bucket).into_iter().flat_map(List::iter) {
                f(&wait);
            }
        }
    }

    /// Writes a block of lines for each wait.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());

        self.for_each(|wait| {
            let mut write = || {
                f.write_fmt(fmt!("waiter\t{}\n", wait.waiter))?;
                match &wait.blocked_on {
                    BlockedOn::Owner(waitable, ..) => f.write_fmt(fmt!(
                        "blocked_on\t{}\nowner\t{}\n",
                        waitable.target(),
                        waitable.owner()
                    ))?,
                    BlockedOn::Helper {
                        request, process, ..
                    } => {
                        f.write_fmt(fmt!("blocked_on\trequest {request}\n"))?;
                        if let Some(process) = process.copy() {
                            f.write_fmt(fmt!("helper\t{}\n", process.tgid))?;
                        }
                    }
                }
                if let Some(helper) = wait.helper {
                    f.write_fmt(fmt!("in_helper\t{}\n", helper.tgid))?;
                }
                f.write_fmt(fmt!("age_ms\t{}\n\n", wait.waiter.age().as_millis()))
            };

            result = result.and_then(|()| write());
        });
        result
    }
}

/// A wait of the current task, which ends when the guard is dropped.
pub(crate) struct WaitGuard<'a> {
    graph: &'a WaitGraph,
    wait: Option<Arc<Wait>>,
}

impl WaitGuard<'_> {
    /// Checks the wait again, after a second. Fails with [`WaitError::Deadlock`] if it is on a
    /// cycle, which was only possible when the wait began.
    ///
    /// Must be called without locks held.
    pub(crate) fn check_again(&self) -> Result<(), WaitError> {
        let Some(wait) = &self.wait else {
            return Ok(());
        };
        // One critical section, as in `WaitGraph::begin`: if two waits of a cycle are checked at
        // the same time, only one of them fails.
        let mut graph = self.graph.graph.lock();
        let cycle = graph.find_cycle(wait, Certainty::Possible);
        let removed = cycle.as_ref().map(|_| graph.remove(wait));
        drop(graph);
        drop(removed);

        match (cycle, &wait.blocked_on) {
            (Some(cycle), BlockedOn::Owner(waitable, ..)) => {
                Err(self.graph.deadlock(&waitable.target(), &cycle))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        if let Some(wait) = &self.wait {
            self.graph.end(wait);
        }
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_wait_graph)]
mod tests {
    use super::*;
    use kernel::str::CString;

    /// The load of another task.
    struct Load {
        owner: TaskId,
        is_done: bool,
    }

    impl Waitable for Load {
        fn target(&self) -> Target {
            Target::Module(Name::new(b"module"))
        }

        fn owner(&self) -> &TaskId {
            &self.owner
        }

        fn is_listed(&self) -> bool {
            false
        }

        fn is_done(&self) -> bool {
            self.is_done
        }
    }

    fn load(owner: TaskId, is_done: bool) -> Result<Arc<dyn Waitable>> {
        Ok(Arc::new(Load { owner, is_done }, GFP_KERNEL)?)
    }

    fn wait_graph() -> Result<Arc<WaitGraph>> {
        Arc::pin_init(WaitGraph::new(), GFP_KERNEL)
    }

    fn is_empty(graph: &WaitGraph) -> bool {
        let mut is_empty = true;

        graph.for_each(|_| is_empty = false);
        is_empty
    }

    /// Makes a wait of the task `pid`, which does not exist, for a load of `owner`.
    fn wait(pid: Pid, owner: Pid) -> Result<NewWait> {
        let load = load(TaskId::with_pid(owner), false)?;

        Wait::new_of(
            TaskId::with_pid(pid),
            None,
            BlockedOn::Owner(load, WaitMode::Interruptible, Patience::Unlimited),
            None,
        )
    }

    #[test]
    fn wait_for_own_load_deadlocks() -> Result {
        let graph = wait_graph()?;
        let this = TaskId::current();
        let begin = |is_done| -> Result<_> {
            Ok(graph.begin(
                load(this, is_done)?,
                WaitMode::Interruptible,
                Patience::Unlimited,
                None,
            )?)
        };

        assert_eq!(begin(false).err(), Some(EDEADLK));
        assert!(is_empty(&graph));
        // A wait for a load that is done does not block.
        assert!(begin(true).is_ok());
        assert!(is_empty(&graph));
        Ok(())
    }

    #[test]
    fn wait_for_running_task_is_allowed() -> Result {
        let graph = wait_graph()?;
        let owner = TaskId::with_pid(current!().pid() + 1);
        let guard = graph.begin(
            load(owner, false)?,
            WaitMode::Interruptible,
            Patience::Unlimited,
            None,
        )?;

        assert!(!is_empty(&graph));
        drop(guard);
        assert!(is_empty(&graph));
        Ok(())
    }

    /// Makes task 1 wait for task 2, which waits for task 3, and so on up to task `len`, which
    /// waits for `end`. Returns the cycle that the last wait completes.
    fn chain(len: Pid, end: Pid) -> Result<Option<CString>> {
        let mut graph = KBox::new(Graph::new(), GFP_KERNEL)?;

        for pid in 1..len {
            graph.add(wait(pid, pid + 1)?);
        }
        let last = wait(len, end)?;
        let start = last.0.clone_arc();
        graph.add(last);
        let cycle = graph.find_cycle(&start, Certainty::Certain);

        let text = cycle
            .map(|cycle| CString::try_from_fmt(fmt!("{cycle}")))
            .transpose();
        for pid in 1..=len {
            if let Some(wait) = graph.wait_of(&TaskId::with_pid(pid)) {
                graph.remove(&wait);
            }
        }
        text
    }

    #[test]
    fn cycles_of_any_length() -> Result {
        assert!(chain(1, 1)?.is_some());
        assert!(chain(2, 1)?.is_some());
        let text = chain(1000, 1)?.ok_or(ENOENT)?;
        assert!(text.to_bytes().starts_with(b"; of 1000 tasks; "));
        // Task 3 does not wait.
        assert!(chain(2, 3)?.is_none());
        Ok(())
    }

    #[test]
    fn search_ends_in_a_cycle_of_others() -> Result {
        let mut graph = KBox::new(Graph::new(), GFP_KERNEL)?;

        // Tasks 1 and 2 wait for each other, which begin() would not have allowed.
        for (pid, owner) in [(1, 2), (2, 1), (3, 1)] {
            graph.add(wait(pid, owner)?);
        }
        let start = graph.wait_of(&TaskId::with_pid(3)).ok_or(ENOENT)?;
        assert!(graph.find_cycle(&start, Certainty::Possible).is_none());
        for pid in 1..=3 {
            if let Some(wait) = graph.wait_of(&TaskId::with_pid(pid)) {
                graph.remove(&wait);
            }
        }
        Ok(())
    }

    #[test]
    fn work_list_returns_every_wait() -> Result {
        let mut graph = KBox::new(Graph::new(), GFP_KERNEL)?;
        let mut stack = WorkList::new();

        for pid in 1..=3 {
            graph.add(wait(pid, 9)?);
            stack.push(&*graph.wait_of(&TaskId::with_pid(pid)).ok_or(ENOENT)?);
        }
        for pid in (1..=3).rev() {
            let wait = stack.pop(&graph).ok_or(ENOENT)?;

            assert_eq!(wait.waiter.pid(), pid);
            graph.remove(&wait);
        }
        assert!(stack.pop(&graph).is_none());
        Ok(())
    }
}
