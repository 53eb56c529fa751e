// SPDX-License-Identifier: GPL-2.0

//! Waits that lead back to their own task: the wait graph rejects them, and no other ones.

use kernel::task::{self, Signals, Task};
use loom::thread::{self, JoinHandle};
use std::{cell::Cell, sync::Arc};

use super::{
    common::{spawn, succeeded, End, Gate, World, DEADLOCK},
    for_each_allocation, model, model_exhaustively, model_with_preemptions,
};
use crate::{
    pending::Role,
    target::Name,
    task::TaskId,
    wait::{Patience, WaitError, WaitMode},
    wait_graph::WaitGuard,
};

/// Starts a task that is the helper of `ticket` and runs `f`.
fn spawn_helper<T: 'static>(
    world: &Arc<World>,
    ticket: usize,
    f: impl FnOnce(&Arc<World>) -> T + 'static,
) -> JoinHandle<T> {
    spawn(world, move |world| {
        Task::become_helper();
        world.graph.helper_started(ticket);
        f(world)
    })
}

impl World {
    /// Begins a wait of the current task for a helper that it starts.
    fn begin_helper(&self) -> usize {
        self.graph.begin_helper(Name::new(b"alias"), None)
    }
}

/// A helper loads the file that the task which started it owns, with no memory for the nth
/// allocation of either. A deadlock may go unnoticed then, so the owner does not wait.
fn helper_without_memory(of_owner: u32, of_helper: u32) -> bool {
    let world = World::new();
    let owner_failed = Cell::new(false);
    let has_ticket = Cell::new(false);
    let helper = Cell::new(None);

    world.load_with(0, || {
        task::fail_allocation(of_owner);
        let ticket = world.begin_helper();
        owner_failed.set(of_owner != 0 && !task::is_to_fail());
        has_ticket.set(ticket != 0);
        helper.set(Some(spawn_helper(&world, ticket, move |world| {
            task::fail_allocation(of_helper);
            let end = world.load(0, 3);

            (end, of_helper != 0 && !task::is_to_fail())
        })));
        world.graph.end_helper(ticket);
        task::fail_allocation(0);
        1
    });
    let (end, helper_failed) = helper.take().unwrap().join().unwrap();

    assert_eq!(has_ticket.get(), !owner_failed.get());
    assert!(succeeded(end) || end == DEADLOCK);
    assert!(end != DEADLOCK || has_ticket.get());
    world.assert_empty();
    owner_failed.get() || helper_failed
}

/// No memory for the wait of a helper, or of the task that started it. Each load returns, and no
/// wait is rejected without a reason; exhaustive, for each allocation of the two.
#[test]
fn no_memory_around_a_helper() {
    for_each_allocation(model, |nth| helper_without_memory(nth, 0));
    for_each_allocation(model, |nth| helper_without_memory(0, nth));
}

/// Two loads, each of which loads the file of the other. One is rejected if each owns its file, and
/// none otherwise; exhaustive.
#[test]
fn cycle_of_two() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.nest(1, 0));
        let this = world.nest(0, 1);

        match (this, other.join().unwrap()) {
            (Some(DEADLOCK), other) => assert_eq!(other, Some(End::Returned(1))),
            (this, Some(DEADLOCK)) => assert_eq!(this, Some(End::Returned(1))),
            (this, other) => assert!(this.is_none_or(succeeded) && other.is_none_or(succeeded)),
        }
        world.assert_empty();
    });
}

/// Three tasks, each of which owns a file before any of them loads the next one. Exactly one wait
/// is rejected; exhaustive on demand, else five preemptions.
#[test]
fn cycle_of_three_owners() {
    model_exhaustively(|| {
        let world = World::new();
        let ends = nest_behind(&world, &Arc::new(Gate::new(3)), 0);

        assert_eq!(ends.len(), 3);
        assert_eq!(ends.iter().filter(|end| **end == DEADLOCK).count(), 1);
        world.assert_empty();
    });
}

