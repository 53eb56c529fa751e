// SPDX-License-Identifier: GPL-2.0

//! The entry points that C calls. Each recovers the types, calls a safe function and turns the
//! result into an errno. `kernel/module/dedup/dedup.h` has the prototypes.

use core::{
    ptr,
    slice, //
};

use kernel::{
    alloc::flags::__GFP_NOWARN,
    bindings,
    build_assert::static_assert,
    debugfs::ScopedDir,
    fs::file::LocalFile,
    module_list::MODULE_NAME_LEN,
    prelude::*,
    uaccess::UserPtr,
    umh::SubprocessInfo, //
};

use crate::{
    image::{
        self,
        FileImage,
        UserImage, //
    },
    key::Args,
    load::{
        Load,
        Mode, //
    },
    stats::{
        Bytes,
        Events,
        Reason, //
    },
    target::Name,
    Dedup, //
};

// C bumps the counters of `stats::counters` as these types.
static_assert!(size_of::<Bytes>() == size_of::<bindings::atomic_long_t>());
static_assert!(size_of::<Events>() == size_of::<bindings::atomic_t>());

/// Returns the mode that `module.dedup=` has selected.
fn mode() -> Mode {
    // SAFETY: set_mode() alone writes it, while start_kernel() parses the command line; the
    // parameter has mode 0400.
    match unsafe { bindings::module_dedup_mode } {
        bindings::module_dedup_mode_MODULE_DEDUP_INODE => Mode::Inode,
        bindings::module_dedup_mode_MODULE_DEDUP_EARLY => Mode::Early,
        bindings::module_dedup_mode_MODULE_DEDUP_NONE => Mode::None,
        _ => Mode::Full,
    }
}

/// Reads a name from a C array.
///
/// # Safety
///
/// `name` must point to [`MODULE_NAME_LEN`] readable bytes and must not be written to during the
/// call. The bytes behind a NUL need not be initialized.
unsafe fn name_from_array(name: *const c_char) -> Name {
    // SAFETY: By the requirement, MODULE_NAME_LEN bytes are readable; at most one less is read.
    let len = unsafe { bindings::strnlen(name, MODULE_NAME_LEN - 1) };

    // SAFETY: strnlen() has read these bytes, none of which is a NUL. Nobody writes to a name
    // during the call.
    Name::new(unsafe { slice::from_raw_parts(name.cast(), len) })
}

/// Converts the pointer that the loader passes to its hooks into a reference to the load.
///
/// # Safety
///
/// - `load` must be a pointer that [`load_into_raw`] has made for a load of the current task.
/// - For the duration of `'a`, the loader must not return from that load, and no other reference to
///   the load may be in use.
unsafe fn load_from_raw<'a>(load: *mut bindings::module_dedup_load) -> &'a mut Load<'a> {
    // SAFETY: By the first requirement, the pointer is from load_into_raw(). load_file() or
    // load_memory() keeps that `Load` alive and unused until the loader returns, and only this task
    // calls the hooks of its load.
    unsafe { &mut *load.cast() }
}

/// Returns the pointer that the loader gets for a load.
fn load_into_raw(load: &mut Load<'_>) -> *mut bindings::module_dedup_load {
    ptr::from_mut(load).cast()
}

/// Allocates the tables. Without memory, modules load without deduplication (invariant 4).
///
/// # Safety
///
/// Must be called once, when the slab allocator works and before initcalls run (invariant 7).
#[export]
pub(crate) unsafe extern "C" fn module_dedup_init() {
    Dedup::init();
}

