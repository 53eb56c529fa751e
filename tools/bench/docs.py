# SPDX-License-Identifier: GPL-2.0
"""The short form of the report, for Documentation/admin-guide/."""

from collections.abc import Sequence
from pathlib import Path

import claims
import measures
from figures import NAMES, Picture
from results import Result, ratios, spread

TEXT = """\
.. SPDX-License-Identifier: GPL-2.0

:orphan:

===================================
Module load deduplication, measured
===================================

What Documentation/admin-guide/module-dedup.rst describes, against the same kernel
without it (C). This page and its picture are made by ``scripts/bench --docs``, after
``make bench``, in the repository of the series: change nothing here by hand.

Machine: {cpu}, {cores} cores; QEMU {qemu}.
All times are those of an emulated machine and only compare with each other.
Kernels: {kernels}. Runs: {runs}, of which {failed} failed and are not in the tables.

Boots of Debian 12 with compressed modules, which its kmod unpacks itself and
loads by init_module(); the median of the boots of each row:

.. figure:: {svg}
   :alt: {alt}

   Memory wasted by loads that failed, against the number of CPUs

.. csv-table::
   :header: "CPUs", "mechanism", "boots", "failed loads", "wasted MB", "settled, s", "settled / C"

{rows}

What the measurements must show:

.. csv-table::
   :header: "wanted", "verdict", "measured"
   :widths: 30, 10, 60

{claims}
"""


def quoted(cells: Sequence[str]) -> str:
    return "   " + ", ".join('"' + cell.replace('"', "'") + '"' for cell in cells)


def rows(boots: Sequence[Result]) -> list[str]:
    lines = []
    for cpus in sorted({boot.setting["cpus"] for boot in boots}):
        at = [boot for boot in boots if boot.setting["cpus"] == cpus]
        for mechanism, name in NAMES.items():
            here = [boot for boot in at if boot.mechanism == mechanism]
            failed = spread(map(measures.failed, here))
            wasted = spread(map(measures.wasted, here))
            settled = spread(map(measures.settled, here))
            ratio = spread(ratios(at, mechanism, measures.settled))
            if not failed or not wasted or not settled:
                continue
            cells = [str(cpus), name, str(len(here)), f"{failed.median:.0f}"]
            cells += [f"{wasted.median / 1e6:.1f}", f"{settled.median:.1f}"]
            lines.append(quoted([*cells, f"{ratio.median:.2f}" if ratio else "-"]))
    return lines


def write(path: Path, runs: Sequence[Result], picture: Picture) -> None:
    good = [run for run in runs if not run.error]
    boots = [
        r for r in good if r.experiment == "coldplug" and r.has(suite="bookworm", modules="zst")
    ]
    last = runs[-1]
    svg = path.with_suffix(".svg")
    text = TEXT.format(
        **last.machine,
        runs=len(runs),
        failed=len(runs) - len(good),
        kernels=", ".join(kernel["release"] for kernel in last.kernels.values()),
        svg=svg.name,
        alt=picture.text,
        rows="\n".join(rows(boots)),
        claims="\n".join(
            quoted([claim.wanted, claim.verdict, claim.found]) for claim in claims.claims(good)
        ),
    )
    path.with_suffix(".rst").write_text(text)
    lines = picture.alone().splitlines()
    svg.write_text("".join(f"{line.rstrip()}\n" for line in lines))
    print(path.with_suffix(".rst"))
