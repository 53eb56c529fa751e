// SPDX-License-Identifier: GPL-2.0

//! Fuzzes kernel/module/dedup/peek.rs: any bytes, as an image of each kind.

#![no_main]

use libfuzzer_sys::fuzz_target;
use module_dedup_peek::{check, KINDS, RELAID_MODULE_SIZE};

fuzz_target!(|image: &[u8]| {
    for kind in KINDS {
        check(image, kind, RELAID_MODULE_SIZE as u64);
    }
});
