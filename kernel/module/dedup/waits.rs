// SPDX-License-Identifier: GPL-2.0

//! Who waits for whom, and which wait would never end.
//!
//! A module whose init function requests another one waits for modprobe, which may come back to the
//! same module, by an alias or through others, and wait for the load that it is a part of. Each of
//! those tasks then waits for the next one, for ever. Whether a wait closes such a circle can be
//! told by what is known here of each task that waits:
//!
//! - a task that waits for a load or a request waits for the owner of that;
//! - a task that has called modprobe waits for this helper process;
//! - a helper goes on when the tasks that descend from it do: modprobe itself, or what a shell runs
//!   that an `install` line started.
//!
//! Nobody but a new wait can close a circle: whoever starts to own something is not waited for yet,
//! and a helper that is started has no descendants. So every wait is looked at once, when it
//! begins, and the one that would close a circle is refused.
//!
//! What is not known here is not refused, and waits as it would without this: tasks that found no
//! memory, tasks that wait for others by means of their own, and a helper's descendants whose
//! parents have ended.

use kernel::{
    fmt,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    prelude::*,
    str::BStr,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        new_spinlock,
        Arc,
        SetOnce,
        SpinLock, //
    },
    task::{
        Pid,
        Task,
        TASK_COMM_LEN, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

use crate::{
    key::{
        fold,
        Name,
        Subject, //
    },
    stats::SAVED,
    trace, //
};

/// A task that loads or requests a module, or waits, as it was when it began to. It may be gone
/// when this is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    /// In the initial namespace, as the log has it.
    pid: Pid,
    /// Spreads tasks evenly, in a way that they cannot choose.
    bucket: u8,
    comm: [u8; TASK_COMM_LEN],
    since: Instant<Monotonic>,
}

impl Caller {
    /// The task that calls this, now.
    pub(crate) fn current() -> Self {
        Self {
            pid: current!().pid(),
            bucket: fold(current!().as_ptr().addr() as u64),
            comm: current!().comm(),
            since: Instant::now(),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The name of the task: [`TASK_COMM_LEN`] bytes with a NUL among them.
    pub(crate) fn comm(&self) -> *const c_char {
        self.comm.as_ptr().cast()
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Delta {
        self.since.elapsed()
    }
}

/// The name of the task, which it may have given itself, escaped where it cannot be printed; and
/// its number.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comm = self.comm.split(|byte| *byte == 0).next().unwrap_or(&[]);

        f.write_fmt(fmt!("{}[{}]", BStr::from_bytes(comm), self.pid))
    }
}

/// Finds the name of the module that a task loads, if that is known.
pub(crate) type NameOf<'a> = &'a dyn Fn(&Caller) -> Option<Name>;

/// A task, and what it loads, found before it is written: in printk(), no lock may be taken.
pub(crate) struct Named<'a>(pub(crate) &'a Caller, pub(crate) Option<Name>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(caller, name) = self;

        f.write_fmt(fmt!("{caller}"))?;
        match name {
            Some(name) => f.write_fmt(fmt!(", which loads module {name},")),
            None => Ok(()),
        }
    }
}

/// What ends a wait early.
#[derive(Clone, Copy)]
pub(crate) enum Leave {
    /// Any signal.
    Signal,
    /// A signal that is about to end the task.
    FatalSignal,
}

impl Leave {
    /// Whether there is such a signal for `task`.
    fn has_come(self, task: &Task) -> bool {
        match self {
            Self::Signal => task.signal_pending(),
            Self::FatalSignal => task.fatal_signal_pending(),
        }
    }
}

/// What can be waited for: a load, or a request.
pub(crate) trait Awaited: Send + Sync {
    /// What it is of.
    fn subject(&self) -> Subject;

    /// Who has to complete it, and is alive at least until then.
    fn owner(&self) -> &Caller;

    /// Whether it has been completed. Called under a spinlock.
    fn is_over(&self) -> bool;
}

