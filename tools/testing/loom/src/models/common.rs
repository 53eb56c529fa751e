// SPDX-License-Identifier: GPL-2.0

//! The shared parts of the models of loads: the tables, the tasks, and the checks of each load.

use kernel::{
    init::PinInit,
    prelude::*,
    sync::{self, atomic::be_plain},
    task::{self, Task},
    tracepoint::{self, Event},
};
use loom::{
    sync::{
        atomic::{AtomicI32, Ordering::SeqCst},
        Condvar, Mutex,
    },
    thread,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use crate::{
    content::{Content, KnownImages},
    key::{Args, FileKey, Key},
    load::{Load, Loads, Mode, Source},
    pending::{Outcome, Owner, Pending, Role},
    stats::DEDUP_STATS,
    target::Name,
    task::TaskId,
    wait::{Patience, WaitError, WaitMode},
    wait_graph::WaitGraph,
};

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It called the loader, which returned that.
    Owned(c_int),
    /// It returned that without the loader.
    Returned(c_int),
}

impl End {
    /// Returns the result of the system call.
    pub(super) fn result(self) -> c_int {
        let (Self::Owned(result) | Self::Returned(result)) = self;

        result
    }

    pub(super) fn is_owned(self) -> bool {
        matches!(self, Self::Owned(_))
    }
}

pub(super) const LOADED: End = End::Owned(0);
pub(super) const INTERRUPTED: End = End::Returned(ERESTARTSYS.to_errno());
pub(super) const DEADLOCK: End = End::Returned(EDEADLK.to_errno());
pub(super) const EXISTS: End = End::Returned(EEXIST.to_errno());
pub(super) const BUSY: End = End::Returned(EBUSY.to_errno());

pub(super) fn succeeded(end: End) -> bool {
    end.result() >= 0
}

/// The result of the loader.
#[derive(Clone, Copy)]
pub(super) struct Loaded {
    pub(super) result: c_int,
    /// The module has joined the module list.
    pub(super) has_joined: bool,
}

impl From<c_int> for Loaded {
    fn from(result: c_int) -> Self {
        Self {
            result,
            has_joined: false,
        }
    }
}

/// The outcome that an owner must leave to the waiters for its file.
#[derive(Clone, Copy)]
enum Expected {
    Shared(c_int),
    Retry,
    /// Either, because a signal may come between the loader and the check.
    Any(c_int),
}

impl Expected {
    /// Returns what the current task must leave when its loader has returned `loaded`.
    fn after(loaded: Loaded) -> Self {
        let Loaded { result, has_joined } = loaded;
        let is_interrupted = || {
            [EINTR, ERESTARTSYS].map(Error::to_errno).contains(&result)
                && Task::current().signal_pending()
        };

        if result >= 0 {
            Self::Shared(result)
        } else if ([ENOMEM, EACCES].map(Error::to_errno).contains(&result) && !has_joined)
            || Task::current().fatal_signal_pending()
            || is_interrupted()
        {
            Self::Retry
        } else if task::takes_signals() {
            Self::Any(result)
        } else {
            Self::Shared(result)
        }
    }
}

/// An image whose name only the loader can tell.
pub(super) struct Opaque;

impl Source for Opaque {
    fn is_compressed(&self) -> bool {
        false
    }

    fn name(&mut self, _: &KnownImages) -> Option<Name> {
        None
    }

    fn is_content(&mut self, _: &KnownImages, _: &Content) -> bool {
        false
    }

    fn size(&self) -> usize {
        1
    }
}

/// Any image. The loop of a load is compiled once for all models.
struct Dyn<'a>(&'a mut dyn Source);

impl Source for Dyn<'_> {
    fn is_compressed(&self) -> bool {
        self.0.is_compressed()
    }

    fn name(&mut self, images: &KnownImages) -> Option<Name> {
        self.0.name(images)
    }

    fn is_content(&mut self, images: &KnownImages, content: &Content) -> bool {
        self.0.is_content(images, content)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// A loader, which a load calls at most once.
pub(super) type Loader<'a> = dyn Fn(&mut Load<'_>) -> Loaded + 'a;

