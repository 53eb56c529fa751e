# SPDX-License-Identifier: GPL-2.0
"""Reads the files in /sys/kernel/debug/modules/.

Documentation/ABI/testing/debugfs-module-dedup describes them. Labels that are not known may
appear anywhere, so everything is looked up by its label.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .errors import HerdError, explain

DEBUGFS = Path("/sys/kernel/debug")
MODE = Path("/sys/module/module/parameters/dedup")

# The labels of `dedup` that count duplicate loads.
DUPLICATES = ("same_file", "same_name", "already_loaded", "from_memory")


@dataclass
class FailedModule:
    """A row of the list in `stats`: a module that was read for nothing."""

    module: str
    count: int
    reason: str


@dataclass
class Stats:
    """The file `stats`, with labels in snake case."""

    counters: dict[str, int] = field(default_factory=dict)
    modules: list[FailedModule] = field(default_factory=list)
    # The kernel without deduplication has room for about 110 rows.
    is_cut: bool = False

    def get(self, label: str) -> int:
        return self.counters.get(label, 0)


@dataclass
class PendingLoad:
    """A block of `pending`: a load or request in flight."""

    target: str
    owner: str = ""
    waiters: int = 0
    age_ms: int = 0


@dataclass
class Waiter:
    """A block of `pending`: a task that waits."""

    task: str
    blocked_on: str = ""
    owner: str | None = None
    helper: int | None = None
    in_helper: int | None = None
    age_ms: int = 0


@dataclass
class Pending:
    """The file `pending`."""

    loads: list[PendingLoad] = field(default_factory=list)
    waiters: list[Waiter] = field(default_factory=list)


@dataclass
class Snapshot:
    """What the kernel says. A file that it does not have is None."""

    stats: Stats | None
    dedup: dict[str, int] | None
    pending: Pending | None
    # The value of module.dedup=.
    mode: str | None

    def duplicates(self) -> int:
        """Return the number of duplicate loads."""
        if self.dedup is not None:
            return sum(self.dedup.get(label, 0) for label in DUPLICATES)
        return sum(row.count for row in self.stats.modules) if self.stats else 0


def printable(text: str) -> str:
    """Escape what could garble a terminal or forge a line: names come from user space."""
    return "".join(
        char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in text
    )


def parse_stats(text: str) -> Stats:
    stats = Stats(is_cut=bool(text) and not text.endswith("\n"))
    for line in text.split("\n"):
        cells = [printable(cell.strip()) for cell in line.split("\t")]
        if len(cells) == 2 and cells[1].isdecimal():
            stats.counters[cells[0].lower().replace(" ", "_")] = int(cells[1])
        elif len(cells) == 3 and cells[1].isdecimal():
            stats.modules.append(FailedModule(cells[0], int(cells[1]), cells[2]))
    return stats


def parse_dedup(text: str) -> dict[str, int]:
    lines = (line.partition("\t") for line in text.split("\n"))
    return {printable(label): int(value) for label, _, value in lines if value.isdecimal()}


def parse_pending(text: str) -> Pending:
    pending = Pending()
    for block in text.split("\n\n"):
        lines = [line.partition("\t") for line in block.split("\n") if line]
        if not lines:
            continue
        values = {label: printable(value) for label, _, value in lines}
        kind = lines[0][0]

        def number(label: str, values: dict[str, str] = values) -> int | None:
            value = values.get(label, "")
            return int(value) if value.isdecimal() else None

        if kind in ("file", "module", "request"):
            pending.loads.append(
                PendingLoad(
                    target=f"{kind} {values[kind]}",
                    owner=values.get("owner", ""),
                    waiters=number("waiters") or 0,
                    age_ms=number("age_ms") or 0,
                )
            )
        elif kind == "waiter":
            pending.waiters.append(
                Waiter(
                    task=values[kind],
                    blocked_on=values.get("blocked_on", ""),
                    owner=values.get("owner"),
                    helper=number("helper"),
                    in_helper=number("in_helper"),
                    age_ms=number("age_ms") or 0,
                )
            )
    return pending


def read_text(path: Path) -> str | None:
    """Return the contents of a file, or None if there is no such file."""
    try:
        # Unbuffered: each read() of `stats` makes the text anew on a kernel without
        # deduplication. One read() of this size returns all of it.
        with open(path, "rb", buffering=0) as file:
            parts = []
            while part := file.read(1 << 20):
                parts.append(part)
    except FileNotFoundError:
        return None
    except OSError as error:
        error.filename = path
        raise explain(error) from error
    return b"".join(parts).decode(errors="backslashreplace")


def read_snapshot(folder: Path | None = None) -> Snapshot:
    """Read the files of the running kernel, or copies of them in `folder`."""
    files = folder or DEBUGFS / "modules"
    stats = read_text(files / "stats")
    dedup = read_text(files / "dedup")
    if stats is None and dedup is None:
        if folder:
            raise HerdError(f"{folder} has neither a file 'stats' nor a file 'dedup'")
        if not os.path.ismount(DEBUGFS):
            raise HerdError(
                f"debugfs is not mounted on {DEBUGFS}: run 'mount -t debugfs none {DEBUGFS}'"
            )
        raise HerdError(
            "this kernel does not count module loads: it has neither CONFIG_MODULE_STATS nor "
            "CONFIG_MODULE_DEDUP_RUST"
        )
    pending = read_text(files / "pending")
    mode = read_text(folder / "mode" if folder else MODE)
    return Snapshot(
        stats=None if stats is None else parse_stats(stats),
        dedup=None if dedup is None else parse_dedup(dedup),
        pending=None if pending is None else parse_pending(pending),
        mode=printable(mode.strip()) if mode else None,
    )


def module_files() -> dict[str, str]:
    """Return the names of the module files of the running kernel, by the kernel's "file" target.

    On some file systems, for example btrfs, stat(2) reports another device than the kernel's.
    Such files are not found.
    """
    names = {}
    for folder, _, files in os.walk(Path("/lib/modules", os.uname().release)):
        for name in files:
            if ".ko" in name:
                try:
                    stat = os.stat(os.path.join(folder, name))
                except OSError:
                    continue
                device = f"{os.major(stat.st_dev)}:{os.minor(stat.st_dev)}"
                names[f"file {device}:{stat.st_ino}"] = printable(name)
    return names
