// SPDX-License-Identifier: GPL-2.0

//! Duplicate request_module() calls: one modprobe for all who ask for the same thing at a time.
//!
//! Whoever asks while another's modprobe runs waits for that one and gets its result. For a while
//! after a modprobe that succeeded, the same request is answered without another one. A modprobe
//! that failed answers nobody who came later, and none answers for what may have been unloaded.

use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
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
        new_spinlock,
        SpinLock, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

use crate::{
    idempotent::{
        Pending,
        Role,
        Table, //
    },
    key::{
        Name,
        Request, //
    },
    stats::SAVED,
    waits::{
        Caller,
        Leave,
        NameOf,
        Waits, //
    },
};

/// How long a modprobe that succeeded answers later requests. It is there for those that were made
/// before their caller could see the module: a caller that looks first does not ask again.
const REPLAY: Delta = Delta::from_secs(60);

/// How many such requests there are at most. Anyone can cause some, with a name of their choice.
/// When there are more, the oldest answer no more.
const MAX_REPLAYS: usize = 256;

/// A request that has succeeded.
#[pin_data]
struct Done {
    name: Name,
    /// When modprobe ended.
    at: Instant<Monotonic>,
    /// [`Requests::unloads`] before modprobe began.
    unloads: u32,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Done { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Done { using ListLinks { self.links }; }
}

impl Done {
    fn new(name: Name, unloads: u32) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                name,
                at: Instant::now(),
                unloads,
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        )
    }
}

/// The requests in flight, and those that have succeeded lately.
#[pin_data]
pub(crate) struct Requests {
    #[pin]
    in_flight: Table<Request>,
    /// The last one first. Process context only; no other lock is taken under it, and nothing is
    /// allocated.
    #[pin]
    done: SpinLock<List<Done>>,
    /// Goes up before and after a module is seen to unload. A request names an alias, which may
    /// stand for any module and those that it needs, so that any unload ends the replays of all
    /// that went before, or began between the two. [`Release`] and [`Acquire`]: a modprobe that
    /// begins with the second count finds the module unloaded, so that its success is none from
    /// before. Whether a replay still counts needs no order: whoever knows of an unload has
    /// synchronized with it elsewhere, and may else be answered as if it came a moment before.
    unloads: Atomic<u32>,
}

