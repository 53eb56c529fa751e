// SPDX-License-Identifier: GPL-2.0

//! Claims on module names: at most one tracked load of a name runs at a time, and none of a module
//! that is live.
//!
//! A load *claims* its name once it knows it, before it allocates the module. A load that finds its
//! name claimed, and the module not live, waits until the module is live, the claim ends, or its
//! patience does. Claims only save work: the checks of the loader under `module_mutex` decide.
//!
//! As in C, a task that has waited does not try to load the module itself if the load failed:
//! otherwise many loads of a broken module would fail one after the other. A load that fails before
//! its module is in the list says nothing about loads of other images. Loads of the same image
//! share the error; of the others, one claims the name. If that load fails as well, they all go on
//! in parallel.

use kernel::{
    module_list::{
        self,
        ModuleState, //
    },
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    content::ImageId,
    pending::{
        Outcome,
        Owner,
        Pending,
        Role,
        Table,
        UNLISTED_TIMEOUT, //
    },
    target::Name,
    task::TaskId,
    wait::{
        Patience,
        WaitError,
        WaitMode, //
    },
    wait_graph::{
        WaitGraph,
        Waitable, //
    }, //
};

/// Why a load does not get its name.
pub(crate) enum ClaimError {
    /// Another load of the name is done, so that this one is a duplicate: `EEXIST` if the module
    /// is live, `EBUSY` if the load failed.
    Duplicate(Error),
    /// The loader did not accept the same image for another load, with this error.
    BadImage(Error),
    /// The load could not wait for another load of the name.
    Aborted(WaitError),
}

/// Claims `name` for the load of `task`, the current task, until the owner completes or is dropped.
///
/// Waits if another load has claimed the name, unless the module is live: the remaining work of
/// that load, such as waiting for asynchronous probes, makes no difference then. Claims again if
/// the other load turns out to be of another module, or fails because of its task.
///
/// `is_image` tells whether the caller loads that image: it shares the error if the loader does not
/// accept the image of another load.
///
/// Returns [`None`] if there is no memory for a claim (invariant 4), if other loads do not join the
/// module list within a few seconds, because their images may never arrive, or if the images of two
/// other loads are not accepted: nobody queues behind loads that fail. The module list decides
/// then, as in C.
///
/// Sleeps. Must be called without locks held.
pub(crate) fn claim<'a>(
    names: &'a Table<Name>,
    graph: &WaitGraph,
    name: &Name,
    task: &TaskId,
    mut is_image: impl FnMut(&ImageId) -> bool,
) -> Result<Option<Owner<'a, Name>>, ClaimError> {
    let start = Instant::<Monotonic>::now();
    let mut has_failed = false;

    loop {
        match names.enter(name, task) {
            Role::Owner(owner) => return Ok(Some(owner)),
            Role::Waiter(other) => {
                if is_live(name) {
                    return Err(ClaimError::Duplicate(EEXIST));
                }
                match wait(&other, graph) {
                    Ok(Outcome::Shared(result)) => {
                        return Err(ClaimError::Duplicate(dup_error(name, result)))
                    }
                    Ok(Outcome::BadImage(err, image)) => {
                        if image.is_some_and(|image| is_image(&image)) {
                            return Err(ClaimError::BadImage(err));
                        }
                        // Claim again once: the next image may be good, or be identified, now that
                        // there are waiters.
                        if has_failed {
                            return Ok(None);
                        }
                        has_failed = true;
                    }
                    // The time is limited for all owners together.
                    Ok(Outcome::Retry)
                        if start.elapsed().as_millis() >= UNLISTED_TIMEOUT.into() =>
                    {
                        return Ok(None)
                    }
                    Ok(Outcome::Retry) => (),
                    Err(WaitError::Timeout) => return Ok(None),
                    Err(err) => return Err(ClaimError::Aborted(err)),
                }
            }
            Role::Untracked => return Ok(None),
        }
    }
}

