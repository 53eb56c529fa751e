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

use core::{
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};

use kernel::{
    bindings,
    debugfs::ScopedDir,
    fmt,
    prelude::*,
    sync::{
        atomic::ordering::Relaxed,
        SetOnce, //
    },
    uaccess::UserPtr, //
};

use autoload::Requests;
use idempotent::{
    Owner,
    Pending,
    Role,
    Table, //
};
use image::{
    File,
    Source,
    UserMemory, //
};
use key::{
    Args,
    FileKey,
    Key,
    Name,
    Subject,
    Verdict,
    MODULE_NAME_LEN, //
};
use origin::Origins;
use stats::{
    counters,
    Duplicates,
    Events,
    Reason,
    SAVED, //
};
use waits::{
    Awaited,
    Caller,
    Leave,
    Waits, //
};

#[path = "dedup/autoload.rs"]
mod autoload;
#[path = "dedup/exists.rs"]
mod exists;
#[path = "dedup/idempotent.rs"]
mod idempotent;
#[path = "dedup/image.rs"]
mod image;
#[path = "dedup/key.rs"]
mod key;
#[path = "dedup/origin.rs"]
mod origin;
#[path = "dedup/peek.rs"]
mod peek;
#[path = "dedup/stats.rs"]
mod stats;
#[path = "dedup/trace.rs"]
mod trace;
#[path = "dedup/waits.rs"]
mod waits;

/// What `pr_*!` put before a message; a crate with a `module!` gets it from there.
const __LOG_PREFIX: &[u8] = b"module_dedup\0";

/// What is in flight.
#[pin_data]
struct Dedup {
    /// Loads from files.
    #[pin]
    files: Table<FileKey>,
    /// Loads that know the name of their module.
    #[pin]
    names: Table<Name>,
    /// request_module() calls.
    #[pin]
    requests: Requests,
    #[pin]
    waits: Waits,
    #[pin]
    origins: Origins,
    #[pin]
    duplicates: Duplicates,
}

/// Set by [`module_dedup_init`] and never changed; [`SetOnce`] orders that before any use.
static DEDUP: SetOnce<Pin<KBox<Dedup>>> = SetOnce::new();

/// Makes the tables.
///
/// If there is no memory for them, nothing is deduplicated (invariant 4).
///
/// # Safety
///
/// None of the caller's concern; the `#[export]` annotation requires `unsafe`. To be called once,
/// when the slab allocator works and before initcalls run (invariant 7).
#[export]
pub unsafe extern "C" fn module_dedup_init() {
    let dedup = KBox::pin_init(
        pin_init!(Dedup {
            files <- Table::new(),
            names <- Table::new(),
            requests <- Requests::new(),
            waits <- Waits::new(),
            origins <- Origins::new(),
            duplicates <- Duplicates::new(),
        }),
        GFP_KERNEL,
    );

    match dedup {
        Ok(dedup) => {
            DEDUP.populate(dedup);
        }
        Err(_) => pr_warn!("no memory: duplicate loads are not caught\n"),
    }
}

/// How much is deduplicated: `module.dedup=` at boot.
fn mode() -> bindings::module_dedup_mode {
    // SAFETY: It is written while the command line is parsed, before anything can be loaded, and
    // never after that.
    unsafe { bindings::module_dedup_mode }
}

fn is_full() -> bool {
    mode() == bindings::module_dedup_mode_MODULE_DEDUP_FULL
}

/// A load, as it goes through C: `struct module_dedup_load`.
struct Load {
    caller: Caller,
    args: Args,
    /// The name of the module, once it is known.
    name: Option<Name>,
    /// The claim on it.
    claim: Option<Owner<'static, Name>>,
    /// Whether the module came into the list of modules.
    has_joined: bool,
    /// What counts the load if another one of its name is pending.
    refused: &'static Events,
    /// Whether it was refused a wait, or a signal took it from one: it has not been tried.
    has_left: bool,
    /// Whether it was counted as one that was refused, or that left.
    is_counted: bool,
}

