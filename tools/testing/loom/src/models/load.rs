// SPDX-License-Identifier: GPL-2.0

//! Loads whose names are known, with the loader and the module list: claims, failures and unloads.

use kernel::{
    prelude::*,
    sync::atomic::be_plain,
    task::{self, Signals, Task},
};
use std::{cell::Cell, rc::Rc, sync::Arc};

use super::{
    common::{spawn, waits_for_files, waits_for_names, End, BUSY, EXISTS, INTERRUPTED, LOADED},
    for_each_allocation,
    loader::{Image, Kernel, MODULE, OTHER},
    model, model_of_loads,
};
use crate::{load::Mode, target::Name};

/// Loads an image from a file in another task.
fn spawn_load(kernel: &Arc<Kernel>, file: usize, image: &Image) -> loom::thread::JoinHandle<End> {
    let image = image.clone();

    spawn(kernel, move |kernel| kernel.finit_module(file, &image))
}

/// An error of the image itself.
const BROKEN: c_int = ENOEXEC.to_errno();
/// An error of a security module.
const DENIED: c_int = EACCES.to_errno();
/// An error of the init function.
const FAILED: c_int = EIO.to_errno();

/// Makes a step that fails if the current task has a signal.
fn interruptible(err: Error) -> impl Fn() -> c_int {
    move || match Task::current().signal_pending() {
        true => err.to_errno(),
        false => 0,
    }
}

/// One of two loads has brought the module in, and the other one has not read its image.
fn assert_loaded_once(ends: (End, End)) {
    assert!(
        matches!(ends, (LOADED, EXISTS) | (EXISTS, LOADED)),
        "{ends:?}"
    );
}

/// Two loads of one name from different files. One of them loads the module, and the other one does
/// not read its image; two preemptions.
#[test]
fn files_of_one_name() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let other = spawn_load(&kernel, 1, &image);
        let this = kernel.finit_module(0, &image);

        assert_loaded_once((this, other.join().unwrap()));
        assert!(kernel.is_live(MODULE));
        kernel.assert_empty();
    });
}

/// A load from a file and one from memory. As two files; two preemptions.
#[test]
fn file_and_memory() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let other = spawn_load(&kernel, 0, &image);
        let this = kernel.init_module(&image);

        assert_loaded_once((this, other.join().unwrap()));
        kernel.assert_empty();
    });
}

/// Loads of a module that is live. None of them reads its image, whatever it comes from.
#[test]
fn late_loads() {
    model(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        assert_eq!(kernel.finit_module(0, &image), EXISTS);
        assert_eq!(kernel.finit_module(1, &image), EXISTS);
        assert_eq!(kernel.finit_module_with(1, b"a=1", &image), EXISTS);
        assert_eq!(kernel.init_module(&image), EXISTS);
        kernel.assert_empty();
    });
}

/// A name that only the loader can tell. The image is read, but one module is allocated; two preemptions.
#[test]
fn name_that_cannot_be_peeked() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let allocated = Rc::new(Cell::new(0));
        let image = Image::new(MODULE).allocate({
            let allocated = allocated.clone();

            move || {
                allocated.set(allocated.get() + 1);
                0
            }
        });
        let other = spawn_load(&kernel, 1, &image.clone().peeked(None));
        let this = kernel.finit_module(0, &image);
        let other = other.join().unwrap();

        match (this, other) {
            (LOADED, other) => assert_eq!(other.result(), EXISTS.result()),
            (this, other) => assert_eq!((this, other), (EXISTS, LOADED)),
        }
        assert_eq!(allocated.get(), 1);
        kernel.assert_empty();
    });
}

/// A load that fails before its module is in the list, and one of the same name that does not. The
/// failure says nothing about the other one; two preemptions.
#[test]
fn failure_before_the_list() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let other = spawn_load(&kernel, 1, &Image::new(MODULE).read(|| BROKEN));

        assert_eq!(kernel.finit_module(0, &Image::new(MODULE)), LOADED);
        assert!(matches!(other.join().unwrap(), End::Owned(BROKEN) | EXISTS));
        kernel.assert_empty();
    });
}

