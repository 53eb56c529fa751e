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
    task::{self, Signals},
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
    idempotent::{Leave, Pending, Role, Table},
    key::{FileKey, Key, Name},
    waits::Caller,
};

struct World {
    table: Table<FileKey>,
    /// For each key: how many owners it has now, and the results that its loads have had, a bit
    /// for each.
    keys: [(AtomicI32, AtomicI32); 2],
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

/// Waits as finit_module() does.
fn wait(load: &Pending<FileKey>) -> c_int {
    load.wait(Leave::Signal).unwrap_or(EINTR.to_errno())
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Table::new().make().unwrap(),
            keys: Default::default(),
        })
    }

    fn key(which: usize) -> FileKey {
        // Two addresses that share a bucket, which is the harder case.
        let first = FileKey {
            inode: 0x1000,
            device: 0,
            number: 0,
            flags: 0,
            args: None,
        };
        let second = (0x1001..)
            .map(|inode| FileKey {
                inode,
                ..first.clone()
            })
            .find(|key| key.bucket() == first.bucket());

        [first, second.unwrap()][which].clone()
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
                let result = wait(&load);

                if End::Waited(result) != INTERRUPTED {
                    assert_ne!(results.load(SeqCst) & 1 << result, 0, "nobody's result");
                }
                End::Waited(result)
            }
            Role::Alone => End::Alone,
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

/// All interleavings of three tasks in which at most five times a task is interrupted by another
/// where it could have gone on. More take many times as long each.
fn model_of_three(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();

    builder.preemption_bound.get_or_insert(5);
    builder.check(f);
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&World) -> T + 'static,
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
            Role::Waiter(load) => assert_eq!(wait(&load), 1),
            Role::Alone => unreachable!(),
        }
        let other = other.join().unwrap();
        assert!(other == End::Owned || other == INTERRUPTED);
        world.assert_empty();
    });
}

/// What becomes of requests of one name: the results of modprobe runs are 1, 2, ... in the order
/// in which they begin, or 0 where it is to succeed.
struct Autoload {
    requests: Requests,
    modprobes: AtomicI32,
    /// Requests that have returned, where a model counts them.
    returned: AtomicI32,
}

impl Autoload {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: Requests::new().make().unwrap(),
            modprobes: AtomicI32::new(0),
            returned: AtomicI32::new(0),
        })
    }

    /// A request that is killed while its modprobe runs.
    fn killed_request(&self) -> c_int {
        self.requests
            .request(Name::new(b"module"), true, || KILLED, || ())
    }

    fn request(&self, wait: bool, succeed: bool) -> c_int {
        self.requests.request(
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
