// SPDX-License-Identifier: GPL-2.0

//! Duplicate request_module() calls, and unloads beside them.

use kernel::{
    init::PinInit,
    prelude::*,
    sync::{self, atomic::be_plain},
    task,
};
use loom::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::sync::Arc;

use super::{common::spawn, for_each_allocation, model, model_exhaustively};
use crate::{load::Loads, request::Requests, target::Name, wait_graph::WaitGraph};

/// The result of request_module() if the task is killed while modprobe runs.
const KILLED: c_int = ERESTARTSYS.to_errno();

/// The result of a modprobe that finds no such module.
const GONE: c_int = exit_status(1);

/// The result of request_module() if this is the exit status of modprobe.
const fn exit_status(status: c_int) -> c_int {
    status << 8
}

/// Requests of one name. A modprobe that fails exits with its number, from 1.
struct Autoload {
    requests: Requests,
    graph: WaitGraph,
    loads: Loads,
    modprobes: AtomicI32,
    /// Number of requests that have returned, in models that use it.
    returned: AtomicI32,
    /// The module is live, in models that load or unload it.
    is_live: AtomicBool,
}

impl Autoload {
    fn new() -> Arc<Self> {
        // The generation of unloads is an atomic that other memory is ordered with.
        be_plain(false);
        Arc::new(Self {
            requests: Requests::new().make().unwrap(),
            graph: WaitGraph::new().make().unwrap(),
            loads: Loads::new().make().unwrap(),
            modprobes: AtomicI32::new(0),
            returned: AtomicI32::new(0),
            is_live: AtomicBool::new(true),
        })
    }

    fn request_with(&self, wait: bool, modprobe: impl FnOnce() -> c_int) -> c_int {
        let name = Name::new(b"module");

        (self.requests).request(&self.graph, &self.loads, name, wait, modprobe, || ())
    }

    fn request(&self, wait: bool, succeed: bool) -> c_int {
        self.request_with(wait, || {
            let nth = self.modprobes.fetch_add(1, SeqCst) + 1;

            // It takes time: other tasks run here.
            self.modprobes.load(SeqCst);
            match succeed {
                true => 0,
                false => exit_status(nth),
            }
        })
    }

    /// A request whose modprobe succeeds if the module is live.
    fn request_live(&self) -> c_int {
        self.request_with(true, || match self.is_live.load(SeqCst) {
            true => 0,
            false => GONE,
        })
    }

    fn modprobes(&self) -> i32 {
        self.modprobes.load(SeqCst)
    }

    /// No request is in flight, no task waits, and an unload leaves no success to replay.
    fn assert_empty(&self) {
        self.requests.unloading();
        assert_eq!(self.request(true, false), exit_status(self.modprobes()));
        assert_eq!(sync::live(), 0, "a request or a wait is left");
    }
}

/// Two requests that fail. A duplicate gets the result of the modprobe that ran while it waited,
/// and a later request runs its own; exhaustive.
#[test]
fn failing_requests() {
    let has_shared = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shares = has_shared.clone();

    model(move || {
        let autoload = Autoload::new();
        let other = spawn(&autoload, |autoload| autoload.request(true, false));
        let this = autoload.request(true, false);
        let ends = [this, other.join().unwrap()];

        match autoload.modprobes() {
            1 => {
                assert_eq!(ends, [exit_status(1); 2]);
                shares.store(true, SeqCst);
            }
            2 => assert_eq!(ends.iter().sum::<c_int>(), exit_status(3)),
            _ => unreachable!(),
        }
        assert_eq!(
            autoload.request(true, false),
            exit_status(autoload.modprobes())
        );
        autoload.assert_empty();
    });
    assert!(has_shared.load(SeqCst), "no request was a duplicate");
}

