// SPDX-License-Identifier: GPL-2.0

//! The models. In each of them:
//!
//! - a key has one owner at a time, except for tasks that load without memory for an entry;
//! - a waiter gets the result of the very load that it waited for, or `-EINTR` if it was sent a
//!   signal;
//! - everybody returns (loom reports a task that sleeps for ever);
//! - at the end, nothing is left of a load, a request or a wait.

use kernel::{
    init::PinInit,
    prelude::*,
    sync::{self, atomic::be_plain},
    task::{self, Signals, Task},
};
use loom::{
    model::Builder,
    sync::atomic::{AtomicBool as LoomBool, AtomicI32, Ordering::SeqCst},
    thread,
};
use std::{
    mem,
    sync::{atomic::AtomicBool, Arc, Mutex},
};

use crate::{
    autoload::Requests,
    idempotent::{Owner, Pending, Role, Table},
    key::{Args, FileKey, Key, Name, Verdict},
    waits::{Caller, Leave, Waits},
};

struct World {
    table: Table<FileKey>,
    waits: Waits,
    /// How many owners each key has now. loom sees this, so that owners get in each other's way.
    owners: [AtomicI32; 3],
    /// What each load returned that had an owner. Which one that was is known by the number in its
    /// key, which nobody compares. Not for loom, which would take an interest in their order.
    results: Mutex<Vec<Option<c_int>>>,
}

/// What became of one task's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Owned,
    Waited(c_int),
    /// It did not wait to the end.
    Left(Error),
    /// `-EEXIST`: another one had other arguments.
    Exists,
    Alone,
}

const INTERRUPTED: End = End::Left(EINTR);

const REFUSED: End = End::Left(EDEADLK);

impl World {
    fn new() -> Arc<Self> {
        // How many wait is for people to see, a ticket is a number that nobody else has, and the
        // rest is the graph's, under its lock.
        be_plain(true);
        Arc::new(Self {
            table: Table::new().make().unwrap(),
            waits: Waits::new().make().unwrap(),
            owners: Default::default(),
            results: Mutex::default(),
        })
    }

    /// The key of a new load of `which`.
    fn key(&self, which: usize) -> FileKey {
        let mut results = self.results.lock().unwrap();
        let first = FileKey {
            inode: 0x1000,
            device: which as u32,
            number: results.len() as u64,
            flags: 0,
            args: Args::Empty,
        };

        results.push(None);
        // Addresses that share a bucket, which is the harder case.
        (first.inode..)
            .map(|inode| FileKey {
                inode,
                ..first.clone()
            })
            .filter(|key| key.bucket() == first.bucket())
            .nth(which)
            .unwrap()
    }

    fn owners(&self, key: &FileKey) -> &AtomicI32 {
        &self.owners[key.device as usize]
    }

    fn enter(&self, key: &FileKey) -> Role<'_, FileKey> {
        let role = self.table.enter(key, Caller::current());

