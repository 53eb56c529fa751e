// SPDX-License-Identifier: GPL-2.0

//! Lists of [`Arc`]s. The links play no part here.

use std::ops::Deref;

use crate::{
    error::Result,
    init::{allocate, Flags, Init, PinInit},
    profile,
    sync::{Arc, ArcBorrow, UniqueArc},
};

pub use crate::{impl_list_arc_safe, impl_list_item};

pub struct ListLinks<const ID: u64 = 0>;

impl<const ID: u64> ListLinks<ID> {
    pub fn new() -> impl PinInit<Self> {
        Init(|| Ok(Self))
    }
}

/// Anything can be in a list here.
pub trait ListItem<const ID: u64 = 0> {}

impl<T, const ID: u64> ListItem<ID> for T {}

#[macro_export]
macro_rules! impl_list_arc_safe {
    ($($ignored:tt)*) => {};
}

#[macro_export]
macro_rules! impl_list_item {
    ($($ignored:tt)*) => {};
}

/// The one reference of each `ID` that can be put into a list.
pub struct ListArc<T, const ID: u64 = 0>(Arc<T>);

impl<T, const ID: u64> ListArc<T, ID> {
    pub fn pin_init(init: impl PinInit<T>, _: Flags) -> Result<Self> {
        allocate(init).map(|value| Self(Arc::new(value)))
    }

    pub fn pair_from_pin_unique<const ID2: u64>(unique: UniqueArc<T>) -> (Self, ListArc<T, ID2>) {
        const { assert!(ID != ID2) };
        (Self(unique.0.clone()), ListArc(unique.0))
    }

    pub fn clone_arc(&self) -> Arc<T> {
        self.0.clone()
    }
}

impl<T, const ID: u64> Deref for ListArc<T, ID> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// As small as in the kernel while it is empty: a table has many, and the stack of a loom task is
/// small.
#[allow(clippy::box_collection)]
pub struct List<T, const ID: u64 = 0>(Option<Box<Vec<ListArc<T, ID>>>>);

impl<T, const ID: u64> List<T, ID> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(None)
    }

    pub fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    pub fn push_front(&mut self, item: ListArc<T, ID>) {
        // The links of the item, and those of the item that it is put before.
        profile::write("lists", self);
        profile::write("entries", &*item);
        if let Some(next) = self.items().first() {
            profile::write("entries", &**next);
        }
        self.0.get_or_insert_default().insert(0, item);
    }

    pub fn pop_back(&mut self) -> Option<ListArc<T, ID>> {
        self.0.as_mut()?.pop()
    }

    pub fn iter(&self) -> Iter<'_, T, ID> {
        profile::read("lists", self);
        Iter(self.items().iter())
    }

    fn items(&self) -> &[ListArc<T, ID>] {
        self.0.as_ref().map_or(&[], |items| items)
    }

    pub fn cursor_front(&mut self) -> Cursor<'_, T, ID> {
        profile::read("lists", self);
        Cursor { list: self, at: 0 }
    }
}

/// A type of its own, so that the compiler knows that dropping it does nothing.
pub struct Iter<'a, T, const ID: u64>(std::slice::Iter<'a, ListArc<T, ID>>);

impl<'a, T, const ID: u64> Iterator for Iter<'a, T, ID> {
    type Item = ArcBorrow<'a, T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|item| {
            profile::read("entries", &**item);
            ArcBorrow(&item.0)
        })
    }
}

pub struct Cursor<'a, T, const ID: u64> {
    list: &'a mut List<T, ID>,
    at: usize,
}

impl<T, const ID: u64> Cursor<'_, T, ID> {
    pub fn peek_next(&mut self) -> Option<CursorPeek<'_, T, ID>> {
        (self.at < self.list.items().len()).then(|| CursorPeek {
            at: self.at,
            list: self.list,
        })
    }

    pub fn move_next(&mut self) {
        self.at += 1;
    }
}

pub struct CursorPeek<'a, T, const ID: u64> {
    list: &'a mut List<T, ID>,
    at: usize,
}

impl<T, const ID: u64> CursorPeek<'_, T, ID> {
    pub fn remove(self) -> ListArc<T, ID> {
        profile::write("lists", self.list);
        profile::write("entries", &*self);
        self.list.0.as_mut().unwrap().remove(self.at)
    }
}

impl<T, const ID: u64> Deref for CursorPeek<'_, T, ID> {
    type Target = T;

    fn deref(&self) -> &T {
        let item = &self.list.items()[self.at];

        profile::read("entries", &**item);
        item
    }
}
