// SPDX-License-Identifier: GPL-2.0

//! The properties that peek.rs must have for every image:
//!
//! - it returns: no panic, which an overflow is as well;
//! - it reads at most seventeen times, and less than 4 KiB in all;
//! - a name that it finds is [right](right_names): that of *a* section that could be taken for the
//!   module's. There is no better answer, because the loader refuses an image that has two of them;
//! - it finds the name that the loader [would find](loaded_name), wherever kbuild puts it.
//!
//! The first two also hold if the bytes change between one read and the next. Between the last two
//! there is room: peek.rs may find a name in an image that the loader refuses, for it lets nothing
//! in, and may give up on one that kbuild would not make.
//!
//! The numbers are taken out of the image by the crate `object`, which shares no code with peek.rs.

use object::{
    elf,
    read::{
        elf::{FileHeader, SectionHeader},
        ReadRef, StringTable,
    },
    Endianness,
};

use kernel::module_list::MODULE_NAME_LEN;

use crate::peek::{self, ByteOrder, Format, Image};

pub(crate) const MODULE_SECTION: &[u8] = b".gnu.linkonce.this_module";

/// The offset of the name in `struct module`, which is in front of all that is configured.
pub(crate) const NAME_OFFSET: u64 = 24;

/// Sections, counted from the end, among which peek.rs has to find that of the module.
const LAST_SECTIONS: usize = 45;

const MAX_READS: usize = 17;
const MAX_BYTES: usize = 4095;

#[derive(Clone, Copy, Debug)]
pub enum Class {
    Elf32,
    Elf64,
}

/// A kind of ELF files.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub class: Class,
    pub order: Endianness,
}

/// All kinds.
pub const KINDS: [Kind; 4] = [
    Kind::new(Class::Elf32, Endianness::Little),
    Kind::new(Class::Elf32, Endianness::Big),
    Kind::new(Class::Elf64, Endianness::Little),
    Kind::new(Class::Elf64, Endianness::Big),
];

impl Kind {
    const fn new(class: Class, order: Endianness) -> Self {
        Self { class, order }
    }
}

/// An image that counts what is read of it.
struct Counting<'a> {
    image: &'a [u8],
    /// The bytes change: a read gets those behind the ones that the last read got.
    changing: bool,
    reads: usize,
    bytes: usize,
}

impl<'a> Counting<'a> {
    fn new(image: &'a [u8], changing: bool) -> Self {
        Self {
            image,
            changing,
            reads: 0,
            bytes: 0,
        }
    }

    fn assert_little_was_read(&self) {
        assert!(self.reads <= MAX_READS, "{} reads", self.reads);
        assert!(self.bytes <= MAX_BYTES, "{} bytes read", self.bytes);
    }
}

impl Image for Counting<'_> {
    fn read(&mut self, offset: u64, to: &mut [u8]) -> Option<()> {
        let offset = if self.changing {
            self.bytes as u64
        } else {
            offset
        };

        self.reads += 1;
        self.bytes += to.len();
        Image::read(&mut self.image, offset, to)
    }

    fn size(&self) -> u64 {
        self.image.len() as u64
    }
}

/// Checks what is said above, and returns the name that peek.rs found.
pub fn check(image: &[u8], kind: Kind, module_size: u64) -> Option<Vec<u8>> {
    let format = Format {
        layout: match kind.class {
            Class::Elf32 => peek::ELF32,
            Class::Elf64 => peek::ELF64,
        },
        order: match kind.order {
            Endianness::Little => ByteOrder::Little,
            Endianness::Big => ByteOrder::Big,
        },
        module_size,
        name_offset: NAME_OFFSET,
    };
    let (right, loaded) = match kind.class {
        Class::Elf32 => answers::<elf::FileHeader32<Endianness>>(image, kind.order, module_size),
        Class::Elf64 => answers::<elf::FileHeader64<Endianness>>(image, kind.order, module_size),
    };

    let mut changing = Counting::new(image, true);
    peek::module_name(&mut changing, &format);
    changing.assert_little_was_read();

    let mut counting = Counting::new(image, false);
    let peeked = peek::module_name(&mut counting, &format);
    counting.assert_little_was_read();

    let peeked = peeked.as_ref().map(|name| name.as_bytes());
    if let Some(name) = peeked {
        assert!(
            right.contains(&name),
            "'{}' is no right name",
            name.escape_ascii()
        );
    }
    if let Some(name) = loaded {
        assert!(
            peeked == Some(name),
            "'{}' was not found",
            name.escape_ascii()
        );
    }
    peeked.map(<[u8]>::to_vec)
}

