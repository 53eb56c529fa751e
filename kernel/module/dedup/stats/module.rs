// SPDX-License-Identifier: GPL-2.0

//! `CONFIG_MODULE_STATS`: the counters that C bumps, and the modules that failed to load because
//! they were duplicates. Labels, order and format of `stats` are those of `kernel/module/stats.c`.

use kernel::{
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
    }, //
};

use crate::target::Name;

/// The counters under their names in C. `kernel/module/stats.c` documents them, and the macros of
/// `kernel/module/internal.h` bump them in place.
#[allow(non_upper_case_globals)]
pub(crate) mod counters {
    use crate::stats::{
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

/// Where a duplicate was detected, and what had been allocated for nothing by then: C's
/// `enum fail_dup_mod_reason`, as bits.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// In early_mod_check(): the image.
    Becoming = 1,
    /// In add_unformed_module(): the image and the module.
    Load = 2,
}

/// The failed loads of one module.
#[pin_data]
struct Record {
    /// The name of the module.
    name: Name,
    /// Number of failed loads. Written under the lock of the list.
    count: Atomic<usize>,
    /// A bit for each [`Reason`]. Written under the lock of the list.
    reasons: Atomic<i32>,
    /// Protected by the lock of the list.
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

/// The records of all modules.
struct Records {
    /// Newest module first.
    list: List<Record>,
    /// Length of `list`.
    len: usize,
    /// Number of failed loads of further modules, for which the list has no room.
    unrecorded: usize,
}

impl Records {
    /// Counts a failed load of `name`. `fresh` becomes the record of a module that has none.
    /// Returns false if there is neither a record nor `fresh`.
    fn count(&mut self, name: &Name, reason: Reason, fresh: Option<ListArc<Record>>) -> bool {
        if self.bump(name, reason) {
            return true;
        }
        if self.len == FailedModules::MAX_RECORDS {
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

    /// Counts a failed load of `name` in its record. Returns false if there is none.
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

/// The modules of which loads have failed because a module of that name was live or being loaded.
#[pin_data]
pub(crate) struct FailedModules {
    /// Never held while allocating. A leaf lock; `module_mutex` may be held.
    #[pin]
    records: Mutex<Records>,
}

impl FailedModules {
    /// Maximum number of records: a privileged program can invent any number of names.
    pub(crate) const MAX_RECORDS: usize = 1024;

    /// Makes an empty list.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            records <- new_mutex!(
                Records {
                    list: List::new(),
                    len: 0,
                    unrecorded: 0,
                },
                "module_dedup_failed_modules"
            ),
        })
    }

    /// Counts a failed load of `name`. Fails with `ENOMEM` if there is no memory for its record.
    ///
    /// Sleeps. Must be called without spinlocks held.
    pub(crate) fn count(&self, name: &Name, reason: Reason) -> Result {
        if !cfg!(CONFIG_MODULE_STATS) || self.records.lock().bump(name, reason) {
            return Ok(());
        }
        let fresh = Record::new(*name).ok();

        if self.records.lock().count(name, reason, fresh) {
            Ok(())
        } else {
            Err(ENOMEM)
        }
    }

    /// Writes the contents of the file `stats`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ModStats::read().write(f)?;
        self.write_list(f)
    }

    /// Writes the duplicates, one line for each module.
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
            // kbuild never makes a module of that name.
            writeln!(
                f,
                "{:>25}\t{:>15}\t{:>25}",
                "(others)", records.unrecorded, "Too many to list"
            )?;
        }
        Ok(())
    }
}

/// The values of the counters, each read once.
#[derive(Default)]
struct ModStats {
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

impl ModStats {
    fn read() -> Self {
        use counters::*;

        // C shows its signed counters as unsigned numbers.
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
        // As in C, an average of 0 is not shown.
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

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_stats_module)]
mod tests {
    use super::*;
    use kernel::{
        str::CString,
        sync::Arc, //
    };

    /// Shows what a function writes.
    struct FromFn<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for FromFn<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0(f)
        }
    }

    fn text(write: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", FromFn(write)))
    }

    fn list(failed: &FailedModules) -> Result<CString> {
        text(|f| failed.write_list(f))
    }

    fn failed_modules() -> Result<Arc<FailedModules>> {
        Arc::pin_init(FailedModules::new(), GFP_KERNEL)
    }

    #[test]
    fn format_is_that_of_c() -> Result {
        let counts = ModStats {
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
    fn largest_counters_are_shown() -> Result {
        let counts = ModStats {
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
    fn newest_module_is_listed_first() -> Result {
        let failed = failed_modules()?;

        assert!(list(&failed)?.is_empty());
        failed.count(&Name::new(b"first"), Reason::Becoming)?;
        failed.count(&Name::new(b"second"), Reason::Load)?;
        failed.count(&Name::new(b"first"), Reason::Load)?;
        assert_eq!(
            list(&failed)?.to_bytes(),
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
        let failed = failed_modules()?;

        for i in 0..FailedModules::MAX_RECORDS + 3 {
            let name = CString::try_from_fmt(fmt!("m{i}"))?;

            failed.count(&Name::new(name.to_bytes()), Reason::Becoming)?;
        }
        // A module that has a record is still counted.
        failed.count(&Name::new(b"m0"), Reason::Becoming)?;

        let list = list(&failed)?;
        assert_eq!(
            list.to_bytes().split(|byte| *byte == b'\n').count(),
            2 + FailedModules::MAX_RECORDS + 1 + 1
        );
        assert!(list
            .to_bytes()
            .ends_with(b"(others)\t              3\t         Too many to list\n"));
        Ok(())
    }

    #[test]
    fn without_memory_for_a_record() -> Result {
        let failed = failed_modules()?;
        let name = Name::new(b"module");
        let mut records = failed.records.lock();

        assert!(!records.count(&name, Reason::Load, None));
        assert!(records.count(&name, Reason::Load, Some(Record::new(name)?)));
        assert!(records.count(&name, Reason::Load, None));
        assert_eq!(records.len, 1);
        Ok(())
    }
}
