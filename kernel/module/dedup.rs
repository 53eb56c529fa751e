// SPDX-License-Identifier: GPL-2.0

//! Module load deduplication.
//!
//! User space asks for the same module many times at once: udev does for every device that the
//! module drives. One load is enough, and every other one costs vmalloc space for a file that is
//! read, perhaps decompressed, only to be thrown away. So whoever asks for a module that is being
//! loaded waits for that load and gets its result.
//!
//! The *owner* of a load does the work; a *waiter* waits for an owner. Deduplication never loads
//! anything itself and decides nothing about a module: the owner takes the way of C through
//! `init_module_from_file()`, with all its checks.
//!
//! # Invariants
//!
//! 1. An owner always completes, on every path.
//! 2. A result is published and the load unlinked in one critical section; waiters are woken after
//!    the lock is dropped.
//! 3. No lock is held while reading, allocating with `GFP_KERNEL`, waking or sleeping.
//! 4. Deduplication never fails a load that would have succeeded without it: where its own
//!    allocation fails, the load goes on alone.
//! 5. A waiter never touches an owner's stack, and may leave at any time.
//! 6. The cost under the lock of the table does not grow with the number of waiters.
//! 7. Usable from the first request_module() of the boot on: locks are ready before initcalls run.
//!
//! Each is referred to by its number where the code keeps it.

use kernel::{
    bindings,
    prelude::*,
    sync::SetOnce, //
};

use idempotent::{
    Role,
    Table, //
};
use key::Key;

#[path = "dedup/idempotent.rs"]
mod idempotent;
#[path = "dedup/key.rs"]
mod key;

/// What `pr_*!` put before a message; a crate with a `module!` gets it from there.
const __LOG_PREFIX: &[u8] = b"module_dedup\0";

/// The loads in flight from files. Set by [`module_dedup_init`] and never changed; [`SetOnce`]
/// orders that before any use.
static PENDING: SetOnce<Pin<KBox<Table>>> = SetOnce::new();

/// Makes the table of pending loads.
///
/// If there is no memory for it, loads are not deduplicated (invariant 4).
///
/// # Safety
///
/// None of the caller's concern; the `#[export]` annotation requires `unsafe`. To be called once,
/// when the slab allocator works and before initcalls run (invariant 7).
#[export]
pub unsafe extern "C" fn module_dedup_init() {
    match KBox::pin_init(Table::new(), GFP_KERNEL) {
        Ok(table) => {
            PENDING.populate(table);
        }
        Err(_) => pr_warn!("no memory: duplicate loads are not caught\n"),
    }
}

/// Loads a module from `file`, or waits for the load of the same inode that is in flight.
///
/// Returns what `init_module_from_file()` returned to whoever called it: 0 or a negative errno, or
/// `-EINTR` if a signal ended the wait.
///
/// Sleeps. To be called without locks.
///
/// # Safety
///
/// - `file` must point to a file that is open for reading and stays open during the call.
/// - `uargs` need not be valid: it is an address in user space.
#[export]
pub unsafe extern "C" fn module_dedup_load_file(
    file: *mut bindings::file,
    uargs: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: `file` is valid by the requirements of this function, and `f_inode` does not change
    // while a file is open.
    let inode = unsafe { (*file).f_inode };

    load_once(Key::new(inode.addr()), || {
        // SAFETY: The requirements are those of this function.
        unsafe { bindings::init_module_from_file(file, uargs, flags) }
    })
}

/// Calls `load`, unless a load of `key` is in flight: then waits for that, and returns its result.
fn load_once(key: Key, load: impl FnOnce() -> c_int) -> c_int {
    let Some(pending) = PENDING.as_ref() else {
        return load();
    };

    match pending.enter(key) {
        Role::Owner(owner) => owner.complete(load()),
        Role::Waiter(other) => other.wait(),
        Role::Alone => load(),
    }
}
