// SPDX-License-Identifier: GPL-2.0

//! The statistics of module loading, and the texts that show them in debugfs.
//!
//! With `CONFIG_MODULE_STATS`: the counters that C bumps, and the modules that were loaded in
//! vain. Labels, order and format are those of the C code. Always: what deduplication itself did.
//!
//! No counter is ordered with anything: each is right by itself, and a text shows each as it was
//! at some time while the text was made.

use kernel::{
    bindings,
    build_assert::static_assert,
    fmt,
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
            ordering::Relaxed,
            Atomic, //
        },
        new_mutex,
        Mutex, //
    },
    time::Delta, //
};

use crate::key::Name;

/// A sum of bytes, `atomic_long_t` to C.
pub(crate) type Bytes = Atomic<usize>;
/// A number of events, `atomic_t` to C.
pub(crate) type Events = Atomic<i32>;

static_assert!(size_of::<Bytes>() == size_of::<bindings::atomic_long_t>());
static_assert!(size_of::<Events>() == size_of::<bindings::atomic_t>());

/// The counters of `CONFIG_MODULE_STATS`, under the names that C has for them.
///
/// The macros and inline functions of `kernel/module/internal.h` bump them where they lie, with one
/// instruction, as they do in C. What each means is documented in `kernel/module/stats.c`.
#[allow(non_upper_case_globals)]
pub(crate) mod counters {
    use super::{
        Bytes,
        Events, //
    };

    macro_rules! counters {
        ($($name:ident: $type:ty,)*) => {
            $(
                #[no_mangle]
                pub(crate) static $name: $type = <$type>::new(0);
            )*
        };
    }

    counters! {
        total_mod_size: Bytes,
        total_text_size: Bytes,
        invalid_kread_bytes: Bytes,
        invalid_decompress_bytes: Bytes,
        invalid_becoming_bytes: Bytes,
        invalid_mod_bytes: Bytes,
        modcount: Events,
        failed_kreads: Events,
        failed_decompress: Events,
        failed_becoming: Events,
        failed_load_modules: Events,
    }
}

/// When a duplicate load was found out, and thus what it had allocated in vain: C's
/// `enum fail_dup_mod_reason`, as bits.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// In early_mod_check(): the image.
    Becoming = 1,
    /// In add_unformed_module(): the image, and the module itself.
    Load = 2,
}

/// The duplicate loads of one module.
#[pin_data]
struct Record {
    name: Name,
    /// How many. Written under the lock of the list.
    count: Atomic<usize>,
    /// A bit for each [`Reason`] that there was. Written under the lock of the list.
    reasons: Atomic<i32>,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Record { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Record { using ListLinks { self.links }; }
}

impl Record {
    fn new(name: Name) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                name,
                count: Atomic::new(0),
                reasons: Atomic::new(0),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        )
    }
}

struct Records {
    list: List<Record>,
    len: usize,
    /// Duplicate loads that found no room for a record of their module.
    unrecorded: usize,
}

impl Records {
    /// Counts a duplicate load of `name`, whose record is made of `fresh` if it has none. Returns
    /// whether that could be done: not if there is no record and no `fresh`.
    fn count(&mut self, name: &Name, reason: Reason, fresh: Option<ListArc<Record>>) -> bool {
        if self.bump(name, reason) {
            return true;
        }
        if self.len == Duplicates::MAX_RECORDS {
            self.unrecorded = self.unrecorded.saturating_add(1);
            return true;
        }
        let Some(fresh) = fresh else {
            return false;
        };
        self.list.push_front(fresh);
        self.len += 1;
        self.bump(name, reason)
    }

    fn bump(&mut self, name: &Name, reason: Reason) -> bool {
        let Some(record) = self.list.iter().find(|record| record.name == *name) else {
            return false;
        };

        record.count.add(1_usize, Relaxed);
        record
            .reasons
            .store(record.reasons.load(Relaxed) | reason as i32, Relaxed);
        true
    }
}

/// The modules that were loaded in vain, because one of that name was there or on its way.
#[pin_data]
pub(crate) struct Duplicates {
    /// Never held while allocating. Taken with no other lock held, and no other is taken under it.
    #[pin]
    records: Mutex<Records>,
}