/// The loads of a model, and the graph of their waits.
pub(super) struct World {
    pub(super) loads: Loads,
    pub(super) graph: WaitGraph,
    /// Number of owners that each file has. loom sees this, so that it makes owners meet.
    owners: [AtomicI32; 4],
    /// A module has been unloaded: its load may not have returned when another load of the file
    /// begins. Not for loom, as above.
    pub(super) has_unloaded: Cell<bool>,
    /// The results that the waiters of each load must get once its loader has returned. The number
    /// of the load is the inode number in its key. Not for loom, which would explore the order of
    /// the writes.
    expected: Rc<RefCell<Vec<Option<Expected>>>>,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        be_plain(true);
        Self::with(Loads::new().make().unwrap())
    }

    /// Like [`World::new`], but loom sees the number of changes of the module list as well.
    pub(super) fn with_changes() -> Arc<Self> {
        be_plain(false);
        Self::with(Loads::new().make().unwrap())
    }

    fn with(loads: Loads) -> Arc<Self> {
        let expected = Rc::<RefCell<Vec<_>>>::default();
        let expected_by_probe = expected.clone();

        // The numbers of waiters are for display, a ticket only has to be unique, and the lock of
        // the graph protects the rest.
        be_plain(true);
        DEDUP_STATS.reset();
        tracepoint::register_probe(move |event| check_wait(event, &expected_by_probe));
        Arc::new(Self {
            loads,
            graph: WaitGraph::new().make().unwrap(),
            owners: Default::default(),
            has_unloaded: Cell::new(false),
            expected,
        })
    }

    /// Makes the key of a new load of a file.
    pub(super) fn key(&self, file: usize, args: &[u8]) -> FileKey {
        let mut expected = self.expected.borrow_mut();
        let first = FileKey {
            inode: 0x1000,
            dev: file as u32,
            ino: expected.len() as u64,
            flags: 0,
            args: match args {
                [] => Args::Empty,
                _ => Args::Copied(sync::Arc::new(args.to_vec())),
            },
            changes: 0,
        };

        expected.push(None);
        // Inodes that share a bucket, which is the harder case.
        (first.inode..)
            .map(|inode| FileKey {
                inode,
                ..first.clone()
            })
            .filter(|key| key.bucket() == first.bucket())
            .nth(file)
            .unwrap()
    }

    /// Loads a file. The loader, if it is called, returns `result` at once.
    pub(super) fn load(&self, file: usize, result: c_int) -> End {
        self.load_with(file, || result)
    }

    /// Loads a file with these arguments. The loader, if it is called, returns `result` at once.
    pub(super) fn load_args(&self, file: usize, args: &[u8], result: c_int) -> End {
        self.load_file(self.key(file, args), &mut Opaque, &|_| result.into())
    }

    /// Loads a file. The loader, if it is called, calls `f` and returns its result.
    pub(super) fn load_with(&self, file: usize, f: impl Fn() -> c_int) -> End {
        self.load_file(self.key(file, &[]), &mut Opaque, &|_| f().into())
    }

    /// Loads a file whose image is `source`, as module_dedup_load_file() does.
    pub(super) fn load_file(&self, key: FileKey, source: &mut dyn Source, loader: &Loader) -> End {
        let number = key.ino as usize;
        let owners = &self.owners[key.dev as usize];
        let owned = Cell::new(None);
        let may_fail = task::is_to_fail();

        let result = self
            .loads
            .load_file(&self.graph, Mode::Full, key, &mut Dyn(source), |load| {
                assert_eq!(owned.get(), None, "the loader is called twice");
                // A task that found no memory may load beside the owner.
                let is_tracked = !may_fail || task::is_to_fail();

                if is_tracked {
                    let before = owners.fetch_add(1, SeqCst);

                    assert!(
                        before == 0 || self.has_unloaded.get(),
                        "two owners of a file"
                    );
                }
                let loaded = loader(load);

                if is_tracked {
                    owners.fetch_sub(1, SeqCst);
                }
                owned.set(Some(loaded.result));
                let expected = Expected::after(loaded);
                self.expected.borrow_mut()[number] = Some(expected);
                loaded.result
            });

        end_of(owned.get(), result)
    }

    /// Loads a module from memory, as module_dedup_load_memory() does.
    pub(super) fn load_memory(&self, mode: Mode, source: &mut dyn Source, loader: &Loader) -> End {
        let owned = Cell::new(None);

        let result =
            self.loads
                .load_memory(&self.graph, mode, Args::Empty, &mut Dyn(source), |load| {
                    assert_eq!(owned.get(), None, "the loader is called twice");
                    let loaded = loader(load);

                    owned.set(Some(loaded.result));
                    loaded.result
                });

        end_of(owned.get(), result)
    }

    /// Becomes the owner of a file that is not being loaded.
    pub(super) fn own(&self, file: usize) -> Owner<'_, FileKey> {
        match self.enter(file) {
            Role::Owner(owner) => owner,
            _ => panic!("the file is being loaded"),
        }
    }

    /// Enters the table without the loop around it.
    pub(super) fn enter(&self, file: usize) -> Role<'_, FileKey> {
        let key = self.key(file, &[]);

        self.loads.files().enter(&key, &TaskId::current())
    }

    /// Waits for another load of a file without the loop around it.
    pub(super) fn wait(&self, load: &sync::Arc<Pending<FileKey>>) -> Result<Outcome, WaitError> {
        Pending::wait(
            load,
            &self.graph,
            WaitMode::Interruptible,
            Patience::Unlimited,
            None,
        )
    }

    /// Loads `file`; its init function loads `inner` and succeeds in any case. Returns how the
    /// inner load ended, if there was one.
    pub(super) fn nest(&self, file: usize, inner: usize) -> Option<End> {
        let end = Cell::new(None);
        let outer = self.load_with(file, || {
            end.set(Some(self.load(inner, 2)));
            1
        });

        // A task that owns nothing is never refused a wait.
        assert!(succeeded(outer));
        end.get()
    }

    /// No load is in flight and no task waits: nothing is left in the tables, in the graph, or
    /// outside of both.
    pub(super) fn assert_empty(&self) {
        let images = self.loads.images.count();

        assert_eq!(sync::live(), images, "a load or a wait is left");
        DEDUP_STATS.assert_consistent();
        tracepoint::unregister_probe();
    }
}

