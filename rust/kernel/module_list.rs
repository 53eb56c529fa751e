// SPDX-License-Identifier: GPL-2.0

//! The list of loaded modules.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use crate::{
    bindings,
    prelude::*,
    sync::rcu, //
};

/// Size of the name in `struct module`, in bytes, including the terminating NUL.
pub const MODULE_NAME_LEN: usize = bindings::MODULE_NAME_LEN;

/// Size of `struct module`, in bytes.
///
/// The `.gnu.linkonce.this_module` section of a module for this kernel has this size.
pub const MODULE_SIZE: usize = bindings::MODULE_SIZE;

/// Offset of the name in `struct module`, in bytes.
pub const NAME_OFFSET: usize = bindings::MODULE_NAME_OFFSET;

/// The state of a module in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModuleState {
    /// The module can be used: its init function has succeeded.
    Live,
    /// The module is set up; its init function is about to run, or is running.
    Coming,
    /// The module is being removed, after an unload or after its init function failed.
    Going,
    /// The module is being set up, or its memory is about to be freed.
    Unformed,
}

/// Returns the state of the module called `name`, or [`None`] if there is no such module.
///
/// A module that is unformed when it is looked up is not found; this is what `find_module()` does.
/// [`ModuleState::Unformed`] is returned only if the module became unformed between the lookup and
/// the read of its state.
///
/// The result is a snapshot: it may be outdated before this function returns. A caller that needs
/// a stable answer must hold `module_mutex` on the C side.
///
/// Takes an RCU read lock only and does not sleep, so this may be called from any context in which
/// RCU is watching. The time it takes grows with the number of loaded modules.
///
/// # Examples
///
/// ```
/// use kernel::module_list;
///
/// assert_eq!(module_list::state(c"no such module"), None);
/// ```
pub fn state(name: &CStr) -> Option<ModuleState> {
    let _rcu = rcu::read_lock();

    // SAFETY: `name` is a valid C string, and the RCU read lock is held.
    let module = unsafe { bindings::find_module(name.as_char_ptr()) };

    if module.is_null() {
        return None;
    }
    // SAFETY: `module` was in the list in this RCU read-side critical section, which keeps its
    // memory valid.
    match unsafe { bindings::module_state(module) } {
        bindings::module_state_MODULE_STATE_LIVE => Some(ModuleState::Live),
        bindings::module_state_MODULE_STATE_COMING => Some(ModuleState::Coming),
        bindings::module_state_MODULE_STATE_GOING => Some(ModuleState::Going),
        _ => Some(ModuleState::Unformed),
    }
}