/// A process that a kernel thread has started, as it does with helpers. Its number may be used
/// again, but not at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Helper {
    tgid: Pid,
    /// When it was started, in nanoseconds since boot.
    started: u64,
}

impl Helper {
    /// How many generations there may be between a helper and a task of it: a bound for the walk,
    /// far beyond what any configuration of modprobe does.
    const MAX_GENERATIONS: usize = 64;

    /// The helper that `task` belongs to: the last of its ancestors below the kernel's threads,
    /// unless that is the init process of the system.
    fn of(task: &Task) -> Option<Self> {
        let mut helper = None;
        let mut generations = 0;

        task.find_ancestor(|ancestor| {
            if ancestor.is_kthread() {
                return Some(helper);
            }
            helper = ancestor.group_start_boottime().map(|started| Self {
                tgid: ancestor.tgid(),
                started,
            });
            generations += 1;
            (generations > Self::MAX_GENERATIONS).then_some(None)
        })
        .flatten()
        .filter(|helper| helper.tgid != 1)
    }
}

/// What a task waits for.
enum Target {
    /// A load or request of another task.
    Owner(Arc<dyn Awaited>, Leave),
    /// The modprobe of its own request. Its process is known once it runs.
    Helper {
        request: Name,
        ticket: u32,
        process: SetOnce<Helper>,
    },
}

