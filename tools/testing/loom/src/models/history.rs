// SPDX-License-Identifier: GPL-2.0

//! The calls of a model, and whether some order of them explains all their results.
//!
//! Each call takes effect at some time between its start and its end. A load brings the module in,
//! if it is not there; an unload takes it out. A load may also return the result of another call
//! that it overlaps with: the success of a load of the same file, a failure that the image decided,
//! or `EBUSY` for a module that was about to come or to go.

use kernel::prelude::*;
use loom::sync::atomic::{AtomicU32, Ordering::AcqRel};
use std::{cell::RefCell, ffi::CStr};

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A load. Loads of the same file with the same arguments have the same number.
    Load(usize),
    Unload,
}

/// How a load ended for the loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was not called.
    NotCalled,
    /// It failed before the module had joined the list.
    NotListed,
    /// It ended after the module had joined the list.
    Listed,
}

/// A call that has returned.
#[derive(Debug)]
struct Call {
    kind: Kind,
    name: &'static CStr,
    start: u32,
    end: u32,
    result: c_int,
    stage: Stage,
    /// The task takes signals.
    takes_signals: bool,
}

impl Call {
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The calls of a model.
pub(super) struct History {
    /// Orders the starts and ends of calls. loom sees it, as tasks know in which order they call.
    clock: AtomicU32,
    calls: RefCell<Vec<Call>>,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            clock: AtomicU32::new(0),
            calls: RefCell::default(),
        }
    }

    fn now(&self) -> u32 {
        self.clock.fetch_add(1, AcqRel)
    }

    /// Makes a call and records it. `f` also returns the result, and how it ended for the loader.
    pub(super) fn record<T>(
        &self,
        kind: Kind,
        name: &'static CStr,
        f: impl FnOnce() -> (T, c_int, Stage),
    ) -> T {
        let start = self.now();
        let (value, result, stage) = f();
        let end = self.now();

        self.calls.borrow_mut().push(Call {
            kind,
            name,
            start,
            end,
            result,
            stage,
            takes_signals: kernel::task::takes_signals(),
        });
        value
    }

    /// Fails the model if no order of the calls explains their results. No call is in progress.
    pub(super) fn assert_explained(&self) {
        let calls = self.calls.borrow();

        // Modules do not depend on each other: each name has an order of its own.
        for call in calls.iter() {
            let of_name: Vec<_> = calls
                .iter()
                .filter(|other| other.name == call.name)
                .collect();

            assert!(
                Order { calls: &of_name }.exists(0, None),
                "no order explains {of_name:#?}"
            );
        }
    }
}

/// The search for an order.
struct Order<'a> {
    calls: &'a [&'a Call],
}

impl Order<'_> {
    /// Returns whether the calls that are not in the set `done` can follow, if the module is what
    /// the call of index `live` has loaded.
    fn exists(&self, done: u32, live: Option<usize>) -> bool {
        let left = |index: &usize| done & 1 << index == 0;
        let mut indices = (0..self.calls.len()).filter(left).peekable();

        indices.peek().is_none()
            || indices.any(|index| {
                let is_first = (0..self.calls.len())
                    .filter(left)
                    .all(|other| self.calls[other].end > self.calls[index].start);

                is_first
                    && self
                        .step(index, live)
                        .is_some_and(|live| self.exists(done | 1 << index, live))
            })
    }

    /// Returns the module after the call of that index, if it can be next.
    fn step(&self, index: usize, live: Option<usize>) -> Option<Option<usize>> {
        let call = self.calls[index];
        let overlaps = |f: &dyn Fn(&Call) -> bool| {
            (self.calls.iter().enumerate())
                .any(|(other, call)| other != index && call.overlaps(self.calls[index]) && f(call))
        };
        let is_own = call.stage != Stage::NotCalled;
        let result = (call.result < 0).then(|| -call.result);
        let is = |err: Error| call.result == err.to_errno();

        let is_possible = match (call.kind, result) {
            (Kind::Load(_), None) if is_own => return live.is_none().then_some(Some(index)),
            (Kind::Load(_), None) => live.is_some_and(|owner| {
                self.calls[owner].kind == call.kind && self.calls[owner].overlaps(call)
            }),
            (Kind::Load(_), _) if is(EEXIST) => live.is_some(),
            (Kind::Load(_), _) if is(EBUSY) => {
                overlaps(&|other| match other.kind {
                    // Its init function failed.
                    Kind::Load(_) => other.stage == Stage::Listed && other.result < 0,
                    Kind::Unload => other.result == 0,
                })
            }
            (Kind::Load(_), _) if is(ERESTARTSYS) || is(EINTR) => call.takes_signals,
            (Kind::Load(_), _) if is_own => call.stage == Stage::NotListed || live.is_none(),
            (Kind::Load(_), _) => overlaps(&|other| {
                other.kind == call.kind
                    && other.stage != Stage::NotCalled
                    && other.result == call.result
            }),
            (Kind::Unload, None) => return live.is_some().then_some(None),
            (Kind::Unload, _) if is(ENOENT) => live.is_none(),
            // The module is about to come or to go.
            (Kind::Unload, _) => overlaps(&|_| true),
        };
        is_possible.then_some(live)
    }
}

/// The checks must be able to fail.
#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: Kind, (start, end): (u32, u32), result: c_int, stage: Stage) -> Call {
        Call {
            kind,
            name: c"module",
            start,
            end,
            result,
            stage,
            takes_signals: false,
        }
    }

    fn is_explained(calls: &[Call]) -> bool {
        let calls: Vec<_> = calls.iter().collect();

        Order { calls: &calls }.exists(0, None)
    }

    #[test]
    fn success_is_shared_only_while_it_lasts() {
        use {Kind::*, Stage::*};
        let load = |time| call(Load(0), time, 0, Listed);
        let unload = |time| call(Unload, time, 0, NotCalled);
        let waiter = |time, result| call(Load(0), time, result, NotCalled);

        assert!(is_explained(&[load((0, 3)), waiter((1, 2), 0)]));
        assert!(is_explained(&[load((0, 1)), waiter((2, 3), -17)]));
        assert!(!is_explained(&[load((0, 1)), waiter((2, 3), 0)]));
        assert!(is_explained(&[
            load((0, 5)),
            unload((1, 4)),
            waiter((2, 3), 0)
        ]));
        for result in [0, -17] {
            assert!(!is_explained(&[
                load((0, 5)),
                unload((1, 2)),
                waiter((3, 4), result)
            ]));
        }
    }

    #[test]
    fn busy_needs_a_module_that_comes_or_goes() {
        use {Kind::*, Stage::*};
        let failing = |time| call(Load(0), time, -5, Listed);
        let waiter = |time| call(Load(1), time, -16, NotCalled);

        assert!(is_explained(&[failing((0, 2)), waiter((1, 3))]));
        assert!(!is_explained(&[failing((0, 1)), waiter((2, 3))]));
        assert!(!is_explained(&[
            call(Load(0), (0, 2), -8, NotListed),
            waiter((1, 3))
        ]));
    }

    #[test]
    fn two_loads_cannot_both_succeed() {
        let load = |time| call(Kind::Load(0), time, 0, Stage::Listed);

        assert!(!is_explained(&[load((0, 2)), load((1, 3))]));
        assert!(is_explained(&[
            load((0, 2)),
            load((1, 3)),
            call(Kind::Unload, (1, 3), 0, Stage::NotCalled)
        ]));
    }
}
