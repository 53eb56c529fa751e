// SPDX-License-Identifier: GPL-2.0

//! Reading files into kernel memory, and the identity of a file.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h) and
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::LocalFile;
use crate::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// The identity of an inode that is in use.
///
/// Two open files have the same `InodeId` if and only if they have the same inode. Once all files
/// of an inode are closed, another inode may get the same identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InodeId {
    /// Address of the `struct inode`. This alone identifies an inode; device and inode number are
    /// for display.
    pub addr: usize,
    /// Device number of the file system (`s_dev`), as the kernel encodes it.
    pub dev: u32,
    /// Inode number.
    pub ino: u64,
}

/// A regular file that the current task may read into kernel memory.
///
/// # Invariants
///
/// The file is a regular one that is open for reading and has a `read_iter` method. Security
/// modules and fanotify listeners have permitted the current task to read it.
pub struct Reader<'a> {
    file: &'a LocalFile,
}

impl Reader<'_> {
    /// Fills `buf` with bytes of the file, from the offset `pos` on.
    ///
    /// Neither uses nor changes the position of the open file. A small read is served from the page
    /// cache if the file system is on a block device or is tmpfs, without a call into the file
    /// system; this neither updates the access time nor generates `FS_ACCESS` events.
    ///
    /// May sleep for as long as the file system takes. Must be called without locks that the file
    /// system may take. `buf` may have been modified if an error is returned.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the range is not within the size of the file.
    /// - [`EIO`] if fewer bytes than `buf` has could be read, for example because the file was
    ///   truncated meanwhile.
    /// - Any error of the file system.
    pub fn read_exact_at(&self, pos: u64, buf: &mut [u8]) -> Result {
        // SAFETY: `self.file.as_ptr()` is a file with a positive refcount, which has a `read_iter`
        // method by the type invariant, and `buf` is valid for writes of as many bytes as are asked
        // for.
        to_result(unsafe {
            bindings::file_read_exact_at(
                self.file.as_ptr(),
                pos,
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        })
    }
}

impl LocalFile {
    /// Returns a reader of the file.
    ///
    /// Security modules and fanotify listeners see one read of the whole file, however many times
    /// the [`Reader`] reads.
    ///
    /// May sleep for as long as they take. Must be called without locks held.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if this is not a regular file that is open for reading, or if its file system
    ///   cannot read it into kernel memory.
    /// - Any error of a security module or of a fanotify listener.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::fs::LocalFile;
    ///
    /// /// Checks the magic number of an ELF file.
    /// fn is_elf(file: &LocalFile) -> Result<bool> {
    ///     let mut magic = [0; 4];
    ///
    ///     file.reader()?.read_exact_at(0, &mut magic)?;
    ///     Ok(&magic == b"\x7fELF")
    /// }
    /// ```
    pub fn reader(&self) -> Result<Reader<'_>> {
        // SAFETY: `self.as_ptr()` is a file with a positive refcount.
        to_result(unsafe { bindings::file_may_read(self.as_ptr()) })?;
        // INVARIANT: file_may_read() has just checked that.
        Ok(Reader { file: self })
    }

    /// Returns the size of the file, in bytes.
    ///
    /// The size may change at any time. It is 0 for files without a size, such as pipes and most
    /// files of procfs. Does not sleep.
    pub fn size(&self) -> u64 {
        // SAFETY: `self.inode()` is a valid inode.
        let size = unsafe { bindings::i_size_read(self.inode()) };

        // A size is never negative.
        u64::try_from(size).unwrap_or(0)
    }

    /// Returns the identity of the inode of the file. Does not sleep.
    pub fn inode_id(&self) -> InodeId {
        let inode = self.inode();

        InodeId {
            addr: inode.addr(),
            // SAFETY: `inode` is a valid inode, whose super block does not change.
            dev: unsafe { bindings::inode_dev(inode) },
            // SAFETY: `inode` is a valid inode, whose number does not change.
            ino: unsafe { bindings::inode_ino(inode) },
        }
    }

    /// Returns the inode of the file, which is valid for as long as `self`.
    fn inode(&self) -> *mut bindings::inode {
        // SAFETY: `self.as_ptr()` is a file with a positive refcount. An open file has an inode,
        // on which it holds a reference.
        unsafe { bindings::file_inode(self.as_ptr()) }
    }
}

#[macros::kunit_tests(rust_kernel_fs_pread)]
mod tests {
    use super::*;
    use crate::{
        error::from_err_ptr,
        page::PAGE_SIZE,
        sync::aref::ARef, //
    };
    use core::ptr::NonNull;

    /// Creates a file on tmpfs with these contents, padded with zeros to `size`.
    fn file(contents: &[u8], size: usize) -> Result<ARef<LocalFile>> {
        let (name, size) = (c"kunit".as_char_ptr(), size.try_into()?);
        let mut pos = 0;

        // SAFETY: `name` is a valid C string.
        let file =
            from_err_ptr(unsafe { bindings::shmem_file_setup(name, size, Default::default()) })?;
        // SAFETY: The file was just created, with one reference that is passed to the `ARef`, and
        // nobody else uses it.
        let file: ARef<LocalFile> =
            unsafe { ARef::from_raw(NonNull::new(file).ok_or(ENOMEM)?.cast()) };
        // SAFETY: The file is valid and open for writing, and `contents` is valid for reads of its
        // length.
        let written = unsafe {
            bindings::kernel_write(
                file.as_ptr(),
                contents.as_ptr().cast(),
                contents.len(),
                &mut pos,
            )
        };
        if usize::try_from(written) == Ok(contents.len()) {
            Ok(file)
        } else {
            Err(EIO)
        }
    }

    #[test]
    fn reads_what_was_written() -> Result {
        let file = file(b"contents", 0)?;
        let mut buf = [0; 8];

        file.reader()?.read_exact_at(0, &mut buf)?;
        assert_eq!(&buf, b"contents");
        let mut end = [0; 5];
        file.reader()?.read_exact_at(3, &mut end)?;
        assert_eq!(&end, b"tents");
        file.reader()?.read_exact_at(8, &mut [])?;
        assert_eq!(file.size(), 8);
        Ok(())
    }

    #[test]
    fn reads_across_pages_and_holes() -> Result {
        let file = file(b"contents", 3 * PAGE_SIZE)?;
        let mut buf = [1; 16];

        // Nothing was written to the second and third page, so they are not in the page cache.
        file.reader()?
            .read_exact_at(PAGE_SIZE as u64 - 8, &mut buf)?;
        assert_eq!(buf, [0; 16]);
        buf = [1; 16];
        file.reader()?
            .read_exact_at(2 * PAGE_SIZE as u64, &mut buf)?;
        assert_eq!(buf, [0; 16]);
        assert_eq!(file.size(), 3 * PAGE_SIZE as u64);
        Ok(())
    }

    #[test]
    fn does_not_read_beyond_the_end() -> Result {
        let file = file(b"contents", 0)?;
        let mut buf = [0; 8];

        for pos in [1, 8, 9, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            assert_eq!(file.reader()?.read_exact_at(pos, &mut buf), Err(EINVAL));
        }
        assert_eq!(buf, [0; 8]);
        Ok(())
    }

    #[test]
    fn inodes_have_different_ids() -> Result {
        let (one, other) = (file(b"", 0)?, file(b"", 0)?);

        assert!(one.inode_id() == one.inode_id());
        assert!(one.inode_id() != other.inode_id());
        Ok(())
    }
}