/// A wait that has begun, and is not over.
#[pin_data]
struct Wait {
    who: Caller,
    /// Cannot end before the wait does, which it takes out of the graph itself.
    task: ARef<Task>,
    /// What `task` belonged to when it began to wait. It can lose that since, if its parent ends,
    /// but not come to it.
    helper: Option<Helper>,
    target: Target,
    /// The last search that came here. Like those that follow, only used under the lock.
    seen: Atomic<u32>,
    /// Where that search came from: who waits for `task`.
    via: Atomic<i32>,
    via_bucket: Atomic<u32>,
    /// 1 if that search has not gone on from here.
    open: Atomic<u32>,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Wait { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Wait { using ListLinks { self.links }; }
}

impl Wait {
    /// Makes a wait of the current task.
    fn new(target: Target) -> Result<ListArc<Self>> {
        let task = current!();

        ListArc::pin_init(
            try_pin_init!(Self {
                who: Caller::current(),
                task: ARef::from(&**task),
                helper: Helper::of(task),
                target,
                seen: Atomic::new(0),
                via: Atomic::new(0),
                via_bucket: Atomic::new(0),
                open: Atomic::new(0),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether this wait can be on the way through a helper: it is for one, or within one. The
    /// others lead from one owner to the next.
    fn is_about_helpers(&self) -> bool {
        self.helper.is_some() || matches!(self.target, Target::Helper { .. })
    }

    /// Whether only what it is for can end this wait.
    fn lasts(&self) -> bool {
        match &self.target {
            Target::Owner(awaited, leave) => !awaited.is_over() && !leave.has_come(&self.task),
            Target::Helper { .. } => !Leave::FatalSignal.has_come(&self.task),
        }
    }

    /// Whether its task belongs to `helper`, and still does.
    fn belongs_to(&self, helper: Helper) -> bool {
        self.helper == Some(helper) && Helper::of(&self.task) == Some(helper)
    }
}

impl Wait {
    /// Writes "who waits for what of whom". `name` is that of the module that the task loads.
    fn write(&self, f: &mut fmt::Formatter<'_>, name: Option<Name>) -> fmt::Result {
        f.write_fmt(fmt!("{} waits for ", Named(&self.who, name)))?;
        match &self.target {
            Target::Owner(awaited, _) => {
                f.write_fmt(fmt!("{} of {}", awaited.subject(), awaited.owner()))
            }
            Target::Helper {
                request, process, ..
            } => f.write_fmt(fmt!(
                "request {request} of its helper {}",
                process.copy().map_or(0, |process| process.tgid)
            )),
        }
    }
}

/// The waits of a circle, as many as a line of the log has room for.
struct Circle {
    waits: [Option<Arc<Wait>>; Self::MAX_SHOWN],
    len: usize,
}

impl Circle {
    const MAX_SHOWN: usize = 8;

    /// The modules that the tasks load, where that is known.
    fn names(&self, name_of: NameOf<'_>) -> [Option<Name>; Self::MAX_SHOWN] {
        self.waits
            .each_ref()
            .map(|wait| wait.as_ref().and_then(|wait| name_of(&wait.who)))
    }
}

/// A circle as the log has it, and the names of its tasks' modules.
struct Shown<'a>(&'a Circle, &'a [Option<Name>; Circle::MAX_SHOWN]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(circle, names) = self;

        if circle.len > Circle::MAX_SHOWN {
            f.write_fmt(fmt!("; of {} tasks", circle.len))?;
        }
        // They were found from the last to the first.
        for (wait, name) in circle.waits.iter().zip(names.iter()).rev() {
            if let Some(wait) = wait {
                f.write_fmt(fmt!("; "))?;
                wait.write(f, *name)?;
            }
        }
        Ok(())
    }
}

/// How many lists there are of tasks that no helper is about: one for each value of a byte.
const STRANGERS: usize = 256;

/// The waits of all tasks. No task has two.
struct Graph {
    /// Those that [are about helpers](Wait::is_about_helpers): there are not many of them, since
    /// few helpers run at a time.
    kin: List<Wait>,
    /// The others, by their task. There may be as many as there are tasks, so nothing walks along
    /// all of them.
    strangers: [List<Wait>; STRANGERS],
    /// The number of the last search.
    search: u32,
}

impl Graph {
    const fn new() -> Self {
        Self {
            kin: List::new(),
            strangers: [const { List::new() }; STRANGERS],
            search: 0,
        }
    }

    fn list_of(&mut self, wait: &Wait) -> &mut List<Wait> {
        if wait.is_about_helpers() {
            &mut self.kin
        } else {
            // Cannot panic: there is a list for every value of a byte.
            &mut self.strangers[usize::from(wait.who.bucket)]
        }
    }

    fn add(&mut self, wait: ListArc<Wait>) {
        self.list_of(&wait).push_front(wait);
    }

    /// Takes out a wait, for the caller to free without the lock.
    fn remove(&mut self, wait: &Wait) -> Option<ListArc<Wait>> {
        let mut cursor = self.list_of(wait).cursor_front();

        while let Some(found) = cursor.peek_next() {
            if found.who.pid == wait.who.pid {
                return Some(found.remove());
            }
            cursor.move_next();
        }
        None
    }

    /// The wait of the task of that number, which is in that bucket.
    fn find(&self, pid: Pid, bucket: usize) -> Option<Arc<Wait>> {
        [&self.kin, self.strangers.get(bucket)?]
            .into_iter()
            .find_map(|list| list.iter().find(|wait| wait.who.pid == pid))
            .map(Arc::from)
    }

    /// The wait of that task.
    fn wait_of(&self, task: &Caller) -> Option<Arc<Wait>> {
        self.find(task.pid, task.bucket.into())
    }

    /// Looks for a circle of waits that `start` is on. Each wait is looked at once.
    fn circle(&mut self, start: &Arc<Wait>) -> Option<Circle> {
        self.search = self.search.wrapping_add(1);
        let mut next = Some(start.clone());

        while let Some(wait) = next {
            if let Some(last) = self.follow(wait, start) {
                return Some(self.way_to(last, start));
            }
            next = self
                .kin
                .iter()
                .find(|wait| wait.seen.load(Relaxed) == self.search && wait.open.load(Relaxed) == 1)
                .map(Arc::from);
        }
        None
    }

    /// Follows `wait` from owner to owner up to `start`, whose predecessor is returned, or up to a
    /// task that waits for a helper. The waits that belong to that helper are left open.
    fn follow(&self, mut wait: Arc<Wait>, start: &Arc<Wait>) -> Option<Arc<Wait>> {
        loop {
            wait.open.store(0, Relaxed);
            if !wait.lasts() {
                return None;
            }
            let next = match &wait.target {
                Target::Owner(awaited, _) => self.wait_of(awaited.owner())?,
                Target::Helper { process, .. } => {
                    let process = process.copy()?;

                    for next in self.kin.iter().filter(|next| next.belongs_to(process)) {
                        if next.who.pid == start.who.pid {
                            return Some(wait);
                        }
                        if self.reach(&next, &wait) {
                            next.open.store(1, Relaxed);
                        }
                    }
                    return None;
                }
            };
            if next.who.pid == start.who.pid {
                return Some(wait);
            }
            if !self.reach(&next, &wait) {
                return None;
            }
            wait = next;
        }
    }

    /// Notes that the search came to `wait`, unless it has been there before.
    fn reach(&self, wait: &Wait, from: &Wait) -> bool {
        if wait.seen.load(Relaxed) == self.search {
            return false;
        }
        wait.seen.store(self.search, Relaxed);
        wait.via.store(from.who.pid, Relaxed);
        wait.via_bucket.store(from.who.bucket.into(), Relaxed);
        true
    }

    /// The way by which the search came from `start` to `last`.
    fn way_to(&self, last: Arc<Wait>, start: &Wait) -> Circle {
        let mut circle = Circle {
            waits: [const { None }; Circle::MAX_SHOWN],
            len: 0,
        };
        let mut next = Some(last);

        while let Some(wait) = next {
            next = (wait.who.pid != start.who.pid)
                .then(|| {
                    self.find(
                        wait.via.load(Relaxed),
                        wait.via_bucket.load(Relaxed) as usize,
                    )
                })
                .flatten();
            if let Some(slot) = circle.waits.get_mut(circle.len) {
                *slot = Some(wait);
            }
            circle.len += 1;
        }
        circle
    }
}

/// The wait-for graph.
#[pin_data]
pub(crate) struct Waits {
    /// Process context only. Taken with no other lock held; none is taken under it, and nothing is
    /// allocated or freed.
    #[pin]
    graph: SpinLock<Graph>,
    /// The last [ticket](Waits::begin_helper). It orders nothing.
    tickets: Atomic<u32>,
}

impl Waits {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            graph <- new_spinlock!(Graph::new(), "module_dedup_waits"),
            tickets: Atomic::new(0),
        })
    }

