// SPDX-License-Identifier: GPL-2.0

//! What makes two loads, or two requests, the same.

use kernel::{
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    str::BStr,
    sync::Arc, //
};

/// The bytes that C reserves for the name of a module, its NUL included: `MODULE_NAME_LEN` of
/// `include/linux/module.h`.
pub(crate) const MODULE_NAME_LEN: usize = 64 - size_of::<usize>();

/// What a table looks its entries up by.
pub(crate) trait Key: Eq + Send + Sync + 'static {
    /// Spreads keys evenly over the values of a byte, which numbers the buckets of a table.
    fn bucket(&self) -> u8;

    /// What it stands for.
    fn subject(&self) -> Subject;
}

/// What is loaded or requested, for people to see.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    /// The file of that inode number, on that device.
    File(u32, u64),
    Module(Name),
    Request(Name),
}

impl Subject {
    /// Writes what kind it is, `separator`, and which it is.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, separator: char) -> fmt::Result {
        match self {
            // The device as /proc/self/mountinfo has it; stat(2) may have another one.
            Self::File(device, number) => f.write_fmt(fmt!(
                "file{separator}{}:{}:{number}",
                device >> 20,
                device & 0xf_ffff
            )),
            Self::Module(name) => f.write_fmt(fmt!("module{separator}{name}")),
            Self::Request(name) => f.write_fmt(fmt!("request{separator}{name}")),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, ' ')
    }
}

/// `hash_64()` of `include/linux/hash.h`: the multiplication carries what differs to the top.
pub(crate) fn fold(value: u64) -> u8 {
    const GOLDEN_RATIO_64: u64 = 0x61c8_8646_80b5_83eb;

    (value.wrapping_mul(GOLDEN_RATIO_64) >> (u64::BITS - u8::BITS)) as u8
}

/// The arguments of a module, as they were when its load began.
#[derive(Clone)]
pub(crate) enum Args {
    Empty,
    /// With their NUL.
    Copied(Arc<KVec<u8>>),
    /// There was no memory for a copy. C makes one when it needs it, or fails (invariant 4).
    Uncopied,
}

impl Args {
    /// Whether they are known to be the same.
    fn are_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Copied(one), Self::Copied(other)) => **one == **other,
            _ => false,
        }
    }
}

/// What a load is to do when another one of its file, which it waited for, is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Return what the other one returned.
    Share(c_int),
    /// Fail with `EEXIST`: the module is there, with other flags or arguments.
    Exists,
    /// Start again, as if the other one had not been there.
    Again,
}

/// A load from a file. Keys are equal if they are of one file: of those loads, one is done at a
/// time. It is done for another only if they are [the same](FileKey::is_same_load).
///
/// The inode is known by its address, which identifies it only while the inode is in use. A load
/// keeps its file open from before its key is made until after the key was last compared, and two
/// loads that are in flight at the same time can have the same address only if they have the same
/// inode.
#[derive(Clone)]
pub(crate) struct FileKey {
    /// The address of the `struct inode`.
    pub(crate) inode: usize,
    /// What tells people which file it is: the device and the number of the inode. Not compared.
    pub(crate) device: u32,
    pub(crate) number: u64,
    /// The flags of finit_module(2).
    pub(crate) flags: c_int,
    pub(crate) args: Args,
}

impl FileKey {
    /// Whether the result of one load is that of the other as well.
    fn is_same_load(&self, other: &Self) -> bool {
        self == other && self.flags == other.flags && self.args.are_same(&other.args)
    }

    /// What is to be done if `other`, which this load waited for, returned `result`; [`None`] if it
    /// left before it had tried. `by_inode` is for `module.dedup=inode`, where flags and arguments
    /// make no difference.
    pub(crate) fn verdict(&self, other: &Self, result: Option<c_int>, by_inode: bool) -> Verdict {
        match result {
            Some(result) if by_inode || self.is_same_load(other) => Verdict::Share(result),
            Some(0) => Verdict::Exists,
            // That it failed with its own arguments says nothing about these.
            _ => Verdict::Again,
        }
    }
}

impl PartialEq for FileKey {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl Eq for FileKey {}

impl Key for FileKey {
    /// Inodes come from a slab, so their addresses differ in a few bits in the middle.
    fn bucket(&self) -> u8 {
        fold(self.inode as u64)
    }

    fn subject(&self) -> Subject {
        Subject::File(self.device, self.number)
    }
}

/// The name of a module, or of what request_module() was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    /// The name up to its NUL, and NULs from there on, so that equal names are equal bytes.
    bytes: [u8; MODULE_NAME_LEN],
}

impl Name {
    /// Makes a name of what precedes the first NUL of `bytes`. A name without a NUL is cut: the
    /// last byte is always one.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut name = [0; MODULE_NAME_LEN];
        let len = bytes
            .iter()
            .take(MODULE_NAME_LEN - 1)
            .take_while(|byte| **byte != 0)
            .count();