fn answers<Elf: FileHeader<Endian = Endianness>>(
    image: &[u8],
    order: Endianness,
    module_size: u64,
) -> (Vec<&[u8]>, Option<&[u8]>) {
    (
        right_names::<Elf>(image, order, module_size).unwrap_or_default(),
        loaded_name::<Elf>(image, order, module_size),
    )
}

/// Returns whether a section could be that of a module, but for its name, as
/// elf_validity_cache_index_mod() of the loader checks it.
fn is_module<S: SectionHeader<Endian = Endianness>>(
    section: &S,
    order: Endianness,
    module_size: u64,
) -> bool {
    section.sh_size(order).into() == module_size
        && section.sh_flags(order).0 & elf::SHF_ALLOC.0 != 0
        && section.sh_type(order) != elf::SHT_NOBITS
}

/// The name in `bytes`, which has to end there.
fn name_in(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;

    (end > 0).then(|| &bytes[..end])
}

/// The names that are right: of all sections that are called as that of a module is, and could be
/// it. The image is relocatable, of this class and byte order, and its section headers are of the
/// size that they have. Nothing else has to be right about it: the string table may claim to be
/// shorter than it is.
fn right_names<Elf: FileHeader<Endian = Endianness>>(
    image: &[u8],
    order: Endianness,
    module_size: u64,
) -> Option<Vec<&[u8]>> {
    let header = image.read_at::<Elf>(0).ok()?;
    let class = match header.is_type_64() {
        true => elf::ELFCLASS64,
        false => elf::ELFCLASS32,
    };
    let data = match order {
        Endianness::Little => elf::ELFDATA2LSB,
        Endianness::Big => elf::ELFDATA2MSB,
    };
    let ident = header.e_ident();
    if (ident.magic, ident.class, ident.data) != (elf::ELFMAG, class, data)
        || header.e_type(order) != elf::ET_REL
        || usize::from(header.e_shentsize(order)) != size_of::<Elf::SectionHeader>()
    {
        return None;
    }

    let sections = image
        .read_slice_at::<Elf::SectionHeader>(
            header.e_shoff(order).into(),
            header.e_shnum(order).into(),
        )
        .ok()?;
    let names = sections.get(usize::from(header.e_shstrndx(order).0))?;
    let names = StringTable::new(image, names.sh_offset(order).into(), image.len() as u64);

    let name_of = |section: &Elf::SectionHeader| {
        let offset = section.sh_offset(order).into();

        name_in(
            image
                .read_bytes_at(offset.checked_add(NAME_OFFSET)?, MODULE_NAME_LEN as u64)
                .ok()?,
        )
    };
    Some(
        sections
            .iter()
            .filter(|section| {
                is_module(*section, order, module_size)
                    && names.get(section.sh_name(order)) == Ok(MODULE_SECTION)
            })
            .filter_map(name_of)
            .collect(),
    )
}

/// The name that the loader would find: that of the only section that could be it, within the
/// bounds of string table and file. peek.rs may miss it only if it lies too far from the end.
fn loaded_name<Elf: FileHeader<Endian = Endianness>>(
    image: &[u8],
    order: Endianness,
    module_size: u64,
) -> Option<&[u8]> {
    let header = Elf::parse(image).ok()?;
    if header.endian().ok()? != order {
        return None;
    }
    // ELF has a way to number more sections than fit, of which the loader knows nothing.
    if header.e_type(order) != elf::ET_REL || header.e_shstrndx(order).0 >= header.e_shnum(order) {
        return None;
    }

    let sections = header.sections(order, image).ok()?;
    let mut candidates = sections
        .iter()
        .enumerate()
        .filter(|(_, section)| is_module(*section, order, module_size));
    let (index, section) = candidates.next()?;
    if candidates.next().is_some()
        || sections.len() - index > LAST_SECTIONS
        || sections.section_name(order, section) != Ok(MODULE_SECTION)
    {
        return None;
    }

    let start = NAME_OFFSET as usize;
    let module = section.data(order, image).ok()?;
    name_in(module.get(start..start + MODULE_NAME_LEN)?)
}
