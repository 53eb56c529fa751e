// SPDX-License-Identifier: GPL-2.0

//! A sequential model of module loading, and whether it explains a history.
//!
//! A module is gone or live. Each call takes effect at one instant between its start and its end;
//! what it returns must be right at that instant:
//!
//! | call | result | allowed | afterwards |
//! |---|---|---|---|
//! | load | 0 | the module is gone | live |
//! | | 0 | it is live, from the same file with the same arguments, by a load that overlaps with this one | |
//! | | EEXIST | it is live | |
//! | | EBUSY | the load overlaps with a load whose init function fails, or with an unload | |
//! | | the errno of its init function | it is gone | |
//! | | ENOEXEC | the file is bad | |
//! | | EINTR | a signal handler without SA_RESTART has run in this task | |
//! | unload | 0 | it is live | gone |
//! | | ENOENT | it is gone | |
//! | | EBUSY | the unload overlaps with a load or with another unload | |
//! | | EWOULDBLOCK | it is live, by a load that overlaps with the unload | |
//! | | EINTR | always: the kernel may have waited for `module_mutex` | |
//! | request | 0 | it is live | |
//! | | modprobe's failure | that modprobe is of the same time, see below | |
//!
//! A call that never returned, because its task was killed, may take effect at any time after its
//! start, or never. No other result is allowed.
//!
//! EBUSY and EWOULDBLOCK are the only results for the time in which a module comes or goes: it is
//! neither gone nor live then. The instant of a load is when the module becomes live, that of an
//! unload when it is no longer live.
//!
//! A modprobe answers the request that started it, and those that overlap with that request, unless
//! they have begun after an unload that began after the modprobe.
//!
//! Modules do not depend on each other, so each has a history of its own. A history is explained if
//! and only if that of each module is.

use crate::history::{Call, Kind};
use std::collections::HashSet;

const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const ENOEXEC: i32 = 8;
const EWOULDBLOCK: i32 = 11;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;

/// The module. Calls are numbers in the history of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Gone,
    /// Brought in by that call.
    Live(usize),
}

/// The effect of a call, and the states in which it has that effect.
#[derive(Clone, Debug)]
enum Step {
    /// None, in any state.
    Always,
    /// The result is wrong, whatever the state.
    Never,
    IfGone,
    IfLive,
    /// None, if one of these calls has brought the module in.
    IfLiveBy(Vec<usize>),
    /// This call brings the module in, unless one of those calls has done so.
    Load(usize, Vec<usize>),
    Unload,
    /// The same, for a call that never returned: no effect, if it is not possible.
    TryLoad(usize),
    TryUnload,
}

impl Step {
    /// Returns the state after the step, if it is possible in `state`.
    fn apply(&self, state: State) -> Option<State> {
        use State::*;

        match (self, state) {
            (Self::Always, _) | (Self::IfGone, Gone) | (Self::IfLive, Live(_)) => Some(state),
            (Self::IfLiveBy(loads) | Self::Load(_, loads), Live(load)) if loads.contains(&load) => {
                Some(state)
            }
            (Self::Load(load, _) | Self::TryLoad(load), Gone) => Some(Live(*load)),
            (Self::Unload | Self::TryUnload, Live(_)) => Some(Gone),
            (Self::TryLoad(_), Live(_)) | (Self::TryUnload, Gone) => Some(state),
            _ => None,
        }
    }

    /// Returns whether the step never changes the state, so that a history which is explained would
    /// be without it.
    fn is_effect_free(&self) -> bool {
        matches!(
            self,
            Self::Always | Self::Never | Self::IfGone | Self::IfLive | Self::IfLiveBy(_)
        )
    }
}

/// Returns whether the init function of the load fails, and with which errno.
fn init_error(call: &Call) -> Option<i32> {
    call.args.strip_prefix("init_result=-")?.parse().ok()
}

fn is_bad(call: &Call) -> bool {
    call.file.starts_with("bad")
}

