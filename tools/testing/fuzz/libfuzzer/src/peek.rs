// SPDX-License-Identifier: GPL-2.0

//! Fuzzes kernel/module/dedup/peek.rs: any bytes, as an image of either class.

#![no_main]

use libfuzzer_sys::fuzz_target;
use module_dedup_peek::{check, Class, RELAID_MODULE_SIZE};

fuzz_target!(|image: &[u8]| {
    for class in [Class::Elf32, Class::Elf64] {
        check(image, class, RELAID_MODULE_SIZE as u64);
    }
});
