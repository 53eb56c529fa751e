// SPDX-License-Identifier: GPL-2.0

//! Applies [`check`] to every module that the build made, and to mutations of them.
//!
//! The modules are in the folder that the environment variable `MODULES` names. They are mutated as
//! they are, and [relaid] in all [kinds](KINDS), with few and with many sections behind the
//! module's. A mutation is known by the image and its number, which seeds the random numbers.

use fastrand::Rng;
use object::{
    elf,
    read::elf::{FileHeader, SectionHeader},
    Endian, Endianness,
};
use std::{env, fs, ops::Range, panic, path::PathBuf};

use crate::{
    oracle::{check, Class, Kind, KINDS, MODULE_SECTION, NAME_OFFSET},
    relaid::{relaid, RELAID_MODULE_SIZE},
};

/// The number of mutations of all modules together, for each of the images below.
const MUTATIONS: usize = 500_000;

/// The sections that images made of a module have behind the module's.
const BEHIND: [usize; 3] = [0, 40, 300];

/// The kind of the modules of this machine's kernel.
const NATIVE: Kind = Kind {
    class: Class::Elf64,
    order: if cfg!(target_endian = "big") {
        Endianness::Big
    } else {
        Endianness::Little
    },
};

/// The modules: their names, as their files have them, and their images.
fn modules() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env::var_os("MODULES").expect("MODULES names a folder"));
    let mut modules: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some("ko".as_ref()))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();

            (name.replace('-', "_"), fs::read(&path).unwrap())
        })
        .collect();

    assert!(!modules.is_empty(), "no modules in the folder MODULES");
    // A mutation has to be the same in every run.
    modules.sort();
    modules
}

/// An image to be mutated, and where the parts of it lie that are worth it.
struct Subject {
    what: String,
    kind: Kind,
    image: Vec<u8>,
    module_size: u64,
    /// The header of a section is this long.
    entry: usize,
    /// The headers of all sections, and those of the module's and of the names'.
    table: Range<usize>,
    module_header: Range<usize>,
    names_header: Range<usize>,
    /// The names of sections, and that of the module's.
    names: Range<usize>,
    section_name: Range<usize>,
    /// The name of the module.
    name: Range<usize>,
}

impl Subject {
    fn new(what: String, kind: Kind, image: Vec<u8>) -> Self {
        match kind.class {
            Class::Elf32 => Self::parse::<elf::FileHeader32<Endianness>>(what, kind, image),
            Class::Elf64 => Self::parse::<elf::FileHeader64<Endianness>>(what, kind, image),
        }
    }

    fn parse<Elf: FileHeader<Endian = Endianness>>(
        what: String,
        kind: Kind,
        image: Vec<u8>,
    ) -> Self {
        let order = kind.order;
        let data = &image[..];
        let header = Elf::parse(data).unwrap();
        let sections = header.sections(order, data).unwrap();
        let (index, module) = sections.section_by_name(order, MODULE_SECTION).unwrap();
        let names_index = usize::from(header.e_shstrndx(order).0);
        let names = sections.iter().nth(names_index).unwrap();

        let entry = size_of::<Elf::SectionHeader>();
        let table: u64 = header.e_shoff(order).into();
        let table = table as usize..table as usize + sections.len() * entry;
        let header_at = |i| table.start + i * entry..table.start + (i + 1) * entry;
        let (start, size) = names.file_range(order).unwrap();
        let names = start as usize..(start + size) as usize;
        let section_name = names.start + module.sh_name(order) as usize;
        let (offset, module_size) = module.file_range(order).unwrap();
        let name = (offset + NAME_OFFSET) as usize;

        Self {
            what,
            kind,
            module_size,
            entry,
            module_header: header_at(index.0),
            names_header: header_at(names_index),
            table,
            names,
            section_name: section_name..section_name + MODULE_SECTION.len() + 1,
            name: name..name + 64,
            image,
        }
    }

    /// Returns a part of the image: most often one that peek.rs reads.
    fn part(&self, rng: &mut Rng) -> Range<usize> {
        match rng.u32(0..16) {
            0..3 => 0..64,
            3..7 => self.module_header.clone(),
            7..10 => self.names_header.clone(),
            10 => self.table.clone(),
            11..13 => self.section_name.clone(),
            13 => self.names.clone(),
            14 => self.name.clone(),
            _ => 0..self.image.len(),
        }
    }

    /// A number that could matter somewhere.
    fn number(&self, rng: &mut Rng) -> u64 {
        let base = match rng.u32(0..12) {
            0..4 => 0,
            4 => 1 << rng.u32(0..64),
            5 => self.image.len() as u64,
            6 => self.module_size,
            7 => self.table.start as u64,
            8 => self.names.start as u64,
            9 => self.name.start as u64 - NAME_OFFSET,
            10 => (self.table.len() / self.entry) as u64,
            _ => rng.u64(..),
        };

        match rng.u32(0..4) {
            0 => base,
            1 => base.wrapping_add(rng.u64(0..70)),
            2 => base.wrapping_sub(rng.u64(0..70)),
            _ => base.wrapping_sub(rng.u64(0..4) * self.entry as u64),
        }
    }

