// SPDX-License-Identifier: GPL-2.0

//! The check of a module's name: one load of a name at a time, and none of a module that is there.
//!
//! A load *claims* its name once it knows it, before it allocates the module. Who finds the name
//! claimed, and the module not live yet, waits for that one load, and is woken by no other. The
//! list of modules decides all the same: it is looked at after the claim, and again when the module
//! joins it.
//!
//! Whoever waited does not try to load the module itself if that failed, as in C: many requests for
//! a module that cannot be loaded would fail one after the other, each after as long a time. But a
//! load that fails before its module is in the list is no result for others: its image may have
//! been another one, or its task killed. One of them claims the name then.

use kernel::{
    bindings,
    prelude::*,
    sync::rcu, //
};

use crate::{
    idempotent::{
        Owner,
        Pending,
        Role,
        Table, //
    },
    key::{
        Name,
        MODULE_NAME_LEN, //
    },
    waits::{
        Awaited,
        Caller,
        Leave,
        Waits, //
    },
};

/// Claims `name` for the load that `caller`, who calls this, is about to do; it lasts until the
/// owner completes, or drops it. Without memory, there is no claim to hold, and the list
/// of modules has to do (invariant 4).
///
/// If the name is claimed, waits for that load: fails with `EEXIST` if it succeeded, `EBUSY` if it
/// failed, `EINTR` if a signal came first, `EDEADLK` if that load waits for `caller`. Does not wait
/// if the module is live: what its load still does then, as to wait for work that its init function
/// has started, can take long and makes no difference. Claims anew if that load turned out to be of
/// another module, or failed before its module was in the list.
///
/// Sleeps. To be called without locks.
pub(crate) fn claim<'a>(
    names: &'a Table<Name>,
    waits: &Waits,
    name: &Name,
    caller: Caller,
) -> Result<Option<Owner<'a, Name>>> {
    let name_of = |owner: &Caller| claimed_by(names, owner);

    loop {
        match names.enter(name, caller) {
            Role::Owner(owner) => return Ok(Some(owner)),
            Role::Waiter(load) => {
                if refusal_now(name) == Some(EEXIST) {
                    return Err(EEXIST);
                }
                if let Some(result) = Pending::wait(&load, waits, Leave::Signal, &name_of)? {
                    return Err(refusal(name, result));
                }
            }
            Role::Alone => return Ok(None),
        }
    }
}

/// What becomes of whoever waited for a load of `name`, which returned `result`.
///
/// A load that fails may have found the module live, or left while another one brought it there:
/// then it is there for whoever waited as well.
fn refusal(name: &Name, result: c_int) -> Error {
    if result == 0 || refusal_now(name) == Some(EEXIST) {
        EEXIST
    } else {
        EBUSY
    }
}

/// The name that `owner` has claimed.
pub(crate) fn claimed_by(names: &Table<Name>, owner: &Caller) -> Option<Name> {
    let mut name = None;

    names.for_each(|load| {
        if load.owner().pid() == owner.pid() {
            name = Some(*load.key());
        }
    });
    name
}

/// How a load of the module `name` would end now, if it is to fail: `EEXIST` if there is one that
/// is live, `EBUSY` if it is being unloaded. It may have gone when this returns, and another have
/// come.
///
/// Takes no lock. May be called from anywhere.
pub(crate) fn refusal_now(name: &Name) -> Option<Error> {
    let _rcu = rcu::read_lock();
    // SAFETY: The name ends with a NUL, and RCU keeps the list and what is in it.
    let module = unsafe { bindings::find_module(name.as_ptr()) };

    if module.is_null() {
        return None;
    }
    // SAFETY: RCU keeps what was found. The state is a word that may change while it is read:
    // either value of it was right a moment ago.
    match unsafe { (&raw const (*module).state).read_volatile() } {
        bindings::module_state_MODULE_STATE_LIVE => Some(EEXIST),
        bindings::module_state_MODULE_STATE_GOING => Some(EBUSY),
        _ => None,
    }
}

/// The list of modules, in the hands of somebody who holds `module_mutex`.
pub(crate) struct Modules(());

impl Modules {
    /// # Safety
    ///
    /// The caller must hold `module_mutex` for as long as this value exists, but for the calls of
    /// [`Modules::unlocked`].
    pub(crate) unsafe fn held() -> Self {
        Self(())
    }

    /// Finds the module of that name, or returns null.
    ///
    /// # Safety
    ///
    /// `name` must point to [`MODULE_NAME_LEN`] bytes that can be read.
    unsafe fn find(&self, name: *const c_char) -> *mut bindings::module {
        // SAFETY: By the requirement of this function.
        let len = unsafe { bindings::strnlen(name, MODULE_NAME_LEN - 1) };

        // SAFETY: `module_mutex` is held, as `self` proves, and the name has so many bytes.
        unsafe { bindings::find_module_all(name, len, true) }
    }

