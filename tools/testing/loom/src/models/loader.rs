// SPDX-License-Identifier: GPL-2.0

//! The loader in C: the steps of `kernel/module/main.c` that a load can tell, in their order, with
//! the calls that the series adds.

use kernel::{
    audit,
    module_list::{Guard, ModuleList, ModuleState},
    prelude::*,
};
use std::{cell::Cell, ffi::CStr, rc::Rc, sync::Arc};

use super::{
    common::{waits_for_files, End, Loaded, World},
    history::{History, Kind, Stage},
};
use crate::{
    content::{Content, KnownImages},
    load::{Load, Mode, Source},
    target::Name,
};

pub(super) const MODULE: &CStr = c"module";
pub(super) const OTHER: &CStr = c"other";

/// A step of the loader, which returns 0 or a negative errno.
type Step = Rc<dyn Fn() -> c_int>;

/// The image of a module, and how its load goes.
#[derive(Clone)]
pub(super) struct Image {
    /// The name that the loader finds.
    name: &'static CStr,
    /// The name that a few small reads find before.
    peeked: Option<&'static CStr>,
    /// The bytes of the image.
    bytes: &'static [u8],
    is_compressed: bool,
    /// Opens the image, before it is read.
    open: Step,
    /// Reads and verifies the image, before its name is known.
    read: Step,
    /// Allocates the module, after its name was checked.
    allocate: Step,
    /// Relocates the module, after it has joined the list.
    relocate: Step,
    /// The init function.
    init: Step,
    /// Waits for asynchronous probes, after the module is live.
    settle: Step,
}

impl Image {
    /// A module called `name` that loads without errors.
    pub(super) fn new(name: &'static CStr) -> Self {
        let succeed: Step = Rc::new(|| 0);

        Self {
            name,
            peeked: Some(name),
            bytes: b"image",
            is_compressed: false,
            open: succeed.clone(),
            read: succeed.clone(),
            allocate: succeed.clone(),
            relocate: succeed.clone(),
            init: succeed.clone(),
            settle: succeed,
        }
    }

    /// Sets the name that a few small reads find.
    pub(super) fn peeked(self, peeked: Option<&'static CStr>) -> Self {
        Self { peeked, ..self }
    }

    /// Makes it a compressed image of these bytes.
    pub(super) fn compressed(self, bytes: &'static [u8]) -> Self {
        Self {
            peeked: None,
            bytes,
            is_compressed: true,
            ..self
        }
    }

    /// Makes it an image of these bytes.
    pub(super) fn bytes(self, bytes: &'static [u8]) -> Self {
        Self { bytes, ..self }
    }
}

macro_rules! steps {
    ($($step:ident)*) => {
        impl Image {
            $(
                /// Sets the step of that name.
                pub(super) fn $step(self, step: impl Fn() -> c_int + 'static) -> Self {
                    Self { $step: Rc::new(step), ..self }
                }
            )*
        }
    };
}

steps!(open read allocate relocate init settle);

impl Source for &Image {
    fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    fn name(&mut self, images: &KnownImages) -> Option<Name> {
        match self.is_compressed {
            true => images.name_of(&mut { self.bytes }),
            false => self.peeked.map(|name| Name::new(name.to_bytes())),
        }
    }

    fn is_content(&mut self, images: &KnownImages, content: &Content) -> bool {
        let len = self.bytes.len() as u64;

        images.is_content(content, len, |hash| hash.read(&mut { self.bytes }, len))
    }

    fn size(&self) -> usize {
        1
    }
}

/// A kernel that loads and unloads modules.
pub(super) struct Kernel {
    pub(super) world: Arc<World>,
    list: Arc<ModuleList>,
    history: Option<History>,
}

impl Kernel {
    pub(super) fn new() -> Arc<Self> {
        Self::with(World::new())
    }

    /// Like [`Kernel::new`], but loom sees the number of changes of the module list as well.
    pub(super) fn with_changes() -> Arc<Self> {
        Self::with(World::with_changes())
    }

