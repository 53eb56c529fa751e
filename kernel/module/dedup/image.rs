// SPDX-License-Identifier: GPL-2.0

//! The image and the arguments of a module, in a file or in user memory.

use kernel::{
    alloc::flags::__GFP_NOWARN,
    crypto::nh,
    fs::{
        file::LocalFile,
        Reader, //
    },
    mm,
    module_list,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc,
    uaccess::{
        self,
        UserPtr,
        UserSlice, //
    }, //
};

use crate::{
    content::{
        Content,
        Hash,
        KnownImages, //
    },
    key::{
        Args,
        FileKey, //
    },
    load::Source,
    peek::{
        self,
        Image, //
    },
    target::Name, //
};

/// The format of the modules of this kernel.
const FORMAT: peek::Format = peek::Format {
    layout: if cfg!(CONFIG_64BIT) {
        peek::ELF64
    } else {
        peek::ELF32
    },
    order: peek::ByteOrder::NATIVE,
    module_size: module_list::MODULE_SIZE as u64,
    name_offset: module_list::NAME_OFFSET as u64,
};

/// Maximum number of messages that are hashed at once: those of a page of 4 KiB.
const HASHES_AT_ONCE: usize = 4;

/// An image in a file.
pub(crate) struct FileImage<'a> {
    file: &'a LocalFile,
    /// Set by the first read.
    reader: Option<Reader<'a>>,
    is_compressed: bool,
}

impl<'a> FileImage<'a> {
    pub(crate) fn new(file: &'a LocalFile, is_compressed: bool) -> Self {
        Self {
            file,
            reader: None,
            is_compressed,
        }
    }

    /// Returns the key of a load of the file, without its `changes`.
    pub(crate) fn key(&self, flags: c_int, args: Args) -> FileKey {
        let inode = self.file.inode_id();

        FileKey {
            inode: inode.addr,
            dev: inode.dev,
            ino: inode.ino,
            flags,
            args,
            changes: 0,
        }
    }
}

impl Image for FileImage<'_> {
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
        let reader = match &self.reader {
            Some(reader) => reader,
            None => self.reader.insert(self.file.reader().ok()?),
        };

        reader.read_exact_at(offset, to).ok()
    }

    fn size(&self) -> u64 {
        self.file.size()
    }
}

impl Source for FileImage<'_> {
    fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    fn name(&mut self, images: &KnownImages) -> Option<Name> {
        if self.is_compressed {
            images.name_of(self)
        } else {
            peek::module_name(self, &FORMAT)
        }
    }

    fn is_content(&mut self, images: &KnownImages, content: &Content) -> bool {
        let len = self.file.size();

        images.is_content(content, len, |hash| hash.read(self, len))
    }

    fn size(&self) -> usize {
        usize::try_from(self.file.size()).unwrap_or(0)
    }
}

/// An image in the memory of the current process.
pub(crate) struct UserImage {
    start: UserPtr,
    len: usize,
}

impl UserImage {
    pub(crate) fn new(start: UserPtr, len: usize) -> Self {
        Self { start, len }
    }

    /// Appends the image to `hash`. Hashes the messages that lie within one page in place, and
    /// copies the others, as well as those in pages that cannot be pinned.
    // Not inlined, to keep stack frames small.
    #[inline(never)]
    fn hash(&mut self, hash: &mut Hash<'_>) -> Option<()> {
        let mut message = KVec::from_elem(0, nh::MESSAGE_SIZE, GFP_KERNEL).ok()?;
        let mut hashes = [[0; nh::HASH_SIZE]; HASHES_AT_ONCE];
        let mut offset = 0;

        while offset < self.len {
            let ptr = self.start.wrapping_byte_add(offset);
            let left = self.len - offset;
            let in_page = left.min(PAGE_SIZE - ptr.as_const_ptr().addr() % PAGE_SIZE);
            let count = (in_page / nh::MESSAGE_SIZE).min(HASHES_AT_ONCE);
            let hashes = hashes.get_mut(..count)?;

            if count > 0 && hash.message_key().hash_user(ptr, hashes).is_ok() {
                hash.update_hashed(hashes);
                offset += count * nh::MESSAGE_SIZE;
            } else {
                let message = message.get_mut(..left.min(nh::MESSAGE_SIZE))?;

                self.read(offset as u64, message)?;
                hash.update(message);
                offset += message.len();
            }
        }
        Some(())
    }
}

impl Image for UserImage {
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
        let offset = usize::try_from(offset).ok()?;

        if offset.checked_add(to.len())? > self.len {
            return None;
        }
        UserSlice::new(self.start.wrapping_byte_add(offset), to.len())
            .reader()
            .read_slice(to)
            .ok()
    }

    fn size(&self) -> u64 {
        self.len as u64
    }
}

impl Source for UserImage {
    fn is_compressed(&self) -> bool {
        false
    }

    fn name(&mut self, _: &KnownImages) -> Option<Name> {
        peek::module_name(self, &FORMAT)
    }

    fn is_content(&mut self, images: &KnownImages, content: &Content) -> bool {
        images.is_content(content, self.len as u64, |hash| self.hash(hash))
    }

    fn size(&self) -> usize {
        // vmalloc() fails for more pages than the machine has, so nothing would be saved.
        if self.len >> PAGE_SHIFT <= mm::totalram_pages() {
            self.len
        } else {
            0
        }
    }
}

/// Copies the arguments of a module from user space.
///
/// Fails with `EFAULT` if `uargs` is a bad address, and never for another reason. May sleep.
pub(crate) fn copy_args(uargs: UserPtr) -> Result<Args> {
    // Common case: no arguments. Check before allocating.
    if UserSlice::new(uargs, 1).reader().read::<u8>()? == 0 {
        return Ok(Args::Empty);
    }
    // User space chooses the length, so that a failed allocation is not worth a warning.
    match uaccess::copy_string(uargs, GFP_KERNEL | __GFP_NOWARN) {
        Ok(args) => Ok(Arc::new(args, GFP_KERNEL).map_or(Args::Uncopied, Args::Copied)),
        Err(err) if err == ENOMEM => Ok(Args::Uncopied),
        Err(err) => Err(err),
    }
}
