// SPDX-License-Identifier: GPL-2.0

//! Lists. What is in one is an [`Arc`]; how it is linked is of no interest here.

use std::ops::Deref;

use crate::{
    error::Result,
    init::{allocate, Flags, Init, PinInit},
    sync::{Arc, ArcBorrow},
};

pub use crate::{impl_list_arc_safe, impl_list_item};

/// Here only because an item of a list has it.
pub struct ListLinks;

impl ListLinks {
    pub fn new() -> impl PinInit<Self> {
        Init(|| Ok(Self))
    }
}

#[macro_export]
macro_rules! impl_list_arc_safe {
    ($($ignored:tt)*) => {};
}

#[macro_export]
macro_rules! impl_list_item {
    ($($ignored:tt)*) => {};
}

/// The one reference that can be put into a list.
pub struct ListArc<T>(Arc<T>);

impl<T> ListArc<T> {
    pub fn pin_init(init: impl PinInit<T>, _: Flags) -> Result<Self> {
        allocate(init).map(|value| Self(Arc::new(value)))
    }

    pub fn clone_arc(&self) -> Arc<T> {
        self.0.clone()
    }
}

impl<T> Deref for ListArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// As small as in the kernel while it is empty: a table has many, and loom's tasks small stacks.
#[allow(clippy::box_collection)]
pub struct List<T>(Option<Box<Vec<ListArc<T>>>>);

impl<T> List<T> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(None)
    }

    pub fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    pub fn push_front(&mut self, item: ListArc<T>) {
        self.0.get_or_insert_default().insert(0, item);
    }

    pub fn iter(&self) -> impl Iterator<Item = ArcBorrow<'_, T>> {
        self.items().iter().map(|item| ArcBorrow(&item.0))
    }

    fn items(&self) -> &[ListArc<T>] {
        self.0.as_ref().map_or(&[], |items| items)
    }

    pub fn cursor_front(&mut self) -> Cursor<'_, T> {
        Cursor { list: self, at: 0 }
    }
}

pub struct Cursor<'a, T> {
    list: &'a mut List<T>,
    at: usize,
}

impl<T> Cursor<'_, T> {
    pub fn peek_next(&mut self) -> Option<CursorPeek<'_, T>> {
        (self.at < self.list.items().len()).then(|| CursorPeek {
            at: self.at,
            list: self.list,
        })
    }

    pub fn move_next(&mut self) {
        self.at += 1;
    }
}

pub struct CursorPeek<'a, T> {
    list: &'a mut List<T>,
    at: usize,
}

impl<T> CursorPeek<'_, T> {
    pub fn remove(self) -> ListArc<T> {
        self.list.0.as_mut().unwrap().remove(self.at)
    }
}

impl<T> Deref for CursorPeek<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.list.items()[self.at]
    }
}