impl Load {
    /// Makes `name` the name of the module that is loaded, and claims it: see [`exists::claim`].
    fn claim(&mut self, dedup: &'static Dedup, name: Name) -> Result {
        if self.name == Some(name) {
            return Ok(());
        }
        // The image was changed since its name was peeked. What is waited for must not be waiting
        // with a claim of its own, so that one goes first.
        self.claim = None;
        self.claim =
            exists::claim(&dedup.names, &dedup.waits, &name, self.caller).inspect_err(|err| {
                self.is_counted = true;
                if is_duplicate(*err) {
                    self.refused.add(1, Relaxed);
                    trace::refused(Subject::Module(name), trace::Reason::Pending, *err);
                } else {
                    self.has_left = true;
                    SAVED.left.add(1, Relaxed);
                }
            })?;
        if self.claim.is_none() {
            SAVED.alone.add(1, Relaxed);
        }
        self.name = Some(name);
        Ok(())
    }
}

/// Whether what a wait failed with says that another load did the work: no signal came, and it was
/// not refused.
fn is_duplicate(err: Error) -> bool {
    err != EINTR && err != EDEADLK
}

/// Records for the audit that a load of the module `name` was tried. For those that reach it, the
/// loader does that.
fn audit(name: &Name) {
    // SAFETY: The name ends with a NUL.
    unsafe { bindings::module_dedup_audit(name.as_ptr()) };
}

/// Tells that a load is refused with `err`, because there is a module of that name.
fn refuse_late(name: &Name, err: Error) -> Error {
    trace::refused(Subject::Module(*name), trace::Reason::Late, err);
    err
}

/// What counts the loads of a source that were saved.
struct Counters {
    /// Another load of the name was pending.
    pending: &'static Events,
    /// A module of the name was live, or being unloaded.
    live: &'static Events,
}

const FROM_FILE: Counters = Counters {
    pending: &SAVED.same_name,
    live: &SAVED.late,
};

const FROM_MEMORY: Counters = Counters {
    pending: &SAVED.from_memory,
    live: &SAVED.from_memory,
};

/// How a load ended.
struct Ended {
    result: c_int,
    /// The name of the module, if it became known and the load came as far as C.
    name: Option<Name>,
    /// See [`Load::has_left`].
    has_left: bool,
}

impl Ended {
    /// That of a load which was refused before it reached C.
    fn refused(err: Error) -> Self {
        Self {
            result: err.to_errno(),
            name: None,
            has_left: !is_duplicate(err),
        }
    }
}

/// Calls `load` with a load to hand through C, unless a module of the same name is there or on its
/// way: then refuses before anything of the size of the image is allocated. Whose name cannot be
/// peeked is not refused here.
///
/// Completes what the load came to own.
fn load_first(
    caller: Caller,
    args: Args,
    counters: Counters,
    source: &mut impl Source,
    load: impl FnOnce(*mut bindings::module_dedup_load) -> c_int,
) -> Ended {
    let mut this = Load {
        caller,
        args,
        name: None,
        claim: None,
        has_joined: false,
        refused: counters.pending,
        has_left: false,
        is_counted: false,
    };

    if let Some(dedup) = DEDUP.as_ref().filter(|_| is_full()) {
        if let Some(name) = source.name() {
            let refusal = this
                .claim(dedup, name)
                .and_then(|()| match exists::refusal_now(&name) {
                    Some(err) => {
                        counters.live.add(1, Relaxed);
                        Err(refuse_late(&name, err))
                    }
                    None => Ok(()),
                });

            if let Err(err) = refusal {
                if is_duplicate(err) {
                    SAVED.bytes_never_allocated.add(source.size(), Relaxed);
                }
                audit(&name);
                if let Some(claim) = this.claim {
                    claim.complete(err.to_errno());
                }
                return Ended::refused(err);
            }
        }
    }

    let result = load(ptr::from_mut(&mut this).cast());
    if !this.is_counted {
        SAVED.owned.add(1, Relaxed);
    }
    // As in C, others of the name get the result of a module that came into the list. What failed
    // before that may have failed for its image or its task only (invariant 4): they start again.
    if let Some(claim) = this.claim.filter(|_| this.has_joined) {
        claim.complete(result);
    }
    Ended {
        result,
        name: this.name,
        has_left: this.has_left,
    }
}

