// SPDX-License-Identifier: GPL-2.0

//! The module list of a model, with `module_mutex` and `module_wq`.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        Arc, Weak,
    },
};

use crate::{
    base::sync::{atomic::AtomicU32, MutexGuard},
    error::Result,
    task::{WaitMode, WaitQueue},
};

pub const MODULE_NAME_LEN: usize = 56;

/// The state of a module in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModuleState {
    Live,
    Coming,
    Going,
    Unformed,
}

const STATES: [Option<ModuleState>; 5] = [
    None,
    Some(ModuleState::Live),
    Some(ModuleState::Coming),
    Some(ModuleState::Going),
    Some(ModuleState::Unformed),
];

/// A module that can be in the list.
struct Slot {
    name: CString,
    /// An index into [`STATES`]. Written under the mutex or by the loader of the module alone, read
    /// by anybody: neither orders anything else.
    state: AtomicU32,
    /// Its init function still holds a reference. Protected by the mutex; not for loom.
    is_held: AtomicBool,
}

/// The modules of a model, which are in the list or not.
pub struct ModuleList {
    slots: Vec<Slot>,
    queue: Arc<WaitQueue>,
}

std::thread_local! {
    static CURRENT: RefCell<Weak<ModuleList>> = const { RefCell::new(Weak::new()) };
}

/// Returns the state of the module called `name`, without a lock: find_module() under RCU.
pub fn state(name: &CStr) -> Option<ModuleState> {
    let list = CURRENT.with(|current| current.borrow().upgrade())?;

    list.state(name)
        .filter(|state| *state != ModuleState::Unformed)
}

impl ModuleList {
    /// Makes an empty list for modules of these names, which is that of [`state`] from now on.
    pub fn new(names: &[&CStr]) -> Arc<Self> {
        let list = Arc::new(Self {
            slots: names
                .iter()
                .map(|name| Slot {
                    name: CString::from(*name),
                    state: AtomicU32::new(0),
                    is_held: AtomicBool::new(false),
                })
                .collect(),
            queue: Arc::default(),
        });

        list.adopt();
        list
    }

    /// Makes this the list of [`state`] in the current thread.
    pub fn adopt(self: &Arc<Self>) {
        CURRENT.with(|current| *current.borrow_mut() = Arc::downgrade(self));
    }

    fn slot(&self, name: &CStr) -> Option<&Slot> {
        self.slots.iter().find(|slot| *slot.name == *name)
    }

    fn state(&self, name: &CStr) -> Option<ModuleState> {
        STATES[self.slot(name)?.state.load(Relaxed) as usize]
    }

    /// Sets the state of a module, as the loader does it without the mutex, or removes it.
    pub fn set(&self, name: &CStr, state: Option<ModuleState>) {
        let number = STATES.iter().position(|other| *other == state).unwrap();

        self.slot(name).unwrap().state.store(number as u32, Relaxed);
    }

    /// Takes `module_mutex`.
    pub fn lock(&self) -> Guard<'_> {
        Guard {
            list: self,
            _guard: self.queue.lock.lock().unwrap(),
        }
    }

    /// Sleeps on `module_wq` until `condition`, which is evaluated under the mutex, holds for the
    /// module `name`. Fails with `ERESTARTSYS` on a signal.
    pub fn wait_event_interruptible(
        &self,
        name: &CStr,
        condition: impl Fn(Option<ModuleState>) -> bool,
    ) -> Result {
        self.queue
            .wait_event(WaitMode::Interruptible, |_| condition(self.state(name)))
    }

    /// Wakes the tasks that sleep on `module_wq`.
    pub fn wake_up_all(&self) {
        self.queue.wake.notify_all();
    }
}

/// `module_mutex` while it is held.
pub struct Guard<'a> {
    list: &'a ModuleList,
    _guard: MutexGuard<'a, bool>,
}

impl Guard<'_> {
    /// Returns the state of a module, even if it is unformed: find_module_all().
    pub fn state(&self, name: &CStr) -> Option<ModuleState> {
        self.list.state(name)
    }

    /// Adds a module that is not in the list.
    pub fn add(&self, name: &CStr) {
        assert_eq!(self.state(name), None, "two modules of one name");
        self.list.set(name, Some(ModuleState::Unformed));
        self.hold(name, true);
    }

    /// Sets whether the init function of a module holds a reference.
    pub fn hold(&self, name: &CStr, is_held: bool) {
        self.list
            .slot(name)
            .unwrap()
            .is_held
            .store(is_held, Relaxed);
    }

    pub fn is_held(&self, name: &CStr) -> bool {
        self.list.slot(name).unwrap().is_held.load(Relaxed)
    }
}
