// SPDX-License-Identifier: GPL-2.0

//! The name of a module out of its image, before anything of the size of the image is allocated.
//!
//! The name is a hint: a load may be refused for it, but none is let through. So nothing here has
//! to be checked but what keeps the reads where they belong. Whatever is not as kbuild makes it has
//! no name here, and goes the full way, where C finds the words for what is wrong.
//!
//! The bytes may be hostile, and may change while they are read.

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
use kernel::prelude::kunit_tests;

use crate::key::{
    Name,
    MODULE_NAME_LEN, //
};

/// The section that holds the `struct module`, and a NUL.
const SECTION_NAME: &[u8] = b".gnu.linkonce.this_module\0";

/// Headers of sections that are read at once: few enough for the stack. kbuild puts the section
/// behind those of code and data, which may be many, and eight after it.
const HEADERS_AT_ONCE: usize = 9;
/// How often, for what else may be there, like debug information.
const READS_OF_HEADERS: usize = 5;
/// Sections of the right size that are asked for their name.
const CANDIDATES: usize = 4;

/// The larger of the two headers of a file, and of a section.
const MAX_FILE_HEADER: usize = 64;
const MAX_SECTION_HEADER: usize = 64;

const ET_REL: u64 = 1;
const SHT_NOBITS: u64 = 8;
const SHF_ALLOC: u64 = 2;

/// Where an image can be read.
pub(crate) trait Image {
    /// Reads as many bytes as `to` has from `offset` on, or returns [`None`] if there are not as
    /// many, or they cannot be read.
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()>;
}

impl Image for &[u8] {
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        let from = self.get(start..start.checked_add(to.len())?)?;

        to.copy_from_slice(from);
        Some(())
    }
}

/// Where a number lies in a header: its offset, and its length in bytes.
type Field = (usize, usize);

/// Where the numbers lie that are of interest here, in an ELF file of one class.
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

/// The byte order that the kernel has, as ELF numbers it.
const DATA: u8 = if cfg!(target_endian = "big") { 2 } else { 1 };

/// What the modules of a kernel look like.
pub(crate) struct Format {
    pub(crate) layout: Layout,
    /// The size of `struct module`.
    pub(crate) module_size: u64,
    /// The offset of its name.
    pub(crate) name_offset: u64,
}

/// Takes a number out of a header.
fn number(header: &[u8], (offset, len): Field) -> Option<u64> {
    let bytes = header.get(offset..offset + len)?;

    Some(match len {
        2 => u16::from_ne_bytes(bytes.try_into().ok()?).into(),
        4 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
        _ => u64::from_ne_bytes(bytes.try_into().ok()?),
    })
}

/// The search for the section of the module in an image.
struct Search<'a, I> {
    image: &'a mut I,
    format: &'a Format,
    /// Where the headers of the sections lie.
    headers: u64,
    /// Which section has the names of the sections.
    names_index: u64,
    /// Where that lies, once it is known.
    names: Option<u64>,
    /// How many more sections may be asked for their name.
    candidates: usize,
}

impl<I: Image> Search<'_, I> {
    /// Reads headers of sections, from that of section `first` on.
    fn read_headers(&mut self, first: u64, to: &mut [u8]) -> Option<()> {
        let offset = first * self.format.layout.section_header as u64;

        self.image.read(self.headers.checked_add(offset)?, to)
    }

    /// Looks whether `headers`, from that of section `first` on, have the one of the section with
    /// the names: it is mostly the last of all.
    fn find_names(&mut self, first: u64, headers: &[u8]) {
        let size = self.format.layout.section_header;
        let header = (self.names_index.checked_sub(first))
            .and_then(|index| headers.chunks_exact(size).nth(usize::try_from(index).ok()?));

        if let Some(header) = header {
            self.names = number(header, self.format.layout.sh_offset);
        }
    }

    /// Where the names of the sections lie.
    fn names(&mut self) -> Option<u64> {
        if self.names.is_none() {
            let mut header = [0; MAX_SECTION_HEADER];
            let header = header.get_mut(..self.format.layout.section_header)?;

            self.read_headers(self.names_index, header)?;
            self.names = Some(number(header, self.format.layout.sh_offset)?);
        }
        self.names
    }

    /// Whether `header` is that of the section that is looked for.
    fn is_module(&mut self, header: &[u8]) -> Option<bool> {
        let layout = &self.format.layout;

        if number(header, layout.sh_size)? != self.format.module_size
            || number(header, layout.sh_flags)? & SHF_ALLOC == 0
            || number(header, SH_TYPE)? == SHT_NOBITS
        {
            return Some(false);
        }
        self.candidates = self.candidates.checked_sub(1)?;

        let mut name = [0; SECTION_NAME.len()];
        let offset = self.names()?.checked_add(number(header, SH_NAME)?)?;
        self.image.read(offset, &mut name)?;
        Some(name == SECTION_NAME)
    }

    /// The name in the module that the section of `header` holds.
    fn module_name(&mut self, header: &[u8]) -> Option<Name> {
        let module = number(header, self.format.layout.sh_offset)?;

        read_name(self.image, module.checked_add(self.format.name_offset)?)
    }
}