/// Returns the step that explains the result of a call, in a history of its module.
fn step(calls: &[Call], index: usize) -> Step {
    let call = &calls[index];
    let if_possible = |is_possible| {
        if is_possible {
            Step::Always
        } else {
            Step::Never
        }
    };
    let overlapping = |f: &dyn Fn(&Call) -> bool| -> Vec<usize> {
        (0..calls.len())
            .filter(|&other| other != index && call.overlaps(&calls[other]) && f(&calls[other]))
            .collect()
    };
    let overlaps = |f: &dyn Fn(&Call) -> bool| if_possible(!overlapping(f).is_empty());
    // Calls that never returned may have had any result.
    let may_return = |call: &Call, result| call.result.is_none_or(|known| known == result);
    let may_load = |call: &Call| call.is_load() && may_return(call, 0);
    let may_unload = |call: &Call| call.kind == Kind::Unload && may_return(call, 0);
    let may_fail = |call: &Call| {
        call.is_load()
            && init_error(call).map_or(call.result.is_none(), |err| may_return(call, err))
    };

    match (call.kind, call.result) {
        (Kind::Unload, None) => Step::TryUnload,
        (Kind::Unload, Some(0)) => Step::Unload,
        (Kind::Unload, Some(ENOENT)) => Step::IfGone,
        (Kind::Unload, Some(EBUSY)) => {
            overlaps(&|other| may_load(other) || may_fail(other) || may_unload(other))
        }
        (Kind::Unload, Some(EWOULDBLOCK)) => Step::IfLiveBy(overlapping(&may_load)),
        (Kind::Unload, Some(EINTR)) => Step::Always,

        (Kind::Request, None) => Step::Always,
        (Kind::Request, Some(0)) => Step::IfLive,
        (Kind::Request, Some(status)) => if_possible(calls.iter().any(|modprobe| {
            modprobe.kind == Kind::Modprobe && answers(calls, modprobe, call, status)
        })),

        (Kind::Modprobe, _) if !call.is_load() => Step::Always,

        (_, None) if is_bad(call) || init_error(call).is_some() => Step::Always,
        (_, None) => Step::TryLoad(index),
        (_, Some(0)) if !is_bad(call) && init_error(call).is_none() => Step::Load(
            index,
            overlapping(&|other| may_load(other) && call.is_same_load(other)),
        ),
        (_, Some(EEXIST)) => Step::IfLive,
        (_, Some(EBUSY)) => overlaps(&|other| may_fail(other) || may_unload(other)),
        (_, Some(EINTR)) => if_possible(call.has_signal),
        (_, Some(ENOEXEC)) => if_possible(is_bad(call)),
        (_, Some(errno)) if !is_bad(call) && init_error(call) == Some(errno) => Step::IfGone,
        _ => Step::Never,
    }
}

/// Returns whether `modprobe` may be what `request` has got `status` from.
fn answers(calls: &[Call], modprobe: &Call, request: &Call, status: i32) -> bool {
    let is_of_that_time = calls.iter().any(|owner| {
        owner.kind == Kind::Request
            && owner.start < modprobe.start
            && modprobe.end < owner.end
            && owner.overlaps(request)
    });
    let is_before_unload = calls.iter().any(|unload| {
        unload.kind == Kind::Unload
            && unload.result == Some(0)
            && modprobe.start < unload.start
            && unload.end < request.start
    });

    modprobe.result.map(|errno| errno << 8) == Some(status) && is_of_that_time && !is_before_unload
}

/// A call in the search for an order.
#[derive(Clone)]
struct Event<'a> {
    call: &'a Call,
    /// [`None`] if the call has not returned.
    end: Option<u32>,
    step: Step,
}

impl<'a> Event<'a> {
    fn new(calls: &'a [Call], index: usize) -> Self {
        let call = &calls[index];

        Self {
            call,
            end: call.result.map(|_| call.end),
            step: step(calls, index),
        }
    }

