// SPDX-License-Identifier: GPL-2.0

//! The name of a module from its ELF image, before anything of the size of the image is allocated.
//!
//! The name is a hint: a load may be rejected because of it, but never accepted. So the code checks
//! only what keeps its reads within bounds. An image that differs from what kbuild makes has no
//! name here and goes to the loader, which reports what is wrong with it.
//!
//! The bytes may be hostile and may change between two reads.

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
use kernel::prelude::kunit_tests;

use kernel::module_list::MODULE_NAME_LEN;

use crate::target::Name;

/// Name of the section that holds the `struct module`, with its NUL.
const SECTION_NAME: &[u8] = b".gnu.linkonce.this_module\0";

/// Number of sections that kbuild puts after the wanted one, in a module without debug information.
const SECTIONS_BEHIND: u64 = 8;
/// Number of section headers to read at once, into a buffer on the stack, if the wanted header is
/// not at the likely index.
const HEADERS_AT_ONCE: usize = 5;
/// Maximum number of such reads. More sections may follow the wanted one, such as those of debug
/// information.
const READS_OF_HEADERS: usize = 9;
/// Maximum number of sections of the right size whose names are compared.
const CANDIDATES: usize = 4;

/// Sizes of the 64-bit headers, which are larger than the 32-bit ones.
const MAX_FILE_HEADER: usize = 64;
const MAX_SECTION_HEADER: usize = 64;

const ET_REL: u64 = 1;
const SHT_NOBITS: u64 = 8;
const SHF_ALLOC: u64 = 2;

/// An image that can be read in pieces.
pub(crate) trait Image {
    /// Fills `to` with the bytes that begin at `offset`. Returns [`None`] if they cannot be read or
    /// are not within the image.
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()>;

    /// Returns the size of the image in bytes, which may change at any time.
    fn size(&self) -> u64;
}

impl Image for &[u8] {
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        let from = self.get(start..start.checked_add(to.len())?)?;

        to.copy_from_slice(from);
        Some(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// A number in a header: its offset and its length in bytes.
type Field = (usize, usize);

/// The header fields that matter here, in an ELF file of one class.
pub(crate) struct Layout {
    class: u8,
    file_header: usize,
    e_shoff: Field,
    e_shentsize: Field,
    e_shnum: Field,
    e_shstrndx: Field,
    section_header: usize,
    sh_flags: Field,
    sh_offset: Field,
    sh_size: Field,
}

const E_TYPE: Field = (16, 2);
const SH_NAME: Field = (0, 4);
const SH_TYPE: Field = (4, 4);

/// The layout of 32-bit ELF files.
pub(crate) const ELF32: Layout = Layout {
    class: 1,
    file_header: 52,
    e_shoff: (32, 4),
    e_shentsize: (46, 2),
    e_shnum: (48, 2),
    e_shstrndx: (50, 2),
    section_header: 40,
    sh_flags: (8, 4),
    sh_offset: (16, 4),
    sh_size: (20, 4),
};

/// The layout of 64-bit ELF files.
pub(crate) const ELF64: Layout = Layout {
    class: 2,
    file_header: MAX_FILE_HEADER,
    e_shoff: (40, 8),
    e_shentsize: (58, 2),
    e_shnum: (60, 2),
    e_shstrndx: (62, 2),
    section_header: MAX_SECTION_HEADER,
    sh_flags: (8, 8),
    sh_offset: (24, 8),
    sh_size: (32, 8),
};

/// A byte order, as ELF numbers it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little = 1,
    Big = 2,
}

impl ByteOrder {
    /// The byte order of this kernel.
    pub(crate) const NATIVE: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };
}

/// The format of the modules of a kernel.
pub(crate) struct Format {
    /// The layout of its ELF files.
    pub(crate) layout: Layout,
    /// The byte order of its ELF files.
    pub(crate) order: ByteOrder,
    /// The size of `struct module`.
    pub(crate) module_size: u64,
    /// The offset of its name.
    pub(crate) name_offset: u64,
}