impl Requests {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            in_flight <- Table::new(),
            done <- new_spinlock!(List::new(), "module_dedup_done"),
            unloads: Atomic::new(0),
        })
    }

    /// The requests whose modprobe runs.
    pub(crate) fn in_flight(&self) -> &Table<Request> {
        &self.in_flight
    }

    /// To be called when a module is about to unload, before anyone can see it, and once more when
    /// everyone can. That it stays after all does no harm.
    pub(crate) fn unloading(&self) {
        self.unloads.fetch_add(1_u32, Release);
    }

    /// Requests `name`: calls `modprobe`, unless another request can answer this one. Such a
    /// duplicate is reported by `duplicate`.
    ///
    /// With `wait`, the result is that of modprobe: 0, a negative errno or its exit status; or
    /// `-ERESTARTSYS` if a fatal signal ended the wait for it. That is a result for the one who got
    /// the signal only: whoever waited for a request that was killed starts again. Without `wait`,
    /// the caller only wants to have asked: it waits for nobody, and nobody waits for it, because
    /// what it would get is no result.
    ///
    /// `-EDEADLK` if the modprobe that could answer is there for a module whose init function makes
    /// this very request.
    ///
    /// Sleeps. To be called without locks.
    pub(crate) fn request(
        &self,
        waits: &Waits,
        name_of: NameOf<'_>,
        name: Name,
        wait: bool,
        modprobe: impl FnOnce() -> c_int,
        duplicate: impl FnOnce(),
    ) -> c_int {
        let killed = ERESTARTSYS.to_errno();
        let mut duplicate = Some(duplicate);
        let mut report = || {
            if let Some(duplicate) = duplicate.take() {
                duplicate();
            }
        };

        loop {
            if self.replays(&name) {
                report();
                SAVED.requests_replayed.add(1, Relaxed);
                return 0;
            }
            // Before it is known whose modprobe this is: what one that began with another count
            // has found may have been unloaded before this request was made.
            let unloads = self.unloads.load(Acquire);
            let request = Request { name, unloads };

            if !wait {
                let other = self.in_flight.find(&request);
                if other.is_none_or(|other| other.key().unloads != unloads) {
                    return modprobe();
                }
                report();
                SAVED.requests_joined.add(1, Relaxed);
                return 0;
            }

            match self.in_flight.enter(&request, Caller::current()) {
                Role::Owner(owner) => {
                    let result = modprobe();

                    if result == 0 {
                        self.remember(name, unloads);
                    }
                    // Whoever waited did not get that signal.
                    if result != killed {
                        owner.complete(result);
                    }
                    return result;
                }
                Role::Waiter(other) => {
                    report();
                    match Pending::wait(&other, waits, Leave::FatalSignal, name_of) {
                        Ok(None) => (),
                        Ok(Some(0)) if other.key().unloads != unloads => (),
                        Ok(Some(result)) => {
                            SAVED.requests_joined.add(1, Relaxed);
                            return result;
                        }
                        Err(err) if err == EINTR => return killed,
                        Err(err) => return err.to_errno(),
                    }
                }
                Role::Alone => return modprobe(),
            }
        }
    }

    /// Whether a request of `name` has succeeded lately, and nothing was unloaded since it began.
    fn replays(&self, name: &Name) -> bool {
        let now = Instant::now();
        let mut done = self.done.lock();
        let forgotten = self.forget(&mut done, now, MAX_REPLAYS);
        let found = done.iter().any(|request| request.name == *name);

        drop(done);
        drop(forgotten);
        found
    }

    /// Keeps a success, if there is memory for it; otherwise the next request is one of its own.
    fn remember(&self, name: Name, unloads: u32) {
        let Ok(request) = Done::new(name, unloads) else {
            return;
        };
        let now = Instant::now();
        let mut done = self.done.lock();
        let forgotten = self.forget(&mut done, now, MAX_REPLAYS - 1);

        done.push_front(request);
        drop(done);
        drop(forgotten);
    }

    /// Takes out what answers no more, and the oldest of more than `most`. Returns it, for the
    /// caller to free without the lock.
    fn forget(&self, done: &mut List<Done>, now: Instant<Monotonic>, most: usize) -> List<Done> {
        let unloads = self.unloads.load(Relaxed);
        let mut forgotten = List::new();
        let mut kept = 0;
        let mut cursor = done.cursor_front();

        while let Some(request) = cursor.peek_next() {
            if request.unloads != unloads || now - request.at >= REPLAY || kept == most {
                forgotten.push_front(request.remove());
            } else {
                kept += 1;
                cursor.move_next();
            }
        }
        forgotten
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_autoload)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use kernel::sync::Arc;

    /// Requests with a modprobe that only counts.
    struct Fixture {
        requests: Arc<Requests>,
        waits: Arc<Waits>,
        modprobes: Cell<u32>,
        duplicates: Cell<u32>,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            Ok(Self {
                requests: Arc::pin_init(Requests::new(), GFP_KERNEL)?,
                waits: Arc::pin_init(Waits::new(), GFP_KERNEL)?,
                modprobes: Cell::new(0),
                duplicates: Cell::new(0),
            })
        }

        fn request(&self, name: &[u8], wait: bool, modprobe: impl FnOnce() -> c_int) -> c_int {
            self.requests.request(
                &self.waits,
                &|_| None,
                Name::new(name),
                wait,
                || {
                    self.modprobes.set(self.modprobes.get() + 1);
                    modprobe()
                },
                || self.duplicates.set(self.duplicates.get() + 1),
            )
        }

        /// How often modprobe ran, and how many duplicates were reported.
        fn seen(&self) -> (u32, u32) {
            (self.modprobes.get(), self.duplicates.get())
        }
    }

    #[test]
    fn a_success_is_replayed() -> Result {
        let fixture = Fixture::new()?;

        assert_eq!(fixture.request(b"a", true, || 0), 0);
        assert_eq!(fixture.request(b"a", true, || -1), 0);
        assert_eq!(fixture.request(b"a", false, || -1), 0);
        assert_eq!(fixture.seen(), (1, 2));
        // To nobody who asks for something else.
        assert_eq!(fixture.request(b"b", true, || -1), -1);
        assert_eq!(fixture.seen(), (2, 2));
        Ok(())
    }

    #[test]
    fn so_many_are_replayed() -> Result {
        let fixture = Fixture::new()?;
        // No byte of it is a NUL.
        let name = |number: usize| [b'a' + (number / 100) as u8, b'a' + (number % 100) as u8];

        for number in 0..=MAX_REPLAYS {
            fixture.request(&name(number), true, || 0);
        }
        // The first of them made room for the last, and no other did.
        assert_eq!(fixture.request(&name(0), true, || 1), 1);
        assert_eq!(fixture.request(&name(1), true, || 1), 0);
        assert_eq!(fixture.request(&name(MAX_REPLAYS), true, || 1), 0);
        assert_eq!(fixture.requests.done.lock().iter().count(), MAX_REPLAYS);
        Ok(())
    }

    #[test]
    fn a_failure_is_not_replayed() -> Result {
        let fixture = Fixture::new()?;

        assert_eq!(fixture.request(b"a", true, || 256), 256);
        assert_eq!(fixture.request(b"a", true, || -12), -12);
        assert_eq!(fixture.seen(), (2, 0));
        Ok(())
    }

    #[test]
    fn an_unload_ends_all_replays() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", true, || 0);
        fixture.requests.unloading();
        assert_eq!(fixture.request(b"a", true, || 7), 7);
        // Also of what was being loaded at that time.
        fixture.request(b"a", true, || {
            fixture.requests.unloading();
            0
        });
        assert_eq!(fixture.request(b"a", true, || 8), 8);
        assert_eq!(fixture.seen(), (4, 0));
        assert!(fixture.requests.done.lock().is_empty());
        Ok(())
    }

    #[test]
    fn who_asks_after_an_unload_joins_nobody_from_before() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", true, || {
            assert_eq!(fixture.request(b"a", false, || 1), 0);
            fixture.requests.unloading();
            assert_eq!(fixture.request(b"a", false, || 2), 2);
            0
        });
        assert_eq!(fixture.seen(), (2, 1));
        Ok(())
    }

    #[test]
    fn who_does_not_wait_is_waited_for_by_nobody() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", false, || {
            assert!(fixture
                .requests
                .in_flight
                .find(&Request {
                    name: Name::new(b"a"),
                    unloads: 0
                })
                .is_none());
            0
        });
        // And replayed to nobody.
        assert_eq!(fixture.request(b"a", true, || 9), 9);
        assert_eq!(fixture.seen(), (2, 0));
        Ok(())
    }

    #[test]
    fn who_does_not_wait_joins_a_request_in_flight() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", true, || {
            assert_eq!(fixture.request(b"a", false, || -1), 0);
            0
        });
        assert_eq!(fixture.seen(), (1, 1));
        Ok(())
    }
}