        if let (Some(to), Some(from)) = (name.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        Self { bytes: name }
    }

    /// The name without its NUL.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
    }

    /// The name as C wants it: there is a NUL within [`MODULE_NAME_LEN`] bytes.
    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl Key for Name {
    /// FNV-1a over the name and the NULs behind it, eight bytes at a time: what differs is rotated
    /// to where the multiplication spreads it.
    fn bucket(&self) -> u8 {
        let words = self.bytes.chunks_exact(size_of::<u64>());

        fold(words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
            (hash ^ word.try_into().map_or(0, u64::from_ne_bytes))
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(29)
        }))
    }

    fn subject(&self) -> Subject {
        Subject::Module(*self)
    }
}

/// What request_module() was asked for, which need not be the name of a module.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) name: Name,
    /// How many unloads there had been, which makes it no other request.
    pub(crate) unloads: u32,
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Request {}

impl Key for Request {
    fn bucket(&self) -> u8 {
        self.name.bucket()
    }

    fn subject(&self) -> Subject {
        Subject::Request(self.name)
    }
}

/// Printable names as they are. A module may be called anything, so the rest is escaped: no name
/// can forge a line of a log or a file.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Count(usize);

        impl fmt::Write for Count {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                self.0 += s.len();
                Ok(())
            }
        }

        let shown = BStr::from_bytes(self.as_bytes());
        if let Some(width) = f.width() {
            let mut count = Count(0);

            count.write_fmt(fmt!("{shown}"))?;
            for _ in count.0..width {
                f.write_char(' ')?;
            }
        }
        f.write_fmt(fmt!("{shown}"))
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_key)]
mod tests {
    use super::*;
    use kernel::str::CString;

    fn shown(name: &[u8]) -> Result<CString> {
        CString::try_from_fmt(fmt!("[{:>8}]", Name::new(name)))
    }

    #[test]
    fn names_end_at_their_nul() {
        assert!(Name::new(b"xfs") == Name::new(b"xfs\0garbage"));
        assert!(Name::new(b"xfs") != Name::new(b"xfs2"));
        assert!(Name::new(b"").as_bytes().is_empty());
    }

    #[test]
    fn a_name_of_full_length_is_kept() {
        let long = [b'x'; MODULE_NAME_LEN - 1];

        assert_eq!(Name::new(&long).as_bytes(), &long);
        assert_eq!(Name::new(&[b'x'; MODULE_NAME_LEN + 9]).as_bytes(), &long);
    }

    #[test]
    fn names_are_padded_and_escaped() -> Result {
        assert_eq!(shown(b"xfs")?.to_bytes(), b"[     xfs]");
        assert_eq!(
            shown(b"longer_than_that")?.to_bytes(),
            b"[longer_than_that]"
        );
        assert_eq!(shown(b"a\nb")?.to_bytes(), b"[    a\\nb]");
        assert_eq!(shown(b"\xff")?.to_bytes(), b"[    \\xff]");
        Ok(())
    }

    fn key(inode: usize, flags: c_int, args: &[u8]) -> Result<FileKey> {
        let mut bytes = KVec::new();

        bytes.extend_from_slice(args, GFP_KERNEL)?;
        Ok(FileKey {
            inode,
            device: 1,
            number: 2,
            flags,
            args: Args::Copied(Arc::new(bytes, GFP_KERNEL)?),
        })
    }

    #[test]
    fn a_load_is_its_inode_flags_and_arguments() -> Result {
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
    fn arguments_that_are_not_known_are_others() -> Result {
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
    fn other_arguments_have_a_verdict_of_their_own() -> Result {
        let one = key(64, 0, b"a=1")?;
        let other = key(64, 0, b"a=2")?;

        for result in [0, -5] {
            assert!(one.verdict(&one, Some(result), false) == Verdict::Share(result));
            assert!(one.verdict(&other, Some(result), true) == Verdict::Share(result));
        }
        assert!(one.verdict(&other, Some(0), false) == Verdict::Exists);
        assert!(one.verdict(&other, Some(-5), false) == Verdict::Again);
        assert!(one.verdict(&one, None, false) == Verdict::Again);
        assert!(one.verdict(&other, None, true) == Verdict::Again);
        Ok(())
    }

    #[test]
    fn keys_use_most_buckets() {
        let mut inodes = [false; 256];
        let mut names = [false; 256];

        // 4096 objects of the size that inodes have, one behind the other, and as many names that
        // differ in their ends.
        for i in 0..4096_usize {
            let file = FileKey {
                inode: 0x8123_4560 + i * 640,
                device: 0,
                number: 0,
                flags: 0,
                args: Args::Empty,
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