    /// Returns the call as it was known at `time`, or [`None`] if it had not started.
    fn at(&self, time: u32) -> Option<Self> {
        let mut event = self.clone();

        if event.end.is_some_and(|end| end > time) {
            event.end = None;
            event.step = match event.step {
                Step::Load(load, _) => Step::TryLoad(load),
                Step::Unload => Step::TryUnload,
                _ => Step::Always,
            };
        }
        (event.call.start < time).then_some(event)
    }
}

/// Returns whether some order of the calls explains them.
fn is_explained(events: &[Event<'_>]) -> bool {
    Search {
        events,
        tried: HashSet::new(),
    }
    .exists(vec![false; events.len()], State::Gone)
}

/// The search for an order: the algorithm of Wing, Gong and Lowe. It differs in that a call without
/// an effect is put in as early as possible, and nowhere else: that keeps no other call from being
/// explained, and there are few other calls. Otherwise, each set of the calls without an effect
/// would be tried.
struct Search<'a> {
    events: &'a [Event<'a>],
    /// The sets of calls, and the states they lead to, that no order continues.
    tried: HashSet<(Vec<bool>, State)>,
}

impl Search<'_> {
    /// Returns whether the calls that are not `done` can follow in `state`.
    fn exists(&mut self, mut done: Vec<bool>, state: State) -> bool {
        let events = self.events;
        let left = |done: &[bool]| {
            (0..events.len())
                .filter(|&index| !done[index])
                .collect::<Vec<_>>()
        };
        let candidates = loop {
            // A call comes next only if no other one that is left has returned before its start.
            let Some(first_end) = left(&done)
                .iter()
                .filter_map(|&index| events[index].end)
                .min()
            else {
                return true;
            };
            let mut candidates = left(&done);

            candidates.retain(|&index| events[index].call.start < first_end);
            let is_free = |&&index: &&usize| {
                events[index].step.is_effect_free() && events[index].step.apply(state).is_some()
            };
            let Some(&free) = candidates.iter().find(is_free) else {
                break candidates;
            };
            done[free] = true;
        };

        self.tried.insert((done.clone(), state))
            && candidates.into_iter().any(|index| {
                events[index].step.apply(state).is_some_and(|next| {
                    let mut done = done.clone();

                    done[index] = true;
                    self.exists(done, next)
                })
            })
    }
}

/// Calls that cannot be explained.
#[derive(Clone)]
pub struct Violation {
    /// As few as possible, in the order of their starts.
    pub calls: Vec<Call>,
    /// The first one to return that does not fit to those which have returned before.
    pub misfit: Call,
}