    fn header(&self, rng: &mut Rng) -> usize {
        match rng.u32(0..3) {
            0 => self.module_header.start,
            1 => self.names_header.start,
            _ => self.table.start + rng.usize(0..self.table.len() / self.entry) * self.entry,
        }
    }

    fn set(&mut self, at: usize, bytes: &[u8], undo: &mut Vec<(usize, Vec<u8>)>) {
        let end = self.image.len().min(at + bytes.len());

        undo.push((at, self.image[at..end].to_vec()));
        self.image[at..end].copy_from_slice(&bytes[..end - at]);
    }

    /// Changes the image once, and returns what it is to be cut to, or its length.
    fn mutate(&mut self, rng: &mut Rng, undo: &mut Vec<(usize, Vec<u8>)>) -> usize {
        let part = self.part(rng);
        let at = rng.usize(part.clone());

        match rng.u32(0..16) {
            0..2 => self.set(at, &[self.image[at] ^ 1 << rng.u32(0..8)], undo),
            2..4 => self.set(at, &[rng.u8(..)], undo),
            4..11 => {
                let number = self.number(rng);
                // Numbers are aligned to their sizes.
                let size = 1 << rng.u32(1..4);
                let at = part.start + (at - part.start) / size * size;
                let order = self.kind.order;
                let bytes = match size {
                    2 => order.write_u16(number as u16).to_vec(),
                    4 => order.write_u32(number as u32).to_vec(),
                    _ => order.write_u64(number).to_vec(),
                };

                self.set(at, &bytes, undo);
            }
            11 => self.set(at, &vec![rng.u8(..); rng.usize(1..70)], undo),
            12..14 => {
                let (one, other) = (self.header(rng), self.header(rng));
                let first = self.image[one..one + self.entry].to_vec();
                let second = self.image[other..other + self.entry].to_vec();

                // They change places, or there are many of one.
                if rng.bool() {
                    self.set(one, &second, undo);
                    self.set(other, &first, undo);
                } else {
                    let copies = first.repeat(rng.usize(1..20));
                    let room = self.table.end - other;

                    self.set(other, &copies[..room.min(copies.len())], undo);
                }
            }
            14 => {
                let bytes = self.image[self.section_name.clone()].to_vec();

                self.set(at, &bytes, undo);
            }
            _ => return if rng.bool() { part.end } else { at },
        }
        self.image.len()
    }

    /// Checks a mutation, and leaves the image as it was. Returns whether a name was found.
    fn check(&mut self, number: usize) -> bool {
        let mut rng = Rng::with_seed(number as u64);
        let mut undo = Vec::new();
        let mut len = self.image.len();

        for _ in 0..rng.u32(1..5) {
            len = len.min(self.mutate(&mut rng, &mut undo));
        }
        let image = &self.image[..len];
        let found = panic::catch_unwind(|| check(image, self.kind, self.module_size))
            .unwrap_or_else(|_| panic!("that was mutation {number} of {}", self.what));
        for (at, bytes) in undo.into_iter().rev() {
            self.image[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        found.is_some()
    }
}

/// Checks as many mutations of subjects as there are to be, and says what became of them.
fn mutations(mut subjects: Vec<Subject>) {
    let each = MUTATIONS.div_ceil(subjects.len());
    let mut found = 0;

    for subject in &mut subjects {
        let original = subject.image.clone();

        found += (0..each).filter(|number| subject.check(*number)).count();
        assert!(subject.image == original);
    }
    let all = each * subjects.len();
    println!(
        "{all} mutations of {} images, {found} with a name",
        subjects.len()
    );
    // Mutations that change nothing, or break everything, would prove little.
    assert!((all / 10..all - all / 10).contains(&found));
}

#[test]
fn modules_as_they_are() {
    for (name, image) in modules() {
        let subject = Subject::new(name.clone(), NATIVE, image);
        let peeked = check(&subject.image, subject.kind, subject.module_size);

        assert_eq!(peeked.as_deref(), Some(name.as_bytes()), "{name}");
        println!(
            "{name}: {} bytes, {} sections",
            subject.image.len(),
            subject.table.len() / subject.entry
        );
    }
}

#[test]
fn mutated_modules() {
    mutations(
        modules()
            .into_iter()
            .map(|(name, image)| Subject::new(name, NATIVE, image))
            .collect(),
    );
}

#[test]
fn relaid_modules() {
    for (name, image) in modules() {
        for kind in KINDS {
            let image = relaid(&image, kind, 0).unwrap();
            let peeked = check(&image, kind, RELAID_MODULE_SIZE as u64);

            assert_eq!(peeked.as_deref(), Some(name.as_bytes()), "{name}");
        }
    }
}

#[test]
fn mutated_relaid_modules() {
    let mut subjects = Vec::new();

    for (name, image) in modules() {
        for kind in KINDS {
            for behind in BEHIND {
                subjects.push(Subject::new(
                    format!("{name}, {kind:?} with {behind} more sections"),
                    kind,
                    relaid(&image, kind, behind).unwrap(),
                ));
            }
        }
    }
    mutations(subjects);
}