/// Loads `file`; its init function starts a task that does the same with the next file, and loads
/// that file itself once all tasks have arrived at `gate`. Returns how these loads ended.
fn nest_behind(world: &Arc<World>, gate: &Arc<Gate>, file: usize) -> Vec<End> {
    let end = Cell::new(None);
    let next = Cell::new(None);

    world.load_with(file, || {
        let inner = (file + 1) % 3;
        let gate_of_next = gate.clone();

        next.set(
            (inner != 0)
                .then(|| spawn(world, move |world| nest_behind(world, &gate_of_next, inner))),
        );
        gate.pass();
        end.set(Some(world.load(inner, 2)));
        1
    });
    let mut ends = next.take().map_or(Vec::new(), |next| next.join().unwrap());
    ends.extend(end.get());
    ends
}

/// Three tasks, each of which owns a file and loads the next one, from their beginning. At most one
/// is rejected; four preemptions.
#[test]
fn cycle_of_three() {
    model_with_preemptions(4, || {
        let world = World::new();
        let others =
            [1, 2].map(|file| spawn(&world, move |world| world.nest(file, (file + 1) % 3)));
        let this = world.nest(0, 1);
        let ends = others.map(|other| other.join().unwrap());
        let rejected = ends
            .iter()
            .chain([&this])
            .filter(|end| **end == Some(DEADLOCK));

        assert!(rejected.count() <= 1);
        world.assert_empty();
    });
}

/// A load whose init function calls modprobe, which loads the same file. That wait is rejected, and
/// not that of another helper; exhaustive.
#[test]
fn cycle_through_a_helper() {
    model(|| {
        let world = World::new();
        let waiter = spawn(&world, |world| {
            Task::become_helper();
            world.load(0, 2)
        });

        world.load_with(0, || {
            let ticket = world.begin_helper();
            let helper = spawn_helper(&world, ticket, |world| world.load(0, 3));

            assert_eq!(helper.join().unwrap(), DEADLOCK);
            world.graph.end_helper(ticket);
            1
        });
        assert_ne!(waiter.join().unwrap(), DEADLOCK);
        world.assert_empty();
    });
}

/// A task whose wait was rejected. It continues, and others may wait for what it loads; exhaustive.
#[test]
fn rejected_wait_does_not_block() {
    model(|| {
        let world = World::new();

        world.load_with(0, || {
            let ticket = world.begin_helper();
            let helper = spawn_helper(&world, ticket, |world| {
                let child = Cell::new(None);

                world.load_with(1, || {
                    let parent = Task::clone(&Task::current());

                    child.set(Some(spawn(world, |world| {
                        Task::become_child_of(parent);
                        world.load(1, 2)
                    })));
                    assert_eq!(world.load(0, 3), DEADLOCK);
                    1
                });
                assert!(succeeded(child.take().unwrap().join().unwrap()));
            });

            helper.join().unwrap();
            world.graph.end_helper(ticket);
            1
        });
        world.assert_empty();
    });
}

/// A helper that outlives the request it was started for. No task waits for it, so that its own
/// wait is not rejected; exhaustive.
#[test]
fn helper_without_requester() {
    model(|| {
        let world = World::new();
        let ticket = world.begin_helper();
        let helper = spawn_helper(&world, ticket, |world| world.load(0, 3));

        world.graph.end_helper(ticket);
        assert!(succeeded(world.load(0, 2)));
        assert!(succeeded(helper.join().unwrap()));
        world.assert_empty();
    });
}

/// A task that has not yet noticed that its wait is over. The owner that it has waited for may wait
/// for what that task loads; exhaustive.
#[test]
fn finished_wait_does_not_block() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| world.nest(1, 0));

        assert!(succeeded(world.load(0, 3)));
        assert!(succeeded(world.load(1, 3)));
        assert!(other.join().unwrap().is_none_or(succeeded));
        world.assert_empty();
    });
}

/// A task whose wait a signal is about to end. It is not a part of a cycle; exhaustive.
#[test]
fn signal_breaks_a_cycle() {
    model(|| {
        let world = World::new();
        let other = spawn(&world, |world| {
            let signals = Signals::new();

            signals.send();
            signals.adopt();
            world.load_with(1, || {
                world.load(0, 2);
                1
            });
        });

        assert!(world.nest(0, 1).is_none_or(succeeded));
        other.join().unwrap();
        world.assert_empty();
    });
}