impl Format {
    /// Reads a number from a header.
    fn number(&self, header: &[u8], (offset, len): Field) -> Option<u64> {
        let bytes = header.get(offset..offset + len)?.iter();
        let append = |number: u64, byte: &u8| number << u8::BITS | u64::from(*byte);

        Some(match self.order {
            ByteOrder::Little => bytes.rfold(0, append),
            ByteOrder::Big => bytes.fold(0, append),
        })
    }
}

/// The search for the section of the `struct module` in an image.
struct Search<'a, I> {
    image: &'a mut I,
    format: &'a Format,
    /// Offset of the section headers. All of them lie in the image, so their offsets do not
    /// overflow.
    headers: u64,
    /// Index of the section with the section names.
    names_index: u64,
    /// Offset of that section, once it is known.
    names: Option<u64>,
    /// Number of sections whose names may still be compared.
    candidates: usize,
}

impl<I: Image> Search<'_, I> {
    /// Reads section headers, beginning with that of section `first`.
    fn read_headers(&mut self, first: u64, to: &mut [u8]) -> Option<()> {
        let offset = first * self.format.layout.section_header as u64;

        self.image.read(self.headers + offset, to)
    }

    /// Takes the offset of the section names from `headers`, which begin with that of section
    /// `first`, if their header is among them. It is usually the last one.
    fn find_names(&mut self, first: u64, headers: &[u8]) {
        let size = self.format.layout.section_header;
        let header = (self.names_index.checked_sub(first))
            .and_then(|index| headers.chunks_exact(size).nth(usize::try_from(index).ok()?));

        if let Some(header) = header {
            self.names = self.format.number(header, self.format.layout.sh_offset);
        }
    }

    /// Returns the offset of the section names.
    fn names(&mut self) -> Option<u64> {
        if self.names.is_none() {
            let mut header = [0; MAX_SECTION_HEADER];
            let header = header.get_mut(..self.format.layout.section_header)?;

            self.read_headers(self.names_index, header)?;
            self.names = Some(self.format.number(header, self.format.layout.sh_offset)?);
        }
        self.names
    }

    /// Returns whether `header` is that of the section of the `struct module`.
    fn is_module(&mut self, header: &[u8]) -> Option<bool> {
        let format = self.format;

        if format.number(header, format.layout.sh_size)? != format.module_size
            || format.number(header, format.layout.sh_flags)? & SHF_ALLOC == 0
            || format.number(header, SH_TYPE)? == SHT_NOBITS
        {
            return Some(false);
        }
        self.candidates = self.candidates.checked_sub(1)?;

        let mut name = [0; SECTION_NAME.len()];
        let offset = self.names()?.checked_add(format.number(header, SH_NAME)?)?;
        self.image.read(offset, &mut name)?;
        Some(name == SECTION_NAME)
    }

    /// Returns the name in the `struct module` whose section has `header`.
    fn module_name(&mut self, header: &[u8]) -> Option<Name> {
        let module = self.format.number(header, self.format.layout.sh_offset)?;

        read_name(self.image, module.checked_add(self.format.name_offset)?)
    }
}