/// Returns how a load ended that returned `result` and whose loader returned `of_loader`.
fn end_of(of_loader: Option<c_int>, result: c_int) -> End {
    match of_loader {
        Some(of_loader) => {
            assert_eq!(result, of_loader, "an owner returns another result");
            End::Owned(result)
        }
        None => End::Returned(result),
    }
}

loom::thread_local! {
    static WAITS: Cell<[u32; 3]> = Cell::new([0; 3]);
}

/// Returns how often the current task has begun to wait for a load of the same file.
pub(super) fn waits_for_files() -> u32 {
    WAITS.with(|waits| waits.get()[0])
}

/// Returns how often the current task has begun to wait for a load of the same name.
pub(super) fn waits_for_names() -> u32 {
    WAITS.with(|waits| waits.get()[1])
}

/// Checks the end of a wait: the outcome is that of the load that the task has waited for, and
/// nothing that concerns its owner alone.
fn check_wait(event: &Event<'_>, expected: &RefCell<Vec<Option<Expected>>>) {
    match event.name {
        "module_dedup_wait_begin" => {
            return WAITS.with(|waits| {
                let mut counts = waits.get();

                counts[event.get("kind") as usize] += 1;
                waits.set(counts);
            })
        }
        "module_dedup_wait_end" => (),
        _ => return,
    }
    let result = event.get("result") as c_int;
    let retry = EAGAIN.to_errno();
    let of_owner = match event.get("kind") {
        0 => expected.borrow()[event.get("ino") as usize],
        _ => None,
    };

    match of_owner {
        Some(Expected::Shared(of_owner)) if result == of_owner => (),
        Some(Expected::Any(of_owner)) if result == of_owner => (),
        // A signal has ended the wait, or the init function of a load of the same name has failed so.
        _ if result == EINTR.to_errno() => {
            let is_of_init = of_owner.is_none() && !task::takes_signals();

            assert!(
                Task::current().signal_pending() || is_of_init,
                "interrupted by nothing"
            );
        }
        Some(Expected::Shared(of_owner)) => assert_eq!(result, of_owner),
        Some(Expected::Retry | Expected::Any(_)) => assert_eq!(result, retry),
        // The loader was not called, or it is a load of the same name.
        None => {
            for err in [ERESTARTSYS, EDEADLK] {
                assert_ne!(result, err.to_errno(), "a failure of another task");
            }
        }
    }
}

/// Starts a task.
pub(super) fn spawn<W: 'static, T: 'static>(
    world: &Arc<W>,
    f: impl FnOnce(&Arc<W>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = world.clone();

    thread::spawn(move || f(&world))
}

/// Where tasks wait for each other.
pub(super) struct Gate {
    missing: Mutex<usize>,
    open: Condvar,
}

impl Gate {
    /// Makes a gate that opens when this number of tasks has arrived.
    pub(super) fn new(tasks: usize) -> Self {
        Self {
            missing: Mutex::new(tasks),
            open: Condvar::new(),
        }
    }

    /// Waits until all tasks have arrived.
    pub(super) fn pass(&self) {
        let mut missing = self.missing.lock().unwrap();

        *missing -= 1;
        if *missing == 0 {
            self.open.notify_all();
        }
        while *missing != 0 {
            missing = self.open.wait(missing).unwrap();
        }
    }
}
