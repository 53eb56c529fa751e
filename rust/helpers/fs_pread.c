// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>

__rust_helper struct inode *rust_helper_file_inode(const struct file *file)
{
	return file_inode(file);
}

__rust_helper dev_t rust_helper_inode_dev(const struct inode *inode)
{
	return inode->i_sb->s_dev;
}

__rust_helper u64 rust_helper_inode_ino(const struct inode *inode)
{
	return inode->i_ino;
}

__rust_helper loff_t rust_helper_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

/*
 * Returns true if read() would return the contents of an up-to-date folio
 * without further checks. This holds for tmpfs and for file systems on block
 * devices; cluster file systems drop their folios before they give up the lock
 * of a file. It does not hold for network file systems, which ask their server,
 * or for FUSE, whose server can change a file at any time. fuseblk is on a
 * block device, but all FUSE mounts set SB_I_IMA_UNVERIFIABLE_SIGNATURE.
 */
static __always_inline bool rust_pread_cache_is_current(const struct file *file)
{
	const struct super_block *sb = file_inode(file)->i_sb;

	if (file->f_flags & O_DIRECT)
		return false;
	if (sb->s_iflags & SB_I_IMA_UNVERIFIABLE_SIGNATURE)
		return false;
	return sb->s_bdev || shmem_mapping(file->f_mapping);
}

/*
 * Copies the bytes from the page cache if one up-to-date folio contains all of
 * them; returns whether it did. Saves a call into the file system, which costs
 * far more than a small copy.
 */
static __always_inline bool rust_pread_cached(struct file *file, loff_t pos, void *buf,
					      size_t len)
{
	struct address_space *mapping = file->f_mapping;
	struct folio *folio;
	size_t offset;
	bool copied;

	folio = filemap_get_folio(mapping, pos >> PAGE_SHIFT);
	if (IS_ERR(folio))
		return false;

	offset = offset_in_folio(folio, pos);
	copied = folio_test_uptodate(folio) && !folio_contain_hwpoisoned_page(folio) &&
		 len <= folio_size(folio) - offset;
	/*
	 * The bytes behind the end of the file are not data. Read the size after
	 * the up-to-date flag, as filemap_read() does: only then is it valid for
	 * the contents of the folio.
	 */
	if (copied) {
		loff_t size = i_size_read(mapping->host);

		copied = pos <= size && len <= size - pos;
	}
	if (copied) {
		/* User space may write through mappings at other addresses. */
		if (mapping_writably_mapped(mapping))
			flush_dcache_folio(folio);
		memcpy_from_folio(buf, folio, offset, len);
	}
	folio_put(folio);
	return copied;
}

/* Returns 0 if the current task may read the regular file, or a negative errno. May sleep. */
__rust_helper int rust_helper_file_may_read(struct file *file)
{
	const struct inode *inode = file_inode(file);
	loff_t pos = 0;

	/* Pipes, devices and the like may block, or hand out data only once. */
	if (!S_ISREG(inode->i_mode) || !(file->f_mode & FMODE_CAN_READ))
		return -EINVAL;
	/* __kernel_read() warns about such files, which procfs has. */
	if (!file->f_op->read_iter || file->f_op->read)
		return -EINVAL;

	return rw_verify_area(READ, file, &pos, min_t(u64, i_size_read(inode), MAX_RW_COUNT));
}

/*
 * Reads exactly len bytes of a file for which rust_helper_file_may_read() has
 * returned 0. Returns 0 or a negative errno. May sleep.
 */
__rust_helper int rust_helper_file_read_exact_at(struct file *file, u64 pos, void *buf, size_t len)
{
	u64 size = i_size_read(file_inode(file));
	loff_t offset = pos;
	ssize_t ret;

	if (pos > size || len > size - pos)
		return -EINVAL;
	if (rust_pread_cache_is_current(file) && rust_pread_cached(file, offset, buf, len))
		return 0;

	ret = __kernel_read(file, buf, len, &offset);
	if (ret < 0)
		return ret;
	return ret == len ? 0 : -EIO;
}