    /// Lets the current task begin to wait for `awaited`, until what is returned is dropped.
    ///
    /// Fails with `EDEADLK` if the wait would close a circle, and says which in the log.
    ///
    /// May sleep. To be called without locks.
    pub(crate) fn begin(
        &self,
        awaited: Arc<dyn Awaited>,
        leave: Leave,
        name_of: NameOf<'_>,
    ) -> Result<Waiting<'_>> {
        let subject = awaited.subject();
        // Without memory, the wait is not seen, and no circle that it is on (invariant 4).
        let Ok(wait) = Wait::new(Target::Owner(awaited, leave)) else {
            return Ok(Waiting {
                waits: self,
                wait: None,
            });
        };
        let start = wait.clone_arc();

        // In one critical section: of two waits that close a circle between them, one comes first,
        // and the one that is refused stands in nobody else's way.
        let mut graph = self.graph.lock();
        graph.add(wait);
        let Some(circle) = graph.circle(&start) else {
            drop(graph);
            return Ok(Waiting {
                waits: self,
                wait: Some(start),
            });
        };
        let refused = graph.remove(&start);
        drop(graph);
        drop(refused);

        SAVED.circles.add(1, Relaxed);
        trace::refused(subject, trace::Reason::Circle, EDEADLK);
        let names = circle.names(name_of);
        pr_warn!("a wait without end is refused{}\n", Shown(&circle, &names));
        Err(EDEADLK)
    }

    /// Lets the current task begin to wait for a helper that it is about to start, for `request`.
    /// Returns a ticket for the two that follow, which is 0 if there is no memory for one.
    ///
    /// May sleep. To be called without locks.
    pub(crate) fn begin_helper(&self, request: Name) -> u32 {
        let ticket = self.tickets.fetch_add(1, Relaxed).wrapping_add(1);
        let wait = Wait::new(Target::Helper {
            request,
            ticket,
            process: SetOnce::new(),
        });

        match wait {
            Ok(wait) if ticket != 0 => {
                self.graph.lock().add(wait);
                ticket
            }
            _ => 0,
        }
    }

    /// To be called by the helper before it runs anything: who started it may have left.
    pub(crate) fn helper_started(&self, ticket: u32) {
        let Some(process) = Helper::of(current!()) else {
            return;
        };

        for wait in self.graph.lock().kin.iter() {
            match &wait.target {
                Target::Helper {
                    ticket: this,
                    process: slot,
                    ..
                } if *this == ticket => {
                    slot.populate(process);
                }
                _ => (),
            }
        }
    }

    /// To be called by the task that called [`Waits::begin_helper`] when it no longer waits.
    pub(crate) fn end_helper(&self, ticket: u32) {
        if ticket == 0 {
            return;
        }
        // No task has two waits.
        let wait = self.graph.lock().wait_of(&Caller::current());

        if let Some(wait) = wait {
            self.end(&wait);
        }
    }

    fn end(&self, wait: &Wait) {
        // A statement of its own: freed without the lock.
        let removed = self.graph.lock().remove(wait);

        drop(removed);
    }

    /// Calls `f` for each wait, under the lock. That is dropped from list to list, as there may be
    /// many of them: those that begin or end meanwhile may be missed.
    fn for_each(&self, mut f: impl FnMut(&Wait)) {
        for wait in self.graph.lock().kin.iter() {
            f(&wait);
        }
        for bucket in 0..STRANGERS {
            let graph = self.graph.lock();

            for wait in graph.strangers.get(bucket).into_iter().flat_map(List::iter) {
                f(&wait);
            }
        }
    }

    /// Writes a block of lines for each wait.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());

        self.for_each(|wait| {
            let mut write = || {
                f.write_fmt(fmt!("waiter\t{}\n", wait.who))?;
                match &wait.target {
                    Target::Owner(awaited, _) => f.write_fmt(fmt!(
                        "waits_for\t{}\nowner\t{}\n",
                        awaited.subject(),
                        awaited.owner()
                    ))?,
                    Target::Helper {
                        request, process, ..
                    } => {
                        f.write_fmt(fmt!("waits_for\trequest {request}\n"))?;
                        if let Some(process) = process.copy() {
                            f.write_fmt(fmt!("helper\t{}\n", process.tgid))?;
                        }
                    }
                }
                if let Some(helper) = wait.helper {
                    f.write_fmt(fmt!("runs_in_helper\t{}\n", helper.tgid))?;
                }
                f.write_fmt(fmt!("age_ms\t{}\n\n", wait.who.age().as_millis()))
            };

            result = result.and_then(|()| write());
        });
        result
    }
}

