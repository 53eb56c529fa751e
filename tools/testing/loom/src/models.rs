// SPDX-License-Identifier: GPL-2.0

//! The models. In each of them:
//!
//! - a key has one owner at a time, except for tasks that load without memory for an entry;
//! - a waiter gets the result of an owner of its key, or `-EINTR` if it was sent a signal;
//! - everybody returns (loom reports a task that sleeps for ever);
//! - nothing leaks (loom counts references), and no load is left in the table.

use kernel::{
    init::PinInit,
    prelude::*,
    task::{self, Signals, Task},
};
use loom::{
    sync::{
        atomic::{AtomicI32, Ordering::SeqCst},
        Arc,
    },
    thread,
};

use crate::{
    autoload::Requests,
    idempotent::{Pending, Role, Table},
    key::{FileKey, Key, Name},
    waits::{Caller, Leave, Waits},
};

struct World {
    table: Table<FileKey>,
    waits: Waits,
    /// For each key: how many owners it has now, and the results that its loads have had, a bit
    /// for each.
    keys: [(AtomicI32, AtomicI32); 3],
}

/// What became of one task's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Owned,
    Waited(c_int),
    Alone,
}

/// `-EINTR`, which an owner without a result leaves behind as well.
const INTERRUPTED: End = End::Waited(-4);

/// `-EDEADLK`.
const REFUSED: End = End::Waited(-35);

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Table::new().make().unwrap(),
            waits: Waits::new().make().unwrap(),
            keys: Default::default(),
        })
    }

    fn key(which: usize) -> FileKey {
        // Addresses that share a bucket, which is the harder case.
        let first = FileKey {
            inode: 0x1000,
            device: 0,
            number: 0,
            flags: 0,
            args: None,
        };
        (first.inode..)
            .map(|inode| FileKey {
                inode,
                ..first.clone()
            })
            .filter(|key| key.bucket() == first.bucket())
            .nth(which)
            .unwrap()
    }

    /// Waits as finit_module() does.
    fn wait(&self, load: &kernel::sync::Arc<Pending<FileKey>>) -> c_int {
        Pending::wait(load, &self.waits, Leave::Signal, &|_| None).unwrap_or_else(Error::to_errno)
    }

    /// One load, as `load_once()` of dedup.rs does it. `result` is what it returns if it owns.
    fn load(&self, which: usize, result: c_int) -> End {
        let (owners, results) = &self.keys[which];

        match self.table.enter(&Self::key(which), Caller::current()) {
            Role::Owner(owner) => {
                assert_eq!(owners.fetch_add(1, SeqCst), 0, "two owners of a key");
                results.fetch_or(1 << result, SeqCst);
                owners.fetch_sub(1, SeqCst);
                assert_eq!(owner.complete(result), result);
                End::Owned
            }
            Role::Waiter(load) => {
                let result = self.wait(&load);

                if ![INTERRUPTED, REFUSED].contains(&End::Waited(result)) {
                    assert_ne!(results.load(SeqCst) & 1 << result, 0, "nobody's result");
                }
                End::Waited(result)
            }
            Role::Alone => End::Alone,
        }
    }

    /// A load of `which` whose init function loads `inner` and succeeds whatever comes of that.
    /// Returns what that was, if this was the task to do it.
    fn nest(&self, which: usize, inner: usize) -> Option<End> {
        match self.table.enter(&Self::key(which), Caller::current()) {
            Role::Owner(owner) => {
                let end = self.load(inner, 2);

                self.keys[which].1.fetch_or(1 << 1, SeqCst);
                owner.complete(1);
                Some(end)
            }
            Role::Waiter(load) => {
                // Who owns nothing is refused nothing.
                assert!(self.wait(&load) > 0);
                None
            }
            Role::Alone => unreachable!(),
        }
    }

    /// No load is left: whoever comes now owns.
    fn assert_empty(&self) {
        for which in 0..self.keys.len() {
            assert_eq!(self.load(which, 30), End::Owned);
        }
    }
}

/// All interleavings of two tasks.
fn model(f: impl Fn() + Sync + Send + 'static) {
    loom::model(f);
}

/// All interleavings in which at most so many times a task is interrupted by another where it could
/// have gone on. Each more takes many times as long.
fn model_with_preemptions(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();

    builder.preemption_bound.get_or_insert(bound);
    builder.check(f);
}

/// The same for three tasks that do a load each.
fn model_of_three(f: impl Fn() + Sync + Send + 'static) {
    model_with_preemptions(5, f);
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

/// Three tasks, two keys of one bucket: who is alone with a key owns it.
#[test]
fn two_keys() {
    model_of_three(|| {
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

/// No memory for an entry: the load goes on, alone or as a waiter, and disturbs nobody.
#[test]
fn no_memory() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| {
            task::fail_next_allocation();
            world.load(0, 1)
        });

        assert!(succeeded(world.load(0, 2)));
        assert!(matches!(other.join().unwrap(), End::Alone | End::Waited(2)));
        world.assert_empty();
    });
}

