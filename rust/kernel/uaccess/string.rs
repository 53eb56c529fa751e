// SPDX-License-Identifier: GPL-2.0

//! Strings of any length from user space.
//!
//! C header: [`include/linux/string.h`](srctree/include/linux/string.h)

use crate::{
    alloc::Flags,
    bindings,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

/// Copies a NUL-terminated string from user space, including its NUL.
///
/// Like `strndup_user()`, but without a limit on the length. The last byte of the returned vector
/// is always NUL. User space may write to the string while it is copied, so the vector may contain
/// other NULs before the last byte. User space also chooses the size of the allocation: `flags`
/// should contain [`__GFP_NOWARN`] unless a failure is worth a warning.
///
/// May sleep. Must be called in process context, without locks that the page fault handler may
/// take.
///
/// # Errors
///
/// - [`EFAULT`] if the string is not in memory that user space can read.
/// - [`ENOMEM`] if there is no memory for the copy.
///
/// # Examples
///
/// ```
/// use kernel::uaccess::{
///     copy_string,
///     UserPtr, //
/// };
///
/// // A kernel thread has no user memory.
/// assert_eq!(copy_string(UserPtr::from_addr(0), GFP_KERNEL).err(), Some(EFAULT));
/// ```
///
/// [`__GFP_NOWARN`]: crate::alloc::flags::__GFP_NOWARN
#[doc(alias = "strndup_user")]
pub fn copy_string(ptr: UserPtr, flags: Flags) -> Result<KVec<u8>> {
    // SAFETY: `strnlen_user` may be called with any address.
    let len = match unsafe { bindings::strnlen_user(ptr.as_const_ptr().cast(), c_long::MAX) } {
        0 => return Err(EFAULT),
        len => usize::try_from(len)?,
    };
    let mut string = KVec::new();

    UserSlice::new(ptr, len).read_all(&mut string, flags)?;
    // The string may have grown since its length was taken.
    if let Some(last) = string.last_mut() {
        *last = 0;
    }
    Ok(string)
}

/// Maps a page of user memory with these bytes at its end, for the KUnit test that calls this.
#[cfg(CONFIG_KUNIT)]
pub(crate) fn user_memory(bytes: &[u8]) -> Result<UserPtr> {
    use crate::page::PAGE_SIZE;

    let offset = PAGE_SIZE.checked_sub(bytes.len()).ok_or(EINVAL)?;

    // SAFETY: This is called by a KUnit test, in its thread. The memory is unmapped when the
    // test ends.
    let addr = unsafe {
        bindings::kunit_vm_mmap(
            bindings::kunit_get_current_test(),
            core::ptr::null_mut(),
            0,
            PAGE_SIZE,
            (bindings::PROT_READ | bindings::PROT_WRITE) as c_ulong,
            (bindings::MAP_PRIVATE | bindings::MAP_ANONYMOUS) as c_ulong,
            0,
        )
    };
    if addr == 0 {
        return Err(ENOMEM);
    }
    let ptr = UserPtr::from_addr(addr + offset);

    UserSlice::new(ptr, bytes.len())
        .writer()
        .write_slice(bytes)?;
    Ok(ptr)
}

#[macros::kunit_tests(rust_kernel_uaccess_string)]
mod tests {
    use super::*;
    use crate::{
        page::PAGE_SIZE,
        uaccess::user_memory, //
    };

    fn copy(bytes: &[u8]) -> Result<KVec<u8>> {
        copy_string(user_memory(bytes)?, GFP_KERNEL)
    }

    #[test]
    fn strings_have_one_nul() -> Result {
        assert_eq!(copy(b"\0")?.as_slice(), b"\0");
        assert_eq!(copy(b"name\0")?.as_slice(), b"name\0");
        assert_eq!(copy(b"name\0name\0")?.as_slice(), b"name\0");
        Ok(())
    }

    #[test]
    fn long_strings_are_not_cut() -> Result {
        let mut bytes = KVec::from_elem(b'x', PAGE_SIZE, GFP_KERNEL)?;

        if let Some(last) = bytes.last_mut() {
            *last = 0;
        }
        assert_eq!(copy(&bytes)?.as_slice(), bytes.as_slice());
        Ok(())
    }

    #[test]
    fn strings_must_end_in_user_memory() {
        // The next page is not mapped.
        assert_eq!(copy(b"name").err(), Some(EFAULT));
        for addr in [0, usize::MAX] {
            let copy = copy_string(UserPtr::from_addr(addr), GFP_KERNEL);

            assert_eq!(copy.err(), Some(EFAULT));
        }
    }
}
