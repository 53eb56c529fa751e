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

/// The hash of a compressed image and the name of its module, which is live or being loaded.
#[pin_data]
struct LiveSource {
    name: Name,
    content: Content,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for LiveSource { untracked; }
}

impl_list_item! {
    impl ListItem<0> for LiveSource { using ListLinks { self.links }; }
}

/// The hashes of the compressed images of modules that are live or being loaded, with the names of
/// the modules. At most one image for each module: the last one.
#[pin_data]
pub(crate) struct LiveSources {
    keys: HashKeys,
    /// Hashed by the length of the image. Process context only. A leaf lock, held to walk one
    /// bucket or, to remove a module, all of them. Nothing is allocated or freed under it.
    #[pin]
    buckets: SpinLock<[List<LiveSource>; BUCKETS]>,
}

impl LiveSources {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            keys: HashKeys::random()?,
            buckets <- new_spinlock!([const { List::new() }; BUCKETS], "module_dedup_sources"),
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
        self.find(len, |source| source.content == content)
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

    fn find(&self, len: u64, is_wanted: impl Fn(&LiveSource) -> bool) -> Option<Name> {
        let buckets = self.buckets.lock();

        buckets
            .get(usize::from(bucket_of(len)))?
            .iter()
            .find(|source| source.content.len == len && is_wanted(source))
            .map(|source| source.name)
    }

    /// Records that `name` is the name in the image `content`. Without memory, the next load of
    /// that image is not recognised.
    ///
    /// Replaces the image that was known for that module, to bound their number.
    ///
    /// May sleep. Must be called without locks held.
    pub(crate) fn add(&self, name: &Name, content: Content) {
        let source = ListArc::pin_init(
            try_pin_init!(LiveSource {
                name: *name,
                content,
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        );
        let Ok(source) = source else {
            return;
        };

        let mut buckets = self.buckets.lock();
        let removed = Self::remove_from(&mut *buckets, name);

        if let Some(list) = buckets.get_mut(usize::from(bucket_of(content.len))) {
            list.push_front(source);
        }
        drop(buckets);
        // Freed without the lock.
        drop(removed);
    }

    /// Removes the entries of the module `name`, which is being unloaded or was not loaded. A load
    /// that runs at the same time may add one afterwards. It stays correct and only wastes memory
    /// until the next unload of that name.
    ///
    /// Must be called without locks held.
    pub(crate) fn remove(&self, name: &Name) {
        let mut buckets = self.buckets.lock();
        let removed = Self::remove_from(&mut *buckets, name);

        drop(buckets);
        // Freed without the lock.
        drop(removed);
    }

    /// Moves the entries of the module `name` to a list for the caller to free.
    fn remove_from(buckets: &mut [List<LiveSource>], name: &Name) -> List<LiveSource> {
        let mut removed = List::new();

        for list in buckets {
            let mut cursor = list.cursor_front();

            while let Some(source) = cursor.peek_next() {
                if source.name == *name {
                    removed.push_front(source.remove());
                } else {
                    cursor.move_next();
                }
            }
        }
        removed
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_content)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn is_empty(sources: &LiveSources) -> bool {
        sources.buckets.lock().iter().all(List::is_empty)
    }

    fn image(last: u8) -> Result<KVec<u8>> {
        let mut image = KVec::from_elem(7, PIECE + 9, GFP_KERNEL)?;

        if let Some(byte) = image.last_mut() {
            *byte = last;
        }
        Ok(image)
    }

    #[test]
    fn module_is_known_by_its_bytes() -> Result {
        let sources = Arc::pin_init(LiveSources::new(), GFP_KERNEL)?;
        let name = Name::new(b"module");
        let (one, other) = (image(1)?, image(2)?);

        sources.add(&name, sources.content_of(&one));
        assert!(sources.name_of(&mut &*one) == Some(name));
        // The same length, other bytes.
        assert!(sources.name_of(&mut &*other).is_none());

        // One image for each module.
        sources.add(&name, sources.content_of(&other));
        sources.remove(&Name::new(b"other"));
        assert!(sources.name_of(&mut &*one).is_none());
        assert!(sources.name_of(&mut &*other) == Some(name));

        sources.remove(&name);
        assert!(sources.name_of(&mut &*other).is_none());
        assert!(is_empty(&sources));
        Ok(())
    }

    #[test]
    fn image_has_its_content_only() -> Result {
        let sources = Arc::pin_init(LiveSources::new(), GFP_KERNEL)?;
        let (one, other) = (image(1)?, image(2)?);
        let content = sources.content_of(&one);

        for (image, is_same) in [(&one[..], true), (&other[..], false), (&one[1..], false)] {
            let len = image.len() as u64;
            let read = |hash: &mut Hash<'_>| hash.read(&mut { image }, len);

            assert_eq!(sources.is_content(&content, len, read), is_same);
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

        let sources = Arc::pin_init(LiveSources::new(), GFP_KERNEL)?;
        let one = image(1)?;

        sources.add(&Name::new(b"module"), sources.content_of(&one));
        assert!(sources.name_of(&mut Unread).is_none());
        sources.remove(&Name::new(b"module"));
        Ok(())
    }
}