/// A wait of the current task, which is over when this is dropped.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    wait: Option<Arc<Wait>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(wait) = &self.wait {
            self.waits.end(wait);
        }
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_waits)]
mod tests {
    use super::*;
    use kernel::str::CString;

    /// A load of somebody.
    struct Load {
        owner: Caller,
        is_over: bool,
    }

    impl Awaited for Load {
        fn subject(&self) -> Subject {
            Subject::Module(Name::new(b"module"))
        }

        fn owner(&self) -> &Caller {
            &self.owner
        }

        fn is_over(&self) -> bool {
            self.is_over
        }
    }

    fn caller(pid: Pid) -> Caller {
        Caller {
            pid,
            bucket: fold(pid as u64),
            ..Caller::current()
        }
    }

    fn load(owner: Caller, is_over: bool) -> Result<Arc<dyn Awaited>> {
        Ok(Arc::new(Load { owner, is_over }, GFP_KERNEL)?)
    }

    fn waits() -> Result<Arc<Waits>> {
        Arc::pin_init(Waits::new(), GFP_KERNEL)
    }

    fn is_empty(waits: &Waits) -> bool {
        let mut is_empty = true;

        waits.for_each(|_| is_empty = false);
        is_empty
    }

    /// A wait of a task that there is not.
    fn wait(pid: Pid, target: Target) -> Result<ListArc<Wait>> {
        ListArc::pin_init(
            try_pin_init!(Wait {
                who: caller(pid),
                task: ARef::from(&**current!()),
                helper: None,
                target,
                seen: Atomic::new(0),
                via: Atomic::new(0),
                via_bucket: Atomic::new(0),
                open: Atomic::new(0),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        )
    }

    #[test]
    fn a_wait_for_oneself_is_refused() -> Result {
        let waits = waits()?;
        let own = Caller::current();

        assert_eq!(
            waits
                .begin(load(own, false)?, Leave::Signal, &|_| None)
                .err(),
            Some(EDEADLK)
        );
        assert!(is_empty(&waits));
        // One that is over is none.
        assert!(waits
            .begin(load(own, true)?, Leave::Signal, &|_| None)
            .is_ok());
        assert!(is_empty(&waits));
        Ok(())
    }

    #[test]
    fn a_wait_for_a_task_that_runs_is_not() -> Result {
        let waits = waits()?;
        let wait = waits.begin(
            load(caller(current!().pid() + 1), false)?,
            Leave::Signal,
            &|_| None,
        )?;

        assert!(!is_empty(&waits));
        drop(wait);
        assert!(is_empty(&waits));
        Ok(())
    }

    /// Makes task 1 wait for 2, which waits for 3, up to the last, which waits for `end`. Says what
    /// circle the last one closes.
    fn chain(len: Pid, end: Pid) -> Result<Option<CString>> {
        let mut graph = KBox::new(Graph::new(), GFP_KERNEL)?;

        for pid in 1..len {
            let target = Target::Owner(load(caller(pid + 1), false)?, Leave::Signal);
            graph.add(wait(pid, target)?);
        }
        let last = wait(len, Target::Owner(load(caller(end), false)?, Leave::Signal))?;
        let start = last.clone_arc();
        graph.add(last);
        let circle = graph.circle(&start);

        let text = circle
            .map(|circle| {
                CString::try_from_fmt(fmt!("{}", Shown(&circle, &circle.names(&|_| None))))
            })
            .transpose();
        for pid in 1..=len {
            let wait = graph.wait_of(&caller(pid));
            wait.and_then(|wait| graph.remove(&wait));
        }
        text
    }

    #[test]
    fn circles_of_any_length() -> Result {
        assert!(chain(1, 1)?.is_some());
        assert!(chain(2, 1)?.is_some());
        let text = chain(1000, 1)?.ok_or(ENOENT)?;
        assert!(text.to_bytes().starts_with(b"; of 1000 tasks; "));
        // Task 3 does not wait.
        assert!(chain(2, 3)?.is_none());
        Ok(())
    }

    #[test]
    fn a_circle_of_others_is_not_searched_for_ever() -> Result {
        let mut graph = KBox::new(Graph::new(), GFP_KERNEL)?;

        // 1 and 2 wait for each other, which nobody would have let them.
        for (pid, owner) in [(1, 2), (2, 1), (3, 1)] {
            graph.add(wait(
                pid,
                Target::Owner(load(caller(owner), false)?, Leave::Signal),
            )?);
        }
        let start = graph.wait_of(&caller(3)).ok_or(ENOENT)?;
        assert!(graph.circle(&start).is_none());
        for pid in 1..=3 {
            let wait = graph.wait_of(&caller(pid));
            wait.and_then(|wait| graph.remove(&wait));
        }
        Ok(())
    }
}