impl Duplicates {
    /// How many modules there are records of. A privileged program can invent names for ever.
    pub(crate) const MAX_RECORDS: usize = 1024;

    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            records <- new_mutex!(
                Records {
                    list: List::new(),
                    len: 0,
                    unrecorded: 0,
                },
                "module_dedup_duplicates"
            ),
        })
    }

    /// Counts a duplicate load of `name`.
    ///
    /// Sleeps. To be called without locks.
    pub(crate) fn count(&self, name: &Name, reason: Reason) {
        if !cfg!(CONFIG_MODULE_STATS) || self.records.lock().bump(name, reason) {
            return;
        }
        let fresh = Record::new(*name).ok();

        if !self.records.lock().count(name, reason, fresh) {
            pr_warn!("Could not add fail-tracking for module: {name}\n");
        }
    }

    /// Writes the contents of `stats`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Counts::read().write(f)?;
        self.write_list(f)
    }

    fn write_list(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.records.lock();

        if records.len == 0 {
            return Ok(());
        }
        writeln!(f, "Duplicate failed modules:")?;
        writeln!(
            f,
            "{:>25}\t{:>15}\t{:>25}",
            "Module-name", "How-many-times", "Reason"
        )?;
        for record in records.list.iter() {
            let reason = match record.reasons.load(Relaxed) {
                1 => "Becoming",
                2 => "Load",
                _ => "Becoming & Load",
            };
            let count = record.count.load(Relaxed);

            f.write_fmt(fmt!("{:>25}\t{count:>15}\t{reason:>25}\n", record.name))?;
        }
        if records.unrecorded != 0 {
            // kbuild makes no module of such a name.
            writeln!(
                f,
                "{:>25}\t{:>15}\t{:>25}",
                "(others)", records.unrecorded, "Too many to list"
            )?;
        }
        Ok(())
    }
}

/// The counters at one time.
#[derive(Default)]
struct Counts {
    loaded: u32,
    failed_kread: u32,
    failed_decompress: u32,
    failed_becoming: u32,
    failed_load: u32,
    module_bytes: usize,
    text_bytes: usize,
    kread_bytes: usize,
    decompress_bytes: usize,
    becoming_bytes: usize,
    load_bytes: usize,
}

