/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A module of the herd. It does nothing: what it costs to be loaded, and to be
 * loaded for nothing, is all that it is there for. See the Makefile.
 */
#include <linux/init.h>
#include <linux/linkage.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/stringify.h>

#include <asm/cpu_device_id.h>

/* Makes the module as long as the one that it stands for. */
asm(".pushsection .rodata\n"
    "herd_payload:\n"
    ".incbin \"" HERD_PAYLOAD "\", 0, " __stringify(HERD_KIB) " * 1024\n"
    ".popsection\n");

int HERD(void);
int HERD(void)
{
	return 0;
}
EXPORT_SYMBOL_GPL(HERD);

#ifdef HERD_FEATURE
/* The CPU devices' modalias matches this, so udev asks once per CPU. */
static const struct x86_cpu_id __maybe_unused herd_ids[] = {
	X86_MATCH_FEATURE(HERD_FEATURE, NULL),
	{}
};
MODULE_DEVICE_TABLE(x86cpu, herd_ids);
#endif

#ifdef HERD_NEEDS
int HERD_NEEDS(void);
#endif

static int __init herd_init(void)
{
#ifdef HERD_NEEDS
	return HERD_NEEDS();
#else
	return 0;
#endif
}
module_init(herd_init);

static void __exit herd_exit(void)
{
}
module_exit(herd_exit);

MODULE_DESCRIPTION("A module that every CPU asks for");
MODULE_LICENSE("GPL");