/// Returns the name of the module in `image`.
///
/// Reads at most seventeen times and less than 4 KiB in total, whatever the image is.
// Not inlined, so that its buffers are off the stack while the module is loaded.
#[inline(never)]
pub(crate) fn module_name(image: &mut impl Image, format: &Format) -> Option<Name> {
    let layout = &format.layout;
    let mut header = [0; MAX_FILE_HEADER];
    let header = header.get_mut(..layout.file_header)?;

    image.read(0, header)?;
    if header.get(..6)? != [0x7f, b'E', b'L', b'F', layout.class, format.order as u8]
        || format.number(header, E_TYPE)? != ET_REL
        || format.number(header, layout.e_shentsize)? != layout.section_header as u64
    {
        return None;
    }
    let sections = format.number(header, layout.e_shnum)?;
    let mut search = Search {
        image,
        format,
        headers: format.number(header, layout.e_shoff)?,
        names_index: format.number(header, layout.e_shstrndx)?,
        names: None,
        candidates: CANDIDATES,
    };
    let table_size = sections * layout.section_header as u64;
    if search.names_index >= sections
        || search.headers.checked_add(table_size)? > search.image.size()
    {
        return None;
    }

    let mut headers = [0; HEADERS_AT_ONCE * MAX_SECTION_HEADER];
    if let Some(likely) = sections.checked_sub(SECTIONS_BEHIND + 1) {
        let header = headers.get_mut(..layout.section_header)?;

        search.read_headers(likely, header)?;
        if search.is_module(header)? {
            return search.module_name(header);
        }
    }
    // From the end: code and data, which may have many sections, come before the wanted one.
    let mut left = sections;
    for _ in 0..READS_OF_HEADERS {
        let count = left.min(HEADERS_AT_ONCE as u64);
        let headers = headers.get_mut(..count as usize * layout.section_header)?;

        left -= count;
        search.read_headers(left, headers)?;
        search.find_names(left, headers);
        for header in headers.rchunks_exact(layout.section_header) {
            if search.is_module(header)? {
                return search.module_name(header);
            }
        }
        if left == 0 {
            break;
        }
    }
    None
}