/// A load that fails before its module is in the list, and two of the same name that do not. One
/// loads the module, for both; two preemptions.
#[test]
fn failure_before_the_list_of_two() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let others = Rc::new(Cell::new(None));
        let broken = image.clone().read({
            let (kernel, others) = (Arc::downgrade(&kernel), others.clone());
            let image = image.clone();

            move || {
                let kernel = kernel.upgrade().unwrap();

                others.set(Some([1, 2].map(|file| spawn_load(&kernel, file, &image))));
                BROKEN
            }
        });

        assert_eq!(kernel.finit_module(0, &broken), End::Owned(BROKEN));
        let [one, other] = others.take().unwrap().map(|other| other.join().unwrap());
        assert_loaded_once((one, other));
        kernel.assert_empty();
    });
}

/// A load whose init function fails, and one of the same name. A task that has waited for such a
/// load gets `EBUSY` and does not load, as on C; two preemptions.
#[test]
fn failure_after_the_list() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let other = spawn_load(&kernel, 1, &Image::new(MODULE).init(|| FAILED));
        let this = kernel.finit_module(0, &Image::new(MODULE));

        match this {
            BUSY => assert_eq!(waits_for_names(), 1),
            this => assert_eq!((this, waits_for_names()), (LOADED, 0)),
        }
        match other.join().unwrap() {
            // It began when the other one had loaded.
            EXISTS => assert_eq!(this, LOADED),
            other => assert_eq!(other, End::Owned(FAILED)),
        }
        assert_eq!(kernel.is_live(MODULE), this == LOADED);
        kernel.assert_empty();
    });
}

/// Two loads of a file that fails, at each stage in turn. A waiter shares the error. A load that
/// begins when the file is done waits for its name, which is done last; two preemptions.
#[test]
fn failure_of_one_file() {
    let stages: [fn(Image) -> Image; 4] = [
        |image| image.read(|| FAILED),
        |image| image.allocate(|| FAILED),
        |image| image.relocate(|| FAILED),
        |image| image.init(|| FAILED),
    ];

    for stage in stages {
        model_of_loads(move || {
            let kernel = Kernel::new();
            let image = stage(Image::new(MODULE));
            let other = spawn_load(&kernel, 0, &image);
            let this = kernel.finit_module(0, &image);

            match this {
                BUSY => assert_eq!((waits_for_files(), waits_for_names()), (0, 1)),
                this => {
                    assert_eq!(this.result(), FAILED);
                    assert_eq!(this.is_owned(), waits_for_files() == 0);
                }
            }
            assert!(matches!(
                other.join().unwrap(),
                End::Owned(FAILED) | End::Returned(FAILED) | BUSY
            ));
            kernel.assert_empty();
        });
    }
}

/// Loads `file` in a task that has a signal, from an image that cannot be read then, beside a load
/// of file 0 that can. The other task never sees the signal.
fn load_beside_a_signal(send: fn(&Signals), file: usize) {
    model_of_loads(move || {
        let kernel = Kernel::new();
        let image = Image::new(MODULE).read(interruptible(EINTR));
        let other = spawn(&kernel, {
            let image = image.clone();

            move |kernel| {
                let signals = Signals::new();

                send(&signals);
                signals.adopt();
                kernel.finit_module(file, &image)
            }
        });
        let this = kernel.finit_module(0, &image);

        assert_eq!(this, LOADED);
        match other.join().unwrap() {
            INTERRUPTED | EXISTS => (),
            End::Returned(0) => assert_eq!(file, 0),
            other => assert_eq!(other, End::Owned(EINTR.to_errno())),
        }
        kernel.assert_empty();
    });
}

/// An owner that is killed, and a load of the same file or of the same name. The waiter becomes the
/// owner and succeeds; two preemptions.
#[test]
fn killed_owner() {
    load_beside_a_signal(Signals::kill, 0);
    load_beside_a_signal(Signals::kill, 1);
}

/// An owner that a signal interrupts. As if it was killed; two preemptions.
#[test]
fn interrupted_owner() {
    load_beside_a_signal(Signals::send, 0);
    load_beside_a_signal(Signals::send, 1);
}

/// An owner whose module has joined the list when it is killed, and a load of the same file. The
/// failure of its init function is not shared; two preemptions.
#[test]
fn killed_in_init() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let other = spawn(&kernel, |kernel| {
            let signals = Signals::new();
            let image = Image::new(MODULE).init({
                let signals = signals.clone();

                move || {
                    signals.kill();
                    FAILED
                }
            });

            signals.adopt();
            kernel.finit_module(0, &image)
        });

        assert_eq!(kernel.finit_module(0, &Image::new(MODULE)), LOADED);
        let other = other.join().unwrap();
        assert!(matches!(
            other,
            End::Owned(FAILED) | End::Returned(0) | EXISTS
        ));
        kernel.assert_empty();
    });
}

