/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A module of the herd. It does nothing: only the cost of loading it matters. See the
 * Makefile.
 */
#include <linux/init.h>
#include <linux/linkage.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/stringify.h>

#include <asm/cpu_device_id.h>

/* Pad the module to the size of the original. */
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
/* Matches the modalias of every CPU device, so udev requests it once per CPU. */
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

MODULE_DESCRIPTION("Stand-in for a module that udev requests for every CPU");
MODULE_LICENSE("GPL");
