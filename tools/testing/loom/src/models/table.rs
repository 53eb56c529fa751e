// SPDX-License-Identifier: GPL-2.0

//! Loads of files whose names cannot be peeked: the table, its owners and their waiters.

use kernel::task::{self, Signals};
use loom::thread;
use std::{cell::Cell, sync::Arc};

use super::{
    common::{spawn, succeeded, End, World, EXISTS, INTERRUPTED, LOADED},
    for_each_allocation, model, model_exhaustively, model_of_three,
};
use crate::pending::{Outcome, Role};

/// Two loads of a file. One of them owns, and the other one shares or owns after it; exhaustive.
#[test]
fn two_tasks() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));
        let this = world.load(0, 2);
        let other = other.join().unwrap();

        assert!(succeeded(this) && succeeded(other));
        assert!(this.is_owned() || other.is_owned());
        world.assert_empty();
    });
}

/// Three loads of a file. Each succeeds; five preemptions.
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

/// Two loads that begin while another one, which could be any of three, owns the file. Exhaustive
/// on demand, else five preemptions.
#[test]
fn two_after_the_first() {
    model_exhaustively(|| {
        let world = World::new();
        let others = Cell::new(None);

        world.load_with(0, || {
            let tasks = [1, 2].map(|i| spawn(&world, move |world| world.load(0, i)));

            others.set(Some(tasks));
            3
        });
        for other in others.take().unwrap() {
            assert!(succeeded(other.join().unwrap()));
        }
        world.assert_empty();
    });
}

/// Three loads of two files in one bucket. The only load of a file owns it; exhaustive.
#[test]
fn two_keys() {
    model(|| {
        let world = World::new();
        let same = spawn(&world, |world| world.load(0, 0));
        let different = spawn(&world, |world| world.load(1, 0));

        assert!(succeeded(world.load(0, 0)));
        assert!(succeeded(same.join().unwrap()));
        assert_eq!(different.join().unwrap(), LOADED);
        world.assert_empty();
    });
}

/// A task that loads twice, while another task may still wait for the first load. It never gets a
/// result that it has had; exhaustive.
#[test]
fn load_again() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));

        let [first, second] = [2, 3].map(|result| world.load(0, result));

        assert!(succeeded(first) && succeeded(second));
        assert!(first.is_owned() || first != second);
        assert!(succeeded(other.join().unwrap()));
        world.assert_empty();
    });
}

/// A signal for one of two tasks, which loads twice and never gets a result that it has had. Five
/// preemptions.
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

            assert!(first.is_owned() || first != second || first == INTERRUPTED);
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

/// A signal that the owner sends at any time to a waiter, before it loads again. Exhaustive.
#[test]
fn signal_from_the_owner() {
    model(|| {
        let world = World::new();
        let signals = Signals::new();
        let target = signals.clone();
        let other = Cell::new(None);

        world.load_with(0, || {
            let target = target.clone();

            other.set(Some(spawn(&world, move |world| {
                target.adopt();
                world.load(0, 1)
            })));
            signals.send();
            2
        });
        assert!(succeeded(world.load(0, 3)));
        let other = other.take().unwrap().join().unwrap();
        assert!(succeeded(other) || other == INTERRUPTED);
        world.assert_empty();
    });
}

/// A signal that is pending before the wait. It does not hide a result that is there; exhaustive.
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

/// No memory for an entry or a wait. The load continues, alone if it must, and disturbs no other
/// load; exhaustive, for each allocation of the task.
#[test]
fn no_memory() {
    for_each_allocation(model, |nth| {
        let world = World::new();
        let other = spawn(&world, move |world| {
            task::fail_allocation(nth);
            (world.load(0, 1), !task::is_to_fail())
        });

        assert!(succeeded(world.load(0, 2)));
        let (other, has_failed) = other.join().unwrap();
        assert!(succeeded(other));
        world.assert_empty();
        has_failed
    });
}

/// Two loads with different arguments. A waiter learns from a success that the module is live, and
/// loads it itself after a failure; exhaustive.
#[test]
fn other_arguments() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load_args(0, b"a=1", -5));

        assert_eq!(world.load_args(0, b"a=2", 0), LOADED);
        assert!(matches!(other.join().unwrap(), End::Owned(-5) | EXISTS));
        world.assert_empty();
    });
}

/// An owner that fails shares its failure with its waiters. Exhaustive.
#[test]
fn failing_owner() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, -5));
        let this = world.load(0, -6);

        assert!(matches!(this, End::Owned(-6) | End::Returned(-5)));
        assert!(matches!(
            other.join().unwrap(),
            End::Owned(-5) | End::Returned(-6)
        ));
        world.assert_empty();
    });
}

/// Loads file 0 in two tasks, one of which a signal interrupts if it has to wait. Returns a
/// function that checks how they ended.
fn spawn_two(world: &Arc<World>) -> impl FnOnce() {
    let interrupted = spawn(world, |world| {
        let signals = Signals::new();

        signals.send();
        signals.adopt();
        world.load(0, 1)
    });
    let other = spawn(world, |world| world.load(0, 2));

    move || {
        let interrupted = interrupted.join().unwrap();

        assert!(succeeded(interrupted) || interrupted == INTERRUPTED);
        assert!(succeeded(other.join().unwrap()));
    }
}

/// One of two waiters is interrupted. The other one gets the result of the owner, or owns after it;
/// exhaustive on demand, else five preemptions.
#[test]
fn one_of_two_is_interrupted() {
    model_exhaustively(|| {
        let world = World::new();
        let join = Cell::new(None);

        world.load_with(0, || {
            join.set(Some(spawn_two(&world)));
            3
        });
        join.take().unwrap()();
        world.assert_empty();
    });
}

/// One of two waiters is interrupted, and the owner loads again. The other waiter gets the first
/// result or takes part in the second load; five preemptions.
#[test]
fn load_again_after_an_interrupt() {
    model_of_three(|| {
        let world = World::new();
        let join = Cell::new(None);

        world.load_with(0, || {
            join.set(Some(spawn_two(&world)));
            3
        });
        assert!(succeeded(world.load(0, 4)));
        join.take().unwrap()();
        world.assert_empty();
    });
}

/// An owner that is dropped without a result. A waiter takes its place; exhaustive.
#[test]
fn dropped_owner() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.load(0, 1));

        match world.enter(0) {
            Role::Owner(owner) => drop(owner),
            Role::Waiter(load) => assert_eq!(world.wait(&load), Ok(Outcome::Shared(1))),
            Role::Untracked => unreachable!(),
        }
        assert_eq!(other.join().unwrap(), End::Owned(1));
        world.assert_empty();
    });
}

/// An owner that is dropped without a result, and two waiters. One of them takes its place, for
/// both; five preemptions.
#[test]
fn dropped_owner_of_two() {
    model_of_three(|| {
        let world = World::new();
        let owner = world.own(0);
        let others = [1, 2].map(|i| spawn(&world, move |world| world.load(0, i)));

        drop(owner);
        let others = others.map(|other| other.join().unwrap());
        assert!(others.iter().any(|end| end.is_owned()));
        assert!(others.into_iter().all(succeeded));
        world.assert_empty();
    });
}