        if let Role::Owner(_) = role {
            let before = self.owners(key).fetch_add(1, SeqCst);
            assert_eq!(before, 0, "two owners of a key");
        }
        role
    }

    /// Becomes the owner of `which`, which nobody else is.
    fn own(&self, which: usize) -> (FileKey, Owner<'_, FileKey>) {
        let key = self.key(which);

        match self.enter(&key) {
            Role::Owner(owner) => (key, owner),
            _ => unreachable!(),
        }
    }

    fn set_result(&self, key: &FileKey, result: c_int) {
        self.results.lock().unwrap()[key.number as usize] = Some(result);
    }

    fn complete(&self, (key, owner): (FileKey, Owner<'_, FileKey>), result: c_int) {
        self.owners(&key).fetch_sub(1, SeqCst);
        self.set_result(&key, result);
        owner.complete(result);
    }

    /// Leaves before there was a result.
    fn leave(&self, (key, owner): (FileKey, Owner<'_, FileKey>)) {
        self.owners(&key).fetch_sub(1, SeqCst);
        drop(owner);
    }

    /// Waits as finit_module() does.
    fn wait(&self, load: &kernel::sync::Arc<Pending<FileKey>>) -> Result<Option<c_int>> {
        let result = Pending::wait(load, &self.waits, Leave::Signal, &|_| None);

        match result {
            Ok(result) => {
                let expected = self.results.lock().unwrap()[load.key().number as usize];
                assert_eq!(result, expected, "the result of another load");
            }
            Err(EINTR) => assert!(Task::current().signal_pending(), "interrupted by nothing"),
            Err(err) => assert_eq!(err, EDEADLK),
        }
        result
    }

    /// One load, as `module_dedup_load_file()` of dedup.rs does it. `result` is what it returns if
    /// it owns.
    fn load(&self, which: usize, result: c_int) -> End {
        self.load_key(self.key(which), result)
    }

    /// The same with arguments.
    fn load_with(&self, which: usize, args: &[u8], result: c_int) -> End {
        let key = FileKey {
            args: Args::Copied(kernel::sync::Arc::new(args.to_vec())),
            ..self.key(which)
        };

        self.load_key(key, result)
    }

    fn load_key(&self, key: FileKey, result: c_int) -> End {
        loop {
            match self.enter(&key) {
                Role::Owner(owner) => {
                    self.complete((key, owner), result);
                    return End::Owned;
                }
                Role::Waiter(other) => match self.wait(&other) {
                    Ok(result) => match key.verdict(other.key(), result, false) {
                        Verdict::Share(result) => return End::Waited(result),
                        Verdict::Exists => return End::Exists,
                        Verdict::Again => (),
                    },
                    Err(err) => return End::Left(err),
                },
                Role::Alone => return End::Alone,
            }
        }
    }

    /// A load of `which` whose init function loads `inner` and succeeds whatever comes of that.
    /// Returns what that was, if this was the task to do it.
    fn nest(&self, which: usize, inner: usize) -> Option<End> {
        let key = self.key(which);

        match self.enter(&key) {
            Role::Owner(owner) => Some(self.init((key, owner), inner)),
            Role::Waiter(load) => {
                // Who owns nothing is refused nothing.
                assert!(matches!(self.wait(&load), Ok(Some(_))));
                None
            }
            Role::Alone => unreachable!(),
        }
    }

    /// The init function of a load, which loads `inner`.
    fn init(&self, load: (FileKey, Owner<'_, FileKey>), inner: usize) -> End {
        let end = self.load(inner, 2);

        self.complete(load, 1);
        end
    }

    /// Nobody loads or waits any more: nothing is left in the table, in the graph, or out of both.
    fn assert_empty(&self) {
        assert_eq!(sync::live(), 0, "a load or a wait is left");
    }
}

/// All interleavings: of two tasks, or of three that have little to do with each other.
fn model(f: impl Fn() + Sync + Send + 'static) {
    check(Builder::new(), f);
}

fn check(builder: Builder, f: impl Fn() + Sync + Send + 'static) {
    builder.check(f);
}

/// All interleavings in which at most so many times a task is interrupted by another where it could
/// have gone on. Each more takes many times as long.
fn model_with_preemptions(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();

    builder.preemption_bound.get_or_insert(bound);
    check(builder, f);
}

/// The same for three tasks, with a bound that takes seconds.
fn model_of_three(f: impl Fn() + Sync + Send + 'static) {
    model_with_preemptions(5, f);
}

/// All interleavings of three tasks, if `EXHAUSTIVE` is set: a million of them takes minutes.
fn model_exhaustively(f: impl Fn() + Sync + Send + 'static) {
    if std::env::var_os("EXHAUSTIVE").is_some() {
        model(f);
    } else {
        model_of_three(f);
    }
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&Arc<World>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = world.clone();

    thread::spawn(move || f(&world))
}

fn succeeded(end: End) -> bool {
    matches!(end, End::Owned | End::Waited(0..))
}

/// Two tasks, one key.
#[test]
fn two_tasks() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));
        let this = world.load(0, 2);
        let other = other.join().unwrap();

        assert!(succeeded(this) && succeeded(other));
        assert!(this == End::Owned || other == End::Owned);
        world.assert_empty();
    });
}