    fn with(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world,
            list: ModuleList::new(&[MODULE, OTHER]),
            history: None,
        })
    }

    /// Makes a kernel that records all calls, for [`Kernel::assert_empty`] to explain.
    pub(super) fn with_history() -> Arc<Self> {
        let kernel = Self::new();

        Arc::new(Self {
            history: Some(History::new()),
            ..Arc::into_inner(kernel).unwrap()
        })
    }

    /// Returns whether the module is live.
    pub(super) fn is_live(&self, name: &CStr) -> bool {
        self.list.lock().state(name) == Some(ModuleState::Live)
    }

    /// Returns whether the module is in the list.
    pub(super) fn is_listed(&self, name: &CStr) -> bool {
        self.list.lock().state(name).is_some()
    }

    /// Loads a module from a file.
    pub(super) fn finit_module(&self, file: usize, image: &Image) -> End {
        self.finit_module_with(file, &[], image)
    }

    /// Loads a module from a file, with these arguments.
    pub(super) fn finit_module_with(&self, file: usize, args: &[u8], image: &Image) -> End {
        let number = file << 8 | args.len();

        self.call(Kind::Load(number), image, |stage| {
            let key = self.world.key(file, args);

            self.world
                .load_file(key, &mut { image }, &|load| self.load(load, image, stage))
        })
    }

    /// Loads a module from memory.
    pub(super) fn init_module(&self, image: &Image) -> End {
        self.init_module_in(Mode::Full, image)
    }

    /// Loads a module from memory, with this amount of deduplication.
    pub(super) fn init_module_in(&self, mode: Mode, image: &Image) -> End {
        // Such a load shares no result.
        let number = usize::MAX;

        self.call(Kind::Load(number), image, |stage| {
            self.world
                .load_memory(mode, &mut { image }, &|load| self.load(load, image, stage))
        })
    }

    /// Makes a call that loads `image`, and checks its end.
    fn call(&self, kind: Kind, image: &Image, load: impl FnOnce(&Cell<Stage>) -> End) -> End {
        let stage = Cell::new(Stage::NotCalled);
        let waits = waits_for_files();
        let call = || {
            let (end, is_recorded) = audit::syscall(|| load(&stage));

            let is_unread = end.is_owned() && stage.get() == Stage::NotCalled;

            // The other load records its module itself.
            assert!(
                is_recorded || is_unread || waits_for_files() != waits,
                "a load without an audit record"
            );
            end
        };

        match &self.history {
            Some(history) => history.record(kind, image.name, || {
                let end = call();

                (end, end.result(), stage.get())
            }),
            None => call(),
        }
    }

    /// Unloads a module: delete_module().
    pub(super) fn delete_module(&self, name: &'static CStr) -> c_int {
        let unload = || match self.unload(name) {
            Ok(()) => 0,
            Err(err) => err.to_errno(),
        };

        match &self.history {
            Some(history) => history.record(Kind::Unload, name, || {
                let result = unload();

                (result, result, Stage::NotCalled)
            }),
            None => unload(),
        }
    }

    fn unload(&self, name: &CStr) -> Result {
        let guard = self.list.lock();

        match guard.state(name) {
            Some(ModuleState::Live) => (),
            Some(ModuleState::Coming | ModuleState::Going) => return Err(EBUSY),
            Some(ModuleState::Unformed) | None => return Err(ENOENT),
        }
        // try_stop_module().
        if guard.is_held(name) {
            return Err(EAGAIN);
        }
        self.list.set(name, Some(ModuleState::Going));
        drop(guard);
        self.world.has_unloaded.set(true);
        // module_dedup_going(), as far as loads are concerned.
        self.world.loads.module_going(&Name::new(name.to_bytes()));
        self.free_module(name);
        self.world.loads.module_unloaded();
        self.list.wake_up_all();
        Ok(())
    }

    /// module_init_from_file() or module_init_from_memory().
    fn load(&self, load: &mut Load<'_>, image: &Image, stage: &Cell<Stage>) -> Loaded {
        let result = run(&image.open).and_then(|()| {
            stage.set(Stage::NotListed);
            load.set_image(image.bytes);
            self.load_module(load, image, stage)
        });

        Loaded {
            result: result.err().unwrap_or(0),
            has_joined: stage.get() == Stage::Listed,
        }
    }

    /// load_module().
    fn load_module(
        &self,
        load: &mut Load<'_>,
        image: &Image,
        stage: &Cell<Stage>,
    ) -> Result<(), c_int> {
        let allocated = run(&image.read)
            .and_then(|()| self.check_name(load, image.name))
            .and_then(|()| run(&image.allocate));

        audit::log_kern_module(image.name);
        allocated?;
        self.add_unformed_module(image.name)?;
        load.joined_list();
        stage.set(Stage::Listed);

        if let Err(err) = run(&image.relocate) {
            let guard = self.list.lock();

            self.list.set(image.name, None);
            self.list.wake_up_all();
            drop(guard);
            return Err(err);
        }
        // complete_formation().
        let guard = self.list.lock();
        self.list.set(image.name, Some(ModuleState::Coming));
        drop(guard);
        self.do_init_module(image)
    }

    /// module_dedup_check_name(), which early_mod_check() calls.
    fn check_name(&self, load: &mut Load<'_>, name: &CStr) -> Result<(), c_int> {
        load.claim_name(&Name::new(name.to_bytes()))
            .map_err(Error::to_errno)?;
        if load.is_vacant() {
            return Ok(());
        }
        // module_check_duplicate().
        self.module_patient_check_exists(self.list.lock(), name)
            .map(drop)
    }

    fn add_unformed_module(&self, name: &CStr) -> Result<(), c_int> {
        let guard = self.module_patient_check_exists(self.list.lock(), name)?;

        guard.add(name);
        Ok(())
    }

    /// Returns the mutex if there is no module of that name, and drops it on the way to wait.
    fn module_patient_check_exists<'a>(
        &'a self,
        mut guard: Guard<'a>,
        name: &CStr,
    ) -> Result<Guard<'a>, c_int> {
        let Some(mut old) = guard.state(name) else {
            return Ok(guard);
        };

        if matches!(old, ModuleState::Coming | ModuleState::Unformed) {
            drop(guard);
            self.list
                .wait_event_interruptible(name, finished_loading)
                .map_err(Error::to_errno)?;
            guard = self.list.lock();
            old = guard.state(name).unwrap_or(ModuleState::Going);
        }
        drop(guard);
        Err(match old {
            ModuleState::Live => EEXIST.to_errno(),
            _ => EBUSY.to_errno(),
        })
    }

    fn do_init_module(&self, image: &Image) -> Result<(), c_int> {
        let name = image.name;

        if let Err(err) = run(&image.init) {
            // Without the mutex, as below.
            self.list.set(name, Some(ModuleState::Going));
            self.free_module(name);
            self.list.wake_up_all();
            return Err(match err {
                err if err == EEXIST.to_errno() => EBUSY.to_errno(),
                err => err,
            });
        }
        self.list.set(name, Some(ModuleState::Live));
        self.world.loads.module_live(&Name::new(name.to_bytes()));
        (image.settle)();
        // module_put().
        let guard = self.list.lock();
        guard.hold(name, false);
        drop(guard);
        self.list.wake_up_all();
        Ok(())
    }

    fn free_module(&self, name: &CStr) {
        for state in [Some(ModuleState::Unformed), None] {
            let guard = self.list.lock();

            self.list.set(name, state);
            drop(guard);
        }
    }

    /// No call is in progress, and nothing is left of the calls but the modules that are live.
    pub(super) fn assert_empty(&self) {
        for name in [MODULE, OTHER] {
            let state = self.list.lock().state(name);

            match state {
                None => (),
                Some(ModuleState::Live) => {
                    self.world.loads.module_going(&Name::new(name.to_bytes()))
                }
                Some(_) => panic!("a load or an unload is in progress"),
            }
        }
        self.world.assert_empty();
        if let Some(history) = &self.history {
            history.assert_explained();
        }
    }
}

fn finished_loading(state: Option<ModuleState>) -> bool {
    matches!(state, None | Some(ModuleState::Live | ModuleState::Going))
}

fn run(step: &Step) -> Result<(), c_int> {
    match step() {
        0.. => Ok(()),
        err => Err(err),
    }
}
