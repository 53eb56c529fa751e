// SPDX-License-Identifier: GPL-2.0

#include <linux/umh.h>

/* struct subprocess_info has a randomized layout, which only C knows. */
__rust_helper void *rust_helper_subprocess_info_data(const struct subprocess_info *info)
{
	return info->data;
}