/// An owner that is killed at any time, and two waiters. One of them becomes the owner, and the
/// other one waits for it; two preemptions.
#[test]
fn killed_owner_of_two() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let signals = Signals::new();
        let others = Rc::new(Cell::new(None));
        let killed = image.clone().read({
            let (kernel, image, others) = (kernel.clone(), image.clone(), others.clone());
            let signals = signals.clone();

            move || {
                others.set(Some([(); 2].map(|()| spawn_load(&kernel, 0, &image))));
                signals.kill();
                EINTR.to_errno()
            }
        });

        signals.adopt();
        assert_eq!(
            kernel.finit_module(0, &killed),
            End::Owned(EINTR.to_errno())
        );
        match others.take().unwrap().map(|other| other.join().unwrap()) {
            [LOADED, other] | [other, LOADED] => {
                assert!(matches!(other, End::Returned(0) | EXISTS));
            }
            ends => panic!("{ends:?}"),
        }
        kernel.assert_empty();
    });
}

/// Two loads of a file, one of which fails in its own way. Returns how the other one ended.
fn load_beside_a_failure(file: usize, fail: fn(Image) -> Image, check: fn(End)) {
    model_of_loads(move || {
        let kernel = Kernel::new();
        let other = spawn_load(&kernel, file, &fail(Image::new(MODULE)));

        check(kernel.finit_module(0, &Image::new(MODULE)));
        other.join().unwrap();
        kernel.assert_empty();
    });
}

/// An owner that finds no memory for its module. Its waiters continue; two preemptions.
#[test]
fn no_memory_in_the_loader() {
    for file in [0, 1] {
        let fail = |image: Image| image.allocate(|| ENOMEM.to_errno());

        load_beside_a_failure(file, fail, |this| assert_eq!(this, LOADED));
    }
}

/// An init function whose error looks like one of its task: no memory, or a signal. It is shared,
/// for the module has decided it; two preemptions.
#[test]
fn errors_of_init_are_shared() {
    let errors: [(fn(Image) -> Image, c_int); 2] = [
        (|image| image.init(|| ENOMEM.to_errno()), ENOMEM.to_errno()),
        (|image| image.init(|| EINTR.to_errno()), EINTR.to_errno()),
    ];

    for (fail, error) in errors {
        model_of_loads(move || {
            let kernel = Kernel::new();
            let other = spawn_load(&kernel, 0, &fail(Image::new(MODULE)));
            let this = kernel.finit_module(0, &Image::new(MODULE));

            match waits_for_files() {
                0 if waits_for_names() == 0 => assert_eq!(this, LOADED),
                0 => assert_eq!(this, BUSY),
                _ => assert_eq!(this, End::Returned(error)),
            }
            other.join().unwrap();
            kernel.assert_empty();
        });
    }
}

/// Loads that begin when the module is live and its owner still waits for asynchronous probes. They
/// do not wait for the owner, which would never return.
#[test]
fn live_before_the_owner_returns() {
    model(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let settling = image.clone().settle({
            let (kernel, image) = (kernel.clone(), image.clone());

            move || {
                let late = spawn(&kernel, {
                    let image = image.clone();

                    move |kernel| [kernel.finit_module(1, &image), kernel.init_module(&image)]
                });

                assert_eq!(late.join().unwrap(), [EXISTS; 2]);
                0
            }
        });

        assert_eq!(kernel.finit_module(0, &settling), LOADED);
        kernel.assert_empty();
    });
}

/// Two images whose names change after they were peeked, each to the name of the other one. No load
/// holds a claim while it waits for another one, so that none is rejected for a deadlock; two preemptions.
#[test]
fn names_that_change() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(OTHER).peeked(Some(MODULE));
        let other = spawn_load(&kernel, 1, &image);
        let this = kernel.finit_module(0, &Image::new(MODULE).peeked(Some(OTHER)));

        match (this, other.join().unwrap()) {
            (LOADED, LOADED) => assert!(kernel.is_live(MODULE) && kernel.is_live(OTHER)),
            // The first name is that of a module which the other one has loaded.
            ends => assert!(
                matches!(ends, (LOADED, EXISTS) | (EXISTS, LOADED)),
                "{ends:?}"
            ),
        }
        kernel.assert_empty();
    });
}

