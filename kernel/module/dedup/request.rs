// SPDX-License-Identifier: GPL-2.0

//! Duplicate request_module() calls: one modprobe for all callers that ask for the same module at
//! the same time.
//!
//! A request that finds the modprobe of another request running waits for it and gets its result.
//! For some time after a modprobe has succeeded, the same request succeeds without another one. A
//! failure answers only the requests that waited for it, and of those only the ones that began
//! before another module became live. A modprobe that started before an unload answers no request
//! that began after it.

use kernel::{
    crypto::poly1305::{
        self,
        Poly1305, //
    },
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
    key::{
        self,
        Key,
        RequestKey, //
    },
    live,
    load::Loads,
    pending::{
        Outcome,
        Pending,
        Role,
        Table, //
    },
    stats::DEDUP_STATS,
    target::Name,
    task::TaskId,
    wait::{
        Patience,
        WaitMode, //
    },
    wait_graph::WaitGraph, //
};

/// Time for which a success answers later requests. It helps callers that looked for the module
/// just before it was loaded; callers that look afterwards do not request it.
const REPLAY_TIME: Delta = Delta::from_secs(60);

/// Number of hash buckets of successes: one for each value of a byte.
const BUCKETS: usize = 1 << u8::BITS;

/// Maximum number of successes to replay in each bucket. Unprivileged users can cause requests,
/// some with a name of their choice; the oldest success is forgotten first.
const MAX_REPLAYS: usize = 4;

/// Returns whether the result of a request says nothing about others: because of a signal to the
/// task or to modprobe, a lack of memory, of processes or of slots for modprobe, or because
/// usermode helpers are disabled.
fn is_of_this_task(result: c_int) -> bool {
    // The low bits of a wait status are the signal that ended the process, if one did.
    (result > 0 && result & 0x7f != 0)
        || [ERESTARTSYS, ENOMEM, EAGAIN, EBUSY, ETIME]
            .map(Error::to_errno)
            .contains(&result)
}

/// Maximum number of other requests that a request waits for before it runs modprobe itself. Each
/// of them may have a result that does not answer it.
const MAX_TRIES: usize = 3;