/// Three tasks, one key.
#[test]
fn three_tasks() {
    model_of_three(|| {
        let world = World::new();
        let others = [1, 2].map(|i| spawn(&world, move |world| world.load(0, i)));

        assert!(succeeded(world.load(0, 3)));
        for other in others {
            assert!(succeeded(other.join().unwrap()));
        }
        world.assert_empty();
    });
}

/// The same once the first of them, which might be any, is the owner.
#[test]
fn two_after_the_first() {
    model_exhaustively(|| {
        let world = World::new();
        let load = world.own(0);
        let others = [1, 2].map(|i| spawn(&world, move |world| world.load(0, i)));

        world.complete(load, 3);
        for other in others {
            assert!(succeeded(other.join().unwrap()));
        }
        world.assert_empty();
    });
}

/// Three tasks, two keys of one bucket: who is alone with a key owns it.
#[test]
fn two_keys() {
    model(|| {
        let world = World::new();
        let same = spawn(&world, |world| world.load(0, 1));
        let different = spawn(&world, |world| world.load(1, 2));

        assert!(succeeded(world.load(0, 3)));
        assert!(succeeded(same.join().unwrap()));
        assert_eq!(different.join().unwrap(), End::Owned);
        world.assert_empty();
    });
}

/// A task that loads again at once, while others may still wait for its first load.
#[test]
fn again() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));

        assert!(succeeded(world.load(0, 2)));
        assert!(succeeded(world.load(0, 3)));
        assert!(succeeded(other.join().unwrap()));
        world.assert_empty();
    });
}

/// A signal for one of two tasks: it leaves or it does not, and the other one never notices. When
/// it comes back, it does not get what it knows already: that load is over.
#[test]
fn signal() {
    model_of_three(|| {
        let world = World::new();
        let signals = Signals::new();
        let target = signals.clone();
        let other = spawn(&world, move |world| {
            target.adopt();
            let first = world.load(0, 1);
            let second = world.load(0, 3);

            assert!(first == End::Owned || first != second || first == INTERRUPTED);
            [first, second]
        });
        let sender = thread::spawn(move || signals.send());

        assert!(succeeded(world.load(0, 2)));
        for end in other.join().unwrap() {
            assert!(succeeded(end) || end == INTERRUPTED);
        }
        sender.join().unwrap();
        world.assert_empty();
    });
}

/// The same, sent at any time by the owner, who then loads again at once.
#[test]
fn signal_from_the_owner() {
    model(|| {
        let world = World::new();
        let signals = Signals::new();
        let target = signals.clone();
        let load = world.own(0);
        let other = spawn(&world, move |world| {
            target.adopt();
            world.load(0, 1)
        });

        signals.send();
        world.complete(load, 2);
        assert!(succeeded(world.load(0, 3)));
        let other = other.join().unwrap();
        assert!(succeeded(other) || other == INTERRUPTED);
        world.assert_empty();
    });
}

/// A signal that was there before the wait does not keep a result away that was there as well.
#[test]
fn pending_signal() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| {
            let signals = Signals::new();

            signals.send();
            signals.adopt();
            world.load(0, 1)
        });

        assert!(succeeded(world.load(0, 2)));
        let other = other.join().unwrap();
        assert!(succeeded(other) || other == INTERRUPTED);
        world.assert_empty();
    });
}

/// Runs a model in which the nth allocation of a task fails, for one n after the other. The model
/// says whether there were so many.
fn for_each_allocation(f: fn(u32) -> bool) {
    for nth in 1.. {
        let has_failed = std::sync::Arc::new(AtomicBool::new(false));
        let seen = has_failed.clone();

        model(move || {
            seen.fetch_or(f(nth), SeqCst);
        });
        if !has_failed.load(SeqCst) {
            return assert!(nth > 1, "there are allocations");
        }
    }
}

/// No memory for an entry or a wait: the load goes on, alone or not, and disturbs nobody.
#[test]
fn no_memory() {
    for_each_allocation(|nth| {
        let world = World::new();
        let other = spawn(&world, move |world| {
            task::fail_allocation(nth);
            (world.load(0, 1), !task::is_to_fail())
        });

        assert!(succeeded(world.load(0, 2)));
        let (other, has_failed) = other.join().unwrap();
        assert!(succeeded(other) || other == End::Alone);
        world.assert_empty();
        has_failed
    });
}

