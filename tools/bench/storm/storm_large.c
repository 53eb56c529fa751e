// SPDX-License-Identifier: GPL-2.0
/*
 * storm_small with 4 MB of data.
 */
#include "storm_small.c"

asm(".pushsection .rodata\n"
    ".fill 4 * 1024 * 1024, 1, 0x55\n"
    ".popsection\n");
