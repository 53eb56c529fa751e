// SPDX-License-Identifier: GPL-2.0

//! The life of one load, from the system call to its result.
//!
//! A load from a file first enters the table of files: one load of a file runs at a time, and the
//! others wait for it. The one that runs goes through the [stages](Stage). It calls the loader in
//! C, which calls [`Load::set_image`], [`Load::claim_name`] and [`Load::joined_list`] on its way. A
//! load from memory has no file to share and starts with the stages.

use core::mem;

use kernel::{
    audit,
    error::to_result,
    module_list::ModuleState,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc, //
    }, //
};

use crate::{
    content::{
        Content,
        ImageId,
        KnownImages, //
    },
    key::{
        self,
        Args,
        FileKey,
        Key, //
    },
    live::{
        self,
        ClaimError, //
    },
    pending::{
        Outcome,
        Owner,
        Pending,
        Role,
        Table, //
    },
    stats::{
        LoadCounters,
        DEDUP_STATS,
        FROM_FILE,
        FROM_MEMORY, //
    },
    target::{
        Name,
        Target, //
    },
    task::TaskId,
    trace,
    wait::{
        Patience,
        WaitError,
        WaitMode, //
    },
    wait_graph::WaitGraph, //
};

/// The value of `module.dedup=`: the duplicates that are detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All duplicates, before the image is read where possible.
    Full,
    /// As without this code: loads of one inode share a result; the loader checks the name before
    /// it allocates the module, and again when the module joins the module list.
    Inode,
    /// Only the two checks of the name.
    Early,
    /// Only the check of the name when the module joins the module list.
    None,
}

/// The image of a module before it is read as a whole.
pub(crate) trait Source {
    /// Returns whether the image is compressed.
    fn is_compressed(&self) -> bool;

    /// Returns the name of the module, if a few small reads or the hash of a compressed image tell
    /// it. Allocates nothing of the size of the image. Sleeps.
    fn name(&mut self, images: &KnownImages) -> Option<Name>;

    /// Returns whether the image has the identity `content`.
    fn is_content(&mut self, images: &KnownImages, content: &Content) -> bool;

    /// Returns the number of bytes that would be allocated to read the image, or 0 if it cannot be
    /// that large.
    fn size(&self) -> usize;
}

/// The loads in flight.
#[pin_data]
pub(crate) struct Loads {
    /// Loads from files.
    #[pin]
    files: Table<FileKey>,
    /// Loads that know the name of their module.
    #[pin]
    names: Table<Name>,
    /// Hashes of compressed images, to tell their names.
    #[pin]
    pub(crate) images: KnownImages,
    /// Number of changes of the module list that can make a failed load succeed: a module has
    /// become live or GOING, has been unloaded, or has failed after it joined the list.
    ///
    /// [`Release`] pairs with the [`Acquire`] in [`Loads::changes`]: a load or request that reads a
    /// change sees the module list after it.
    changes: Atomic<u32>,
    /// Number of modules that have joined the module list without a claim on their name. Relaxed:
    /// it only saves a look at the list, which decides.
    unclaimed: Atomic<u32>,
}

