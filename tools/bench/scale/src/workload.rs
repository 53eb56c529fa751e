// SPDX-License-Identifier: GPL-2.0

//! The workloads: what many threads load or request at the same time.

use kernel::{
    audit,
    init::PinInit,
    module_list::{ModuleList, ModuleState},
    prelude::*,
    profile,
};
use std::{
    ffi::{CStr, CString},
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        Arc, Barrier,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    content::{Content, KnownImages},
    key::{Args, FileKey},
    live,
    load::{Load, Loads, Mode, Source},
    request::Requests,
    target::Name,
    task::TaskId,
    wait_graph::WaitGraph,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    OneFile,
    OwnFiles,
    OneName,
    LateSameFile,
    LateOwnFiles,
    Failing,
    Unload,
    Requests,
}

use Workload::*;

pub(crate) const ALL: [Workload; 8] = [
    OneFile,
    OneName,
    Failing,
    OwnFiles,
    LateOwnFiles,
    LateSameFile,
    Unload,
    Requests,
];

impl Workload {
    pub(crate) fn text(self) -> &'static str {
        match self {
            OneFile => "all load one file at once",
            OwnFiles => "each loads its own file",
            OneName => "all load one module from different files at once",
            LateSameFile => "late duplicates: all load the file of a live module",
            LateOwnFiles => "late duplicates: each loads its own file of a live module",
            Failing => "all load a bad image from different files at once",
            Unload => "each loads its own file and unloads the module",
            Requests => "each requests a module of its own, with wait",
        }
    }

    /// Returns whether the calls come in rounds. In each, all threads call at once and one of them
    /// does the work.
    pub(crate) fn is_herd(self) -> bool {
        matches!(self, OneFile | OneName | Failing)
    }

    /// Number of calls that each of `threads` threads makes.
    pub(crate) fn calls(self, threads: usize) -> usize {
        match self {
            OneFile | OneName | Failing => 20,
            // Most of them sleep.
            LateSameFile => 4_000 / threads,
            Unload | OwnFiles | LateOwnFiles => 64_000 / threads,
            Requests => 6_400 / threads,
        }
    }

    /// Instructions of a call in the kernel, the loader included, as far as they were counted
    /// (`make cost`; the late duplicate by selftest load_cost). A herd waits for one load.
    pub(crate) fn instructions(self) -> Option<u32> {
        match self {
            OneFile | OwnFiles | OneName => Some(304_000),
            LateSameFile | LateOwnFiles => Some(4_681),
            Failing | Unload | Requests => None,
        }
    }
}

/// The time that the loader takes in a herd, once all threads have made their call: most of them
/// wait by then.
const LOAD_TIME: Duration = Duration::from_micros(500);

/// The image of a module.
struct Image<'a> {
    name: &'a CStr,
    /// Let others run while the name is peeked.
    is_slow: bool,
}

impl Image<'_> {
    const BYTES: &'static [u8] = &[1; 4096];
}

impl Source for Image<'_> {
    fn is_compressed(&self) -> bool {
        false
    }

    fn name(&mut self, _: &KnownImages) -> Option<Name> {
        if self.is_slow {
            thread::yield_now();
        }
        Some(Name::new(self.name.to_bytes()))
    }

    fn is_content(&mut self, images: &KnownImages, content: &Content) -> bool {
        let len = Self::BYTES.len() as u64;

        images.is_content(content, len, |hash| hash.read(&mut { Self::BYTES }, len))
    }

    fn size(&self) -> usize {
        Self::BYTES.len()
    }
}

/// The state of the kernel that all threads share.
struct World {
    loads: Loads,
    requests: Requests,
    graph: WaitGraph,
    list: Arc<ModuleList>,
    names: Vec<CString>,
    workload: Workload,
    /// Number of calls that have begun, in workloads in rounds.
    begun: AtomicUsize,
}

impl World {
    fn new(workload: Workload, threads: usize) -> Self {
        let names: Vec<_> = (0..threads)
            .map(|thread| CString::new(format!("module_{thread}")).unwrap())
            .collect();
        let list = ModuleList::new(&names.iter().map(|name| &**name).collect::<Vec<_>>());

        if matches!(workload, LateSameFile | LateOwnFiles) {
            list.set(&names[0], Some(ModuleState::Live));
        }
        Self {
            loads: Loads::new().make().unwrap(),
            requests: PinInit::<_>::make(Requests::new()).unwrap(),
            graph: WaitGraph::new().make().unwrap(),
            list,
            names,
            workload,
            begun: AtomicUsize::new(0),
        }
    }