/// No memory for the wait of a helper or of who started it. The circle need not be seen then, so
/// here nobody waits for the helper.
fn helper_without_memory(of_requester: u32, of_helper: u32) -> bool {
    let world = World::new();
    let load = world.own(0);

    task::fail_allocation(of_requester);
    let ticket = world.waits.begin_helper(Name::new(b"alias"));
    let requester_failed = of_requester != 0 && !task::is_to_fail();
    assert_eq!(ticket == 0, requester_failed);
    let helper = spawn(&world, move |world| {
        Task::become_helper();
        world.waits.helper_started(ticket);
        task::fail_allocation(of_helper);
        let end = world.load(0, 3);

        (end, of_helper != 0 && !task::is_to_fail())
    });

    world.waits.end_helper(ticket);
    world.complete(load, 1);
    let (end, helper_failed) = helper.join().unwrap();
    assert!(succeeded(end) || matches!(end, REFUSED | End::Alone));
    assert!(end != REFUSED || ticket != 0);
    world.assert_empty();
    requester_failed || helper_failed
}

#[test]
fn no_memory_around_a_helper() {
    for_each_allocation(|nth| helper_without_memory(nth, 0));
    for_each_allocation(|nth| helper_without_memory(0, nth));
}

/// Other arguments: who waited for a load that succeeded finds the module there, and who waited for
/// one that failed loads it after all.
#[test]
fn other_arguments() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load_with(0, b"a=1", -5));

        assert_eq!(world.load_with(0, b"a=2", 0), End::Owned);
        assert!(matches!(other.join().unwrap(), End::Owned | End::Exists));
        world.assert_empty();
    });
}

/// An owner that fails tells those who wait.
#[test]
fn failing_owner() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, -5));
        let this = world.load(0, -6);

        assert!(matches!(this, End::Owned | End::Waited(-5)));
        assert!(matches!(
            other.join().unwrap(),
            End::Owned | End::Waited(-6)
        ));
        world.assert_empty();
    });
}

/// Starts two loads of what the current task owns: of one whom a signal takes away, if it has to
/// wait, and of one who stays. What is returned looks how they ended.
fn spawn_two(world: &Arc<World>) -> impl FnOnce() {
    let leaves = spawn(world, |world| {
        let signals = Signals::new();

        signals.send();
        signals.adopt();
        world.load(0, 1)
    });
    let stays = spawn(world, |world| world.load(0, 2));

    move || {
        let leaves = leaves.join().unwrap();

        assert!(succeeded(leaves) || leaves == INTERRUPTED);
        assert!(succeeded(stays.join().unwrap()));
    }
}

/// One of two waiters leaves: who stays is told what the owner's load returned, or is the owner of
/// one after that.
#[test]
fn one_of_two_leaves() {
    model_exhaustively(|| {
        let world = World::new();
        let load = world.own(0);
        let join = spawn_two(&world);

        world.complete(load, 3);
        join();
        world.assert_empty();
    });
}

/// The same, and the owner loads again at once: who stays is told of the first load or has a part
/// in the second.
#[test]
fn again_when_one_has_left() {
    model_of_three(|| {
        let world = World::new();
        let load = world.own(0);
        let join = spawn_two(&world);

        world.complete(load, 3);
        assert!(succeeded(world.load(0, 4)));
        join();
        world.assert_empty();
    });
}

/// An owner that gives up without a result leaves nobody behind.
#[test]
fn dropped_owner() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));

        let key = world.key(0);
        match world.enter(&key) {
            Role::Owner(owner) => world.leave((key, owner)),
            Role::Waiter(load) => assert_eq!(world.wait(&load), Ok(Some(1))),
            Role::Alone => unreachable!(),
        }
        assert_eq!(other.join().unwrap(), End::Owned);
        world.assert_empty();
    });
}