    /// Whether there is a module of that name.
    ///
    /// # Safety
    ///
    /// `name` must point to [`MODULE_NAME_LEN`] bytes that can be read.
    pub(crate) unsafe fn has(&self, name: *const c_char) -> bool {
        // SAFETY: By the requirement of this function.
        !unsafe { self.find(name) }.is_null()
    }

    /// The state of the module of that name, if there is one.
    fn state(&self, name: &Name) -> Option<bindings::module_state> {
        // SAFETY: A name has as many bytes.
        let module = unsafe { self.find(name.as_ptr()) };

        if module.is_null() {
            return None;
        }
        // SAFETY: What is in the list is valid, and stays there while `module_mutex` is held. The
        // state is a word that may change nevertheless: either value was right a moment ago.
        Some(unsafe { (&raw const (*module).state).read_volatile() })
    }

    /// Calls `f` while `module_mutex` is not held.
    fn unlocked<T>(&mut self, f: impl FnOnce() -> T) -> T {
        // SAFETY: `module_mutex` is initialized statically and held, as `self` proves. Nobody looks
        // at the list through `self` during the call.
        unsafe { bindings::mutex_unlock(&raw mut bindings::module_mutex) };
        let result = f();
        // SAFETY: As above; it was unlocked here.
        unsafe { bindings::mutex_lock(&raw mut bindings::module_mutex) };
        result
    }
}

/// Checks that there is no module `name` in the list, and calls `duplicate` if there is.
///
/// Fails with `EEXIST` if there is one and it is live, `EBUSY` if it goes. One that is on its way
/// is waited for first: `EEXIST` if it went live, `EBUSY` if it did not, `EINTR` if a signal came.
/// Only loads that found no memory for a claim are met here on their way, and modules that are
/// being unloaded, for which nobody holds one.
///
/// Drops `module_mutex` to wait and to call: it is held on return, as on entry, and has not been
/// dropped if the check succeeds.
pub(crate) fn check(modules: &mut Modules, name: &Name, duplicate: impl FnOnce()) -> Result {
    let Some(mut state) = modules.state(name) else {
        return Ok(());
    };

    if state == bindings::module_state_MODULE_STATE_COMING
        || state == bindings::module_state_MODULE_STATE_UNFORMED
    {
        // SAFETY: The name ends with a NUL.
        if modules.unlocked(|| unsafe { bindings::module_wait_finished(name.as_ptr()) }) != 0 {
            return Err(EINTR);
        }
        // It may have gone, or another of that name come.
        state = modules
            .state(name)
            .unwrap_or(bindings::module_state_MODULE_STATE_GOING);
    }

    modules.unlocked(duplicate);
    if state == bindings::module_state_MODULE_STATE_LIVE {
        Err(EEXIST)
    } else {
        Err(EBUSY)
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_exists)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn names() -> Result<Arc<Table<Name>>> {
        Arc::pin_init(Table::new(), GFP_KERNEL)
    }

    #[test]
    fn a_name_is_claimed_once() -> Result {
        let names = names()?;
        let waits = Arc::pin_init(Waits::new(), GFP_KERNEL)?;
        let name = Name::new(b"module");
        let claimed = claim(&names, &waits, &name, Caller::current())?.ok_or(ENOMEM)?;

        // Another name is another matter.
        assert!(claim(&names, &waits, &Name::new(b"other"), Caller::current())?.is_some());
        // Who asks finds the load that holds the claim.
        assert!(names.find(&name).is_some_and(|load| load.key() == &name));
        claimed.complete(0);
        assert!(claim(&names, &waits, &name, Caller::current())?.is_some());
        Ok(())
    }

    #[test]
    fn waiters_learn_whether_the_module_is_there() {
        let name = Name::new(b"there is no such module");

        assert_eq!(refusal(&name, 0), EEXIST);
        assert_eq!(refusal(&name, EEXIST.to_errno()), EBUSY);
        assert_eq!(refusal(&name, ENOEXEC.to_errno()), EBUSY);
    }

    #[test]
    fn a_module_that_is_not_there() -> Result {
        let name = Name::new(b"there is no such module");

        // SAFETY: `module_mutex` is initialized statically, and not held here.
        unsafe { bindings::mutex_lock(&raw mut bindings::module_mutex) };
        // SAFETY: It is held until after the value is gone.
        let result = check(&mut unsafe { Modules::held() }, &name, || ());
        // SAFETY: It was locked above.
        unsafe { bindings::mutex_unlock(&raw mut bindings::module_mutex) };
        result
    }
}