/// The same for a compressed file, whose name cannot be peeked: what is known is whether a live
/// module came from it.
fn load_compressed(
    caller: Caller,
    args: Args,
    mut file: File,
    load: impl FnOnce(*mut bindings::module_dedup_load) -> c_int,
) -> Ended {
    struct Compressed;

    impl Source for Compressed {
        fn name(&mut self) -> Option<Name> {
            None
        }

        fn size(&self) -> usize {
            0
        }
    }

    let Some(dedup) = DEDUP.as_ref().filter(|_| is_full()) else {
        return load_first(caller, args, FROM_FILE, &mut file, load);
    };
    // Before it is read: what changes after this is another file.
    let id = file.id();

    if let Some(name) = id.and_then(|id| dedup.origins.find(&id)) {
        if let Some(err) = exists::refusal_now(&name) {
            SAVED.late.add(1, Relaxed);
            SAVED.bytes_never_allocated.add(file.size(), Relaxed);
            audit(&name);
            return Ended::refused(refuse_late(&name, err));
        }
    }
    let ended = load_first(caller, args, FROM_FILE, &mut Compressed, load);

    if ended.result == 0 {
        if let (Some(name), Some(id)) = (ended.name, id) {
            dedup.origins.remember(&name, &id);
            // If it is on its way out again, it may have been forgotten before that.
            if exists::refusal_now(&name) != Some(EEXIST) {
                dedup.origins.forget(&name);
            }
        }
    }
    ended
}

/// Loads a module from `file`, or waits for the load of the same inode that is in flight.
///
/// Returns what `init_module_from_file()` returned to whoever called it: 0 or a negative errno. Or
/// nobody calls it: `-EFAULT` if `uargs` is no string that can be read, `-EEXIST` or `-EBUSY` if a
/// module of the name is live, leaves or was being loaded, `-EINTR` if a signal ended the wait,
/// `-EDEADLK` if it would never have ended, `-EBADF` if `file` is null. Whoever waited for a load
/// with other flags or arguments fails with `-EEXIST` if that succeeded, and loads the module
/// itself if it failed. Whoever waited for a load that left its own wait starts again.
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
    let Some(file) = NonNull::new(file) else {
        return EBADF.to_errno();
    };
    // SAFETY: By the requirements of this function, and it is not used after the call.
    let file = unsafe { File::from_raw(file) };
    let args = match image::copy_args(uargs) {
        Ok(args) => args,
        Err(err) => return err.to_errno(),
    };
    SAVED.loads.add(1, Relaxed);
    let caller = Caller::current();
    let key = file.key(flags, args.clone());
    let load = || {
        // SAFETY: `file` is open; C hands `load` back while it exists, which is during this call.
        let load =
            |load| unsafe { bindings::init_module_from_file(file.as_ptr(), uargs, flags, load) };

        if flags & bindings::MODULE_INIT_COMPRESSED_FILE as c_int != 0 {
            load_compressed(caller, args, file, load)
        } else {
            load_first(caller, args, FROM_FILE, &mut { file }, load)
        }
    };
    let Some(dedup) = DEDUP.as_ref() else {
        return load().result;
    };

    if !is_full() && mode() != bindings::module_dedup_mode_MODULE_DEDUP_INODE {
        return load().result;
    }
    loop {
        match dedup.files.enter(&key, caller) {
            Role::Owner(owner) => {
                let ended = load();

                if !ended.has_left {
                    owner.complete(ended.result);
                }
                return ended.result;
            }
            Role::Waiter(other) => {
                let name_of = |owner: &Caller| exists::claimed_by(&dedup.names, owner);
                let result = match Pending::wait(&other, &dedup.waits, Leave::Signal, &name_of) {
                    Ok(result) => result,
                    Err(err) => {
                        SAVED.left.add(1, Relaxed);
                        return err.to_errno();
                    }
                };

                match key.verdict(other.key(), result, !is_full()) {
                    Verdict::Share(result) => {
                        SAVED.same_file.add(1, Relaxed);
                        SAVED.bytes_never_allocated.add(file.size(), Relaxed);
                        return result;
                    }
                    Verdict::Exists => {
                        SAVED.same_name.add(1, Relaxed);
                        SAVED.bytes_never_allocated.add(file.size(), Relaxed);
                        trace::refused(key.subject(), trace::Reason::Pending, EEXIST);
                        return EEXIST.to_errno();
                    }
                    Verdict::Again => (),
                }
            }
            Role::Alone => {
                SAVED.alone.add(1, Relaxed);
                return load().result;
            }
        }
    }
}