impl Counts {
    fn read() -> Self {
        use counters::*;

        // C shows its signed counters as what they are without a sign.
        Self {
            loaded: modcount.load(Relaxed) as u32,
            failed_kread: failed_kreads.load(Relaxed) as u32,
            failed_decompress: failed_decompress.load(Relaxed) as u32,
            failed_becoming: failed_becoming.load(Relaxed) as u32,
            failed_load: failed_load_modules.load(Relaxed) as u32,
            module_bytes: total_mod_size.load(Relaxed),
            text_bytes: total_text_size.load(Relaxed),
            kread_bytes: invalid_kread_bytes.load(Relaxed),
            decompress_bytes: invalid_decompress_bytes.load(Relaxed),
            becoming_bytes: invalid_becoming_bytes.load(Relaxed),
            load_bytes: invalid_mod_bytes.load(Relaxed),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wasted = self
            .kread_bytes
            .wrapping_add(self.decompress_bytes)
            .wrapping_add(self.becoming_bytes)
            .wrapping_add(self.load_bytes);

        for (label, value) in [
            ("Mods ever loaded", self.loaded as usize),
            ("Mods failed on kread", self.failed_kread as usize),
            ("Mods failed on decompress", self.failed_decompress as usize),
            ("Mods failed on becoming", self.failed_becoming as usize),
            ("Mods failed on load", self.failed_load as usize),
            ("Total module size", self.module_bytes),
            ("Total mod text size", self.text_bytes),
            ("Failed kread bytes", self.kread_bytes),
            ("Failed decompress bytes", self.decompress_bytes),
            ("Failed becoming bytes", self.becoming_bytes),
            ("Failed kmod bytes", self.load_bytes),
            ("Virtual mem wasted bytes", wasted),
        ] {
            writeln!(f, "{label:>25}\t{value}")?;
        }
        // An average is shown where there is one.
        for (label, sum, count) in [
            ("Average mod size", self.module_bytes, self.loaded),
            ("Average mod text size", self.text_bytes, self.loaded),
            ("Avg fail kread bytes", self.kread_bytes, self.failed_kread),
            (
                "Avg fail becoming bytes",
                self.becoming_bytes,
                self.failed_becoming,
            ),
            (
                "Avg fail decomp bytes",
                self.decompress_bytes,
                self.failed_decompress,
            ),
            ("Average fail load bytes", self.load_bytes, self.failed_load),
        ] {
            if sum != 0 && count != 0 {
                writeln!(f, "{label:>25}\t{}", sum.div_ceil(count as usize))?;
            }
        }
        Ok(())
    }
}

/// What deduplication did.
///
/// `dedup` shows the fields in this order; Documentation/admin-guide/module-dedup.rst says what
/// each line means.
///
/// Every load is counted in `loads` when it begins, and in one of `owned`, `same_file`,
/// `same_name`, `late`, `from_memory` and `left` when it ends.
pub(crate) struct Saved {
    pub(crate) loads: Events,
    pub(crate) owned: Events,
    pub(crate) left: Events,
    pub(crate) same_file: Events,
    pub(crate) same_name: Events,
    pub(crate) late: Events,
    pub(crate) from_memory: Events,
    pub(crate) requests_joined: Events,
    pub(crate) requests_replayed: Events,
    pub(crate) bytes_never_allocated: Bytes,
    pub(crate) alone: Events,
    pub(crate) circles: Events,
    waits: Events,
    interrupted: Events,
    nanoseconds_waited: Atomic<i64>,
    longest_nanoseconds: Atomic<i64>,
}

/// The one there is.
pub(crate) static SAVED: Saved = Saved::new();

impl Saved {
    const fn new() -> Self {
        Self {
            loads: Events::new(0),
            owned: Events::new(0),
            left: Events::new(0),
            same_file: Events::new(0),
            same_name: Events::new(0),
            late: Events::new(0),
            from_memory: Events::new(0),
            requests_joined: Events::new(0),
            requests_replayed: Events::new(0),
            bytes_never_allocated: Bytes::new(0),
            alone: Events::new(0),
            circles: Events::new(0),
            waits: Events::new(0),
            interrupted: Events::new(0),
            nanoseconds_waited: Atomic::new(0),
            longest_nanoseconds: Atomic::new(0),
        }
    }

    /// Counts a wait of that length, which a signal ended or not.
    pub(crate) fn waited(&self, how_long: Delta, interrupted: bool) {
        let nanoseconds = how_long.as_nanos();
        let mut longest = self.longest_nanoseconds.load(Relaxed);

        self.waits.add(1, Relaxed);
        self.interrupted.add(i32::from(interrupted), Relaxed);
        self.nanoseconds_waited.add(nanoseconds, Relaxed);
        while longest < nanoseconds {
            match self
                .longest_nanoseconds
                .cmpxchg(longest, nanoseconds, Relaxed)
            {
                Ok(_) => break,
                Err(other) => longest = other,
            }
        }
    }

    /// Writes the contents of `dedup`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, count) in [
            ("loads", &self.loads),
            ("owned", &self.owned),
            ("same_file", &self.same_file),
            ("same_name", &self.same_name),
            ("late", &self.late),
            ("from_memory", &self.from_memory),
            ("left", &self.left),
            ("requests_joined", &self.requests_joined),
            ("requests_replayed", &self.requests_replayed),
            ("alone", &self.alone),
            ("circles_refused", &self.circles),
            ("waits", &self.waits),
            ("waits_interrupted", &self.interrupted),
        ] {
            writeln!(f, "{label}\t{}", count.load(Relaxed) as u32)?;
        }
        writeln!(
            f,
            "bytes_never_allocated\t{}",
            self.bytes_never_allocated.load(Relaxed)
        )?;
        for (label, nanoseconds) in [
            ("waited_ms", &self.nanoseconds_waited),
            ("longest_wait_ms", &self.longest_nanoseconds),
        ] {
            let waited = Delta::from_nanos(nanoseconds.load(Relaxed));

            writeln!(f, "{label}\t{}", waited.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_stats)]
mod tests {
    use super::*;
    use kernel::{
        str::CString,
        sync::Arc, //
    };

