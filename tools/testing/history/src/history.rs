// SPDX-License-Identifier: GPL-2.0

//! The calls that the guest has recorded: see `tools/testing/selftests/kmod/load_history.c`.

use std::{fmt, str::FromStr};

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// finit_module().
    Finit,
    /// init_module().
    Init,
    /// delete_module().
    Unload,
    /// request_module().
    Request,
    /// A finit_module() by the modprobe of a request. Without a file, modprobe has just failed.
    Modprobe,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    pub task: u32,
    /// Starts and ends of all calls of a round are different.
    pub start: u32,
    /// If the call never returned: when its task was dead.
    pub end: u32,
    /// An errno, or the result of request_module(). [`None`] if the call never returned.
    pub result: Option<i32>,
    /// A handler without SA_RESTART has run during the call.
    pub has_signal: bool,
    pub module: String,
    pub kind: Kind,
    pub file: String,
    pub args: String,
}

impl Call {
    /// Returns whether the call loads a module.
    pub fn is_load(&self) -> bool {
        match self.kind {
            Kind::Finit | Kind::Init => true,
            Kind::Modprobe => !self.file.is_empty(),
            Kind::Unload | Kind::Request => false,
        }
    }

    /// Returns the name of the function.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Unload => "delete_module",
            Kind::Request => "request_module",
            Kind::Init => "init_module",
            Kind::Modprobe if !self.is_load() => "modprobe",
            Kind::Finit | Kind::Modprobe => "finit_module",
        }
    }

    /// Returns the name of the result.
    pub fn result_name(&self) -> String {
        let Some(result) = self.result else {
            return "killed".to_owned();
        };

        match (self.kind, result) {
            (_, 0) => "0".to_owned(),
            (Kind::Request, status) if status > 0 => format!("status {}", status >> 8),
            (_, 2) => "ENOENT".to_owned(),
            (_, 4 | -4) => "EINTR".to_owned(),
            (_, 8) => "ENOEXEC".to_owned(),
            (_, 11) => "EWOULDBLOCK".to_owned(),
            (_, 16) => "EBUSY".to_owned(),
            (_, 17) => "EEXIST".to_owned(),
            (_, 61) => "ENODATA".to_owned(),
            (_, errno) => format!("errno {errno}"),
        }
    }

    /// Returns whether the calls are loads of one file with the same arguments and flags.
    pub fn is_same_load(&self, other: &Self) -> bool {
        let is_from_file = |call: &Self| call.is_load() && call.kind != Kind::Init;

        is_from_file(self)
            && is_from_file(other)
            && self.module == other.module
            && self.file == other.file
            && self.args == other.args
    }

    /// Returns whether some instant lies within both calls.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let error = || format!("not a call: {line}");
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let number = |word: &str| word.parse().map_err(|_| error());

        Ok(Self {
            task: number(word())?,
            start: number(word())?,
            end: number(word())?,
            result: match word() {
                "-" => None,
                result => Some(result.parse().map_err(|_| error())?),
            },
            has_signal: word() == "s",
            module: word().to_owned(),
            kind: match word() {
                "finit" => Kind::Finit,
                "init" => Kind::Init,
                "unload" => Kind::Unload,
                "request" => Kind::Request,
                "modprobe" => Kind::Modprobe,
                _ => return Err(error()),
            },
            file: word().to_owned(),
            args: word().to_owned(),
        })
    }
}

impl fmt::Display for Call {
    /// Formats a line of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = match self.task {
            16 => "main".to_owned(),
            17 => "modprobe".to_owned(),
            task => format!("task {task}"),
        };
        let call = format!(
            "{} {} {} {}",
            self.kind_name(),
            self.module,
            self.file,
            self.args
        );

        write!(
            f,
            "{task:8}  {:5}  {:5}  {:45}  {}{}",
            self.start,
            self.end,
            call.trim_end(),
            self.result_name(),
            if self.has_signal { ", signal" } else { "" }
        )
    }
}