/// Loads a module from the `len` bytes of user space at `umod`.
///
/// Returns what `init_module_from_memory()` returned: 0 or a negative errno; or what
/// [`module_dedup_load_file`] returns where nothing is loaded.
///
/// Sleeps. To be called without locks.
///
/// # Safety
///
/// None: `umod` and `uargs` are addresses in user space, which need not be valid.
#[export]
pub unsafe extern "C" fn module_dedup_load_memory(
    umod: *mut c_void,
    len: c_ulong,
    uargs: *const c_char,
) -> c_int {
    let args = match image::copy_args(uargs) {
        Ok(args) => args,
        Err(err) => return err.to_errno(),
    };
    SAVED.loads.add(1, Relaxed);
    let mut image = UserMemory::new(UserPtr::from_ptr(umod), len);

    load_first(Caller::current(), args, FROM_MEMORY, &mut image, |load| {
        // SAFETY: C hands `load` back while it exists, which is during this call.
        unsafe { bindings::init_module_from_memory(umod, len, uargs, load) }
    })
    .result
}

/// The arguments of the module that is loaded: a string that lives as long as the load, or null if
/// they have to be copied from user space yet.
///
/// # Safety
///
/// `load` must be what Rust handed to C for the load that calls.
#[export]
pub unsafe extern "C" fn module_dedup_args(
    load: *const bindings::module_dedup_load,
) -> *const c_char {
    // SAFETY: `load` is a `Load` of load_first(), which waits for C to return.
    let load = unsafe { &*load.cast::<Load>() };

    match &load.args {
        Args::Empty => c"".as_char_ptr(),
        Args::Copied(args) => args.as_ptr().cast(),
        Args::Uncopied => ptr::null(),
    }
}

/// Our names are as long as those of C.
const _: fn(&bindings::module) -> &[c_char; MODULE_NAME_LEN] = |module| &module.name;

/// Reads a name from an array of C.
///
/// # Safety
///
/// `name` must point to [`MODULE_NAME_LEN`] bytes that can be read; those behind a NUL need not be
/// initialized.
unsafe fn name_from_array(name: *const c_char) -> Name {
    // SAFETY: By the requirement of this function.
    let len = unsafe { bindings::strnlen(name, MODULE_NAME_LEN - 1) };

    // SAFETY: So many bytes have just been read.
    Name::new(unsafe { slice::from_raw_parts(name.cast(), len) })
}

/// Claims the name of a module for the load that found it, see [`exists::claim`].
///
/// Returns 0 if nobody else loads a module of that name, or a negative errno.
///
/// Sleeps. To be called without locks.
///
/// # Safety
///
/// - `load` must be what Rust handed to C for the load that calls, and not be in use.
/// - `name` must point to the name of a `struct module`, all of whose bytes can be read.
#[export]
pub unsafe extern "C" fn module_dedup_claim(
    load: *mut bindings::module_dedup_load,
    name: *const c_char,
) -> c_int {
    let Some(dedup) = DEDUP.as_ref().filter(|_| is_full()) else {
        return 0;
    };
    // SAFETY: By the requirements of this function.
    let name = unsafe { name_from_array(name) };
    // SAFETY: `load` is a `Load` of load_first(), which waits for C to return.
    let load = unsafe { &mut *load.cast::<Load>() };

    match load.claim(dedup, name) {
        Ok(()) => 0,
        Err(err) => {
            if is_duplicate(err) {
                dedup.duplicates.count(&name, Reason::Becoming);
            }
            err.to_errno()
        }
    }
}