/// Returns calls that cannot be explained, if there are any in the history of a module.
pub fn violation(calls: &[Call]) -> Option<Violation> {
    let events: Vec<_> = (0..calls.len())
        .map(|index| Event::new(calls, index))
        .collect();

    if is_explained(&events) {
        return None;
    }
    // The first return that cannot be explained by what has happened until then.
    let mut ends: Vec<_> = events.iter().filter_map(|event| event.end).collect();
    ends.sort();
    let (time, mut events) = ends.into_iter().find_map(|time| {
        let events: Vec<_> = events.iter().filter_map(|event| event.at(time)).collect();

        (!is_explained(&events)).then_some((time, events))
    })?;

    let misfit = events.iter().find(|event| event.end == Some(time))?.clone();
    if matches!(misfit.step, Step::Never) {
        // Right or wrong, whatever the state: show what the calls of the same time were.
        events.retain(|event| event.call.overlaps(misfit.call));
    } else {
        // A history that is explained stays so without a call that has no effect.
        for index in (0..events.len()).rev() {
            if events[index].step.is_effect_free() && events[index].end != Some(time) {
                let event = events.remove(index);

                if is_explained(&events) {
                    events.insert(index, event);
                }
            }
        }
    }
    let mut calls: Vec<_> = events.iter().map(|event| event.call.clone()).collect();

    calls.sort_by_key(|call| call.start);
    Some(Violation {
        calls,
        misfit: misfit.call.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use todc_utils::{
        Action::{Call as Start, Response as End},
        History, Specification, WGLChecker,
    };

    /// The model, for another checker.
    struct Model;

    impl Specification for Model {
        type State = State;
        type Operation = Step;

        fn init() -> State {
            State::Gone
        }

        fn apply(step: &Step, state: &State) -> (bool, State) {
            step.apply(*state)
                .map_or((false, *state), |state| (true, state))
        }
    }

    /// Asks the other checker whether some order of the calls explains them.
    fn is_linearizable(calls: &[Call]) -> bool {
        let mut times: Vec<_> = (0..calls.len())
            .flat_map(|index| {
                let event = Event::new(calls, index);

                [
                    (event.call.start, index, Start(event.step.clone())),
                    (event.end.unwrap_or(u32::MAX), index, End(event.step)),
                ]
            })
            .collect();

        times.sort_by_key(|&(time, index, _)| (time, index));
        WGLChecker::<Model>::is_linearizable(History::from_actions(
            (times.into_iter())
                .map(|(_, index, action)| (index, action))
                .collect(),
        ))
    }

    /// Parses calls of module m, without it: START END RESULT SIGNAL CALL [FILE ARGUMENTS].
    fn calls(text: &str) -> Vec<Call> {
        let line = |line: &str| {
            let mut words: Vec<_> = line.split_whitespace().collect();

            words.insert(4, "m");
            format!("0 {}", words.join(" ")).parse()
        };

        text.trim()
            .lines()
            .map(|text| line(text).expect("a call"))
            .collect()
    }

    #[track_caller]
    fn accept(text: &str) {
        let calls = calls(text);

        assert!(violation(&calls).is_none());
        assert!(is_linearizable(&calls));
    }

    /// The last call that `text` gives is the one that does not fit.
    #[track_caller]
    fn reject(text: &str) {
        let calls = calls(text);
        let violation = violation(&calls).expect("no violation");

        assert!(!is_linearizable(&calls));
        assert_eq!(
            Some(violation.misfit.end),
            calls.last().map(|call| call.end)
        );
    }

    #[test]
    fn load_and_unload() {
        accept("1 2 0 - finit a.ko\n 3 4 17 - init a.ko\n 5 6 0 - unload\n 7 8 2 - unload");
        accept("1 4 0 - finit a.ko\n 2 3 2 - unload");
        accept("1 4 0 - finit a.ko\n 2 3 0 - unload");
        reject("1 2 0 - finit a.ko\n 3 4 2 - unload");
        reject("1 2 0 - unload");
    }

    #[test]
    fn only_one_load_succeeds() {
        reject("1 4 0 - finit a.ko\n 2 5 0 - finit b.ko");
        reject("1 4 0 - finit a.ko\n 2 5 0 - init a.ko");
        accept("1 4 0 - finit a.ko\n 2 5 0 - init a.ko\n 3 6 0 - unload");
    }

    #[test]
    fn success_is_shared_by_the_same_load() {
        accept("1 4 0 - finit a.ko\n 2 5 0 - finit a.ko");
        accept("1 4 0 - modprobe a.ko\n 2 5 0 - finit a.ko");
        accept("1 4 - - finit a.ko\n 2 5 0 - finit a.ko");
        reject("1 4 0 - finit a.ko\n 2 5 0 - finit a.ko tag=1");
        reject("1 2 0 - finit a.ko\n 3 4 0 - finit a.ko");
    }

    #[test]
    fn success_ends_with_an_unload() {
        accept("1 6 0 - finit a.ko\n 2 5 0 - unload\n 3 4 0 - finit a.ko\n 7 8 2 - unload");
        // A load that begins after the unload has brought the module in itself.
        accept("1 6 0 - finit a.ko\n 2 3 0 - unload\n 4 5 0 - finit a.ko\n 7 8 0 - unload");
        reject("1 6 0 - finit a.ko\n 2 3 0 - unload\n 4 5 0 - finit a.ko\n 7 8 2 - unload");
        reject("1 6 0 - finit a.ko\n 2 3 0 - unload\n 4 5 17 - finit a.ko");
    }

    #[test]
    fn exists_needs_a_live_module() {
        reject("1 2 17 - finit a.ko");
        reject("1 4 61 - finit a.ko init_result=-61\n 2 5 17 - finit b.ko");
    }

    #[test]
    fn busy_needs_a_failing_load_or_an_unload() {
        accept("1 4 61 - finit a.ko init_result=-61\n 2 5 16 - finit b.ko");
        accept("1 4 - - finit a.ko\n 2 5 16 - finit b.ko");
        accept("1 2 0 - init a.ko\n 3 6 0 - unload\n 4 5 16 - finit b.ko");
        reject("1 2 61 - finit a.ko init_result=-61\n 3 4 16 - finit b.ko");
        reject("1 4 8 - finit bad.ko\n 2 5 16 - finit b.ko");
        reject("1 4 0 - init a.ko\n 2 5 16 - finit b.ko");
    }

    #[test]
    fn errors_of_the_image_and_of_init() {
        accept("1 2 61 - init a.ko init_result=-61\n 3 4 8 - finit bad.ko");
        accept("1 2 0 - init a.ko\n 3 4 8 - finit bad.ko\n 5 6 17 - finit bad.ko");
        reject("1 2 61 - finit a.ko");
        reject("1 2 8 - finit a.ko");
        reject("1 2 0 - finit bad.ko");
        reject("1 2 0 - finit a.ko init_result=-61");
        reject("1 2 0 - init a.ko\n 3 4 61 - finit a.ko init_result=-61");
        reject("1 2 12 - finit a.ko");
    }

    #[test]
    fn signals_belong_to_one_task() {
        accept("1 2 4 s finit a.ko");
        reject("1 4 - - finit a.ko\n 2 5 4 - finit a.ko");
        reject("1 4 4 s finit a.ko\n 2 5 4 - finit a.ko");
        reject("1 2 4 s finit a.ko\n 3 4 17 - finit a.ko");
    }

    #[test]
    fn killed_calls_may_take_effect() {
        accept("1 2 - - finit a.ko\n 3 4 17 - finit a.ko");
        accept("1 2 - - finit a.ko\n 3 4 0 - init a.ko");
        accept("1 2 0 - init a.ko\n 3 4 - - unload\n 5 6 0 - init a.ko");
        reject("1 2 - - finit bad.ko\n 3 4 17 - finit a.ko");
        reject("3 4 - - finit a.ko\n 1 2 17 - finit b.ko");
    }

    #[test]
    fn unload_while_a_module_comes_or_goes() {
        accept("1 4 0 - finit a.ko\n 2 3 16 - unload");
        accept("1 4 0 - finit a.ko\n 2 3 11 - unload");
        reject("1 2 0 - finit a.ko\n 3 4 16 - unload");
        reject("1 2 0 - finit a.ko\n 3 4 11 - unload");
        reject("1 4 8 - finit bad.ko\n 2 3 16 - unload");
    }

    #[test]
    fn request_succeeds_if_the_module_is_live() {
        accept("1 4 0 - request\n 2 3 0 - modprobe a.ko");
        accept("1 4 0 - request\n 2 3 17 - modprobe a.ko\n 0 5 0 - init a.ko");
        reject("1 2 0 - init a.ko\n 3 4 0 - unload\n 5 6 0 - request");
        reject("1 2 -4 - request");
    }

    #[test]
    fn request_fails_like_a_modprobe_of_its_time() {
        accept("1 4 512 - request\n 2 3 2 - modprobe");
        accept("1 6 512 - request\n 2 3 2 - modprobe\n 4 7 512 - request");
        reject("1 4 512 - request\n 2 3 2 - modprobe\n 5 6 512 - request");
        reject("1 4 512 - request\n 2 3 2 - modprobe\n 5 8 256 - request");
        reject(
            "1 2 0 - init a.ko\n 3 10 512 - request\n 4 5 2 - modprobe\n 6 7 0 - unload\n\
             8 11 512 - request",
        );
    }
}