/// A request that has succeeded.
#[pin_data]
struct Done {
    name: Name,
    /// When modprobe exited.
    at: Instant<Monotonic>,
    /// [`Requests::unloads`] before modprobe was started.
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

/// The requests in flight, and the recent successes.
#[pin_data]
pub(crate) struct Requests {
    #[pin]
    in_flight: Table<RequestKey>,
    /// Hashed by name, with `hash_key`; newest first. Process context only. A leaf lock, held to
    /// walk one bucket. Nothing is allocated under it.
    #[pin]
    done: SpinLock<[List<Done>; BUCKETS]>,
    /// Unload generation; bumped before and after a module becomes GOING. A request may name an
    /// alias of any module, so each unload ends the replays of all requests that began before the
    /// second bump.
    ///
    /// [`Release`] pairs with the [`Acquire`] in [`Requests::request`]: the modprobe of a request
    /// that reads the second bump sees the module GOING, so that its success is not one from before
    /// the unload. Relaxed suffices to end replays: a task that knows that an unload has returned
    /// has synchronised with it by other means, and the request of any other task may be ordered
    /// before the unload.
    unloads: Atomic<u32>,
    hash_key: poly1305::Key,
}

impl Requests {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            hash_key: poly1305::Key::random(),
            in_flight <- Table::new(),
            done <- new_spinlock!([const { List::new() }; BUCKETS], "module_dedup_done"),
            unloads: Atomic::new(0),
        })
    }

    /// Returns the requests whose modprobe runs.
    pub(crate) fn in_flight(&self) -> &Table<RequestKey> {
        &self.in_flight
    }

    // Not inlined, to keep the stack frames of requests small.
    #[inline(never)]
    fn key(&self, name: Name, unloads: u32, changes: u32) -> RequestKey {
        let mut hash = Poly1305::new(&self.hash_key);

        hash.update(name.as_padded_bytes());
        let [bucket, ..] = hash.finish();
        RequestKey {
            name,
            bucket,
            unloads,
            changes,
        }
    }

    /// Starts a new unload generation. Must be called before a module becomes GOING and again
    /// afterwards. An extra call, for an unload that fails, is harmless.
    pub(crate) fn unloading(&self) {
        self.unloads.fetch_add(1_u32, Release);
    }

    /// Requests `name`: calls `modprobe`, unless another request can answer this one. Calls
    /// `report` for such a duplicate.
    ///
    /// With `wait`, returns the result of modprobe: 0, a negative errno, or its exit status.
    /// Returns `-ERESTARTSYS` if a fatal signal ended the wait.
    /// Without `wait`, the caller does not need a result: it waits for no request, and no request
    /// waits for it.
    ///
    /// Returns `-EDEADLK` if the wait for another request would deadlock: for example, if that
    /// request was made by the init function of a module whose load waits for the caller.
    ///
    /// Sleeps. Must be called without locks held.
    pub(crate) fn request(
        &self,
        graph: &WaitGraph,
        loads: &Loads,
        name: Name,
        wait: bool,
        modprobe: impl FnOnce() -> c_int,
        report: impl FnOnce(),
    ) -> c_int {
        let mut report = Some(report);
        let mut report = || {
            if let Some(report) = report.take() {
                report();
            }
        };

        let task = TaskId::current();
        let began = loads.changes();

        for _ in 0..MAX_TRIES {
            // Read before looking for another request: a modprobe of another generation may have
            // found a module that was unloaded before this request began.
            let unloads = self.unloads.load(Acquire);
            let key = self.key(name, unloads, loads.changes());

            if self.replays(&key) {
                report();
                DEDUP_STATS.requests_replayed.add(1, Relaxed);
                return 0;
            }
            if !wait {
                let other = self.in_flight.find(&key);

                if other.is_none_or(|other| other.key().unloads != unloads) {
                    return modprobe();
                }
                report();
                DEDUP_STATS.requests_joined.add(1, Relaxed);
                return 0;
            }

            match self.in_flight.enter(&key, &task) {
                Role::Owner(owner) => {
                    let result = modprobe();

                    if result == 0 {
                        self.remember(&key);
                    }
                    if !is_of_this_task(result) {
                        owner.complete(Outcome::Shared(result));
                    }
                    return result;
                }
                Role::Waiter(other) => {
                    report();
                    let module = live::claimed_by(loads.names(), &task);

                    match Pending::wait(
                        &other,
                        graph,
                        WaitMode::Killable,
                        Patience::Unlimited,
                        module,
                    ) {
                        Ok(Outcome::Shared(result))
                            if other.key().unloads == unloads
                                && (result == 0 || !key::is_before(other.key().changes, began)) =>
                        {
                            DEDUP_STATS.requests_joined.add(1, Relaxed);
                            return result;
                        }
                        // The result concerns the other task alone, or its modprobe started before
                        // a change of the module list that this request may know of.
                        Ok(_) => (),
                        Err(err) => return Error::from(err).to_errno(),
                    }
                }
                Role::Untracked => return modprobe(),
            }
        }
        modprobe()
    }

    /// Returns whether a recent request of the same name as `key` has succeeded and no module has
    /// been unloaded since it began.
    fn replays(&self, key: &RequestKey) -> bool {
        let now = Instant::now();
        let mut done = self.done.lock();
        // Never panics, here and below: there is a list for each value of a byte.
        let list = &mut done[usize::from(key.bucket())];
        let expired = self.expire(list, now, MAX_REPLAYS);
        let found = list.iter().any(|request| request.name == key.name);

        drop(done);
        drop(expired);
        found
    }

    /// Remembers a success. Without memory, the next request runs its own modprobe.
    fn remember(&self, key: &RequestKey) {
        let Ok(request) = Done::new(key.name, key.unloads) else {
            return;
        };
        let now = Instant::now();
        let mut done = self.done.lock();
        let list = &mut done[usize::from(key.bucket())];
        let expired = self.expire(list, now, MAX_REPLAYS - 1);

        list.push_front(request);
        drop(done);
        drop(expired);
    }

    /// Removes the successes that have expired or precede an unload, and the oldest beyond `max`.
    /// Returns them, for the caller to free without the lock.
    fn expire(&self, done: &mut List<Done>, now: Instant<Monotonic>, max: usize) -> List<Done> {
        let unloads = self.unloads.load(Relaxed);
        let mut expired = List::new();
        let mut kept = 0;
        let mut cursor = done.cursor_front();

        while let Some(request) = cursor.peek_next() {
            if request.unloads != unloads || now - request.at >= REPLAY_TIME || kept == max {
                expired.push_front(request.remove());
            } else {
                kept += 1;
                cursor.move_next();
            }
        }
        expired
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_request)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use kernel::sync::Arc;

    /// Requests whose modprobe only counts.
    struct Fixture {
        requests: Arc<Requests>,
        graph: Arc<WaitGraph>,
        loads: Arc<Loads>,
        modprobes: Cell<u32>,
        duplicates: Cell<u32>,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            Ok(Self {
                requests: Arc::pin_init(Requests::new(), GFP_KERNEL)?,
                graph: Arc::pin_init(WaitGraph::new(), GFP_KERNEL)?,
                loads: Arc::pin_init(Loads::new(), GFP_KERNEL)?,
                modprobes: Cell::new(0),
                duplicates: Cell::new(0),
            })
        }

        fn request(&self, name: &[u8], wait: bool, modprobe: impl FnOnce() -> c_int) -> c_int {
            self.requests.request(
                &self.graph,
                &self.loads,
                Name::new(name),
                wait,
                || {
                    self.modprobes.set(self.modprobes.get() + 1);
                    modprobe()
                },
                || self.duplicates.set(self.duplicates.get() + 1),
            )
        }

        /// Number of modprobe runs and of reported duplicates.
        fn counts(&self) -> (u32, u32) {
            (self.modprobes.get(), self.duplicates.get())
        }
    }

    #[test]
    fn success_is_replayed() -> Result {
        let fixture = Fixture::new()?;

        assert_eq!(fixture.request(b"a", true, || 0), 0);
        assert_eq!(fixture.request(b"a", true, || -1), 0);
        assert_eq!(fixture.request(b"a", false, || -1), 0);
        assert_eq!(fixture.counts(), (1, 2));
        // Another name is not answered.
        assert_eq!(fixture.request(b"b", true, || -1), -1);
        assert_eq!(fixture.counts(), (2, 2));
        Ok(())
    }

    #[test]
    fn replays_are_bounded() -> Result {
        let fixture = Fixture::new()?;
        // Without NULs.
        let name = |number: usize| [b'a' + (number / 100) as u8, b'a' + (number % 100) as u8];
        let bucket = |number| {
            let requests = &fixture.requests;

            requests.key(Name::new(&name(number)), 0, 0).bucket()
        };
        let wanted = bucket(0);
        let mut names = KVec::new();

        for number in 0..10_000 {
            if bucket(number) == wanted && names.len() <= MAX_REPLAYS {
                names.push(name(number), GFP_KERNEL)?;
            }
        }
        for name in &names {
            fixture.request(name, true, || 0);
        }
        // Only the first made room for the last.
        assert_eq!(fixture.request(&names[0], true, || 1), 1);
        assert_eq!(fixture.request(&names[1], true, || 1), 0);
        assert_eq!(fixture.request(&names[MAX_REPLAYS], true, || 1), 0);
        let count: usize = fixture
            .requests
            .done
            .lock()
            .iter()
            .map(|list| list.iter().count())
            .sum();
        assert_eq!(count, MAX_REPLAYS);
        Ok(())
    }

    #[test]
    fn failure_is_not_replayed() -> Result {
        let fixture = Fixture::new()?;

        assert_eq!(fixture.request(b"a", true, || 256), 256);
        assert_eq!(fixture.request(b"a", true, || -12), -12);
        assert_eq!(fixture.counts(), (2, 0));
        Ok(())
    }

    #[test]
    fn unload_ends_all_replays() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", true, || 0);
        fixture.requests.unloading();
        assert_eq!(fixture.request(b"a", true, || 7), 7);
        // It also ends the replay of a request that was in flight.
        fixture.request(b"a", true, || {
            fixture.requests.unloading();
            0
        });
        assert_eq!(fixture.request(b"a", true, || 8), 8);
        assert_eq!(fixture.counts(), (4, 0));
        assert!(fixture.requests.done.lock().iter().all(List::is_empty));
        Ok(())
    }

    #[test]
    fn request_after_unload_joins_no_earlier_one() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", true, || {
            assert_eq!(fixture.request(b"a", false, || 1), 0);
            fixture.requests.unloading();
            assert_eq!(fixture.request(b"a", false, || 2), 2);
            0
        });
        assert_eq!(fixture.counts(), (2, 1));
        Ok(())
    }

    #[test]
    fn nowait_request_is_never_joined() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", false, || {
            assert!(fixture
                .requests
                .in_flight
                .find(&fixture.requests.key(Name::new(b"a"), 0, 0))
                .is_none());
            0
        });
        // It is not replayed either.
        assert_eq!(fixture.request(b"a", true, || 9), 9);
        assert_eq!(fixture.counts(), (2, 0));
        Ok(())
    }

    #[test]
    fn nowait_request_joins_another() -> Result {
        let fixture = Fixture::new()?;

        fixture.request(b"a", true, || {
            assert_eq!(fixture.request(b"a", false, || -1), 0);
            0
        });
        assert_eq!(fixture.counts(), (1, 1));
        Ok(())
    }
}