/// The same with two who wait: one of them takes the place of the owner, for both.
#[test]
fn dropped_owner_of_two() {
    model_of_three(|| {
        let world = World::new();
        let load = world.own(0);
        let others = [1, 2].map(|i| spawn(&world, move |world| world.load(0, i)));

        world.leave(load);
        let others = others.map(|other| other.join().unwrap());
        assert!(others.contains(&End::Owned));
        assert!(others.into_iter().all(succeeded));
        world.assert_empty();
    });
}

/// Two loads that want each other: one of them is refused if each owns one, and nobody otherwise.
#[test]
fn circle_of_two() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.nest(1, 0));
        let this = world.nest(0, 1);

        match (this, other.join().unwrap()) {
            (Some(REFUSED), other) => assert_eq!(other, Some(End::Waited(1))),
            (this, Some(REFUSED)) => assert_eq!(this, Some(End::Waited(1))),
            (this, other) => assert!(this.is_none_or(succeeded) && other.is_none_or(succeeded)),
        }
        world.assert_empty();
    });
}

/// Three loads, each of which is there and wants the next: one of them is refused, if any.
#[test]
fn circle_of_three_owners() {
    model_exhaustively(|| {
        let world = World::new();
        let [first, others @ ..] = [0, 1, 2].map(|which| world.own(which));
        let others = others.map(|(key, owner)| {
            let inner = (key.device as usize + 1) % 3;
            // SAFETY: The task has a reference of its own to the world, which it drops last.
            let owner: Owner<'static, _> = unsafe { mem::transmute(owner) };

            spawn(&world, move |world| world.init((key, owner), inner))
        });
        let this = world.init(first, 1);
        let ends = others.map(|other| other.join().unwrap());
        let refused = ends.iter().chain([&this]).filter(|end| **end == REFUSED);

        assert!(refused.count() <= 1);
        world.assert_empty();
    });
}

/// The same from their beginning on.
#[test]
fn circle_of_three() {
    model_with_preemptions(4, || {
        let world = World::new();
        let others =
            [1, 2].map(|which| spawn(&world, move |world| world.nest(which, (which + 1) % 3)));
        let this = world.nest(0, 1);
        let ends = others.map(|other| other.join().unwrap());
        let refused = ends
            .iter()
            .chain([&this])
            .filter(|end| **end == Some(REFUSED));

        assert!(refused.count() <= 1);
        world.assert_empty();
    });
}

/// A load whose init function calls modprobe, which comes back to it: that one is refused, and
/// only it, not what another helper does.
#[test]
fn circle_through_a_helper() {
    model(|| {
        let world = World::new();
        let waiter = spawn(&world, |world| {
            Task::become_helper();
            world.load(0, 2)
        });

        let key = world.key(0);
        if let Role::Owner(owner) = world.enter(&key) {
            let ticket = world.waits.begin_helper(Name::new(b"alias"));
            let helper = spawn(&world, move |world| {
                Task::become_helper();
                world.waits.helper_started(ticket);
                world.load(0, 3)
            });

            assert_eq!(helper.join().unwrap(), REFUSED);
            world.waits.end_helper(ticket);
            world.complete((key, owner), 1);
        }
        assert_ne!(waiter.join().unwrap(), REFUSED);
        world.assert_empty();
    });
}

/// A wait that is refused is none: its task goes on, and others may wait for what that loads.
#[test]
fn refused_wait_is_none() {
    model(|| {
        let world = World::new();
        let load = world.own(0);
        let ticket = world.waits.begin_helper(Name::new(b"alias"));
        let helper = spawn(&world, move |world| {
            Task::become_helper();
            world.waits.helper_started(ticket);
            let load = world.own(1);
            let parent = Task::clone(&Task::current());
            let child = spawn(world, |world| {
                Task::become_child_of(parent);
                world.load(1, 2)
            });

            assert_eq!(world.load(0, 3), REFUSED);
            world.complete(load, 1);
            assert!(succeeded(child.join().unwrap()));
        });

        helper.join().unwrap();
        world.waits.end_helper(ticket);
        world.complete(load, 1);
        world.assert_empty();
    });
}

