// SPDX-License-Identifier: GPL-2.0

//! Hashes of the same interface as NH and Poly1305, with constant keys.

pub mod nh {
    use crate::{error::Result, init::Flags};

    pub const MESSAGE_SIZE: usize = 1024;
    pub const MESSAGE_UNIT: usize = 16;

    pub type Hash = [u8; 8];

    pub struct Key;

    impl Key {
        pub fn random(_: Flags) -> Result<Self> {
            Ok(Self)
        }

        /// Ignores what is behind the last unit, and sums up the rest.
        pub fn hash(&self, message: &[u8]) -> Hash {
            let units = message.chunks_exact(MESSAGE_UNIT).flatten();
            let sum = units.fold(0, |sum: u64, byte| {
                sum.wrapping_mul(0x0100_0000_01b3) + u64::from(*byte)
            });

            sum.to_ne_bytes()
        }
    }
}

pub mod poly1305 {
    pub struct Key;

    impl Key {
        pub fn random() -> Self {
            Self
        }
    }

    pub struct Poly1305(u128);

    impl Poly1305 {
        pub fn new(_: &Key) -> Self {
            Self(0)
        }

        pub fn update(&mut self, data: &[u8]) {
            for byte in data {
                self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0100_0000_01b3) + 1;
            }
        }

        pub fn finish(&mut self) -> [u8; 16] {
            self.0.to_ne_bytes()
        }
    }
}
