// SPDX-License-Identifier: GPL-2.0

//! Which file each live module came from, where the file does not tell the name: it is compressed.
//!
//! What is remembered is a hint, like a peeked name: a load may be refused for it, if a module of
//! that name is live at that moment, but none is let through.

use kernel::{
    bindings,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    prelude::*,
    sync::{
        new_spinlock,
        SpinLock, //
    },
};

use crate::key::Name;

/// Which file, with which contents: C's `struct module_dedup_file_id`, in which `change` is another
/// number after every change of the file.
pub(crate) type FileId = bindings::module_dedup_file_id;

fn same(one: &FileId, other: &FileId) -> bool {
    one.device == other.device
        && one.number == other.number
        && one.generation == other.generation
        && one.size == other.size
        && one.change == other.change
}

#[pin_data]
struct Origin {
    name: Name,
    file: FileId,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Origin { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Origin { using ListLinks { self.links }; }
}

/// The files that live modules came from: at most one for each of them.
#[pin_data]
pub(crate) struct Origins {
    /// Process context only; no other lock is taken under it, and nothing is allocated.
    #[pin]
    list: SpinLock<List<Origin>>,
}

impl Origins {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_spinlock!(List::new(), "module_dedup_origins"),
        })
    }

    /// The name of the module that came from `file`, if that is known and may still be live.
    pub(crate) fn find(&self, file: &FileId) -> Option<Name> {
        self.list
            .lock()
            .iter()
            .find(|origin| same(&origin.file, file))
            .map(|origin| origin.name)
    }

    /// Keeps that the module `name` came from `file`, as it was before it was read. Without
    /// memory, the next load of that file takes the full way.
    ///
    /// Allocates with `GFP_KERNEL`, and so may sleep. To be called without locks.
    pub(crate) fn remember(&self, name: &Name, file: &FileId) {
        let origin = ListArc::pin_init(
            try_pin_init!(Origin {
                name: *name,
                file: *file,
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        );
        let Ok(origin) = origin else {
            return;
        };
        let mut list = self.list.lock();
        let former = Self::unlink(&mut list, name);

        list.push_front(origin);
        drop(list);
        drop(former);
    }

    /// Forgets the module `name`, which is about to go.
    pub(crate) fn forget(&self, name: &Name) {
        let origin = Self::unlink(&mut self.list.lock(), name);

        drop(origin);
    }

    fn unlink(list: &mut List<Origin>, name: &Name) -> Option<ListArc<Origin>> {
        let mut cursor = list.cursor_front();

        while let Some(origin) = cursor.peek_next() {
            if origin.name == *name {
                return Some(origin.remove());
            }
            cursor.move_next();
        }
        None
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_origin)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn file(number: u64, change: u64) -> FileId {
        FileId {
            number,
            change,
            ..Default::default()
        }
    }

    #[test]
    fn a_module_has_one_origin() -> Result {
        let origins = Arc::pin_init(Origins::new(), GFP_KERNEL)?;
        let name = Name::new(b"module");

        origins.remember(&name, &file(1, 1));
        assert!(origins.find(&file(1, 1)) == Some(name));
        // Other contents of the same file, another file.
        assert!(origins.find(&file(1, 2)).is_none());
        assert!(origins.find(&file(2, 1)).is_none());

        origins.remember(&name, &file(1, 2));
        assert!(origins.find(&file(1, 1)).is_none());
        assert!(origins.find(&file(1, 2)) == Some(name));

        origins.forget(&Name::new(b"other"));
        assert!(origins.find(&file(1, 2)) == Some(name));
        origins.forget(&name);
        assert!(origins.find(&file(1, 2)).is_none());
        assert!(origins.list.lock().is_empty());
        Ok(())
    }
}