impl Loads {
    /// Makes empty tables. Fails without memory.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            files <- Table::new(),
            names <- Table::new(),
            images <- KnownImages::new(),
            changes: Atomic::new(0),
            unclaimed: Atomic::new(0),
        })
    }

    /// Returns the number of changes of the module list. Two values tell whether a failure from
    /// before the second one may no longer be true.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Acquire)
    }

    fn count_change(&self) {
        self.changes.fetch_add(1_u32, Release);
    }

    pub(crate) fn files(&self) -> &Table<FileKey> {
        &self.files
    }

    pub(crate) fn names(&self) -> &Table<Name> {
        &self.names
    }

    /// Loads a module from a file, or shares the load of the same file that is in flight.
    ///
    /// `load` calls the loader. Returns the result of the loader, that of the load that was shared,
    /// or the negative errno with which this load was rejected or aborted.
    ///
    /// Sleeps. Must be called without locks held.
    // Not inlined, here and below, to keep stack frames small.
    #[inline(never)]
    pub(crate) fn load_file(
        &self,
        graph: &WaitGraph,
        mode: Mode,
        mut key: FileKey,
        source: &mut impl Source,
        load: impl FnOnce(&mut Load<'_>) -> c_int,
    ) -> c_int {
        let task = TaskId::current();
        let is_tracked = matches!(mode, Mode::Full | Mode::Inode);
        let began = self.changes();

        DEDUP_STATS.loads.add(1, Relaxed);
        loop {
            key.changes = self.changes();
            let role = is_tracked.then(|| self.files.enter(&key, &task));
            let owner = match role {
                Some(Role::Owner(owner)) => Some(owner),
                Some(Role::Waiter(other)) => match self.share(graph, mode, &key, began, &other) {
                    Ok(Shared::Result(result)) => {
                        DEDUP_STATS.same_file.add(1, Relaxed);
                        DEDUP_STATS.bytes_saved.add(source.size(), Relaxed);
                        return result;
                    }
                    Ok(Shared::Exists) => {
                        DEDUP_STATS.same_name.add(1, Relaxed);
                        DEDUP_STATS.bytes_saved.add(source.size(), Relaxed);
                        trace::pending(&key.target(), EEXIST);
                        return EEXIST.to_errno();
                    }
                    Ok(Shared::Nothing) => continue,
                    Err(err) => {
                        DEDUP_STATS.aborted.add(1, Relaxed);
                        return Error::from(err).to_errno();
                    }
                },
                Some(Role::Untracked) => {
                    DEDUP_STATS.untracked.add(1, Relaxed);
                    None
                }
                None => None,
            };
            return self.own(graph, mode, &task, &key, owner.as_ref(), |this| {
                this.run(source, load)
            });
        }
    }

    /// Runs a load from a file that waits for no other load of the file. `file` is its entry, which
    /// it has unless there was no memory or loads of files are not deduplicated.
    #[inline(never)]
    fn own(
        &self,
        graph: &WaitGraph,
        mode: Mode,
        task: &TaskId,
        key: &FileKey,
        file: Option<&Owner<'_, FileKey>>,
        run: impl FnOnce(&mut Load<'_>) -> c_int,
    ) -> c_int {
        let mut this = Load::new(self, graph, mode, task, key.flags, &key.args, &FROM_FILE);

        this.file = file;
        run(&mut this)
    }

    /// Waits for `other`, a load of the same file. Returns the meaning of its outcome for the load
    /// of `key`, at whose beginning [`Loads::changes`] was `began`.
    ///
    /// Sleeps. Must be called without locks held.
    #[inline(never)]
    fn share(
        &self,
        graph: &WaitGraph,
        mode: Mode,
        key: &FileKey,
        began: u32,
        other: &Arc<Pending<FileKey>>,
    ) -> Result<Shared, WaitError> {
        let outcome = Pending::wait(
            other,
            graph,
            WaitMode::Interruptible,
            Patience::Unlimited,
            None,
        )?;
        let Outcome::Shared(result) = outcome else {
            return Ok(Shared::Nothing);
        };

        if mode == Mode::Inode {
            return Ok(Shared::Result(result));
        }
        Ok(match result {
            0 if key.is_same_load(other.key()) => Shared::Result(0),
            0 => Shared::Exists,
            // A failure with other flags or arguments says nothing about these.
            _ if !key.is_same_load(other.key()) => Shared::Nothing,
            // The other load may have failed because of a module that was missing, or in the way,
            // before this load began.
            _ if key::is_before(other.key().changes, began) => Shared::Nothing,
            _ => Shared::Result(result),
        })
    }

    /// Completes the claim on `name`, whose module is live. The system call of its owner may take
    /// longer, for example to wait for asynchronous probes. Does not sleep.
    pub(crate) fn module_live(&self, name: &Name) {
        self.count_change();
        self.names.publish(name, Outcome::Shared(0));
    }

    /// Detaches the pending loads of the files of the module `name`, which is GOING: a load that
    /// begins later must not share a result from before the unload. Does not sleep.
    pub(crate) fn module_going(&self, name: &Name) {
        self.count_change();
        self.files.detach(name);
    }

    /// Records that a module that was GOING has been freed: a load that begins later must not share
    /// a failure because of it. Does not sleep.
    pub(crate) fn module_unloaded(&self) {
        self.count_change();
    }

    /// Loads a module from memory.
    ///
    /// `load` calls the loader. Returns the result of the loader, or the negative errno with which
    /// this load was rejected or aborted.
    ///
    /// Sleeps. Must be called without locks held.
    pub(crate) fn load_memory(
        &self,
        graph: &WaitGraph,
        mode: Mode,
        args: Args,
        source: &mut impl Source,
        load: impl FnOnce(&mut Load<'_>) -> c_int,
    ) -> c_int {
        let task = TaskId::current();

        DEDUP_STATS.loads.add(1, Relaxed);
        let mut this = Load::new(self, graph, mode, &task, 0, &args, &FROM_MEMORY);

        this.run(source, load)
    }
}

/// The meaning of the outcome of a load for another load of the same file, which has waited for it.
enum Shared {
    /// The waiter has the same result.
    Result(c_int),
    /// The module is live, with other flags or arguments.
    Exists,
    /// The outcome does not apply to the waiter, which starts over.
    Nothing,
}

/// The stages of a load.
///
/// ```text
///     Unnamed ---> Named, Vacant ---> Listed
///        |              |
///        +--------------+--> Rejected, Aborted
/// ```
enum Stage<'a> {
    /// The name of the module is not known.
    Unnamed,
    /// The name is known. In mode `full`, the load has claimed it, unless [`live::claim`] returned
    /// [`None`].
    Named(Name, Option<Owner<'a, Name>>),
    /// The load has claimed the name, and then found no module of that name in the module list. The
    /// loader skips its early check: only a load without a claim can have added such a module, and
    /// the check under `module_mutex` finds it.
    Vacant(Name, Owner<'a, Name>),
    /// The module has joined the module list. Loads that wait for the name fail with `EEXIST` or
    /// `EBUSY` when this load ends.
    Listed(Option<Owner<'a, Name>>),
    /// The load is a duplicate: the module is live, or another load of the name or of the same
    /// image has ended.
    Rejected,
    /// The load could not wait for another load of the name, because of a signal or a deadlock.
    Aborted,
}

/// A load that the loader in C works on: `struct module_dedup_load`.
pub(crate) struct Load<'a> {
    loads: &'a Loads,
    graph: &'a WaitGraph,
    mode: Mode,
    task: &'a TaskId,
    /// The flags of finit_module(2), or 0.
    flags: c_int,
    args: &'a Args,
    counters: &'static LoadCounters,
    is_compressed: bool,
    /// The entry of the file, if the load has one.
    file: Option<&'a Owner<'a, FileKey>>,
    /// Value of [`Loads::unclaimed`] when the load began.
    unclaimed: u32,
    /// The identity of the image. Computed only if it may be of use: see [`Load::set_image`].
    content: Option<Content>,
    stage: Stage<'a>,
}

impl<'a> Load<'a> {
    fn new(
        loads: &'a Loads,
        graph: &'a WaitGraph,
        mode: Mode,
        task: &'a TaskId,
        flags: c_int,
        args: &'a Args,
        counters: &'static LoadCounters,
    ) -> Self {
        Self {
            loads,
            graph,
            mode,
            task,
            flags,
            args,
            counters,
            is_compressed: false,
            file: None,
            unclaimed: loads.unclaimed.load(Relaxed),
            content: None,
            stage: Stage::Unnamed,
        }
    }

    /// Returns the mode that `module.dedup=` has selected.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the arguments of the module.
    pub(crate) fn args(&self) -> &Args {
        self.args
    }

    /// Runs the load, from its first to its last stage, and returns its result.
    ///
    /// Rejects a duplicate before anything of the size of the image is allocated, if the name of
    /// the module is known by then. A load of an unknown name always goes to the loader.
    #[inline(never)]
    fn run(
        &mut self,
        source: &mut impl Source,
        load: impl FnOnce(&mut Load<'_>) -> c_int,
    ) -> c_int {
        self.is_compressed = source.is_compressed();
        let result = match self.reject_early(source) {
            Ok(()) => load(self),
            Err(err) => err.to_errno(),
        };

        self.finish(result);
        result
    }

    /// Fails if a duplicate of this load is pending or live, before the image is read.
    #[inline(never)]
    fn reject_early(&mut self, source: &mut impl Source) -> Result {
        if self.mode != Mode::Full {
            return Ok(());
        }
        let Some(name) = source.name(&self.loads.images) else {
            return Ok(());
        };
        let (images, flags) = (&self.loads.images, self.flags);
        let is_image =
            |image: &ImageId| image.flags == flags && source.is_content(images, &image.content);
        let result = self
            .claim(&name, is_image)
            .and_then(|()| self.check_list(&name));

        if result.is_err() {
            if !matches!(self.stage, Stage::Aborted) {
                DEDUP_STATS.bytes_saved.add(source.size(), Relaxed);
            }
            // The loader writes this audit record for the loads that reach it.
            audit::log_kern_module(name.as_c_str());
        }
        result
    }

    /// Fails with `EEXIST` if the module `name`, which the load has claimed, is live.
    fn check_list(&mut self, name: &Name) -> Result {
        self.stage = match (
            live::state(name),
            mem::replace(&mut self.stage, Stage::Rejected),
        ) {
            (Some(ModuleState::Live), _) => {
                self.counters.already_loaded.add(1, Relaxed);
                trace::already_loaded(&Target::Module(*name), EEXIST);
                return Err(EEXIST);
            }
            (None, Stage::Named(name, Some(claim))) => Stage::Vacant(name, claim),
            (_, stage) => stage,
        };
        Ok(())
    }

    /// Claims `name`, which the loader has found in the image. Does nothing if the load has peeked
    /// the same name. Drops the claim on another name first: the image may have changed since.
    ///
    /// Fails with `EEXIST` or `EBUSY` for a duplicate, with `EDEADLK`, or with `ERESTARTSYS` on a
    /// signal. Sleeps. Must be called without locks held.
    pub(crate) fn claim_name(&mut self, name: &Name) -> Result {
        // Lets later loads of these bytes find the name before they read the image.
        if let (Stage::Unnamed, true, Some(content)) =
            (&self.stage, self.is_compressed, self.content)
        {
            self.loads.images.add(name, content);
        }
        // The image has been read already: sharing an error saves nothing.
        self.claim(name, |_| false)
    }

    /// Claims `name` in mode `full`, see [`live::claim`], and enters the stage that results.
    #[inline(never)]
    fn claim(&mut self, name: &Name, is_image: impl FnMut(&ImageId) -> bool) -> Result {
        let name = *name;

        if self.mode != Mode::Full {
            self.stage = Stage::Named(name, None);
            return Ok(());
        }
        if let Stage::Named(current, _) | Stage::Vacant(current, _) = &self.stage {
            if *current == name {
                return Ok(());
            }
        }
        // A load must not hold a claim while it waits for another one: drop it first.
        self.stage = Stage::Unnamed;
        match live::claim(&self.loads.names, self.graph, &name, self.task, is_image) {
            Ok(claim) => {
                if claim.is_none() {
                    DEDUP_STATS.untracked.add(1, Relaxed);
                }
                self.stage = Stage::Named(name, claim);
                Ok(())
            }
            Err(ClaimError::Duplicate(err) | ClaimError::BadImage(err)) => {
                self.counters.pending.add(1, Relaxed);
                trace::pending(&Target::Module(name), err);
                self.stage = Stage::Rejected;
                Err(err)
            }
            Err(ClaimError::Aborted(err)) => {
                DEDUP_STATS.aborted.add(1, Relaxed);
                self.stage = Stage::Aborted;
                Err(err.into())
            }
        }
    }

    /// Returns whether the load was rejected as a duplicate by [`Load::claim_name`].
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self.stage, Stage::Rejected)
    }

    /// Returns whether the loader need not look for a module of that name.
    pub(crate) fn is_vacant(&self) -> bool {
        matches!(self.stage, Stage::Vacant(..))
            && self.loads.unclaimed.load(Relaxed) == self.unclaimed
    }

    /// Must be called when the loader has read the image, before it looks at it.
    ///
    /// Hashes the image if the hash may be of use: if other loads wait for the name, to share an
    /// error with those of the same image; or if the image is compressed and its name is not known,
    /// to tell the name of later images of the same bytes.
    #[inline(never)]
    pub(crate) fn set_image(&mut self, image: &[u8]) {
        let is_wanted = match &self.stage {
            Stage::Unnamed => self.mode == Mode::Full && self.is_compressed,
            Stage::Named(_, Some(claim)) | Stage::Vacant(_, claim) => claim.has_waiters(),
            _ => false,
        };

        if is_wanted {
            self.content = Some(self.loads.images.content_of(image));
        }
    }

    /// Records that the module has joined the module list. Does not sleep.
    ///
    /// Must be called before the loader takes `module_mutex` again: an unload, which takes it
    /// later, sees what is recorded here.
    pub(crate) fn joined_list(&mut self) {
        let (name, claim) = match mem::replace(&mut self.stage, Stage::Unnamed) {
            Stage::Named(name, claim) => (name, claim),
            Stage::Vacant(name, claim) => (name, Some(claim)),
            stage => {
                self.stage = stage;
                return;
            }
        };

        if let Some(file) = self.file {
            file.set_module(name);
        }
        if let Some(claim) = &claim {
            claim.set_module(name);
        } else {
            self.loads.unclaimed.fetch_add(1_u32, Relaxed);
        }
        self.stage = Stage::Listed(claim);
    }

    /// Ends the load with `result`.
    #[inline(never)]
    fn finish(&mut self, result: c_int) {
        let outcome = self.outcome(result);

        if !matches!(self.stage, Stage::Rejected | Stage::Aborted) {
            DEDUP_STATS.performed.add(1, Relaxed);
        }
        match mem::replace(&mut self.stage, Stage::Unnamed) {
            Stage::Listed(claim) => {
                if let Some(claim) = claim {
                    claim.complete(outcome);
                }
                // After the claim, because of which loads of other files fail.
                if result != 0 {
                    self.loads.count_change();
                }
            }
            Stage::Named(_, Some(claim)) | Stage::Vacant(_, claim) => {
                // A claim that is dropped tells its waiters to start again.
                if let Some(outcome) = self.image_outcome(result) {
                    claim.complete(outcome);
                }
            }
            Stage::Named(_, None) | Stage::Unnamed | Stage::Rejected | Stage::Aborted => (),
        }
        if let Some(file) = self.file {
            file.complete(outcome);
        }
    }

    /// Returns the outcome for the loads that wait for the name of this load, which has failed with
    /// `result` before its module joined the list. Returns [`None`] if the failure is not due to
    /// the image: the claim is then dropped, and its waiters start over.
    fn image_outcome(&self, result: c_int) -> Option<Outcome> {
        let err = to_result(result).err()?;
        let content = match err {
            // The module list has decided, not the image.
            EEXIST | EBUSY => return None,
            // A security module has denied this file or this task, not these bytes.
            EACCES => None,
            _ if self.is_of_this_task(result) => return None,
            // The same, of a compressed file: a security module looks at it after set_image().
            EPERM if self.is_compressed => None,
            _ => self.content,
        };
        let flags = self.flags;

        Some(Outcome::BadImage(
            err,
            content.map(|content| ImageId { content, flags }),
        ))
    }

    /// Returns the outcome for the loads that wait for the file of this load, which has ended with
    /// `result`.
    fn outcome(&self, result: c_int) -> Outcome {
        if self.is_of_this_task(result) {
            Outcome::Retry
        } else {
            Outcome::Shared(result)
        }
    }

    /// Returns whether `result` holds for this task alone: because of a signal, a deadlock, a lack
    /// of memory, or a security module that has denied the task the load.
    fn is_of_this_task(&self, result: c_int) -> bool {
        if result >= 0 {
            return false;
        }

        match self.stage {
            Stage::Aborted => true,
            // A signal makes the loader fail in many ways, for example while it waits for a module
            // that exports a symbol.
            _ if current!().signal_pending() => true,
            // Once the module has joined the list, any error may be that of its init function, and
            // loads that wait for the name fail with EBUSY whatever it is, as in C.
            Stage::Listed(..) => false,
            _ => [ENOMEM, EACCES].map(Error::to_errno).contains(&result),
        }
    }
}
