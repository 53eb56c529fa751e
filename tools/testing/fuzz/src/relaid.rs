// SPDX-License-Identifier: GPL-2.0

//! A module as small as possible, of any kind.

use object::{
    elf,
    read::elf::{FileHeader, SectionHeader},
    Endian, Endianness, NativeEndian,
};

use crate::oracle::{Class, Kind, MODULE_SECTION};

/// The bytes that are kept of the `struct module`: its beginning, with the name.
pub const RELAID_MODULE_SIZE: usize = 128;

/// Writes numbers one behind the other, as the headers of ELF have them.
struct Writer {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Writer {
    fn half(&mut self, value: u16) -> &mut Self {
        self.bytes.extend(self.kind.order.write_u16(value));
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(self.kind.order.write_u32(value));
        self
    }

    /// A number whose size is that of an address.
    fn wide(&mut self, value: u64) -> &mut Self {
        let order = self.kind.order;

        match self.kind.class {
            Class::Elf32 => self.bytes.extend(order.write_u32(value as u32)),
            Class::Elf64 => self.bytes.extend(order.write_u64(value)),
        }
        self
    }
}

/// Writes `module`, which is of 64 bit, anew: the file header, what is left of the section of the
/// module, the names of sections, and their headers, with `behind` more of them at the end.
pub fn relaid(module: &[u8], kind: Kind, behind: usize) -> Option<Vec<u8>> {
    type Elf = elf::FileHeader64<NativeEndian>;

    let header = Elf::parse(module).ok()?;
    let names = usize::from(header.e_shstrndx(NativeEndian).0);
    let sections = header.sections(NativeEndian, module).ok()?;
    let (this, section) = sections.section_by_name(NativeEndian, MODULE_SECTION)?;
    let contents = section.data(NativeEndian, module).ok()?;
    let contents = contents.get(..RELAID_MODULE_SIZE)?;
    let strings = sections
        .iter()
        .nth(names)?
        .data(NativeEndian, module)
        .ok()?;

    let (file_header, section_header, class) = match kind.class {
        Class::Elf32 => (52, 40, elf::ELFCLASS32),
        Class::Elf64 => (64, 64, elf::ELFCLASS64),
    };
    let strings_at = file_header + contents.len();
    let table_at = (strings_at + strings.len()).next_multiple_of(8);

    let mut to = Writer {
        kind,
        bytes: module[..16].to_vec(),
    };
    to.bytes[4] = class.0;
    to.bytes[5] = match kind.order {
        Endianness::Little => elf::ELFDATA2LSB.0,
        Endianness::Big => elf::ELFDATA2MSB.0,
    };
    to.half(header.e_type(NativeEndian).0)
        .half(header.e_machine(NativeEndian).0)
        .word(header.e_version(NativeEndian))
        .wide(0)
        .wide(0)
        .wide(table_at as u64)
        .word(0)
        .half(file_header as u16)
        .half(0)
        .half(0)
        .half(section_header)
        .half((sections.len() + behind) as u16)
        .half(names as u16);
    to.bytes.extend(contents);
    to.bytes.extend(strings);
    to.bytes.resize(table_at, 0);

    let others = sections.iter().skip(this.0 + 1).cycle().take(behind);
    for (i, section) in sections.iter().chain(others).enumerate() {
        let size = section.sh_size(NativeEndian);
        let (offset, size) = match i {
            i if i == this.0 => (file_header, contents.len() as u64),
            i if i == names => (strings_at, size),
            // None of the others may pass for the module.
            _ => (
                0,
                if size == RELAID_MODULE_SIZE as u64 {
                    0
                } else {
                    size
                },
            ),
        };

        to.word(section.sh_name(NativeEndian))
            .word(section.sh_type(NativeEndian).0)
            .wide(section.sh_flags(NativeEndian).0)
            .wide(section.sh_addr(NativeEndian))
            .wide(offset as u64)
            .wide(size)
            .word(section.sh_link(NativeEndian))
            .word(section.sh_info(NativeEndian))
            .wide(section.sh_addralign(NativeEndian))
            .wide(section.sh_entsize(NativeEndian));
    }
    Some(to.bytes)
}
