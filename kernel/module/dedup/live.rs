// SPDX-License-Identifier: GPL-2.0

//! Claims on module names: at most one load at a time has claimed a name. The claim ends when the
//! module is live or the load has failed.
//!
//! A load *claims* the name of its module as soon as the name is known, before it allocates the
//! module. A load that finds the name claimed waits until the module is live or the claim ends. It
//! goes on without a claim if the other module has not joined the module list after a few seconds.
//! Claims only save work: the checks of the loader under `module_mutex` decide.
//!
//! If the other load fails after its module has joined the list, its waiters fail, too, as in C:
//! otherwise many loads of a broken module would fail one after the other. If it fails earlier,
//! that says nothing about other images. Waiters with the same image share the error; one of the
//! others claims the name next. If the next load fails as well, the rest go on in parallel.

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
    /// The load is a duplicate of another load of the name: `EEXIST` if the module is live, `EBUSY`
    /// if the other load has failed.
    Duplicate(Error),
    /// The loader did not accept the same image for another load, with this error.
    BadImage(Error),
    /// The load could not wait for another load of the name.
    Aborted(WaitError),
}

/// Claims `name` for the load of `task`, the current task, until the owner completes or is dropped.
///
/// If another load has claimed the name, fails if the module is live, and waits otherwise. Tries
/// again if the other load drops its claim, or if it fails because of its task or its image.
///
/// `is_image` returns whether an image that the loader did not accept is also that of the caller,
/// which then shares the error.
///
/// Returns [`None`] if the caller must go on without a claim, so that the module list decides, as
/// in C:
///
/// - There is no memory for a claim (invariant 4).
/// - The other loads do not join the module list within a few seconds. Their images may never
///   arrive.
/// - The loader has not accepted the images of two other loads. Loads that fail must not queue up.
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
                    // The limit covers the waits for all owners together.
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
/// The module may be live although the load has failed: another load may have loaded it.
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

/// Returns whether the module `name` is live. The notes on [`state`] apply.
///
/// A module that is being unloaded is not live: it may be gone by the time the image has been read,
/// so the loader decides then.
pub(crate) fn is_live(name: &Name) -> bool {
    state(name) == Some(ModuleState::Live)
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