/// An image whose name changes after it was peeked, and a load of the first name. The change sets
/// the waiter free; two preemptions.
#[test]
fn name_that_changes_beside_a_load() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let other = spawn_load(&kernel, 1, &Image::new(OTHER).peeked(Some(MODULE)));
        let this = kernel.finit_module(0, &Image::new(MODULE));

        assert_eq!(this, LOADED);
        // It may find the module live that it seems to be.
        assert!(matches!(other.join().unwrap(), LOADED | EXISTS));
        kernel.assert_empty();
    });
}

/// No memory for the entries and the waits of a load. The checks of the loader decide then, and one
/// of two loads succeeds; for each allocation of the task, two preemptions.
#[test]
fn no_memory_for_a_load() {
    for_each_allocation(model_of_loads, |nth| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let other = spawn(&kernel, {
            let image = image.clone();

            move |kernel| {
                task::fail_allocation(nth);
                (kernel.finit_module(1, &image), !task::is_to_fail())
            }
        });
        let this = kernel.finit_module(0, &image);
        let (other, has_failed) = other.join().unwrap();

        match this {
            LOADED => assert_eq!(other.result(), EXISTS.result()),
            this => assert_eq!((this.result(), other), (EXISTS.result(), LOADED)),
        }
        kernel.assert_empty();
        has_failed
    });
}

/// Two modules whose init functions load each other, from other files. One inner load is rejected
/// if both have claimed their names, and both modules load; two preemptions.
#[test]
fn cycle_of_names() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let nest = |outer, inner, file| {
            Image::new(outer).init({
                let kernel = kernel.clone();

                move || {
                    kernel.finit_module(file, &Image::new(inner));
                    0
                }
            })
        };
        let (image, other) = (nest(MODULE, OTHER, 2), nest(OTHER, MODULE, 3));
        let other = spawn_load(&kernel, 1, &other);
        let this = kernel.finit_module(0, &image);

        for end in [this, other.join().unwrap()] {
            assert!(matches!(end, LOADED | EXISTS), "{end:?}");
        }
        assert!(kernel.is_live(MODULE) && kernel.is_live(OTHER));
        kernel.assert_empty();
    });
}

/// A load that a signal interrupts while it waits for the name, and another load of its file. The
/// other one does not get the signal; two preemptions.
#[test]
fn interrupted_wait_is_not_shared() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let others = Rc::new(Cell::new(None));
        let owned = image.clone().read({
            let (kernel, others) = (kernel.clone(), others.clone());

            move || {
                let interrupted = spawn(&kernel, {
                    let image = image.clone();

                    move |kernel| {
                        let signals = Signals::new();

                        signals.send();
                        signals.adopt();
                        kernel.finit_module(1, &image)
                    }
                });

                others.set(Some([interrupted, spawn_load(&kernel, 1, &image)]));
                0
            }
        });

        assert_eq!(kernel.finit_module(0, &owned), LOADED);
        let [interrupted, other] = others.take().unwrap().map(|other| other.join().unwrap());
        assert!(matches!(interrupted, INTERRUPTED | EXISTS));
        assert_eq!(other, EXISTS);
        kernel.assert_empty();
    });
}

/// Compressed images: one of the bytes that a live module came from, one of the same length, and
/// one of another length. Only the first is known to be live before it is read.
#[test]
fn compressed_images() {
    model(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE).compressed(b"module");
        let same_length = Image::new(OTHER).compressed(b"other!");

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        assert_eq!(kernel.finit_module(1, &image), EXISTS);
        assert_eq!(kernel.finit_module(2, &same_length), LOADED);
        let longer = Image::new(MODULE).compressed(b"module!");
        assert_eq!(kernel.finit_module(3, &longer), End::Owned(EXISTS.result()));

        // The image is still known after an unload, but no longer live.
        assert_eq!(kernel.delete_module(MODULE), 0);
        assert_eq!(kernel.finit_module(1, &image), LOADED);
        kernel.assert_empty();
    });
}