/// Finds the name of the module in `image`.
///
/// Reads at most twelve times, and less than 4 KiB in all, whatever the image is.
// What it reads is not to lie on the stack while the module is loaded.
#[inline(never)]
pub(crate) fn module_name(image: &mut impl Image, format: &Format) -> Option<Name> {
    let layout = &format.layout;
    let mut header = [0; MAX_FILE_HEADER];
    let header = header.get_mut(..layout.file_header)?;

    image.read(0, header)?;
    if header.get(..6)? != [0x7f, b'E', b'L', b'F', layout.class, DATA]
        || number(header, E_TYPE)? != ET_REL
        || number(header, layout.e_shentsize)? != layout.section_header as u64
    {
        return None;
    }
    let sections = number(header, layout.e_shnum)?;
    let mut search = Search {
        image,
        format,
        headers: number(header, layout.e_shoff)?,
        names_index: number(header, layout.e_shstrndx)?,
        names: None,
        candidates: CANDIDATES,
    };
    if search.names_index >= sections {
        return None;
    }

    // From the end, because there are fewer sections after the one that is looked for.
    let mut headers = [0; HEADERS_AT_ONCE * MAX_SECTION_HEADER];
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

/// Reads the name of a module, which has to end within its array, and not to be empty.
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
    /// Where the contents of the test image lie.
    const NAMES: usize = 64;
    const MODULE: usize = 128;
    const HEADERS: usize = 256;

    fn format(layout: Layout) -> Format {
        Format {
            layout,
            module_size: MODULE_SIZE as u64,
            name_offset: NAME_OFFSET as u64,
        }
    }

    fn set(image: &mut KVec<u8>, at: usize, (offset, len): Field, value: usize) {
        for (i, byte) in image.iter_mut().skip(at + offset).take(len).enumerate() {
            let shift = if DATA == 1 { i } else { len - 1 - i };

            *byte = (value >> (8 * shift)) as u8;
        }
    }

    fn set_bytes(image: &mut KVec<u8>, at: usize, bytes: &[u8]) {
        for (to, from) in image.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// An image of so many sections, of which one is that of a module called "abc".
    fn image(layout: &Layout, sections: usize, module: usize) -> Result<KVec<u8>> {
        let mut image = KVec::new();

        image.resize(HEADERS + sections * layout.section_header, 0, GFP_KERNEL)?;
        set_bytes(&mut image, 0, &[0x7f, b'E', b'L', b'F', layout.class, DATA]);
        set(&mut image, 0, E_TYPE, ET_REL as usize);
        set(&mut image, 0, layout.e_shoff, HEADERS);
        set(&mut image, 0, layout.e_shentsize, layout.section_header);
        set(&mut image, 0, layout.e_shnum, sections);
        set(&mut image, 0, layout.e_shstrndx, 1);
        set_bytes(&mut image, NAMES + 1, SECTION_NAME);
        set_bytes(&mut image, MODULE + NAME_OFFSET, b"abc");

        set(
            &mut image,
            HEADERS + layout.section_header,
            layout.sh_offset,
            NAMES,
        );
        let header = HEADERS + module * layout.section_header;
        set(&mut image, header, SH_NAME, 1);
        set(&mut image, header, SH_TYPE, 1);
        set(&mut image, header, layout.sh_flags, SHF_ALLOC as usize);
        set(&mut image, header, layout.sh_offset, MODULE);
        set(&mut image, header, layout.sh_size, MODULE_SIZE);
        Ok(image)
    }

    fn peek(mut image: &[u8], layout: Layout) -> Option<Name> {
        module_name(&mut image, &format(layout))
    }

    #[test]
    fn the_name_is_found_in_either_class() -> Result {
        for (sections, module) in [(3, 2), (9, 2), (9, 8), (45, 2), (30000, 29960)] {
            assert!(peek(&image(&ELF32, sections, module)?, ELF32) == Some(Name::new(b"abc")));
            assert!(peek(&image(&ELF64, sections, module)?, ELF64) == Some(Name::new(b"abc")));
        }
        assert!(peek(&image(&ELF32, 3, 2)?, ELF64).is_none());
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
        }

        let mut image = image(&ELF64, 500, 2)?;
        // All are of the right size, and of another name.
        for i in 3..500 {
            let header = HEADERS + i * ELF64.section_header;

            set(&mut image, header, SH_TYPE, 1);
            set(&mut image, header, ELF64.sh_flags, SHF_ALLOC as usize);
            set(&mut image, header, ELF64.sh_size, MODULE_SIZE);
        }
        let mut counting = Counting {
            image: &image,
            reads: 0,
            bytes: 0,
        };
        assert!(module_name(&mut counting, &format(ELF64)).is_none());
        assert!(counting.reads <= 12);
        assert!(counting.bytes < 4096);
        Ok(())
    }

    #[test]
    fn cut_images_have_no_name() -> Result {
        let image = image(&ELF64, 3, 2)?;

        for len in 0..image.len() {
            assert!(peek(image.get(..len).ok_or(EINVAL)?, ELF64).is_none());
        }
        Ok(())
    }

    #[test]
    fn numbers_that_lead_nowhere() -> Result {
        for field in [
            ELF64.e_shoff,
            ELF64.e_shentsize,
            ELF64.e_shnum,
            ELF64.e_shstrndx,
        ] {
            for value in [0, 1 << 15, usize::MAX - 63, usize::MAX] {
                let mut image = image(&ELF64, 3, 2)?;

                set(&mut image, 0, field, value);
                assert!(peek(&image, ELF64).is_none());
            }
        }
        for field in [SH_NAME, ELF64.sh_offset, ELF64.sh_size] {
            let mut image = image(&ELF64, 3, 2)?;

            set(
                &mut image,
                HEADERS + 2 * ELF64.section_header,
                field,
                usize::MAX,
            );
            assert!(peek(&image, ELF64).is_none());
        }
        Ok(())
    }

    #[test]
    fn a_name_has_to_end() -> Result {
        let mut image = image(&ELF64, 3, 2)?;

        set_bytes(&mut image, MODULE + NAME_OFFSET, &[b'x'; MODULE_NAME_LEN]);
        assert!(peek(&image, ELF64).is_none());
        set_bytes(&mut image, MODULE + NAME_OFFSET, &[0]);
        assert!(peek(&image, ELF64).is_none());
        Ok(())
    }
}
