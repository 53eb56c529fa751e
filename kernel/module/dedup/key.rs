// SPDX-License-Identifier: GPL-2.0

//! What makes two loads the same load.

/// The identity of a load: two loads with equal keys are one load.
///
/// The inode is known by its address, which identifies it only while the inode is in use. A load
/// keeps its file open from before its key is made until after the key was last compared, and two
/// loads that are in flight at the same time can have the same address only if they have the same
/// inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    inode: usize,
}

impl Key {
    /// Makes the key of a load from the file whose `struct inode` is at address `inode`.
    pub(crate) const fn new(inode: usize) -> Self {
        Self { inode }
    }

    /// Spreads keys evenly over the values of a byte, which numbers the buckets of a table.
    ///
    /// This is `hash_64()` of `include/linux/hash.h`: inodes come from a slab, so their addresses
    /// differ in a few bits in the middle, and the multiplication carries those to the top.
    pub(crate) fn bucket(&self) -> u8 {
        const GOLDEN_RATIO_64: u64 = 0x61c8_8646_80b5_83eb;

        ((self.inode as u64).wrapping_mul(GOLDEN_RATIO_64) >> (u64::BITS - u8::BITS)) as u8
    }
}