/// Reads the name of a module, which must not be empty and must end within its array.
fn read_name(image: &mut impl Image, offset: u64) -> Option<Name> {
    let mut name = [0; MODULE_NAME_LEN];

    image.read(offset, &mut name)?;
    if !name.contains(&0) || name.first() == Some(&0) {
        return None;
    }
    Some(Name::new(&name))
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_peek)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    const MODULE_SIZE: usize = 96;
    const NAME_OFFSET: usize = 24;
    /// Offsets in the test image.
    const NAMES: usize = 64;
    const MODULE: usize = 128;
    const HEADERS: usize = 256;

    /// The format of most tests.
    const NATIVE64: Format = format(ELF64, ByteOrder::NATIVE);

    const fn format(layout: Layout, order: ByteOrder) -> Format {
        Format {
            layout,
            order,
            module_size: MODULE_SIZE as u64,
            name_offset: NAME_OFFSET as u64,
        }
    }

    fn set(image: &mut KVec<u8>, format: &Format, at: usize, (offset, len): Field, value: u64) {
        for (i, byte) in image.iter_mut().skip(at + offset).take(len).enumerate() {
            let shift = match format.order {
                ByteOrder::Little => i,
                ByteOrder::Big => len - 1 - i,
            };

            *byte = (value >> (8 * shift)) as u8;
        }
    }

    fn set_bytes(image: &mut KVec<u8>, at: usize, bytes: &[u8]) {
        for (to, from) in image.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// Makes an image of that many sections. Section `module` is that of a module called "abc".
    fn image(format: &Format, sections: usize, module: usize) -> Result<KVec<u8>> {
        let layout = &format.layout;
        let mut image = KVec::new();

        image.resize(HEADERS + sections * layout.section_header, 0, GFP_KERNEL)?;
        let ident = [0x7f, b'E', b'L', b'F', layout.class, format.order as u8];
        set_bytes(&mut image, 0, &ident);
        set_bytes(&mut image, NAMES + 1, SECTION_NAME);
        set_bytes(&mut image, MODULE + NAME_OFFSET, b"abc");

        let mut set = |at, field, value| set(&mut image, format, at, field, value);
        set(0, E_TYPE, ET_REL);
        set(0, layout.e_shoff, HEADERS as u64);
        set(0, layout.e_shentsize, layout.section_header as u64);
        set(0, layout.e_shnum, sections as u64);
        set(0, layout.e_shstrndx, 1);

        let header = HEADERS + layout.section_header;
        set(header, layout.sh_offset, NAMES as u64);

        let header = HEADERS + module * layout.section_header;
        set(header, SH_NAME, 1);
        set(header, SH_TYPE, 1);
        set(header, layout.sh_flags, SHF_ALLOC);
        set(header, layout.sh_offset, MODULE as u64);
        set(header, layout.sh_size, MODULE_SIZE as u64);
        Ok(image)
    }

    fn peek(mut image: &[u8], format: &Format) -> Option<Name> {
        module_name(&mut image, format)
    }

    #[test]
    fn name_is_found_in_any_format() -> Result {
        let formats = [
            format(ELF32, ByteOrder::Little),
            format(ELF32, ByteOrder::Big),
            format(ELF64, ByteOrder::Little),
            format(ELF64, ByteOrder::Big),
        ];

        for (i, format) in formats.iter().enumerate() {
            for (sections, module) in [(3, 2), (9, 2), (9, 8), (45, 2), (30000, 29960)] {
                let image = image(format, sections, module)?;

                assert!(peek(&image, format) == Some(Name::new(b"abc")));
            }
            let image = image(format, 3, 2)?;
            for (j, other) in formats.iter().enumerate() {
                assert_eq!(peek(&image, other).is_some(), i == j);
            }
        }
        Ok(())
    }

    #[test]
    fn work_is_bounded() -> Result {
        struct Counting<'a> {
            image: &'a [u8],
            reads: usize,
            bytes: usize,
        }

        impl Image for Counting<'_> {
            fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
                self.reads += 1;
                self.bytes += to.len();
                self.image.read(offset, to)
            }

            fn size(&self) -> u64 {
                self.image.size()
            }
        }

        let mut image = image(&NATIVE64, 500, 2)?;
        // All have the right size and another name.
        for i in 3..500 {
            let header = HEADERS + i * ELF64.section_header;

            for (field, value) in [
                (SH_TYPE, 1),
                (ELF64.sh_flags, SHF_ALLOC),
                (ELF64.sh_size, MODULE_SIZE as u64),
            ] {
                set(&mut image, &NATIVE64, header, field, value);
            }
        }
        let mut counting = Counting {
            image: &image,
            reads: 0,
            bytes: 0,
        };
        assert!(module_name(&mut counting, &NATIVE64).is_none());
        assert!(counting.reads <= 17);
        assert!(counting.bytes < 4096);
        Ok(())
    }

    #[test]
    fn truncated_images_have_no_name() -> Result {
        for sections in [3, SECTIONS_BEHIND as usize + 3] {
            let image = image(&NATIVE64, sections, 2)?;

            assert!(peek(&image, &NATIVE64).is_some());
            for len in 0..image.len() {
                assert!(peek(image.get(..len).ok_or(EINVAL)?, &NATIVE64).is_none());
            }
        }
        Ok(())
    }

    #[test]
    fn bad_numbers_are_not_followed() -> Result {
        for field in [
            ELF64.e_shoff,
            ELF64.e_shentsize,
            ELF64.e_shnum,
            ELF64.e_shstrndx,
        ] {
            for value in [0, 1 << 15, u64::MAX - 63, u64::MAX] {
                let mut image = image(&NATIVE64, 3, 2)?;

                set(&mut image, &NATIVE64, 0, field, value);
                assert!(peek(&image, &NATIVE64).is_none());
            }
        }
        for field in [SH_NAME, ELF64.sh_offset, ELF64.sh_size] {
            let mut image = image(&NATIVE64, 3, 2)?;

            let header = HEADERS + 2 * ELF64.section_header;
            set(&mut image, &NATIVE64, header, field, u64::MAX);
            assert!(peek(&image, &NATIVE64).is_none());
        }
        Ok(())
    }

    #[test]
    fn name_must_be_terminated() -> Result {
        let mut image = image(&NATIVE64, 3, 2)?;

        set_bytes(&mut image, MODULE + NAME_OFFSET, &[b'x'; MODULE_NAME_LEN]);
        assert!(peek(&image, &NATIVE64).is_none());
        set_bytes(&mut image, MODULE + NAME_OFFSET, &[0]);
        assert!(peek(&image, &NATIVE64).is_none());
        Ok(())
    }
}