/// Loads a module from `file`, or shares the load of the same inode that is in flight: see
/// [`Loads::load_file`](crate::load::Loads::load_file).
///
/// Returns 0 or a negative errno; `-EFAULT` if the string `uargs` cannot be read.
///
/// Sleeps. Must be called without locks held.
///
/// # Safety
///
/// - `file` must be a file that the current task has looked up in its descriptor table. It must be
///   open for reading, and must stay open during the call.
/// - `uargs` may be any address.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_load_file(
    file: *mut bindings::file,
    uargs: *const c_char,
    flags: c_int,
) -> c_int {
    let load = |load: *mut _| {
        // SAFETY: By the first requirement, `file` is open; `uargs` may be any address; `load` is
        // null or from load_into_raw().
        unsafe { bindings::module_init_from_file(file, uargs, flags, load) }
    };
    let args = match image::copy_args(UserPtr::from_ptr(uargs.cast_mut().cast())) {
        Ok(args) => args,
        Err(err) => return err.to_errno(),
    };
    let Some(dedup) = Dedup::get() else {
        return load(ptr::null_mut());
    };
    let is_compressed = flags & bindings::MODULE_INIT_COMPRESSED_FILE as c_int != 0;
    // SAFETY: By the first requirement, the refcount of `file` is positive during the call. The
    // file comes from the descriptor table of the current task, so only this task can be in an
    // fdget_pos() section that does not hold f_pos_lock, and it is in none.
    let file = unsafe { LocalFile::from_raw_file(file) };
    let mut image = FileImage::new(file, is_compressed);
    let key = image.key(flags, args);

    dedup
        .loads
        .load_file(&dedup.graph, mode(), key, &mut image, |this| {
            load(load_into_raw(this))
        })
}

/// Loads a module from the `len` bytes of user memory at `umod`: see
/// [`Loads::load_memory`](crate::load::Loads::load_memory).
///
/// Returns 0 or a negative errno; `-EFAULT` if the string `uargs` cannot be read.
///
/// Sleeps. Must be called without locks held.
///
/// # Safety
///
/// `umod` and `uargs` may be any addresses.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_load_memory(
    umod: *mut c_void,
    len: c_ulong,
    uargs: *const c_char,
) -> c_int {
    let load = |load: *mut _| {
        // SAFETY: `umod` and `uargs` may be any addresses; `load` is null or from load_into_raw().
        unsafe { bindings::module_init_from_memory(umod, len, uargs, load) }
    };
    let args = match image::copy_args(UserPtr::from_ptr(uargs.cast_mut().cast())) {
        Ok(args) => args,
        Err(err) => return err.to_errno(),
    };
    let Some(dedup) = Dedup::get() else {
        return load(ptr::null_mut());
    };
    let mut image = UserImage::new(UserPtr::from_ptr(umod), len);

    dedup
        .loads
        .load_memory(&dedup.graph, mode(), args, &mut image, |this| {
            load(load_into_raw(this))
        })
}

/// Returns the arguments of the module, allocated with kmalloc() for the caller to free, or an
/// error pointer.
///
/// May sleep. Must be called without locks held.
///
/// # Safety
///
/// - `load` must be null, or valid for [`load_from_raw`] during the call, which must be made by the
///   task of the load.
/// - `uargs` must be the arguments of the same load.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_args(
    load: *mut bindings::module_dedup_load,
    uargs: *const c_char,
) -> *mut c_char {
    let args = if load.is_null() {
        &Args::Uncopied
    } else {
        // SAFETY: By the first requirement; it is not null.
        unsafe { load_from_raw(load) }.args()
    };
    let args = match args {
        Args::Empty => b"\0",
        Args::Copied(args) => args.as_slice(),
        // SAFETY: strndup_user() takes any address.
        Args::Uncopied => return unsafe { bindings::strndup_user(uargs, c_long::MAX) },
    };
    let mut copy = KVec::new();

    match copy.extend_from_slice(args, GFP_KERNEL | __GFP_NOWARN) {
        // A `KVec` is allocated with kmalloc().
        Ok(()) => copy.into_raw_parts().0.cast(),
        Err(_) => ENOMEM.to_ptr(),
    }
}

/// Called when the loader has read the image, before it changes the image: see
/// [`Load::set_image`].
///
/// # Safety
///
/// - `load` must be null, or valid for [`load_from_raw`] during the call, which must be made by the
///   task of the load.
/// - `image` must point to `len` readable bytes, which must not be written to during the call.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_set_image(
    load: *mut bindings::module_dedup_load,
    image: *const c_void,
    len: usize,
) {
    if load.is_null() {
        return;
    }
    // SAFETY: By the first requirement; it is not null.
    let load = unsafe { load_from_raw(load) };

    // SAFETY: By the second requirement; the loader does not write to the image during the call.
    load.set_image(unsafe { slice::from_raw_parts(image.cast(), len) });
}

