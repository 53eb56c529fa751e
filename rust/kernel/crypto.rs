// SPDX-License-Identifier: GPL-2.0

//! Cryptographic library functions.
//!
//! These abstractions wrap the functions of `lib/crypto/`, which are called directly and do not
//! allocate. They do not wrap the crypto API of `crypto/`.
//!
//! C headers: [`include/crypto/`](srctree/include/crypto/)

#[cfg(CONFIG_CRYPTO_LIB_NH = "y")]
pub mod nh;
#[cfg(CONFIG_CRYPTO_LIB_POLY1305 = "y")]
pub mod poly1305;

use crate::bindings;

/// Fills `bytes` with random bytes.
///
/// Never blocks, and may be called from any context but NMI. The quality is that of `/dev/urandom`.
/// Until the random number generator has been seeded, early in the boot, the bytes are only as hard
/// to guess as the entropy that the kernel has collected so far; see `wait_for_random_bytes()`.
///
/// # Examples
///
/// ```
/// let mut bytes = [0; 32];
///
/// kernel::crypto::fill_random(&mut bytes);
/// assert_ne!(bytes, [0; 32]);
/// ```
pub fn fill_random(bytes: &mut [u8]) {
    // SAFETY: `bytes` is valid for writes of its length.
    unsafe { bindings::get_random_bytes(bytes.as_mut_ptr().cast(), bytes.len()) };
}