    /// Shows a value by a function that writes it.
    struct Shown<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0(f)
        }
    }

    fn text(write: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", Shown(write)))
    }

    fn list(duplicates: &Duplicates) -> Result<CString> {
        text(|f| duplicates.write_list(f))
    }

    fn duplicates() -> Result<Arc<Duplicates>> {
        Arc::pin_init(Duplicates::new(), GFP_KERNEL)
    }

    #[test]
    fn counts_are_shown_as_c_shows_them() -> Result {
        let counts = Counts {
            loaded: 2,
            failed_becoming: 3,
            module_bytes: 5,
            becoming_bytes: 10,
            load_bytes: 7,
            ..Default::default()
        };

        assert_eq!(
            text(|f| counts.write(f))?.to_bytes(),
            b"         Mods ever loaded\t2
     Mods failed on kread\t0
Mods failed on decompress\t0
  Mods failed on becoming\t3
      Mods failed on load\t0
        Total module size\t5
      Total mod text size\t0
       Failed kread bytes\t0
  Failed decompress bytes\t0
    Failed becoming bytes\t10
        Failed kmod bytes\t7
 Virtual mem wasted bytes\t17
         Average mod size\t3
  Avg fail becoming bytes\t4
"
        );
        Ok(())
    }

    #[test]
    fn no_counter_is_too_large_to_be_shown() -> Result {
        let counts = Counts {
            loaded: u32::MAX,
            module_bytes: usize::MAX,
            kread_bytes: usize::MAX,
            load_bytes: 2,
            failed_load: u32::MAX,
            ..Default::default()
        };

        text(|f| counts.write(f))?;
        Ok(())
    }

    #[test]
    fn duplicates_are_listed_newest_first() -> Result {
        let duplicates = duplicates()?;

        assert!(list(&duplicates)?.is_empty());
        duplicates.count(&Name::new(b"first"), Reason::Becoming);
        duplicates.count(&Name::new(b"second"), Reason::Load);
        duplicates.count(&Name::new(b"first"), Reason::Load);
        assert_eq!(
            list(&duplicates)?.to_bytes(),
            b"Duplicate failed modules:
              Module-name\t How-many-times\t                   Reason
                   second\t              1\t                     Load
                    first\t              2\t          Becoming & Load
"
        );
        Ok(())
    }

    #[test]
    fn records_are_bounded() -> Result {
        let duplicates = duplicates()?;

        for i in 0..Duplicates::MAX_RECORDS + 3 {
            let name = CString::try_from_fmt(fmt!("m{i}"))?;

            duplicates.count(&Name::new(name.to_bytes()), Reason::Becoming);
        }
        // Who has a record is counted all the same.
        duplicates.count(&Name::new(b"m0"), Reason::Becoming);

        let list = list(&duplicates)?;
        assert_eq!(
            list.to_bytes().split(|byte| *byte == b'\n').count(),
            2 + Duplicates::MAX_RECORDS + 1 + 1
        );
        assert!(list
            .to_bytes()
            .ends_with(b"(others)\t              3\t         Too many to list\n"));
        Ok(())
    }

    #[test]
    fn without_memory_for_a_record() -> Result {
        let duplicates = duplicates()?;
        let name = Name::new(b"module");
        let mut records = duplicates.records.lock();

        assert!(!records.count(&name, Reason::Load, None));
        assert!(records.count(&name, Reason::Load, Some(Record::new(name)?)));
        assert!(records.count(&name, Reason::Load, None));
        assert_eq!(records.len, 1);
        Ok(())
    }

    #[test]
    fn the_longest_wait_is_kept() {
        let saved = Saved::new();

        for nanoseconds in [5, 9, 7] {
            saved.waited(Delta::from_nanos(nanoseconds), false);
        }
        assert_eq!(saved.waits.load(Relaxed), 3);
        assert_eq!(saved.nanoseconds_waited.load(Relaxed), 21);
        assert_eq!(saved.longest_nanoseconds.load(Relaxed), 9);
    }
}
