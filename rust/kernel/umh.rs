// SPDX-License-Identifier: GPL-2.0

//! Usermode helpers: programs that the kernel runs in user space.
//!
//! C header: [`include/linux/umh.h`](srctree/include/linux/umh.h)

use crate::{
    bindings,
    prelude::*,
    types::Opaque, //
};

/// A usermode helper that is about to run.
///
/// The kernel passes it to the `init` and `cleanup` callbacks of `call_usermodehelper_setup()`.
///
/// # Invariants
///
/// The wrapped `struct subprocess_info` was initialized by `call_usermodehelper_setup()`.
#[repr(transparent)]
pub struct SubprocessInfo(Opaque<bindings::subprocess_info>);

impl SubprocessInfo {
    /// Creates a reference from a pointer that C code passes.
    ///
    /// # Safety
    ///
    /// - `ptr` must have been returned by `call_usermodehelper_setup()`.
    /// - It must not be freed, and its data pointer must not be changed, for the duration of `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::subprocess_info) -> &'a Self {
        // SAFETY: By the requirements of this function, `ptr` is valid for `'a`. The cast is fine
        // because `SubprocessInfo` is `repr(transparent)`.
        //
        // INVARIANT: By the requirements of this function.
        unsafe { &*ptr.cast() }
    }

    /// Returns the pointer that the creator of the helper has attached to it.
    ///
    /// Does not sleep.
    #[inline]
    pub fn data(&self) -> *mut c_void {
        // SAFETY: By the type invariant, `self.0` is a valid `struct subprocess_info`. Nobody
        // writes to its data pointer while there is a reference.
        unsafe { bindings::subprocess_info_data(self.0.get()) }
    }
}

#[macros::kunit_tests(rust_kernel_umh)]
mod tests {
    use super::*;
    use crate::task::Pid;
    use core::ptr;

    /// An `init` callback, which stores the PID of the current task.
    ///
    /// # Safety
    ///
    /// - `info` must be valid for [`SubprocessInfo::from_raw`] during the call.
    /// - Its data must point to a [`Pid`] that nobody else uses during the call.
    unsafe extern "C" fn store_pid(
        info: *mut bindings::subprocess_info,
        _new: *mut bindings::cred,
    ) -> c_int {
        let pid = crate::current!().pid();
        // SAFETY: By the first requirement.
        let data = unsafe { SubprocessInfo::from_raw(info) }.data();

        // SAFETY: By the second requirement.
        unsafe { data.cast::<Pid>().write(pid) };
        0
    }

    #[test]
    fn init_callback_gets_data() -> Result {
        let mut pid: Pid = -1;
        // SAFETY: Null pointers are fine for a helper that is not executed.
        let info = unsafe {
            bindings::call_usermodehelper_setup(
                ptr::null(),
                ptr::null_mut(),
                ptr::null_mut(),
                bindings::GFP_KERNEL,
                Some(store_pid),
                None,
                (&raw mut pid).cast(),
            )
        };
        if info.is_null() {
            return Err(ENOMEM);
        }

        // SAFETY: `info` was just made, and its data is `pid`.
        let result = unsafe { store_pid(info, ptr::null_mut()) };
        // SAFETY: Nobody else uses `info`, which has no cleanup function.
        unsafe { bindings::kfree(info.cast()) };
        assert_eq!(result, 0);
        assert_eq!(pid, crate::current!().pid());
        Ok(())
    }
}