/// Checks the name that the loader has found in the image: rejects a duplicate before the module is
/// allocated.
///
/// Claims the name, see [`Load::claim_name`]. Then checks the module list, as C does, unless the
/// list was checked when the name was peeked. Returns 0 or a negative errno.
///
/// Sleeps. Must be called without locks held.
///
/// # Safety
///
/// - `load` must be null, or valid for [`load_from_raw`] during the call, which must be made by the
///   task of the load.
/// - `name` must point to the name of a `struct module`, with a NUL.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_check_name(
    load: *mut bindings::module_dedup_load,
    name: *const c_char,
) -> c_int {
    if !load.is_null() {
        // SAFETY: By the first requirement; it is not null.
        let load = unsafe { load_from_raw(load) };

        // SAFETY: By the second requirement, this is the name of a `struct module`, an array of
        // MODULE_NAME_LEN bytes.
        let name = unsafe { name_from_array(name) };
        if let Err(err) = load.claim_name(&name) {
            if load.is_rejected() {
                Dedup::count_failed(&name, Reason::Becoming);
            }
            return err.to_errno();
        }
        if load.mode() == Mode::None || load.is_vacant() {
            return 0;
        }
    }
    // SAFETY: By the second requirement.
    unsafe { bindings::module_check_duplicate(name) }
}

/// Called when the module of a load has joined the module list. From now on, loads that wait for
/// the name fail with `-EEXIST` or `-EBUSY` when this load ends, as in C.
///
/// Does not sleep.
///
/// # Safety
///
/// `load` must be null, or valid for [`load_from_raw`] during the call, which must be made by the
/// task of the load.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_joined_list(load: *mut bindings::module_dedup_load) {
    if !load.is_null() {
        // SAFETY: By the requirement; it is not null.
        unsafe { load_from_raw(load) }.joined_list();
    }
}

/// Counts a duplicate that the loader has detected, for the list in `stats`.
///
/// Returns 0, or `-ENOMEM` if there is no memory for a new entry in the list.
///
/// May sleep. `module_mutex` may be held.
///
/// # Safety
///
/// `name` must point to the name of a `struct module`.
#[export]
#[cfg(CONFIG_MODULE_STATS)]
pub(crate) unsafe extern "C" fn try_add_failed_module(
    name: *const c_char,
    reason: bindings::fail_dup_mod_reason,
) -> c_int {
    let reason = match reason {
        bindings::fail_dup_mod_reason_FAIL_DUP_MOD_LOAD => Reason::Load,
        _ => Reason::Becoming,
    };
    let Some(dedup) = Dedup::get() else {
        return 0;
    };
    // SAFETY: By the requirement, this is the name of a `struct module`, an array of
    // MODULE_NAME_LEN bytes.
    let name = unsafe { name_from_array(name) };

    match dedup.failed.count(&name, reason) {
        Ok(()) => 0,
        Err(err) => err.to_errno(),
    }
}

/// Called when the module `name` has become LIVE.
///
/// Must be called without locks held.
///
/// # Safety
///
/// `name` must point to the name of a `struct module`.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_live(name: *const c_char) {
    let Some(dedup) = Dedup::get() else {
        return;
    };

    // SAFETY: By the requirement, this is the name of a `struct module`, an array of
    // MODULE_NAME_LEN bytes.
    dedup.loads.module_live(&unsafe { name_from_array(name) });
}

/// Called before a module becomes GOING. The unload may still fail afterwards: see
/// [`Requests::unloading`](crate::request::Requests::unloading).
///
/// Does not sleep. `module_mutex` may be held.
///
/// # Safety
///
/// Always safe to call.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_unload_begin() {
    if let Some(dedup) = Dedup::get() {
        dedup.requests.unloading();
    }
}

/// Called when the module `name` has become GOING.
///
/// Must be called without locks held.
///
/// # Safety
///
/// `name` must point to the name of a `struct module`.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_going(name: *const c_char) {
    if let Some(dedup) = Dedup::get() {
        dedup.requests.unloading();
        // SAFETY: By the requirement, this is the name of a `struct module`, an array of
        // MODULE_NAME_LEN bytes.
        dedup.loads.module_going(&unsafe { name_from_array(name) });
    }
}