    /// Makes the `nth` call of `thread`.
    fn call(&self, thread: usize, nth: usize) -> c_int {
        let own = self.names[thread].as_c_str();
        let one = self.names[0].as_c_str();

        match self.workload {
            OneFile | LateSameFile => self.load(0, one, true),
            OneName | LateOwnFiles => self.load(thread, one, true),
            Failing => self.load(thread, one, false),
            OwnFiles => {
                let result = self.load(thread, own, true);

                // As if it had never been there, for the next load.
                self.list.set(own, None);
                result
            }
            Unload => {
                let result = self.load(thread, own, true);

                self.list.set(own, Some(ModuleState::Going));
                self.loads.module_going(&Name::new(own.to_bytes()));
                self.list.set(own, None);
                self.loads.module_unloaded();
                result
            }
            Requests => self.request(&format!("alias_{thread}_{nth}")),
        }
    }

    /// Loads a module from a file, as module_dedup_load_file() does.
    fn load(&self, file: usize, name: &CStr, is_good: bool) -> c_int {
        let key = FileKey {
            // The size of an inode of ext4 in the slab.
            inode: 0xffff_8881_0234_5000 + file * 1096,
            dev: 0,
            ino: file as u64,
            flags: 0,
            args: Args::Empty,
            changes: 0,
        };
        let load = || {
            self.loads.load_file(
                &self.graph,
                Mode::Full,
                key,
                &mut Image {
                    name,
                    is_slow: self.workload == LateSameFile,
                },
                |load| match self.run_loader(load, name, is_good) {
                    Ok(()) => 0,
                    Err(err) => err.to_errno(),
                },
            )
        };

        audit::syscall(load).0
    }

    /// The steps of the loader in C that call back, without its work.
    fn run_loader(&self, load: &mut Load<'_>, name: &CStr, is_good: bool) -> Result {
        if self.workload.is_herd() {
            while self.begun.load(Relaxed) % self.names.len() != 0 {
                thread::yield_now();
            }
            thread::sleep(LOAD_TIME);
        }
        load.set_image(Image::BYTES);
        if !is_good {
            return Err(ENOEXEC);
        }
        load.claim_name(&Name::new(name.to_bytes()))?;
        let list = self.list.lock();
        if list.state(name).is_some() {
            return Err(EEXIST);
        }
        list.add(name);
        drop(list);
        load.joined_list();
        self.list.set(name, Some(ModuleState::Live));
        self.loads.module_live(&Name::new(name.to_bytes()));
        Ok(())
    }

    /// Requests a module, as __request_module() does. modprobe does nothing.
    fn request(&self, name: &str) -> c_int {
        let name = Name::new(name.as_bytes());
        let modprobe = || {
            let module = live::claimed_by(self.loads.names(), &TaskId::current());
            let ticket = self.graph.begin_helper(name, module);

            self.graph.end_helper(ticket);
            0
        };

        (self.requests).request(&self.graph, &self.loads, name, true, modprobe, || ())
    }

    /// Fails unless the call did what the workload is about.
    fn check(&self, result: c_int) {
        let good = match self.workload {
            OwnFiles | Unload | Requests => [0, 0],
            // A thread of a herd may come late.
            OneFile | OneName => [0, EEXIST.to_errno()],
            LateSameFile | LateOwnFiles => [EEXIST.to_errno(); 2],
            Failing => [ENOEXEC.to_errno(); 2],
        };

        assert!(good.contains(&result), "{}: {result}", self.workload.text());
    }
}

/// Makes `calls` calls in each of `threads` threads. Returns the time that a call took on average,
/// in nanoseconds: of all threads together, so that it is half as long if two run in parallel.
pub(crate) fn run(workload: Workload, threads: usize, calls: usize) -> f64 {
    let world = World::new(workload, threads);
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        world.list.adopt();
        profile::begin();
        barrier.wait();
        let start = Instant::now();
        for nth in 0..calls {
            world.begun.fetch_add(1, Relaxed);
            world.check(world.call(thread, nth));
            if workload.is_herd() {
                barrier.wait();
                // The module is gone before the next round.
                if thread == 0 {
                    world.list.set(&world.names[0], None);
                }
                barrier.wait();
            }
        }
        let time = start.elapsed();
        profile::end();
        time
    };

    let times = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();

        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .max()
    });
    times.unwrap_or_default().as_nanos() as f64 / (threads * calls) as f64
}
