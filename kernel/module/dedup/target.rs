// SPDX-License-Identifier: GPL-2.0

//! The target of a load, a request or a wait, as the log, debugfs and tracepoints show it.

use kernel::{
    fmt::{
        self,
        Write, //
    },
    module_list::MODULE_NAME_LEN,
    prelude::*,
    str::{
        BStr,
        CStr, //
    }, //
};

/// The name of a module, or the name or alias of a request.
///
/// # Invariants
///
/// The bytes after the first NUL are NULs, and the last byte is one: equal names are equal bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    bytes: [u8; MODULE_NAME_LEN],
}

impl Name {
    /// Makes a name from the bytes before the first NUL. A name that does not fit is truncated.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut name = [0; MODULE_NAME_LEN];
        let len = bytes
            .iter()
            .take(MODULE_NAME_LEN - 1)
            .take_while(|byte| **byte != 0)
            .count();

        if let (Some(to), Some(from)) = (name.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        // INVARIANT: At most `MODULE_NAME_LEN - 1` bytes were copied, none of them a NUL.
        Self { bytes: name }
    }

    /// Returns the name without its NUL.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.as_c_str().to_bytes()
    }

    /// Returns the name as a C string.
    pub(crate) fn as_c_str(&self) -> &CStr {
        // Never fails, by the type invariant.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Returns the name with its NUL and the padding.
    pub(crate) fn as_padded_bytes(&self) -> &[u8; MODULE_NAME_LEN] {
        &self.bytes
    }
}

/// Shows printable characters as they are and escapes all other bytes, so that no name can forge a
/// line of the log or of a file. Pads on the left if there is a width.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Length(usize);

        impl fmt::Write for Length {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                self.0 += s.len();
                Ok(())
            }
        }

        let name = BStr::from_bytes(self.as_bytes());
        if let Some(width) = f.width() {
            let mut length = Length(0);

            length.write_fmt(fmt!("{name}"))?;
            for _ in length.0..width {
                f.write_char(' ')?;
            }
        }
        f.write_fmt(fmt!("{name}"))
    }
}

/// The target of a load or request.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A file, known by its file system's device number and its inode number.
    File {
        /// `s_dev` of the super block.
        dev: u32,
        /// The inode number.
        ino: u64,
    },
    /// A module, known by its name.
    Module(Name),
    /// A request_module() call, known by the module name or alias that it requests.
    Request(Name),
}

impl Target {
    /// Writes the kind of the target, `separator`, and the name or the numbers.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, separator: char) -> fmt::Result {
        match self {
            // The device as in /proc/self/mountinfo; stat(2) may report another one.
            Self::File { dev, ino } => f.write_fmt(fmt!(
                "file{separator}{}:{}:{ino}",
                dev >> 20,
                dev & 0xf_ffff
            )),
            Self::Module(name) => f.write_fmt(fmt!("module{separator}{name}")),
            Self::Request(name) => f.write_fmt(fmt!("request{separator}{name}")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, ' ')
    }
}

#[cfg(CONFIG_MODULE_DEDUP_KUNIT_TEST)]
#[kunit_tests(module_dedup_target)]
mod tests {
    use super::*;
    use kernel::str::CString;

    fn display(name: &[u8]) -> Result<CString> {
        CString::try_from_fmt(fmt!("[{:>8}]", Name::new(name)))
    }

    #[test]
    fn name_ends_at_nul() {
        assert!(Name::new(b"xfs") == Name::new(b"xfs\0garbage"));
        assert!(Name::new(b"xfs") != Name::new(b"xfs2"));
        assert!(Name::new(b"").as_bytes().is_empty());
    }

    #[test]
    fn longest_name_is_kept() {
        let long = [b'x'; MODULE_NAME_LEN - 1];

        assert_eq!(Name::new(&long).as_bytes(), &long);
        assert_eq!(Name::new(&[b'x'; MODULE_NAME_LEN + 9]).as_bytes(), &long);
    }

    #[test]
    fn names_are_padded_and_escaped() -> Result {
        assert_eq!(display(b"xfs")?.to_bytes(), b"[     xfs]");
        assert_eq!(
            display(b"longer_than_that")?.to_bytes(),
            b"[longer_than_that]"
        );
        assert_eq!(display(b"a\nb")?.to_bytes(), b"[    a\\nb]");
        assert_eq!(display(b"\xff")?.to_bytes(), b"[    \\xff]");
        Ok(())
    }
}