fn wait(other: &Arc<Pending<Name>>, graph: &WaitGraph) -> Result<Outcome, WaitError> {
    Pending::wait(
        other,
        graph,
        WaitMode::Interruptible,
        Patience::UntilListed,
        None,
    )
}

/// Returns the error of a load that has waited for another load of `name`, which returned `result`.
///
/// A failed load may have found the module live, or another load may have brought it in since: it
/// is live for the waiter as well then.
fn dup_error(name: &Name, result: c_int) -> Error {
    if result == 0 || is_live(name) {
        EEXIST
    } else {
        EBUSY
    }
}

/// Returns the state of the module `name`, or [`None`] if it is not in the module list. The answer
/// may be outdated when this returns.
///
/// Takes only the RCU read lock: may be called from any context. The time it takes grows with the
/// number of modules, as in C.
pub(crate) fn state(name: &Name) -> Option<ModuleState> {
    module_list::state(name.as_c_str())
}

/// Returns whether the module `name` is live. As for [`state`].
///
/// A module that is being unloaded is not live: it may be gone by the time the image has been read,
/// so the loader decides then.
pub(crate) fn is_live(name: &Name) -> bool {
    state(name) == Some(ModuleState::Live)
}

/// Returns whether the module `name` is being unloaded, or has failed to load and is being freed.
/// As for [`state`].
pub(crate) fn is_going(name: &Name) -> bool {
    state(name) == Some(ModuleState::Going)
}

/// Returns the name that `task` has claimed.
///
/// Must be called without locks held.
pub(crate) fn claimed_by(names: &Table<Name>, task: &TaskId) -> Option<Name> {
    let mut name = None;

    names.for_each(|pending| {
        if pending.owner().pid() == task.pid() {
            name = Some(*pending.key());
        }
    });
    name
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_live)]
mod tests {
    use super::*;

    fn names() -> Result<Arc<Table<Name>>> {
        Arc::pin_init(Table::new(), GFP_KERNEL)
    }

    /// Claims `name`, which nobody else has claimed, or fails the test.
    fn claim_name<'a>(names: &'a Table<Name>, name: &Name) -> Result<Owner<'a, Name>> {
        let graph = Arc::pin_init(WaitGraph::new(), GFP_KERNEL)?;

        match claim(names, &graph, name, &TaskId::current(), |_| false) {
            Ok(Some(owner)) => Ok(owner),
            Ok(None) => Err(ENOMEM),
            Err(ClaimError::Duplicate(err) | ClaimError::BadImage(err)) => Err(err),
            Err(ClaimError::Aborted(err)) => Err(err.into()),
        }
    }

    #[test]
    fn name_is_claimed_once() -> Result {
        let names = names()?;
        let name = Name::new(b"module");
        let claimed = claim_name(&names, &name)?;

        // Another name can still be claimed.
        claim_name(&names, &Name::new(b"other"))?;
        assert!(names
            .find(&name)
            .is_some_and(|pending| pending.key() == &name));
        // The owner itself would deadlock, once its module is in the list and the wait unlimited.
        claimed.set_module(name);
        assert_eq!(claim_name(&names, &name).err(), Some(EDEADLK));
        claimed.complete(Outcome::Shared(0));
        claim_name(&names, &name)?;
        Ok(())
    }

    #[test]
    fn claim_is_found_by_task() -> Result {
        let names = names()?;
        let name = Name::new(b"module");
        let claimed = claim_name(&names, &name)?;

        assert!(claimed_by(&names, &TaskId::current()) == Some(name));
        drop(claimed);
        assert!(claimed_by(&names, &TaskId::current()).is_none());
        Ok(())
    }

    #[test]
    fn waiters_learn_whether_the_module_is_live() {
        let name = Name::new(b"there is no such module");

        assert_eq!(dup_error(&name, 0), EEXIST);
        assert_eq!(dup_error(&name, EEXIST.to_errno()), EBUSY);
        assert_eq!(dup_error(&name, ENOEXEC.to_errno()), EBUSY);
        assert!(!is_live(&name));
    }
}