/// A helper that was killed before it began to run, or whose requester was: nobody waits for it,
/// so it is not refused.
#[test]
fn helper_without_requester() {
    model(|| {
        let world = World::new();
        let ticket = world.waits.begin_helper(Name::new(b"alias"));
        let helper = spawn(&world, move |world| {
            Task::become_helper();
            world.waits.helper_started(ticket);
            world.load(0, 3)
        });

        world.waits.end_helper(ticket);
        assert!(succeeded(world.load(0, 2)));
        assert!(succeeded(helper.join().unwrap()));
        world.assert_empty();
    });
}

/// A task waits for a load that is over before it knows: its owner may wait for what that task
/// loads.
#[test]
fn wait_that_is_over_is_none() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.nest(1, 0));

        assert!(succeeded(world.load(0, 3)));
        assert!(succeeded(world.load(1, 3)));
        assert!(other.join().unwrap().is_none_or(succeeded));
        world.assert_empty();
    });
}

/// A task that is about to leave because of a signal is no part of a circle.
#[test]
fn signal_opens_a_circle() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| {
            let signals = Signals::new();

            signals.send();
            signals.adopt();
            let key = world.key(1);
            match world.enter(&key) {
                Role::Owner(owner) => {
                    world.load(0, 2);
                    world.complete((key, owner), 1);
                }
                Role::Waiter(load) => {
                    let _ = world.wait(&load);
                }
                Role::Alone => unreachable!(),
            }
        });

        assert!(world.nest(0, 1).is_none_or(succeeded));
        other.join().unwrap();
        world.assert_empty();
    });
}

/// What becomes of requests of one name: the results of modprobe runs are 1, 2, ... in the order
/// in which they begin, or 0 where it is to succeed.
struct Autoload {
    requests: Requests,
    waits: Waits,
    modprobes: AtomicI32,
    /// Requests that have returned, where a model counts them.
    returned: AtomicI32,
    /// Whether the module is live, where a model unloads it.
    is_live: LoomBool,
}

impl Autoload {
    fn new() -> Arc<Self> {
        // Unloads are told by an atomic.
        be_plain(false);
        Arc::new(Self {
            requests: Requests::new().make().unwrap(),
            waits: Waits::new().make().unwrap(),
            modprobes: AtomicI32::new(0),
            returned: AtomicI32::new(0),
            is_live: LoomBool::new(true),
        })
    }

    fn request_with(&self, wait: bool, modprobe: impl FnOnce() -> c_int) -> c_int {
        let name = Name::new(b"module");

        (self.requests).request(&self.waits, &|_| None, name, wait, modprobe, || ())
    }

    /// A request that is killed while its modprobe runs.
    fn killed_request(&self) -> c_int {
        self.request_with(true, || KILLED)
    }

    fn request(&self, wait: bool, succeed: bool) -> c_int {
        self.request_with(wait, || {
            let nth = self.modprobes.fetch_add(1, SeqCst) + 1;

            // It takes its time: here others get a turn.
            self.modprobes.load(SeqCst);
            if succeed {
                0
            } else {
                nth
            }
        })
    }

    /// A request whose modprobe finds the module there, or fails.
    fn request_live(&self) -> c_int {
        self.request_with(true, || match self.is_live.load(SeqCst) {
            true => 0,
            false => GONE,
        })
    }

    fn modprobes(&self) -> i32 {
        self.modprobes.load(SeqCst)
    }

    /// No request is in flight, nobody waits, and an unload leaves nothing to answer with.
    fn assert_empty(&self) {
        self.requests.unloading();
        assert_eq!(self.request(true, false), self.modprobes());
        assert_eq!(sync::live(), 0, "a request or a wait is left");
    }
}

fn spawn_request<T: 'static>(
    autoload: &Arc<Autoload>,
    f: impl FnOnce(&Autoload) -> T + 'static,
) -> thread::JoinHandle<T> {
    let autoload = autoload.clone();

    thread::spawn(move || f(&autoload))
}

