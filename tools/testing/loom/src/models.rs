// SPDX-License-Identifier: GPL-2.0

//! The models. In each of them:
//!
//! - a key has one owner at a time, except for tasks that load without memory for an entry;
//! - a waiter gets the result of the very load that it waited for, or `-EINTR` if it was sent a
//!   signal;
//! - everybody returns (loom reports a task that sleeps for ever);
//! - nothing leaks (loom counts references), and no load, request or wait is left at the end.

use kernel::{
    init::PinInit,
    list,
    prelude::*,
    task::{self, Signals, Task},
};
use loom::{
    model::Builder,
    sync::{
        atomic::{AtomicI32, Ordering::SeqCst},
        Arc,
    },
    thread,
};
use std::sync::{atomic::AtomicBool, Mutex};

use crate::{
    autoload::Requests,
    idempotent::{Owner, Pending, Role, Table},
    key::{FileKey, Key, Name, Verdict},
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

/// An owner that gives up without a result leaves nobody behind.
#[test]
fn dropped_owner() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));

        let key = world.key(0);
        match world.enter(&key) {
            Role::Owner(owner) => {
                world.owners(&key).fetch_sub(1, SeqCst);
                world.set_result(&key, EINTR.to_errno());
                drop(owner);
            }
            Role::Waiter(load) => assert_eq!(world.wait(&load), Ok(1)),
            Role::Alone => unreachable!(),
        }
        let other = other.join().unwrap();
        assert!(other == End::Owned || other == End::Waited(EINTR.to_errno()));
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
    model_with_preemptions(3, || {
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

    /// No request is in flight, nobody waits, and an unload leaves nothing to answer with.
    fn assert_empty(&self) {
        self.requests.unloading();
        assert_eq!(self.request(true, false), self.modprobes());
        assert_eq!(list::linked(), 0, "a request or a wait is left");
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
