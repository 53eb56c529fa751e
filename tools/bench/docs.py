# SPDX-License-Identifier: GPL-2.0
"""The results page: a short form of the report that is kept in the repository."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

import claims
import headline
import measures
import provenance
import tables
from figures import NAMES, Picture
from measures import image_name
from results import Result
from tables import Row, Table, table

TITLE = """\
.. SPDX-License-Identifier: GPL-2.0

=======================================
Module load deduplication: measurements
======================================="""

HERD = """These boots differ from a real machine in one respect: the modules that every CPU asks
for are {count} stand-ins with the names (prefixed with "herd"), sizes and dependencies of
Debian's own modules, and they do nothing when loaded: {modules}. Every CPU, emulated or not,
therefore asks for all of them, and the kernels need not enable the originals."""

IN_TURN = """\
Seconds are the median over the boots, with the least and the most in parentheses.
"Settled / C" is the median, least and most of the ratios of boots made in turn, one directly
after the other; it differs from the ratio of the medians."""

STORM = """\
Many threads load one module at the same moment. "Peak vmalloc" is the largest vmalloc usage
at one time, beyond the usage before the storm. "Wasted" is the kernel's own count of the bytes
that failed loads had allocated."""

MEMORY = """\
"Peak used" is the largest memory usage at one time, as free(1) counts it. C replays the
result of a request for 60 s, even after the module was unloaded. In kmod.sh 0008, C therefore
loads the module once, while Rust loads it in every round and takes longer. stress-ng runs for
a fixed time, so compare its operations."""

COST = """\
Instructions of a unique load, that is one without duplicates, of a module of 9 KB that does
nothing:"""

SIZE = """\
Bytes linked into kernel/module/. KUnit tests are listed apart, except for their string
literals:"""


def paragraph(text: str) -> str:
    return fill(" ".join(text.split()), 80, break_long_words=False, break_on_hyphens=False)


def quoted(cells: Sequence[str]) -> str:
    return "   " + ", ".join('"' + cell.replace('"', "'") + '"' for cell in cells)


def csv_table(of: Table, title: str = "", widths: str = "") -> str:
    if not of.rows:
        return "Not measured."
    head = quoted(of.head).strip().replace("/ c", "/ C")
    lines = [f".. csv-table:: {title}".rstrip(), f"   :header: {head}"]
    if widths:
        lines.append(f"   :widths: {widths}")
    return "\n".join([*lines, "", *map(quoted, of.rows)])


def chosen(rows: Sequence[Row], is_meant: Callable[[Row], bool], *columns: str) -> Table:
    return table(filter(is_meant, rows), *columns)


def in_short(row: Row) -> bool:
    return row["kernel"] in (NAMES["c"], NAMES["full"])


def herd(of: Sequence[Result]) -> str:
    """List the stand-ins that the boots had loaded."""
    names = {
        name.removeprefix("herd_")
        for boot in of
        for name in boot.values["modules"].split()
        if name.startswith("herd_")
    }
    return paragraph(HERD.format(count=len(names), modules=", ".join(sorted(names))))


def boots(of: Sequence[Result]) -> list[str]:
    """Make a table for each image: all mechanisms where udev uses init_module(), where duplicates
    cost most, and only C and full elsewhere."""
    columns = ("CPUs", "kernel", "boots", "failed loads", "wasted MB", "settled s", "settled / c")
    return [
        csv_table(
            chosen(
                tables.boots(of, image),
                in_short if image not in measures.BY_INIT_MODULE else lambda row: True,
                *columns,
            ),
            image_name(image),
        )
        for image in sorted({measures.image(boot) for boot in of})
    ]


def storms(of: Sequence[Result]) -> str:
    columns = [
        "storm",
        "callers",
        "kernel",
        "storms",
        "wall ms",
        "wall / c",
        "owner ms",
        "waiter ms",
    ]
    columns += ["peak vmalloc MiB", "peak / c", "wasted MB"]

    def is_meant(row: Row) -> bool:
        large = row["storm"].startswith("4 MB")
        return in_short(row) and row["callers"] in (("1", "16", "64", "255") if large else ("255",))

    return csv_table(chosen(tables.storms(of), is_meant, *columns))


def write(path: Path, runs: Sequence[Result], picture: Picture) -> None:
    good = [run for run in runs if not run.error]
    of = {name: [r for r in good if r.experiment == name] for name in ("coldplug", "storm")}
    last = runs[-1]
    machine = last.machine
    kernels = ", ".join(kernel["release"] for kernel in last.kernels.values())
    failed = len(runs) - len(good)
    svg = path.with_suffix(".svg")
    verdicts = [[claim.wanted, claim.verdict, claim.found] for claim in claims.claims(good)]
    parts = [
        TITLE,
        paragraph(
            "The Rust implementation (Documentation/admin-guide/module-dedup.rst) compared with "
            "the C implementation in the same kernel version. "
            + provenance.in_words(runs, lambda command: f"``{command}``")
            + " ``make bench ARGS=--docs`` generated this page and its picture from the results. "
            "Do not edit them."
        ),
        paragraph(
            f"Machine: {machine['cpu']}, {machine['cores']} cores; QEMU {machine['qemu']}. All "
            "times are from an emulated machine and compare with each other only. "
            f"Kernels: {kernels}. Runs: {len(runs)}"
            + (f", of which {failed} failed and are left out." if failed else ".")
        ),
        "Goals:",
        csv_table(Table(["goal", "verdict", "measured"], verdicts), widths="30, 10, 60"),
        "Boots\n=====",
        paragraph(
            "At boot, Debian's systemd-udevd asks for the modules of every device and every CPU. "
            "In Debian 12, kmod decompresses modules in user space and calls init_module():"
        ),
        f".. figure:: {svg.name}\n   :alt: {picture.text}",
        f"   {picture.title}, against the number of CPUs",
        herd(of["coldplug"]),
        paragraph(IN_TURN),
        *boots(of["coldplug"]),
        "Storms of system calls\n======================",
        paragraph(STORM),
        storms(of["storm"]),
        "kmod.sh 0008 and stress-ng\n==========================",
        paragraph(MEMORY),
        csv_table(chosen(tables.memory(good), in_short)),
        "Cost and size\n=============",
        paragraph(COST),
        csv_table(table(tables.costs(good))),
        paragraph(SIZE),
        csv_table(table(tables.sizes(good))),
    ]
    page = path.with_suffix(".rst")
    page.write_text("\n\n".join(parts) + "\n")
    lines = picture.alone().splitlines()
    svg.write_text("".join(f"{line.rstrip()}\n" for line in lines))
    headline.write(page)
    print(page)
