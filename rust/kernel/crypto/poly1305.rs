// SPDX-License-Identifier: GPL-2.0

//! The Poly1305 function.
//!
//! C header: [`include/crypto/poly1305.h`](srctree/include/crypto/poly1305.h)

use core::mem::MaybeUninit;

use crate::{
    bindings,
    prelude::*, //
};

/// Size of a key, in bytes.
pub const KEY_SIZE: usize = bindings::POLY1305_KEY_SIZE as usize;

/// Size of a tag, in bytes.
pub const TAG_SIZE: usize = bindings::POLY1305_DIGEST_SIZE as usize;

/// A key of the Poly1305 function.
pub struct Key([u8; KEY_SIZE]);

impl Key {
    /// Generates a random key, by [`fill_random`].
    ///
    /// [`fill_random`]: super::fill_random
    pub fn random() -> Self {
        let mut key = [0; KEY_SIZE];

        super::fill_random(&mut key);
        Self(key)
    }

    /// Creates a key from its bytes.
    pub const fn from_bytes(bytes: [u8; KEY_SIZE]) -> Self {
        Self(bytes)
    }
}

/// The Poly1305 tag of a message that comes in pieces.
///
/// As a message authentication code, Poly1305 needs a new key for each message. With a secret
/// random key, it also serves as a universal hash function to compare byte strings: there, one key
/// may be used for any number of messages, as long as nobody outside the kernel sees the tags or
/// learns more from them than whether two are equal. Two given messages of at most `len` bytes,
/// chosen without knowledge of the key, have the same tag with a probability of at most
/// `8 * ceil(len / 16) / 2^106`, which is `2^-83` for 16 MiB.
///
/// No function allocates or sleeps, so each may be called from any context. Vector registers, where
/// the processor has them and the context allows their use, are used with preemption disabled, for
/// at most 4 KiB at a time.
///
/// The value is small enough for the stack: it takes 328 bytes on x86-64, 280 on arm and arm64, and
/// 112 elsewhere. [`Poly1305::finish`] clears it; dropping it does not.
///
/// # Invariants
///
/// The state was initialized by `poly1305_init()`.
///
/// # Examples
///
/// The test vector of RFC 8439, section 2.5.2:
///
/// ```
/// use kernel::crypto::poly1305::{
///     Key,
///     Poly1305, //
/// };
///
/// let key = Key::from_bytes([
///     0x85, 0xd6, 0xbe, 0x78, 0x57, 0x55, 0x6d, 0x33, 0x7f, 0x44, 0x52, 0xfe, 0x42, 0xd5, 0x06,
///     0xa8, 0x01, 0x03, 0x80, 0x8a, 0xfb, 0x0d, 0xb2, 0xfd, 0x4a, 0xbf, 0xf6, 0xaf, 0x41, 0x49,
///     0xf5, 0x1b,
/// ]);
/// let tag = [
///     0xa8, 0x06, 0x1d, 0xc1, 0x30, 0x51, 0x36, 0xc6, 0xc2, 0x2b, 0x8b, 0xaf, 0x0c, 0x01, 0x27,
///     0xa9,
/// ];
///
/// let mut whole = Poly1305::new(&key);
/// whole.update(b"Cryptographic Forum Research Group");
/// assert_eq!(whole.finish(), tag);
///
/// // The pieces do not matter.
/// let mut pieces = Poly1305::new(&key);
/// pieces.update(b"Cryptographic Forum");
/// pieces.update(b"");
/// pieces.update(b" Research Group");
/// assert_eq!(pieces.finish(), tag);
/// ```
///
/// A random key:
///
/// ```
/// use kernel::crypto::poly1305::{
///     Key,
///     Poly1305, //
/// };
///
/// let key = Key::random();
/// let hash = |bytes: &[u8]| {
///     let mut hash = Poly1305::new(&key);
///
///     hash.update(bytes);
///     hash.finish()
/// };
///
/// assert_eq!(hash(&[1; 1000]), hash(&[1; 1000]));
/// assert_ne!(hash(&[1; 1000]), hash(&[2; 1000]));
/// ```
pub struct Poly1305(MaybeUninit<bindings::poly1305_desc_ctx>);

impl Poly1305 {
    /// Maximum number of bytes to pass to C at once, a multiple of the block size. C adds this
    /// number to that of the bytes it has buffered, in an `unsigned int`, which must not overflow.
    const MAX_UPDATE: usize = 1 << 30;

    /// Begins a message.
    pub fn new(key: &Key) -> Self {
        let mut state = MaybeUninit::uninit();

        // SAFETY: `state` is valid for writes, and a key has the `POLY1305_KEY_SIZE` bytes that are
        // read.
        unsafe { bindings::poly1305_init(state.as_mut_ptr(), key.0.as_ptr()) };
        // INVARIANT: The state was just initialized. C keeps no pointer to it, so it may move.
        Self(state)
    }

    /// Appends `data` to the message.
    pub fn update(&mut self, data: &[u8]) {
        for piece in data.chunks(Self::MAX_UPDATE) {
            // SAFETY: By the type invariant, the state is initialized; `piece` is valid for reads
            // of its length, which the cast does not change.
            unsafe {
                bindings::poly1305_update(
                    self.0.as_mut_ptr(),
                    piece.as_ptr(),
                    piece.len() as c_uint,
                )
            };
        }
    }

    /// Ends the message and returns its tag. The state is wiped: use another one for the next
    /// message.
    pub fn finish(&mut self) -> [u8; TAG_SIZE] {
        let mut tag = [0; TAG_SIZE];

        // SAFETY: By the type invariant, the state is initialized; `tag` is valid for writes of as
        // many bytes as are written. C overwrites the state with zeroes, which is a valid state.
        unsafe { bindings::poly1305_final(self.0.as_mut_ptr(), tag.as_mut_ptr()) };
        tag
    }
}
