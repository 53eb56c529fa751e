# SPDX-License-Identifier: GPL-2.0
"""The short form of the report, for Documentation/admin-guide/."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

import claims
import made
import measures
import tables
from figures import NAMES, Picture
from measures import image_name
from results import Result
from tables import Row, Table, table

TITLE = """\
.. SPDX-License-Identifier: GPL-2.0

:orphan:

===================================
Module load deduplication, measured
==================================="""

HERD = """This deviates from a real machine: what every CPU asks for are {count} stand-ins, which have
the names (behind "herd"), sizes and dependencies of Debian's own modules and do nothing
when they are loaded: {modules}. So any CPU, emulated or not, asks for all of them, and the
two kernels need not be configured like Debian's."""

IN_TURN = """\
Seconds are the median of the boots, with the least and the most in parentheses.
"Settled / C" is no ratio of these medians: it is the median of the ratios of boots made
in turn, one after the other, with their least and most."""

STORM = """\
Threads that load one module at the same moment. Bytes allocated are not counted as such:
the peak is the most vmalloc space at one time beyond what was in use before, and wasted
is what the kernel counts for loads that failed."""

MEMORY = """\
The most memory in use at one time, as free(1) counts it. C answers a request for 60 s
from what it remembers, even if the module was unloaded since: in kmod.sh 0008 it loads the
module once, where rust loads it in every round, which takes its time. stress-ng runs for a
fixed time, so its operations are what compares."""

COST = """\
Instructions of one load that nobody else does, of a module of 9 KB that does nothing:"""

SIZE = """\
Bytes in what is linked into kernel/module/; KUnit tests are apart, but for the texts that
they print:"""


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
    return row["of"] in (NAMES["c"], NAMES["full"])


def herd(of: Sequence[Result]) -> str:
    """Names the modules as the boots found them loaded."""
    names = {
        name.removeprefix("herd_")
        for boot in of
        for name in boot.values["modules"].split()
        if name.startswith("herd_")
    }
    return paragraph(HERD.format(count=len(names), modules=", ".join(sorted(names))))


def boots(of: Sequence[Result]) -> list[str]:
    """All mechanisms where duplicates cost most, and before and after elsewhere."""
    columns = ("CPUs", "of", "boots", "failed loads", "wasted MB", "settled s", "settled / c")
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
    columns = ["storm", "callers", "of", "times", "wall ms", "wall / c", "owner ms", "waiters ms"]
    columns += ["peak vmalloc, more MiB", "peak / c", "wasted MB"]

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
            "What Documentation/admin-guide/module-dedup.rst describes, against the same kernel "
            "without it (C). "
            + made.in_words(runs, lambda command: f"``{command}``")
            + " Then ``scripts/bench --docs`` made this page and its picture of the results, in "
            "the repository of the series: change nothing here by hand."
        ),
        paragraph(
            f"Machine: {machine['cpu']}, {machine['cores']} cores; QEMU {machine['qemu']}. All "
            "times are those of an emulated machine and only compare with each other. "
            f"Kernels: {kernels}. Runs: {len(runs)}"
            + (f"; failed, and not in the tables: {failed}." if failed else ".")
        ),
        "What the measurements must show:",
        csv_table(Table(["wanted", "verdict", "measured"], verdicts), widths="30, 10, 60"),
        "Boots\n=====",
        paragraph(
            "Debian's systemd-udevd asks for the modules of every device and CPU. Debian 12's "
            "kmod unpacks compressed modules itself and loads them by init_module():"
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
    path.with_suffix(".rst").write_text("\n\n".join(parts) + "\n")
    lines = picture.alone().splitlines()
    svg.write_text("".join(f"{line.rstrip()}\n" for line in lines))
    print(path.with_suffix(".rst"))
