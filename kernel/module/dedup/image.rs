// SPDX-License-Identifier: GPL-2.0

//! What a load brings with it: the image of a module, in a file or in user memory, and arguments.

use core::ptr::NonNull;

use kernel::{
    alloc::flags::__GFP_NOWARN,
    bindings,
    page::PAGE_SHIFT,
    prelude::*,
    sync::Arc,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

use crate::{
    key::{
        Args,
        FileKey,
        Name, //
    },
    origin::FileId,
    peek::{
        self,
        Image, //
    },
};

/// What the modules of this kernel look like.
const FORMAT: peek::Format = peek::Format {
    layout: if cfg!(CONFIG_64BIT) {
        peek::ELF64
    } else {
        peek::ELF32
    },
    module_size: size_of::<bindings::module>() as u64,
    name_offset: core::mem::offset_of!(bindings::module, name) as u64,
};

/// Where an image comes from.
pub(crate) trait Source {
    /// The name of the module, if that can be told before the image is read as a whole.
    fn name(&mut self) -> Option<Name>;
    /// The bytes that are allocated to read it.
    fn size(&self) -> usize;
}

/// A file that is open for reading, and stays open as long as this value exists.
#[derive(Clone, Copy)]
pub(crate) struct File(NonNull<bindings::file>);

impl File {
    /// # Safety
    ///
    /// `file` must point to a file that is open for reading, and stay open as long as the returned
    /// value exists.
    pub(crate) unsafe fn from_raw(file: NonNull<bindings::file>) -> Self {
        Self(file)
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }

    /// What a load of the file is known by.
    pub(crate) fn key(&self, flags: c_int, args: Args) -> FileKey {
        // SAFETY: The file is open, so it has an inode, which does not change meanwhile.
        let inode = unsafe { (*self.as_ptr()).f_inode };
        // SAFETY: The inode of an open file is in use, so it has a file system, whose device, like
        // the inode's number, does not change.
        let (device, number) = unsafe { ((*(*inode).i_sb).s_dev, (*inode).i_ino) };

        FileKey {
            inode: inode.addr(),
            device,
            number,
            flags,
            args,
        }
    }

    /// Tells the file and its contents from all others, if its file system can.
    pub(crate) fn id(&self) -> Option<FileId> {
        let mut id = FileId::default();

        // SAFETY: The file is open, and `id` can be written to.
        unsafe { bindings::module_dedup_file_id(self.as_ptr(), &mut id) }.then_some(id)
    }
}

impl Image for File {
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
        let pos = bindings::loff_t::try_from(offset).ok()?;
        // So that the end of what is asked for is an offset as well.
        pos.checked_add(bindings::loff_t::try_from(to.len()).ok()?)?;

        // SAFETY: The file is open for reading, and `to` has as many bytes as are asked for.
        unsafe { bindings::module_dedup_read(self.as_ptr(), pos, to.as_mut_ptr().cast(), to.len()) }
            .then_some(())
    }
}

impl Source for File {
    fn name(&mut self) -> Option<Name> {
        peek::module_name(self, &FORMAT)
    }

    fn size(&self) -> usize {
        // SAFETY: The file is open.
        let size = unsafe { bindings::module_dedup_file_size(self.as_ptr()) };

        usize::try_from(size).unwrap_or(0)
    }
}

/// An image in the memory of the process that calls.
pub(crate) struct UserMemory {
    start: UserPtr,
    len: usize,
}

impl UserMemory {
    pub(crate) fn new(start: UserPtr, len: usize) -> Self {
        Self { start, len }
    }
}

impl Image for UserMemory {
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
}

impl Source for UserMemory {
    fn name(&mut self) -> Option<Name> {
        peek::module_name(self, &FORMAT)
    }

    fn size(&self) -> usize {
        // SAFETY: It may be called from anywhere.
        let pages = unsafe { bindings::module_dedup_totalram_pages() };

        // More than the machine has is what vmalloc() refuses to allocate.
        if self.len >> PAGE_SHIFT <= pages {
            self.len
        } else {
            0
        }
    }
}

/// Copies the arguments of a module from user space.
///
/// Fails with `EFAULT` for a bad address, and for nothing else. Sleeps.
pub(crate) fn copy_args(uargs: *const c_char) -> Result<Args> {
    // SAFETY: It may be called with any address.
    let len = match unsafe { bindings::strnlen_user(uargs, c_long::MAX) } {
        0 => return Err(EFAULT),
        1 => return Ok(Args::Empty),
        len => usize::try_from(len)?,
    };
    let mut args = KVec::new();

    // User space says how long they are: that is no reason to warn.
    match UserSlice::new(UserPtr::from_ptr(uargs.cast_mut().cast()), len)
        .read_all(&mut args, GFP_KERNEL | __GFP_NOWARN)
    {
        Err(err) if err == ENOMEM => return Ok(Args::Uncopied),
        result => result?,
    }
    // Others may have written there meanwhile.
    if let Some(last) = args.last_mut() {
        *last = 0;
    }
    Ok(Arc::new(args, GFP_KERNEL).map_or(Args::Uncopied, Args::Copied))
}
