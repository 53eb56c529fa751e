// SPDX-License-Identifier: GPL-2.0

#include <crypto/nh.h>
#include <linux/highmem.h>
#include <linux/mm.h>

#if IS_BUILTIN(CONFIG_CRYPTO_LIB_NH)
/* Hashes n messages within one page of user memory. Returns 0 or a negative errno. May sleep. */
__rust_helper int rust_helper_nh_user(const u32 *key, const void __user *ptr,
				      __le64 (*hashes)[NH_NUM_PASSES], size_t n)
{
	unsigned long addr = (unsigned long)ptr;
	struct page *page;
	const u8 *message;
	size_t i;
	int ret;

	if (n > (PAGE_SIZE - offset_in_page(addr)) / NH_MESSAGE_BYTES)
		return -EINVAL;
	ret = pin_user_pages_fast(addr, 1, 0, &page);
	if (ret != 1)
		return ret < 0 ? ret : -EFAULT;

	message = kmap_local_page(page) + offset_in_page(addr);
	for (i = 0; i < n; i++)
		nh(key, message + i * NH_MESSAGE_BYTES, NH_MESSAGE_BYTES, hashes[i]);
	kunmap_local(message);
	unpin_user_page(page);
	return 0;
}
#endif
