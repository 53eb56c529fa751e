// SPDX-License-Identifier: GPL-2.0

//! The NH hash function.
//!
//! C header: [`include/crypto/nh.h`](srctree/include/crypto/nh.h)

use crate::{
    alloc::Flags,
    bindings,
    error::to_result,
    prelude::*,
    uaccess::UserPtr, //
};

/// Maximum size of a message, in bytes.
pub const MESSAGE_SIZE: usize = bindings::NH_MESSAGE_WORDS as usize * size_of::<u32>();

/// The size of a message is a multiple of this, in bytes.
pub const MESSAGE_UNIT: usize = bindings::NH_PAIR_STRIDE as usize * 2 * size_of::<u32>();

/// Size of a hash, in bytes.
pub const HASH_SIZE: usize = HASH_WORDS * size_of::<u64>();

/// A hash.
pub type Hash = [u8; HASH_SIZE];

const HASH_WORDS: usize = bindings::NH_NUM_PASSES as usize;
const KEY_WORDS: usize = bindings::NH_KEY_WORDS as usize;

/// A key of the NH function.
///
/// With a secret random key, two given messages of the same length have the same hash with a
/// probability of at most 2^-128. NH is a universal hash function: it only shortens messages, and
/// its hashes must stay as secret as its key.
///
/// # Examples
///
/// ```
/// use kernel::crypto::nh::{
///     Key,
///     MESSAGE_SIZE, //
/// };
///
/// let key = Key::random(GFP_KERNEL)?;
///
/// assert_eq!(key.hash(&[1; MESSAGE_SIZE]), key.hash(&[1; MESSAGE_SIZE]));
/// assert_ne!(key.hash(&[1; MESSAGE_SIZE]), key.hash(&[2; MESSAGE_SIZE]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// There are `NH_KEY_WORDS` words.
pub struct Key(KVec<u32>);

impl Key {
    /// Generates a random key of about a kilobyte, of the quality that [`fill_random`] describes.
    ///
    /// [`fill_random`]: super::fill_random
    pub fn random(flags: Flags) -> Result<Self> {
        let mut words = KVec::from_elem(0_u32, KEY_WORDS, flags)?;

        // SAFETY: `words` is valid for writes of that many bytes, and any bytes are valid words.
        unsafe {
            bindings::get_random_bytes(words.as_mut_ptr().cast(), KEY_WORDS * size_of::<u32>())
        };
        // INVARIANT: `words` was made of `KEY_WORDS` words.
        Ok(Self(words))
    }

    /// Hashes a message of at most [`MESSAGE_SIZE`] bytes, whose length is a multiple of
    /// [`MESSAGE_UNIT`]. Ignores any further bytes.
    ///
    /// Does not sleep. May be called from any context. Vector registers, where the processor has
    /// them and the context allows their use, are used with preemption disabled.
    pub fn hash(&self, message: &[u8]) -> Hash {
        let len = message.len().min(MESSAGE_SIZE) / MESSAGE_UNIT * MESSAGE_UNIT;
        let mut hash = [0; HASH_WORDS];

        // SAFETY: By the type invariant, the key has `NH_KEY_WORDS` words; `message` is valid for
        // reads of `len` bytes, which is a multiple of `NH_MESSAGE_UNIT` and at most
        // `NH_MESSAGE_BYTES`; and `hash` is valid for writes of `NH_NUM_PASSES` words.
        unsafe { bindings::nh(self.0.as_ptr(), message.as_ptr(), len, hash.as_mut_ptr()) };

        let mut bytes = [0; HASH_SIZE];
        for (to, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(hash) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Hashes consecutive messages of [`MESSAGE_SIZE`] bytes in user memory, beginning at `ptr`,
    /// without copying them: one for each element of `hashes`. All must lie in one page.
    ///
    /// User space may write to a message at any time; its hash is then that of no particular
    /// contents.
    ///
    /// May sleep. Must be called in process context, without locks that the page fault handler may
    /// take.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the messages do not lie in one page.
    /// - [`EFAULT`] if they are not in memory that user space can read, or if that memory is not
    ///   backed by pages that can be pinned, such as that of a device.
    pub fn hash_user(&self, ptr: UserPtr, hashes: &mut [Hash]) -> Result {
        // SAFETY: By the type invariant, the key has `NH_KEY_WORDS` words; `ptr` may be any
        // address; and `hashes` is valid for writes of that many hashes.
        to_result(unsafe {
            bindings::nh_user(
                self.0.as_ptr(),
                ptr.as_const_ptr(),
                hashes.as_mut_ptr().cast(),
                hashes.len(),
            )
        })
    }
}

#[macros::kunit_tests(rust_kernel_crypto_nh)]
mod tests {
    use super::*;
    use crate::{
        page::PAGE_SIZE,
        uaccess::{
            user_memory,
            UserSlice, //
        }, //
    };

    #[test]
    fn user_memory_is_hashed_in_place() -> Result {
        let key = Key::random(GFP_KERNEL)?;
        let ptr = user_memory(&[7; PAGE_SIZE])?;
        let mut hashes = [[0; HASH_SIZE]; 3];

        UserSlice::new(ptr, 1).writer().write_slice(&[8])?;
        key.hash_user(ptr, &mut hashes)?;
        assert_ne!(hashes[0], hashes[1]);
        assert_eq!(hashes[1], key.hash(&[7; MESSAGE_SIZE]));
        assert_eq!(hashes[1], hashes[2]);
        Ok(())
    }

    #[test]
    fn user_memory_is_within_one_page() -> Result {
        let key = Key::random(GFP_KERNEL)?;
        let ptr = user_memory(&[7; PAGE_SIZE])?;
        let mut hashes = [[0; HASH_SIZE]; PAGE_SIZE / MESSAGE_SIZE];

        key.hash_user(ptr, &mut hashes)?;
        key.hash_user(ptr, &mut [])?;
        assert_eq!(
            key.hash_user(ptr.wrapping_byte_add(1), &mut hashes),
            Err(EINVAL)
        );
        assert_eq!(
            key.hash_user(UserPtr::from_addr(0), &mut hashes),
            Err(EFAULT)
        );
        Ok(())
    }
}
