// SPDX-License-Identifier: GPL-2.0

//! Module load deduplication.
//!
//! User space often asks for the same module many times at once: udev does so for each device that
//! the module drives. One load is enough. Each other one costs vmalloc space for a file that is
//! read, and perhaps decompressed, only to be thrown away. So a load waits while another load of
//! the same module is in flight. If both load the same file with the same flags and arguments, the
//! waiting load gets the result of the other one. Otherwise, it fails with `-EEXIST` once the
//! module is live, or with `-EBUSY` if the other load fails after its module has joined the module
//! list.
//!
//! The loader may reject an image because of its signature, its format or its vermagic. A waiting
//! load of the same bytes with the same flags shares that error. It reads its image in small pieces
//! to compare the bytes and allocates no memory of the size of the image: see `live` and `content`.
//!
//! The *owner* of a load does the work; a *waiter* waits for an owner. Deduplication never loads a
//! module and never accepts one that the loader has not checked: it rejects a load, lets it share
//! the result of another load, or leaves it to the loader in C.
//!
//! # Invariants
//!
//! 1. An owner completes on every path on which it returns. If its task dies in an oops, the entry
//!    stays, as in C, and only a signal ends a wait for it.
//! 2. A result is published and the entry unlinked in one critical section; waiters are woken after
//!    the lock is dropped.
//! 3. No lock of this code is held while reading, allocating with `GFP_KERNEL`, waking or sleeping.
//!    `module_mutex` may be held while a failed module is counted.
//! 4. Deduplication never fails a load that would have succeeded without it: where its own
//!    allocation fails, the load continues alone.
//! 5. A waiter never touches an owner's stack, and may leave at any time.
//! 6. Work under a lock is bounded. Under the lock of a table, it is independent of the number of
//!    waiters; a search for a deadlock visits each wait at most once.
//! 7. Usable from the first request_module() of the boot on: the tables exist before initcalls run.
//!
//! The code refers to these numbers where it keeps them.
//!
//! # Files
//!
//! Dependencies point from a line to those below it.
//!
//! - `ffi`: the entry points
//! - `image`: images and arguments in files and user memory
//! - `load`, `request`: the life of a load, and of a request_module() call
//! - `live`: claims on module names, and duplicates of live modules
//! - `pending`, `key`: the table of pending work, and what makes two loads the same
//! - `content`, `peek`: the identity of an image by its bytes, and its name
//! - `wait_graph`: detection of deadlocks
//! - `helper`: modprobe processes
//! - `trace`, `stats`: tracepoints, counters and debugfs files
//! - `wait`: how a task waits
//! - `task`, `target`: the identity of a task, and of what it loads, requests or waits for

use kernel::{
    debugfs::ScopedDir,
    fmt,
    prelude::*,
    str::CStr,
    sync::SetOnce, //
};

use key::Key;
use load::Loads;
use pending::Table;
use request::Requests;
use stats::{
    counters,
    DedupStats,
    FailedModules,
    Reason,
    DEDUP_STATS, //
};
use target::Name;
use task::TaskId;
use wait_graph::{
    WaitGraph,
    Waitable, //
};

mod content;
mod ffi;
mod helper;
mod image;
mod key;
mod live;
mod load;
mod peek;
mod pending;
mod request;
mod stats;
mod target;
mod task;
mod trace;
mod wait;
mod wait_graph;

/// The prefix of `pr_*!` messages, which `module!` would define.
const __LOG_PREFIX: &[u8] = b"module_dedup\0";

/// The state of deduplication.
#[pin_data]
struct Dedup {
    /// The loads in flight.
    #[pin]
    loads: Loads,
    /// The requests in flight, and the recent successes.
    #[pin]
    requests: Requests,
    /// The waits of all tasks, to detect deadlocks.
    #[pin]
    graph: WaitGraph,
    /// The modules of which duplicate loads have failed, for the file `stats`.
    #[pin]
    failed: FailedModules,
}

/// Set once by [`Dedup::init`]. [`SetOnce`] orders the initialisation before any use.
static DEDUP: SetOnce<Pin<KBox<Dedup>>> = SetOnce::new();

impl Dedup {
    /// Allocates the tables. Without memory, logs that and leaves deduplication off.
    ///
    /// Must be called once, before initcalls run. May sleep.
    fn init() {
        let dedup = KBox::pin_init(
            try_pin_init!(Dedup {
                loads <- Loads::new(),
                requests <- Requests::new(),
                graph <- WaitGraph::new(),
                failed <- FailedModules::new(),
            }),
            GFP_KERNEL,
        );

        match dedup {
            Ok(dedup) => {
                DEDUP.populate(dedup);
            }
            Err(_) => pr_warn!("out of memory, deduplication is disabled\n"),
        }
    }

    /// Returns the state, or [`None`] if [`Dedup::init`] has not run or has found no memory.
    ///
    /// May be called from any context.
    fn get() -> Option<&'static Self> {
        DEDUP.as_ref().map(|dedup| &**dedup)
    }

    /// Counts a duplicate load of `name`. If there is no memory for its record, logs that.
    ///
    /// Sleeps. Must be called without locks held.
    fn count_failed(name: &Name, reason: Reason) {
        if Self::get().is_some_and(|dedup| dedup.failed.count(name, reason).is_err()) {
            pr_warn!("Could not add fail-tracking for module: {name}\n");
        }
    }

    /// Begins a wait of the current task for the helper of `request`: see
    /// [`WaitGraph::begin_helper`].
    ///
    /// May sleep. Must be called without locks held.
    fn begin_helper(&self, request: Name) -> usize {
        let module = live::claimed_by(self.loads.names(), &TaskId::current());

        self.graph.begin_helper(request, module)
    }

    /// Creates the debugfs files in `dir`. Files that cannot be created are missing.
    fn create_files(&'static self, dir: &ScopedDir<'static, 'static>) {
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
            dir.read_callback_file(c"stats", &self.failed, &FailedModules::write);
        }
        dir.read_callback_file(c"dedup", &DEDUP_STATS, &DedupStats::write);
        dir.read_callback_file(c"pending", self, &Self::write_pending);
    }

    /// Writes the contents of the file `pending`: a block of lines for each load and request in
    /// flight, and for each waiter.
    fn write_pending(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::write_table(self.loads.files(), f, |file, f| {
            writeln!(f, "flags\t{:#x}", file.flags)
        })?;
        Self::write_table(self.loads.names(), f, |_, _| Ok(()))?;
        Self::write_table(self.requests.in_flight(), f, |_, _| Ok(()))?;
        self.graph.write(f)
    }

    /// Writes a block of lines for each entry of `table`. `write_key` writes the lines that only
    /// keys of this type have.
    fn write_table<K: Key>(
        table: &Table<K>,
        f: &mut fmt::Formatter<'_>,
        write_key: impl Fn(&K, &mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut result = Ok(());

        table.for_each(|pending| {
            let owner = pending.owner();
            let mut write = || {
                pending.key().target().write(f, '\t')?;
                writeln!(f)?;
                write_key(pending.key(), f)?;
                f.write_fmt(fmt!("owner\t{owner}\n"))?;
                writeln!(f, "waiters\t{}", pending.waiters())?;
                f.write_fmt(fmt!("age_ms\t{}\n\n", owner.age().as_millis()))
            };

            result = result.and_then(|()| write());
        });
        result
    }
}
