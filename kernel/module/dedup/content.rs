// SPDX-License-Identifier: GPL-2.0

//! The identity of an image by its bytes.
//!
//! The name of a module cannot be read from a compressed image before the image is decompressed.
//! But equal bytes have equal names: once the loader has found the name in an image, it is known
//! for each image of the same bytes, whichever file system or file they come from.
//!
//! A name that is found in this way is a hint, like a peeked name: it saves work, and the checks
//! of the loader decide.
//!
//! The loader also rejects equal bytes for equal reasons, so waiting loads can share its error: see
//! [`ImageId`].

use kernel::{
    crypto::{
        nh,
        poly1305::{
            self,
            Poly1305, //
        }, //
    },
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    prelude::*,
    sync::{
        new_spinlock,
        SpinLock, //
    }, //
};

use crate::{
    peek::Image,
    target::Name,
    task::bucket_of, //
};

/// Number of hash buckets: one for each value of a byte.
const BUCKETS: usize = 1 << u8::BITS;

/// Maximum number of images in a bucket. 8192 in all take about one MiB, and are far more than a
/// machine has modules.
const BUCKET_LEN: usize = 32;

/// Bytes that are read and hashed at a time.
const PIECE: usize = 4096;

/// The identity of an image.
///
/// Two different images have the same identity with a probability of at most 2^-76: the digest is
/// a universal hash with a random key, which user space cannot guess once the random number
/// generator is seeded. A collision only rejects a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    len: u64,
    digest: [u8; 16],
}

/// The secret keys of a [`Hash`].
struct HashKeys {
    nh: nh::Key,
    poly: poly1305::Key,
}

impl HashKeys {
    fn random() -> Result<Self> {
        Ok(Self {
            nh: nh::Key::random(GFP_KERNEL)?,
            poly: poly1305::Key::random(),
        })
    }
}

/// The hash of an image that comes in pieces. NH compresses each piece, and Poly1305 hashes the
/// results, as in Adiantum (lib/crypto/nh.c): NH is several times as fast as Poly1305.
pub(crate) struct Hash<'a> {
    keys: &'a HashKeys,
    poly: Poly1305,
}

impl<'a> Hash<'a> {
    fn new(keys: &'a HashKeys) -> Self {
        Self {
            keys,
            poly: Poly1305::new(&keys.poly),
        }
    }

    /// Appends a piece. The length of each but the last must be a multiple of [`nh::MESSAGE_SIZE`].
    pub(crate) fn update(&mut self, piece: &[u8]) {
        for message in piece.chunks(nh::MESSAGE_SIZE) {
            self.poly.update(&self.keys.nh.hash(message));
            self.poly
                .update(message.chunks_exact(nh::MESSAGE_UNIT).remainder());
        }
    }

    /// Appends messages of [`nh::MESSAGE_SIZE`] bytes that the caller has hashed with
    /// [`Hash::message_key`]. `hashes` are their hashes.
    pub(crate) fn update_hashed(&mut self, hashes: &[nh::Hash]) {
        for hash in hashes {
            self.poly.update(hash);
        }
    }

    /// Returns the key of the hashes of messages.
    pub(crate) fn message_key(&self) -> &nh::Key {
        &self.keys.nh
    }

    /// Appends `len` bytes of `image`, which it reads in pieces of a page. Returns [`None`] if they
    /// cannot be read, or without memory. Sleeps.
    // Not inlined, to keep stack frames small.
    #[inline(never)]
    pub(crate) fn read(&mut self, image: &mut impl Image, len: u64) -> Option<()> {
        let mut piece = KVec::from_elem(0, PIECE, GFP_KERNEL).ok()?;
        let mut offset = 0;

        while offset < len {
            let count = (len - offset).min(PIECE as u64);
            let piece = piece.get_mut(..count as usize)?;

            image.read(offset, piece)?;
            self.update(piece);
            offset += count;
        }
        Some(())
    }

    fn finish(&mut self, len: u64) -> Content {
        Content {
            len,
            digest: self.poly.finish(),
        }
    }
}

/// An image and the way it is loaded. Both together decide whether the loader rejects the image for
/// its signature, its format or its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageId {
    pub(crate) content: Content,
    /// The flags of finit_module(2): whether the image is compressed, and which versions are
    /// ignored.
    pub(crate) flags: c_int,
}

/// A compressed image that the loader has read, and the name of its module.
#[pin_data]
struct KnownImage {
    name: Name,
    content: Content,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for KnownImage { untracked; }
}

impl_list_item! {
    impl ListItem<0> for KnownImage { using ListLinks { self.links }; }
}

/// The hashes of the compressed images that the loader has read last, with the names of their
/// modules. An entry stays true for ever, whatever becomes of the module: it is about the bytes.
#[pin_data]
pub(crate) struct KnownImages {
    keys: HashKeys,
    /// Hashed by the length of the image; newest first. Process context only. A leaf lock, held to
    /// walk one bucket. Nothing is allocated or freed under it.
    #[pin]
    buckets: SpinLock<[List<KnownImage>; BUCKETS]>,
}

