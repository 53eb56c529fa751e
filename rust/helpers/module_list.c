// SPDX-License-Identifier: GPL-2.0

#include <linux/module.h>

/* Writers change the state under module_mutex, readers in RCU sections do not hold it. */
__rust_helper enum module_state rust_helper_module_state(const struct module *mod)
{
	return READ_ONCE(mod->state);
}