/// Tells that the module of a load came into the list of modules: from now on, others of its name
/// get its result.
///
/// # Safety
///
/// `load` must be what Rust handed to C for the load that calls, and not be in use.
#[export]
pub unsafe extern "C" fn module_dedup_joined(load: *mut bindings::module_dedup_load) {
    // SAFETY: `load` is a `Load` of load_first(), which waits for C to return.
    unsafe { (*load.cast::<Load>()).has_joined = true };
}

/// Checks that there is no module of that name in the list, see [`exists::check`].
///
/// Returns 0 or a negative errno.
///
/// Sleeps, with `module_mutex` dropped.
///
/// # Safety
///
/// - `module_mutex` must be held.
/// - `name` must point to the name of a `struct module`, all of whose bytes can be read.
#[export]
pub unsafe extern "C" fn module_patient_check_exists(
    name: *const c_char,
    reason: bindings::fail_dup_mod_reason,
) -> c_int {
    let reason = if reason == bindings::fail_dup_mod_reason_FAIL_DUP_MOD_LOAD {
        Reason::Load
    } else {
        Reason::Becoming
    };
    if matches!(reason, Reason::Becoming) && mode() == bindings::module_dedup_mode_MODULE_DEDUP_NONE
    {
        return 0;
    }
    // SAFETY: The caller holds the mutex.
    let mut modules = unsafe { exists::Modules::held() };

    // Mostly there is none, which is told without a copy of the name.
    // SAFETY: By the requirements of this function.
    if !unsafe { modules.has(name) } {
        return 0;
    }
    // SAFETY: By the requirements of this function.
    let name = unsafe { name_from_array(name) };

    let checked = exists::check(&mut modules, &name, || {
        if let Some(dedup) = DEDUP.as_ref() {
            dedup.duplicates.count(&name, reason);
        }
    });

    match checked {
        Ok(()) => 0,
        Err(err) => err.to_errno(),
    }
}

/// Tells that a module is about to unload, if it can: what was requested before answers no more.
///
/// # Safety
///
/// None of the caller's concern; the `#[export]` annotation requires `unsafe`. To be called before
/// anyone can see it, under `module_mutex`.
#[export]
pub unsafe extern "C" fn module_dedup_before_unload() {
    if let Some(dedup) = DEDUP.as_ref() {
        dedup.requests.unloading();
    }
}

/// Tells that the module of that name begins to unload, and is seen to. What was requested since
/// [`module_dedup_before_unload`] may have found it live, and answers no more either.
///
/// # Safety
///
/// `name` must point to the name of a `struct module`, all of whose bytes can be read.
#[export]
pub unsafe extern "C" fn module_dedup_unloading(name: *const c_char) {
    if let Some(dedup) = DEDUP.as_ref() {
        dedup.requests.unloading();
        // SAFETY: By the requirements of this function.
        dedup.origins.forget(&unsafe { name_from_array(name) });
    }
}

/// Does what request_module() is called for, see [`Requests::request`].
///
/// Sleeps. To be called without locks.
///
/// # Safety
///
/// `name` must point to [`MODULE_NAME_LEN`] bytes that can be read, with a NUL among them.
#[export]
pub unsafe extern "C" fn module_dedup_request(name: *mut c_char, wait: bool) -> c_int {
    // SAFETY: There is a NUL by the requirements of this function.
    let modprobe = || unsafe { bindings::module_dedup_modprobe(name, wait) };
    let Some(dedup) = DEDUP.as_ref() else {
        return modprobe();
    };

    dedup.requests.request(
        &dedup.waits,
        &|owner| exists::claimed_by(&dedup.names, owner),
        // SAFETY: By the requirements of this function.
        unsafe { name_from_array(name) },
        wait,
        modprobe,
        // SAFETY: There is a NUL by the requirements of this function.
        || unsafe { bindings::module_dedup_warn_duplicate(name) },
    )
}