impl KnownImages {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            keys: HashKeys::random()?,
            buckets <- new_spinlock!([const { List::new() }; BUCKETS], "module_dedup_images"),
        })
    }

    /// Returns the identity of the image of these bytes.
    pub(crate) fn content_of(&self, image: &[u8]) -> Content {
        let mut hash = Hash::new(&self.keys);

        hash.update(image);
        hash.finish(image.len() as u64)
    }

    /// Returns the name of the module in `image`, if an image of the same bytes is known.
    ///
    /// Reads the image in pieces of a page, and only if an image of the same length is known.
    ///
    /// Sleeps. Must be called without locks held.
    pub(crate) fn name_of(&self, image: &mut impl Image) -> Option<Name> {
        let len = image.size();

        self.find(len, |_| true)?;
        let mut hash = Hash::new(&self.keys);
        hash.read(image, len)?;
        let content = hash.finish(len);
        self.find(len, |image| image.content == content)
    }

    /// Returns whether an image of `len` bytes, which `read` appends to a hash, has the identity
    /// `content`. Calls `read` only if the lengths are equal.
    // Not inlined, to keep stack frames small.
    #[inline(never)]
    pub(crate) fn is_content(
        &self,
        content: &Content,
        len: u64,
        read: impl FnOnce(&mut Hash<'_>) -> Option<()>,
    ) -> bool {
        if len != content.len {
            return false;
        }
        let mut hash = Hash::new(&self.keys);

        read(&mut hash).is_some() && hash.finish(len) == *content
    }

    fn find(&self, len: u64, is_wanted: impl Fn(&KnownImage) -> bool) -> Option<Name> {
        let buckets = self.buckets.lock();

        buckets
            .get(usize::from(bucket_of(len)))?
            .iter()
            .find(|image| image.content.len == len && is_wanted(image))
            .map(|image| image.name)
    }

    /// Records that `name` is the name in the image `content`. Forgets the oldest image of the
    /// bucket if there are too many. Without memory, the next load of that image is not recognised.
    ///
    /// May sleep. Must be called without locks held.
    pub(crate) fn add(&self, name: &Name, content: Content) {
        let image = ListArc::pin_init(
            try_pin_init!(KnownImage {
                name: *name,
                content,
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        );
        let Ok(image) = image else {
            return;
        };

        // Freed without the lock, as is an image that is known already: these are dropped last.
        let _oldest;
        let mut buckets = self.buckets.lock();
        let Some(list) = buckets.get_mut(usize::from(bucket_of(content.len))) else {
            return;
        };
        if list.iter().any(|known| known.content == content) {
            return;
        }
        list.push_front(image);
        if list.iter().count() > BUCKET_LEN {
            _oldest = list.pop_back();
        }
    }

    /// Returns the number of images.
    #[cfg(any(test, CONFIG_MODULE_DEDUP_KUNIT_TEST))]
    pub(crate) fn count(&self) -> usize {
        let buckets = self.buckets.lock();

        buckets.iter().map(|list| list.iter().count()).sum()
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_content)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn image(last: u8) -> Result<KVec<u8>> {
        let mut image = KVec::from_elem(7, PIECE + 9, GFP_KERNEL)?;

        if let Some(byte) = image.last_mut() {
            *byte = last;
        }
        Ok(image)
    }

    #[test]
    fn module_is_known_by_its_bytes() -> Result {
        let images = Arc::pin_init(KnownImages::new(), GFP_KERNEL)?;
        let name = Name::new(b"module");
        let (one, other) = (image(1)?, image(2)?);

        images.add(&name, images.content_of(&one));
        assert!(images.name_of(&mut &*one) == Some(name));
        // The same length, other bytes.
        assert!(images.name_of(&mut &*other).is_none());

        images.add(&name, images.content_of(&other));
        images.add(&name, images.content_of(&one));
        assert!(images.name_of(&mut &*one) == Some(name));
        assert!(images.name_of(&mut &*other) == Some(name));
        assert_eq!(images.count(), 2);
        Ok(())
    }

    #[test]
    fn number_of_images_is_bounded() -> Result {
        let images = Arc::pin_init(KnownImages::new(), GFP_KERNEL)?;
        let name = Name::new(b"module");
        let content = |number: usize| Content {
            len: 1,
            digest: [number as u8; 16],
        };
        let is_known = |number| {
            images
                .find(1, |image| image.content == content(number))
                .is_some()
        };

        for number in 0..=BUCKET_LEN {
            images.add(&name, content(number));
        }
        assert_eq!(images.count(), BUCKET_LEN);
        assert!(!is_known(0));
        assert!(is_known(1) && is_known(BUCKET_LEN));
        Ok(())
    }

    #[test]
    fn image_has_its_content_only() -> Result {
        let images = Arc::pin_init(KnownImages::new(), GFP_KERNEL)?;
        let (one, other) = (image(1)?, image(2)?);
        let content = images.content_of(&one);

        for (image, is_same) in [(&one[..], true), (&other[..], false), (&one[1..], false)] {
            let len = image.len() as u64;
            let read = |hash: &mut Hash<'_>| hash.read(&mut { image }, len);

            assert_eq!(images.is_content(&content, len, read), is_same);
        }
        Ok(())
    }

    #[test]
    fn image_of_another_length_is_not_read() -> Result {
        /// An image that must not be read.
        struct Unread;

        impl Image for Unread {
            fn read(&mut self, _: u64, _: &mut [u8]) -> Option<()> {
                unreachable!()
            }

            fn size(&self) -> u64 {
                1
            }
        }

        let images = Arc::pin_init(KnownImages::new(), GFP_KERNEL)?;
        let one = image(1)?;

        images.add(&Name::new(b"module"), images.content_of(&one));
        assert!(images.name_of(&mut Unread).is_none());
        Ok(())
    }
}