/// Begins the wait of the current task for another load of a file.
fn begin(world: &World, file: usize, patience: Patience) -> Result<WaitGuard<'_>, WaitError> {
    let Role::Waiter(load) = world.enter(file) else {
        panic!("the file is not being loaded");
    };

    world
        .graph
        .begin(load, WaitMode::Interruptible, patience, None)
}

/// Makes gates for two tasks.
fn gates<const N: usize>() -> Arc<[Gate; N]> {
    Arc::new([(); N].map(|()| Gate::new(2)))
}

/// Two tasks, each of which owns a file, begin to wait for each other at once, and are checked again.
/// One of them fails; exhaustive.
#[test]
fn waits_that_begin_at_once() {
    model(|| {
        fn wait(world: &World, gates: &[Gate; 2], own: usize, other: usize) -> bool {
            let _owner = world.own(own);

            gates[0].pass();
            let guard = begin(world, other, Patience::Unlimited);
            let is_rejected = match &guard {
                Ok(guard) => guard.check_again().is_err(),
                Err(_) => true,
            };
            gates[1].pass();
            is_rejected
        }

        let world = World::new();
        let gates = gates();
        let of_other = gates.clone();
        let other = spawn(&world, move |world| wait(world, &of_other, 1, 0));
        let this = wait(&world, &gates, 0, 1);

        assert_ne!(this, other.join().unwrap());
        world.assert_empty();
    });
}

/// Two waits of a cycle that goes through a descendant of a helper. They are checked again at once,
/// and one of them fails; exhaustive.
#[test]
fn possible_cycle_is_broken_once() {
    model(|| {
        fn wait(world: &World, gates: &[Gate; 3], file: usize) -> bool {
            gates[0].pass();
            let guard = begin(world, file, Patience::Unlimited).expect("not a certain cycle");
            gates[1].pass();
            let is_broken = guard.check_again().is_err();
            gates[2].pass();
            is_broken
        }

        let world = World::new();
        let gates = gates();
        let of_child = gates.clone();
        let owner = world.own(0);
        let ticket = world.begin_helper();
        let helper = spawn_helper(&world, ticket, |_| Task::clone(&Task::current()));
        let helper = helper.join().unwrap();
        let child = spawn(&world, move |world| {
            Task::become_child_of(helper);
            wait(world, &of_child, 1)
        });
        let other = spawn(&world, move |world| {
            let _owner = world.own(1);

            wait(world, &gates, 0)
        });

        assert_ne!(child.join().unwrap(), other.join().unwrap());
        world.graph.end_helper(ticket);
        drop(owner);
        world.assert_empty();
    });
}

/// A helper that waits for a load which has not joined the module list. That wait ends by itself: it
/// is on no cycle until the module is in the list; exhaustive.
#[test]
fn patience_breaks_a_cycle() {
    model(|| {
        let world = World::new();
        let gates: Arc<[Gate; 2]> = gates();
        let of_helper = gates.clone();
        let owner = world.own(0);
        let ticket = world.begin_helper();
        let helper = spawn_helper(&world, ticket, move |world| {
            let guard = begin(world, 0, Patience::UntilListed).expect("the wait ends by itself");

            assert_eq!(guard.check_again(), Ok(()));
            of_helper[0].pass();
            of_helper[1].pass();
            guard.check_again()
        });

        gates[0].pass();
        owner.set_module(Name::new(b"module"));
        gates[1].pass();
        assert_eq!(helper.join().unwrap(), Err(WaitError::Deadlock));
        world.graph.end_helper(ticket);
        drop(owner);
        world.assert_empty();
    });
}

/// The tasks of a model share a hash bucket, so that no wait is told from others by its bucket.
#[test]
fn tasks_share_a_bucket() {
    model(|| {
        let bucket = || TaskId::current().bucket();
        let others = [(); 3].map(|()| thread::spawn(bucket));

        assert!(others.map(|other| other.join().unwrap()) == [bucket(); 3]);
    });
}