/// Requests that succeed, one of which does not wait. All succeed, and later ones run no modprobe;
/// exhaustive on demand, else five preemptions.
#[test]
fn succeeding_requests() {
    model_exhaustively(|| {
        let autoload = Autoload::new();
        let others = [true, false]
            .map(|wait| spawn(&autoload, move |autoload| autoload.request(wait, true)));

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

/// No memory for a request, for its wait, or for the record of its success. The request is made all
/// the same; exhaustive, for each allocation of the task.
#[test]
fn no_memory_for_a_request() {
    for_each_allocation(model, |nth| {
        let autoload = Autoload::new();
        let other = spawn(&autoload, move |autoload| {
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

/// A request that fails with `result`, which says nothing about others, beside one that succeeds.
fn beside_a_failure_of_its_own(result: c_int) {
    model(move || {
        let autoload = Autoload::new();
        let other = spawn(&autoload, move |autoload| {
            autoload.request_with(true, || result)
        });

        assert_eq!(autoload.request(true, true), 0);
        let other = other.join().unwrap();
        assert!(other == result || other == 0);
        assert_eq!(autoload.modprobes(), 1);
        autoload.assert_empty();
    });
}

/// A request that is killed. It shares its result with no other request; exhaustive.
#[test]
fn killed_request() {
    beside_a_failure_of_its_own(KILLED);
}

/// A request without memory for modprobe. As if it was killed; exhaustive.
#[test]
fn request_without_memory() {
    beside_a_failure_of_its_own(ENOMEM.to_errno());
}

/// A request that got none of the slots for modprobe in time. As if it was killed; exhaustive.
#[test]
fn request_without_a_slot() {
    beside_a_failure_of_its_own(ETIME.to_errno());
}

/// No process for modprobe, or usermode helpers are disabled. As if the request was killed;
/// exhaustive.
#[test]
fn request_without_a_helper() {
    beside_a_failure_of_its_own(EAGAIN.to_errno());
    beside_a_failure_of_its_own(EBUSY.to_errno());
}

/// A modprobe that a signal ends, without and with a core dump. As if the request was killed;
/// exhaustive.
#[test]
fn killed_modprobe() {
    beside_a_failure_of_its_own(9);
    beside_a_failure_of_its_own(0x80 | 11);
}

/// A module is unloaded while it is requested. A request that begins after that gets no result from
/// before; exhaustive.
#[test]
fn unload() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn(&autoload, |autoload| {
            autoload.request(true, true);
            autoload.returned.fetch_add(1, SeqCst);
        });

        let began = autoload.modprobes() == 1;
        let returned = autoload.returned.load(SeqCst) == 1;
        autoload.requests.unloading();
        let this = autoload.request(true, false);

        // The success of the other one counts if it was not known before the unload.
        assert!(this != 0 || !returned);
        other.join().unwrap();
        // If its modprobe had begun before the unload, it does not count from now on.
        assert!(!began || autoload.request(true, false) != 0);
        autoload.assert_empty();
    });
}

/// A request that begins when the module is gone, beside one that may have found it. It does not
/// share that success; exhaustive.
#[test]
fn unload_beside_a_request() {
    model(|| {
        let autoload = Autoload::new();
        let other = spawn(&autoload, |autoload| autoload.request_live());

        autoload.requests.unloading();
        autoload.is_live.store(false, SeqCst);
        autoload.requests.unloading();
        assert_eq!(autoload.request_live(), GONE);
        other.join().unwrap();
        autoload.assert_empty();
    });
}

/// A request that begins when the module is live, beside one whose modprobe may have failed before.
/// It does not share that failure; exhaustive.
#[test]
fn live_beside_a_failing_request() {
    model(|| {
        let autoload = Autoload::new();

        autoload.is_live.store(false, SeqCst);
        let other = spawn(&autoload, |autoload| autoload.request_live());

        autoload.is_live.store(true, SeqCst);
        autoload.loads.module_live(&Name::new(b"module"));
        assert_eq!(autoload.request_live(), 0);
        other.join().unwrap();
        autoload.assert_empty();
    });
}

/// A request that begins when a module has been unloaded, beside one whose modprobe may have failed
/// because of that module. It does not share that failure; exhaustive.
#[test]
fn unload_beside_a_failing_request() {
    model(|| {
        let autoload = Autoload::new();

        // Only the end of the unload makes modprobe succeed.
        autoload.is_live.store(false, SeqCst);
        let other = spawn(&autoload, |autoload| autoload.request_live());

        autoload.is_live.store(true, SeqCst);
        autoload.loads.module_unloaded();
        assert_eq!(autoload.request_live(), 0);
        other.join().unwrap();
        autoload.assert_empty();
    });
}

/// An unload as delete_module() does it, with a new generation before and after the module is seen
/// to be gone. A request of a task that has seen that gets no result from before; exhaustive.
#[test]
fn unload_in_two_steps() {
    model(|| {
        let autoload = Autoload::new();

        assert_eq!(autoload.request_live(), 0);
        let unloader = spawn(&autoload, |autoload| {
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