/// A compressed image beside an unload of the module that came from it. Some order of the calls
/// explains all results, and the image is loaded after the unload; two preemptions.
#[test]
fn compressed_image_beside_an_unload() {
    model_of_loads(|| {
        let kernel = Kernel::with_history();
        let image = Image::new(MODULE).compressed(b"module");

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        let other = spawn_load(&kernel, 1, &image);
        assert_eq!(kernel.delete_module(MODULE), 0);
        kernel.finit_module(2, &image);
        other.join().unwrap();
        assert!(kernel.is_live(MODULE));
        kernel.assert_empty();
    });
}

/// A load of a live module beside its unload. Some order of the calls explains both results;
/// two preemptions.
#[test]
fn unload_beside_a_late_load() {
    model_of_loads(|| {
        let kernel = Kernel::with_history();
        let image = Image::new(MODULE);

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        let other = spawn_load(&kernel, 1, &image);
        assert_eq!(kernel.delete_module(MODULE), 0);
        other.join().unwrap();
        kernel.assert_empty();
    });
}

/// A load beside an unload, after which the module is loaded again from the same file. Some order
/// of the calls explains all results; two preemptions.
#[test]
fn unload_beside_a_load() {
    model_of_loads(|| {
        let kernel = Kernel::with_history();
        let image = Image::new(MODULE);
        let other = spawn_load(&kernel, 0, &image);

        kernel.delete_module(MODULE);
        kernel.finit_module(0, &image);
        other.join().unwrap();
        kernel.assert_empty();
    });
}

/// The same from another file.
#[test]
fn unload_beside_a_load_of_another_file() {
    model_of_loads(|| {
        let kernel = Kernel::with_history();
        let image = Image::new(MODULE);
        let other = spawn_load(&kernel, 0, &image);

        kernel.delete_module(MODULE);
        kernel.finit_module(1, &image);
        other.join().unwrap();
        kernel.assert_empty();
    });
}

/// Two loads beside an unload of the module. Some order of the calls explains all results; three
/// preemptions.
#[test]
fn unload_beside_two_loads() {
    model_of_loads(|| {
        let kernel = Kernel::with_history();
        let image = Image::new(MODULE);

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        let others = [0, 1].map(|file| spawn_load(&kernel, file, &image));
        kernel.delete_module(MODULE);
        for other in others {
            other.join().unwrap();
        }
        kernel.assert_empty();
    });
}

/// A load that begins after a failed one has returned, beside a load that has waited for that one.
/// It does not share its `EBUSY`; two preemptions.
#[test]
fn busy_is_not_shared_with_later_loads() {
    model_of_loads(|| {
        let kernel = Kernel::with_history();
        let image = Image::new(MODULE);
        let other = spawn_load(&kernel, 1, &image);

        kernel.finit_module(0, &image.clone().init(|| FAILED));
        kernel.finit_module(1, &image);
        other.join().unwrap();
        kernel.assert_empty();
    });
}

/// Loads of one bad image, from a file and from memory. Both get its error; two preemptions.
#[test]
fn bad_image() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE).read(|| BROKEN);

        // The number of waiters decides whether an image is identified.
        be_plain(false);
        let other = spawn_load(&kernel, 1, &image);
        let this = kernel.init_module(&image);
        let other = other.join().unwrap();

        for end in [this, other] {
            assert_eq!(end.result(), BROKEN);
        }
        assert!(!kernel.is_live(MODULE));
        kernel.assert_empty();
    });
}

/// A bad image, and a good one of the same length and flags. No load shares the error of the other
/// image; two preemptions.
#[test]
fn bad_image_and_good_one() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let bad = Image::new(MODULE).bytes(b"wrong").read(|| BROKEN);

        be_plain(false);
        let other = spawn_load(&kernel, 1, &bad);

        assert_eq!(kernel.init_module(&Image::new(MODULE)), LOADED);
        assert!(matches!(other.join().unwrap(), End::Owned(BROKEN) | EXISTS));
        kernel.assert_empty();
    });
}

/// A load that needs a module which another task loads first, and then loads the same file. The
/// failure of a load that did not find that module is not shared with the load that begins when it
/// is live; two preemptions.
#[test]
fn failure_before_another_module() {
    model_of_loads(|| {
        let kernel = Kernel::with_changes();
        let needing = {
            let kernel = kernel.clone();

            Image::new(MODULE).relocate(move || if kernel.is_live(OTHER) { 0 } else { FAILED })
        };
        let early = spawn_load(&kernel, 1, &needing);

        assert_eq!(kernel.finit_module(0, &Image::new(OTHER)), LOADED);
        assert_ne!(kernel.finit_module(1, &needing).result(), FAILED);
        early.join().unwrap();
        kernel.assert_empty();
    });
}