/// An owner that gives up without a result leaves nobody behind.
#[test]
fn dropped_owner() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));

        match world.table.enter(&World::key(0), Caller::current()) {
            Role::Owner(owner) => drop(owner),
            Role::Waiter(load) => assert_eq!(world.wait(&load), 1),
            Role::Alone => unreachable!(),
        }
        let other = other.join().unwrap();
        assert!(other == End::Owned || other == INTERRUPTED);
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

/// Three loads, each of which wants the next.
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
    model_of_three(|| {
        let world = World::new();
        let waiter = spawn(&world, |world| {
            Task::become_helper();
            world.load(0, 2)
        });

        if let Role::Owner(owner) = world.table.enter(&World::key(0), Caller::current()) {
            let ticket = world.waits.begin_helper(Name::new(b"alias"));
            let helper = spawn(&world, move |world| {
                Task::become_helper();
                world.waits.helper_started(ticket);
                world.load(0, 3)
            });

            assert_eq!(helper.join().unwrap(), REFUSED);
            world.waits.end_helper(ticket);
            world.keys[0].1.fetch_or(1 << 1, SeqCst);
            owner.complete(1);
        }
        assert_ne!(waiter.join().unwrap(), REFUSED);
        world.assert_empty();
    });
}

/// A wait that is refused is none: its task goes on, and others may wait for what that loads.
#[test]
fn refused_wait_is_none() {
    model_with_preemptions(3, || {
        let world = World::new();
        let Role::Owner(owner) = world.table.enter(&World::key(0), Caller::current()) else {
            unreachable!()
        };
        let ticket = world.waits.begin_helper(Name::new(b"alias"));
        let helper = spawn(&world, move |world| {
            Task::become_helper();
            world.waits.helper_started(ticket);
            let Role::Owner(owner) = world.table.enter(&World::key(1), Caller::current()) else {
                unreachable!()
            };
            let parent = Task::clone(&Task::current());
            let child = spawn(world, |world| {
                Task::become_child_of(parent);
                world.load(1, 2)
            });

            assert_eq!(world.load(0, 3), REFUSED);
            world.keys[1].1.fetch_or(1 << 1, SeqCst);
            owner.complete(1);
            assert!(succeeded(child.join().unwrap()));
        });

        helper.join().unwrap();
        world.waits.end_helper(ticket);
        world.keys[0].1.fetch_or(1 << 1, SeqCst);
        owner.complete(1);
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
    model_with_preemptions(5, || {
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
            match world.table.enter(&World::key(1), Caller::current()) {
                Role::Owner(owner) => {
                    world.load(0, 2);
                    world.keys[1].1.fetch_or(1 << 1, SeqCst);
                    owner.complete(1);
                }
                Role::Waiter(load) => {
                    world.wait(&load);
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
}

impl Autoload {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: Requests::new().make().unwrap(),
            waits: Waits::new().make().unwrap(),
            modprobes: AtomicI32::new(0),
            returned: AtomicI32::new(0),
        })
    }

    /// A request that is killed while its modprobe runs.
    fn killed_request(&self) -> c_int {
        self.requests.request(
            &self.waits,
            &|_| None,
            Name::new(b"module"),
            true,
            || KILLED,
            || (),
        )
    }

    fn request(&self, wait: bool, succeed: bool) -> c_int {
        self.requests.request(
            &self.waits,
            &|_| None,
            Name::new(b"module"),
            wait,
            || {
                let nth = self.modprobes.fetch_add(1, SeqCst) + 1;

                // It takes its time: here others get a turn.
                self.modprobes.load(SeqCst);
                if succeed {
                    0
                } else {
                    nth
                }
            },
            || (),
        )
    }

    fn modprobes(&self) -> i32 {
        self.modprobes.load(SeqCst)
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
    });
}

/// Requests that succeed, and one that does not wait: all succeed, and later ones do without a
/// modprobe.
#[test]
fn succeeding_requests() {
    model_of_three(|| {
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
    });
}

/// What modprobe's caller has if it is killed: -ERESTARTSYS.
const KILLED: c_int = -512;

/// A request that is killed gives nobody else its result.
#[test]
fn killed_request() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn_request(&autoload, |autoload| autoload.killed_request());

        assert_eq!(autoload.request(true, true), 0);
        assert!(matches!(other.join().unwrap(), KILLED | 0));
        assert_eq!(autoload.modprobes(), 1);
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
    });
}
