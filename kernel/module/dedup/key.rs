// SPDX-License-Identifier: GPL-2.0

//! Keys: whether two loads, or two requests, are the same.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    target::{
        Name,
        Target, //
    },
    task::bucket_of, //
};

/// Returns whether `one` is an earlier value of a counter than `other`. The counter may wrap.
pub(crate) fn is_before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// The key of an entry of a table.
pub(crate) trait Key: Eq + Send + Sync + 'static {
    /// Returns the number of the hash bucket.
    fn bucket(&self) -> u8;

    /// Returns what the key stands for, for display.
    fn target(&self) -> Target;
}

/// The arguments of a module, copied from user space when the load began.
#[derive(Clone)]
pub(crate) enum Args {
    Empty,
    /// With their NUL.
    Copied(Arc<KVec<u8>>),
    /// There was no memory for a copy. The loader copies them when it needs them (invariant 4).
    Uncopied,
}

impl Args {
    /// Returns whether both are known and equal.
    fn are_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Copied(one), Self::Copied(other)) => **one == **other,
            _ => false,
        }
    }
}

/// A load from a file.
///
/// Keys of the same inode are equal, so that one load of a file runs at a time. Its result is
/// shared only with loads that are [the same](FileKey::is_same_load).
///
/// The address identifies an inode only while the inode is in use. A load holds its file from
/// before its key is made until after the last comparison, so two loads in flight have the same
/// address if and only if they have the same inode.
#[derive(Clone)]
pub(crate) struct FileKey {
    /// The address of the `struct inode`.
    pub(crate) inode: usize,
    /// Device and number of the inode, for display; not compared.
    pub(crate) dev: u32,
    pub(crate) ino: u64,
    /// The flags of finit_module(2).
    pub(crate) flags: c_int,
    pub(crate) args: Args,
    /// [`Loads::changes`](crate::load::Loads) when the load entered the table; not compared.
    pub(crate) changes: u32,
}

impl FileKey {
    /// Returns whether the result of one load is also the result of the other.
    pub(crate) fn is_same_load(&self, other: &Self) -> bool {
        self == other && self.flags == other.flags && self.args.are_same(&other.args)
    }
}

impl PartialEq for FileKey {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl Eq for FileKey {}

impl Key for FileKey {
    fn bucket(&self) -> u8 {
        bucket_of(self.inode as u64)
    }

    fn target(&self) -> Target {
        Target::File {
            dev: self.dev,
            ino: self.ino,
        }
    }
}

/// A load of the module of that name.
impl Key for Name {
    /// FNV-1a over words instead of bytes. The rotation moves the high bits down, so that the next
    /// multiplication mixes them.
    fn bucket(&self) -> u8 {
        let words = self.as_padded_bytes().chunks_exact(size_of::<u64>());

        bucket_of(words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
            (hash ^ word.try_into().map_or(0, u64::from_ne_bytes))
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(29)
        }))
    }

    fn target(&self) -> Target {
        Target::Module(*self)
    }
}

/// A request_module() call.
#[derive(Clone, Copy)]
pub(crate) struct RequestKey {
    /// A module name or an alias.
    pub(crate) name: Name,
    /// A keyed hash of the name, because any user can request names at will; not compared.
    pub(crate) bucket: u8,
    /// [`Requests::unloads`](crate::request::Requests) when the request entered the table; not
    /// compared.
    pub(crate) unloads: u32,
    /// [`Loads::changes`](crate::load::Loads::changes) at that time; not compared.
    pub(crate) changes: u32,
}

impl PartialEq for RequestKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for RequestKey {}

impl Key for RequestKey {
    fn bucket(&self) -> u8 {
        self.bucket
    }

    fn target(&self) -> Target {
        Target::Request(self.name)
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_key)]
mod tests {
    use super::*;

    fn key(inode: usize, flags: c_int, args: &[u8]) -> Result<FileKey> {
        let mut bytes = KVec::new();

        bytes.extend_from_slice(args, GFP_KERNEL)?;
        Ok(FileKey {
            inode,
            dev: 1,
            ino: 2,
            flags,
            args: Args::Copied(Arc::new(bytes, GFP_KERNEL)?),
            changes: 0,
        })
    }

    #[test]
    fn same_load_is_inode_flags_and_arguments() -> Result {
        let one = key(64, 0, b"a=1")?;

        assert!(one.is_same_load(&key(64, 0, b"a=1")?));
        for other in [key(64, 4, b"a=1")?, key(64, 0, b"a=2")?, key(64, 0, b"")?] {
            assert!(one == other);
            assert!(!one.is_same_load(&other));
        }
        assert!(one != key(65, 0, b"a=1")?);
        assert!(!one.is_same_load(&key(65, 0, b"a=1")?));
        Ok(())
    }

    #[test]
    fn unknown_arguments_are_never_the_same() -> Result {
        let some = key(64, 0, b"a=1")?;
        let with = |args| FileKey {
            args,
            ..some.clone()
        };

        assert!(with(Args::Empty).is_same_load(&with(Args::Empty)));
        assert!(!with(Args::Empty).is_same_load(&some));
        assert!(!with(Args::Uncopied).is_same_load(&some));
        assert!(!with(Args::Uncopied).is_same_load(&with(Args::Uncopied)));
        Ok(())
    }

    #[test]
    fn counters_wrap() {
        assert!(is_before(0, 1));
        assert!(is_before(u32::MAX, 1));
        assert!(!is_before(1, 1));
        assert!(!is_before(1, u32::MAX));
    }

    #[test]
    fn keys_use_most_buckets() {
        let mut inodes = [false; 256];
        let mut names = [false; 256];

        // 4096 adjacent objects of the size of inodes, and as many names that differ at their
        // ends.
        for i in 0..4096_usize {
            let file = FileKey {
                inode: 0x8123_4560 + i * 640,
                dev: 0,
                ino: 0,
                flags: 0,
                args: Args::Empty,
                changes: 0,
            };
            let name = Name::new(&[
                b'a',
                b'a' + (i / 256) as u8,
                b'a' + (i / 16 % 16) as u8,
                b'a' + (i % 16) as u8,
            ]);

            inodes[usize::from(file.bucket())] = true;
            names[usize::from(name.bucket())] = true;
        }
        assert!(inodes.iter().filter(|used| **used).count() > 128);
        assert!(names.iter().filter(|used| **used).count() > 128);
    }
}