/// Tells that the task that calls is about to wait for modprobe.
///
/// Returns what is to be handed to the two functions that follow.
///
/// May sleep. To be called without locks.
///
/// # Safety
///
/// `name` must point to [`MODULE_NAME_LEN`] bytes that can be read.
#[export]
pub unsafe extern "C" fn module_dedup_helper_begin(name: *const c_char) -> *mut c_void {
    let ticket = DEDUP.as_ref().map_or(0, |dedup| {
        // SAFETY: By the requirements of this function.
        dedup.waits.begin_helper(unsafe { name_from_array(name) })
    });

    ptr::without_provenance_mut(ticket as usize)
}

/// Tells that the task that calls is modprobe, before it becomes that: what a helper is set up
/// with.
///
/// Returns 0.
///
/// # Safety
///
/// `info` must be the helper's, and its data come from [`module_dedup_helper_begin`] or be null.
#[export]
pub unsafe extern "C" fn module_dedup_helper_started(
    info: *mut bindings::subprocess_info,
    _new: *mut bindings::cred,
) -> c_int {
    // SAFETY: By the requirements of this function.
    let ticket = unsafe { (*info).data }.addr() as u32;

    if let Some(dedup) = DEDUP.as_ref().filter(|_| ticket != 0) {
        dedup.waits.helper_started(ticket);
    }
    0
}

/// Tells that the task that calls no longer waits for modprobe.
///
/// # Safety
///
/// None of the caller's concern; the `#[export]` annotation requires `unsafe`. To be called with
/// what [`module_dedup_helper_begin`] returned to this task.
#[export]
pub unsafe extern "C" fn module_dedup_helper_end(ticket: *mut c_void) {
    if let Some(dedup) = DEDUP.as_ref() {
        dedup.waits.end_helper(ticket.addr() as u32);
    }
}

/// Creates the files of debugfs.
///
/// Whatever fails here is no reason to load no modules: files are missing then.
///
/// # Safety
///
/// `dir` must be what `debugfs_create_dir()` returned, and a directory must never be removed.
#[export]
pub unsafe extern "C" fn module_dedup_debugfs_init(dir: *mut bindings::dentry) {
    // SAFETY: By the requirements of this function.
    let dir = unsafe { ScopedDir::from_raw(dir) };
    let Some(dedup) = DEDUP.as_ref() else {
        return;
    };

    macro_rules! counter_files {
        ($($name:ident)*) => {
            $(dir.read_only_file(
                CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes())
                    .unwrap_or_default(),
                &counters::$name,
            );)*
        };
    }

    if cfg!(CONFIG_MODULE_STATS) {
        counter_files! {
            total_mod_size
            total_text_size
            invalid_kread_bytes
            invalid_decompress_bytes
            invalid_becoming_bytes
            invalid_mod_bytes
            modcount
            failed_kreads
            failed_decompress
            failed_becoming
            failed_load_modules
        }
        dir.read_callback_file(c"stats", &dedup.duplicates, &Duplicates::write);
    }
    dir.read_callback_file(c"dedup", &SAVED, &stats::Saved::write);
    dir.read_callback_file(c"pending", dedup, &write_pending);
}

/// Writes the contents of `pending`: a block of lines for each load and request in flight, and for
/// each task that waits.
fn write_pending(dedup: &Pin<KBox<Dedup>>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write_table(&dedup.files, f, |file, f| {
        writeln!(f, "flags\t{:#x}", file.flags)
    })?;
    write_table(&dedup.names, f, |_, _| Ok(()))?;
    write_table(dedup.requests.in_flight(), f, |_, _| Ok(()))?;
    dedup.waits.write(f)
}

fn write_table<K: Key>(
    table: &Table<K>,
    f: &mut fmt::Formatter<'_>,
    write_more: impl Fn(&K, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    let mut result = Ok(());

    table.for_each(|load| {
        let mut write = || {
            load.subject().write(f, '\t')?;
            writeln!(f)?;
            write_more(load.key(), f)?;
            f.write_fmt(fmt!("owner\t{}\n", load.owner()))?;
            writeln!(f, "waiters\t{}", load.waiters())?;
            writeln!(f, "age_ms\t{}\n", load.owner().age().as_millis())
        };

        result = result.and_then(|()| write());
    });
    result
}