/// A load that fails while another module is in the list, and then an unload of that module. A load
/// of the same file that begins after the unload does not share the failure; two preemptions.
#[test]
fn failure_beside_an_unload() {
    model_of_loads(|| {
        let kernel = Kernel::with_changes();
        let conflicting = {
            let kernel = kernel.clone();

            Image::new(MODULE).relocate(move || if kernel.is_listed(OTHER) { FAILED } else { 0 })
        };

        assert_eq!(kernel.finit_module(0, &Image::new(OTHER)), LOADED);
        let early = spawn_load(&kernel, 1, &conflicting);

        assert_eq!(kernel.delete_module(OTHER), 0);
        assert_ne!(kernel.finit_module(1, &conflicting).result(), FAILED);
        early.join().unwrap();
        kernel.assert_empty();
    });
}

/// A load whose init function fails, one of another file that brings the module in, and then one of
/// the first file. The module is live all the time that the last one runs, so that the failure is no
/// result for it; two preemptions.
#[test]
fn failed_file_of_a_live_module() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let failing = Image::new(MODULE).init(|| FAILED);
        let other = spawn_load(&kernel, 1, &failing);

        if kernel.finit_module(0, &Image::new(MODULE)) == LOADED {
            assert_eq!(kernel.finit_module(1, &failing), EXISTS);
        }
        other.join().unwrap();
        kernel.assert_empty();
    });
}

/// A compressed image that a security module denies from one file only. The error is not one of the
/// image, and a load of the same bytes from another file succeeds; two preemptions.
#[test]
fn denied_compressed_file() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE).compressed(b"module");

        be_plain(false);
        let other = spawn_load(&kernel, 1, &image.clone().allocate(|| DENIED));

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        let other = other.join().unwrap().result();
        assert!(other == DENIED || other == EXISTS.result());
        kernel.assert_empty();
    });
}

/// A load that a security module denies to its task, beside one of the same file that it allows. The
/// denial is not shared; two preemptions.
#[test]
fn denied_task() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let image = Image::new(MODULE);
        let other = spawn_load(&kernel, 0, &image.clone().open(|| DENIED));

        assert_eq!(kernel.finit_module(0, &image).result(), 0);
        let other = other.join().unwrap().result();
        assert!(other == DENIED || other == EXISTS.result() || other == 0);
        kernel.assert_empty();
    });
}

/// A load that has found no module of its name, and another one without a claim, which loads the
/// module. The first one looks again before it allocates the module.
#[test]
fn load_beside_an_unclaimed_one() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let of_image = kernel.clone();
        let image = Image::new(MODULE)
            .open(move || {
                let other = spawn(&of_image, |kernel| {
                    kernel.init_module_in(Mode::Inode, &Image::new(MODULE))
                });

                assert_eq!(other.join().unwrap(), LOADED);
                0
            })
            .allocate(|| unreachable!());

        assert_eq!(kernel.finit_module(0, &image), End::Owned(EXISTS.result()));
        drop(image);
        kernel.assert_empty();
    });
}

/// A load that requests another module before its own has joined the list, as the verification of a
/// signature does. If that comes to load the same module, its wait is not rejected: it ends by
/// itself; two preemptions.
#[test]
fn request_before_the_list() {
    model_of_loads(|| {
        let kernel = Kernel::new();
        let helper = Rc::new(Cell::new(None));
        let (started, of_image) = (helper.clone(), kernel.clone());
        let image = Image::new(MODULE).allocate(move || {
            let graph = &of_image.world.graph;
            let ticket = graph.begin_helper(Name::new(b"alias"), None);

            started.set(Some(spawn(&of_image, move |kernel| {
                Task::become_helper();
                kernel.world.graph.helper_started(ticket);
                kernel.finit_module(1, &Image::new(MODULE))
            })));
            graph.end_helper(ticket);
            0
        });

        assert_eq!(kernel.finit_module(0, &image), LOADED);
        drop(image);
        assert_eq!(helper.take().unwrap().join().unwrap(), EXISTS);
        kernel.assert_empty();
    });
}