/// Called when a module that was GOING has been freed, at the end of its unload.
///
/// Does not sleep.
///
/// # Safety
///
/// Always safe to call.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_unloaded() {
    if let Some(dedup) = Dedup::get() {
        dedup.loads.module_unloaded();
    }
}

/// Requests a module for request_module(): see
/// [`Requests::request`](crate::request::Requests::request).
///
/// Returns 0, a negative errno, or the exit status of modprobe.
///
/// Sleeps. Must be called without locks held.
///
/// # Safety
///
/// `name` must point to [`MODULE_NAME_LEN`] readable bytes with a NUL among them, and must not be
/// written to during the call.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_request(name: *mut c_char, wait: bool) -> c_int {
    // SAFETY: By the requirement, `name` has a NUL; the closure does not outlive the call.
    let modprobe = || unsafe { bindings::module_dedup_modprobe(name, wait) };
    let Some(dedup) = Dedup::get() else {
        return modprobe();
    };

    dedup.requests.request(
        &dedup.graph,
        &dedup.loads,
        // SAFETY: By the requirement, these are MODULE_NAME_LEN bytes, which nobody writes to.
        unsafe { name_from_array(name) },
        wait,
        modprobe,
        // SAFETY: By the requirement, `name` has a NUL; the closure does not outlive the call.
        || unsafe { bindings::module_dedup_warn_duplicate(name) },
    )
}

/// Called when the current task is about to start modprobe for `name` and to wait for it. Returns
/// the data of the helper, which is also the argument of [`module_dedup_helper_end`], or null
/// without memory.
///
/// May sleep. Must be called without locks held.
///
/// # Safety
///
/// `name` must point to [`MODULE_NAME_LEN`] readable bytes, and must not be written to during the
/// call.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_helper_ticket(name: *const c_char) -> *mut c_void {
    let ticket = Dedup::get().map_or(0, |dedup| {
        // SAFETY: By the requirement, these are MODULE_NAME_LEN bytes, which nobody writes to.
        dedup.begin_helper(unsafe { name_from_array(name) })
    });

    ptr::without_provenance_mut(ticket)
}

/// Called by the helper before it executes modprobe: the `init` function of its
/// `struct subprocess_info`. Returns 0.
///
/// Must be called without locks held.
///
/// # Safety
///
/// `info` must be what call_usermodehelper_setup() returned, and must not be freed during the call.
/// Its data must be what [`module_dedup_helper_ticket`] returned, and must not change during the
/// call.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_helper_started(
    info: *mut bindings::subprocess_info,
    _new: *mut bindings::cred,
) -> c_int {
    // SAFETY: call_usermodehelper_setup() made `info`, which is freed only after this callback has
    // returned. By the requirement, its data does not change.
    let ticket = unsafe { SubprocessInfo::from_raw(info) }.data().addr();

    if let Some(dedup) = Dedup::get().filter(|_| ticket != 0) {
        dedup.graph.helper_started(ticket);
    }
    0
}

/// Called when the current task no longer waits for the helper.
///
/// Must be called without locks held.
///
/// # Safety
///
/// `ticket` must be what [`module_dedup_helper_ticket`] returned to this task, or null.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_helper_end(ticket: *mut c_void) {
    if let Some(dedup) = Dedup::get() {
        dedup.graph.end_helper(ticket.addr());
    }
}

/// Creates the debugfs files. Files that cannot be created are missing.
///
/// May sleep. Must be called without locks held.
///
/// # Safety
///
/// `dir` must be what debugfs_create_dir() returned, and the directory must never be removed.
#[export]
pub(crate) unsafe extern "C" fn module_dedup_debugfs_init(dir: *mut bindings::dentry) {
    if let Some(dedup) = Dedup::get() {
        // SAFETY: By the requirement, which is that of ScopedDir::from_raw().
        dedup.create_files(&unsafe { ScopedDir::from_raw(dir) });
    }
}