/// Two requests that fail: a duplicate gets the result of the modprobe that ran while it asked, and
/// whoever comes later runs one of its own.
#[test]
fn failing_requests() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn_request(&autoload, |autoload| autoload.request(true, false));
        let this = autoload.request(true, false);
        let other = other.join().unwrap();

        match autoload.modprobes() {
            1 => assert_eq!((this, other), (1, 1)),
            2 => assert_eq!(this + other, 3),
            _ => unreachable!(),
        }
        assert_eq!(autoload.request(true, false), autoload.modprobes());
        autoload.assert_empty();
    });
}

/// Requests that succeed, and one that does not wait: all succeed, and later ones do without a
/// modprobe.
#[test]
fn succeeding_requests() {
    model_exhaustively(|| {
        let autoload = Autoload::new();
        let others = [true, false]
            .map(|wait| spawn_request(&autoload, move |autoload| autoload.request(wait, true)));

        assert_eq!(autoload.request(true, true), 0);
        for other in others {
            assert_eq!(other.join().unwrap(), 0);
        }
        let before = autoload.modprobes();
        assert_eq!(autoload.request(true, false), 0);
        assert_eq!(autoload.modprobes(), before);
        autoload.assert_empty();
    });
}

/// No memory for a request, for its wait, or to remember it: it is made all the same.
#[test]
fn no_memory_for_a_request() {
    for_each_allocation(|nth| {
        let autoload = Autoload::new();
        let other = spawn_request(&autoload, move |autoload| {
            task::fail_allocation(nth);
            (autoload.request(true, true), !task::is_to_fail())
        });

        assert_eq!(autoload.request(true, true), 0);
        let (other, has_failed) = other.join().unwrap();
        assert_eq!(other, 0);
        assert!(autoload.modprobes() <= 2);
        autoload.assert_empty();
        has_failed
    });
}

/// What modprobe's caller has if it is killed: -ERESTARTSYS.
const KILLED: c_int = -512;

/// What modprobe's caller has if there is no such module.
const GONE: c_int = 256;

/// A request that is killed gives nobody else its result.
#[test]
fn killed_request() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn_request(&autoload, |autoload| autoload.killed_request());

        assert_eq!(autoload.request(true, true), 0);
        assert!(matches!(other.join().unwrap(), KILLED | 0));
        assert_eq!(autoload.modprobes(), 1);
        autoload.assert_empty();
    });
}

/// A module is unloaded while it is requested: whoever asks after that gets no result from before.
#[test]
fn unload() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn_request(&autoload, |autoload| {
            autoload.request(true, true);
            autoload.returned.fetch_add(1, SeqCst);
        });

        let began = autoload.modprobes() == 1;
        let returned = autoload.returned.load(SeqCst) == 1;
        autoload.requests.unloading();
        let this = autoload.request(true, false);

        // The other's success counts if it was not yet known when the module went.
        assert!(this != 0 || !returned);
        other.join().unwrap();
        // Nor does it count for long if it was begun before that.
        assert!(!began || autoload.request(true, false) != 0);
        autoload.assert_empty();
    });
}

/// Whoever asks for a module when it is gone is not answered by a modprobe that found it there.
#[test]
fn unload_beside_a_request() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn_request(&autoload, |autoload| autoload.request_live());

        autoload.requests.unloading();
        autoload.is_live.store(false, SeqCst);
        autoload.requests.unloading();
        assert_eq!(autoload.request_live(), GONE);
        other.join().unwrap();
        autoload.assert_empty();
    });
}

/// A module that was requested is unloaded as delete_module() does it: told before anybody can see
/// it, and again when everybody can. Whoever sees it gone gets no result from before, and nobody
/// does in the end.
#[test]
fn unload_in_two_steps() {
    model(|| {
        let autoload = Autoload::new();

        assert_eq!(autoload.request_live(), 0);
        let unloader = spawn_request(&autoload, |autoload| {
            autoload.requests.unloading();
            autoload.is_live.store(false, SeqCst);
            autoload.requests.unloading();
        });

        let was_live = autoload.is_live.load(SeqCst);
        let this = autoload.request_live();
        assert!(was_live || this == GONE);
        unloader.join().unwrap();
        assert_eq!(autoload.request_live(), GONE);
        autoload.assert_empty();
    });
}
