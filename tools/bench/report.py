# SPDX-License-Identifier: GPL-2.0
"""Write the report, and optionally the results page, from the results file."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import claims
import docs
import measures
import provenance
import tables
from figures import NAMES, Bars, Lines, Picture
from measures import by_mechanism, column, image_name, storm_rows
from results import BadResults, Result, Spread, read, spread
from tables import Table, format_spread

HERE = Path(__file__).parent

AGAIN = """<p>build/bench/results.jsonl has a line for every run, with its kernels, configurations,
machine and QEMU command line. The report can be regenerated from that file alone. Runs that
are complete for the same kernels, code and machine are not repeated; move the file away to
repeat them.</p>
<pre><code>make bench               # all runs
make bench QUICK=1       # 10 minutes of runs on 2 cores
make bench ARGS=--list   # list the runs and their expected times
make bench ARGS=--report # write this page again</code></pre>"""


def table(of: Table, name: str = "") -> str:
    parts = [f'<div class="table"><table class="{name}"><thead><tr>']
    parts += [f'<th scope="col">{escape(cell)}</th>' for cell in of.head]
    parts.append("</tr></thead><tbody>")
    for row in of.rows:
        parts.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    parts.append("</tbody></table></div>")
    return "".join(parts)


def pictures(name: str, all_of_them: Iterable[Picture]) -> str:
    figures = (
        f"<figure>{picture.inline(f'{name}{number}')}"
        f"<figcaption>{escape(picture.title)}. {escape(picture.text)}</figcaption></figure>"
        for number, picture in enumerate(all_of_them)
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def repeat(runs: Sequence[Result], only: str, *single: str) -> str:
    """Show the command that repeats a section, and others for a SINGLE boot of it."""
    # Quick runs have other settings than the runs of the whole benchmark.
    quick = "QUICK=1 " if provenance.commands(runs) == [provenance.QUICK] else ""
    lines = [f'make bench {quick}ARGS="--only {shlex.quote(only)}"']
    if single:
        lines += ["# or a single boot:", *single]
    code = escape("\n".join(lines))
    return f'<p class="soft">To repeat it:</p><pre><code>{code}</code></pre>'


def in_words(series: dict[str, dict[int, Spread]], unit: str, digits: int = 1) -> str:
    """Make a text alternative from both ends of every line."""
    parts = []
    for mechanism, line in series.items():
        first, last = min(line), max(line)
        ends = f"{line[first].median:,.{digits}f} {unit} at {first}"
        if last != first:
            ends += f", {line[last].median:,.{digits}f} {unit} at {last}"
        parts.append(f"{NAMES[mechanism]}: {ends}")
    return "; ".join(parts) + "."


def cpus(result: Result) -> int:
    return int(result.setting["cpus"])


def waste_picture(boots: Sequence[Result], of: tuple[str, str]) -> Picture:
    here = [boot for boot in boots if measures.image(boot) == of]
    series = by_mechanism(here, cpus, lambda boot: measures.wasted(boot) / 1e6)
    return Lines(
        f"Memory wasted in a boot of {image_name(of)}",
        in_words(series, "MB"),
        "virtual CPUs",
        "wasted MB",
        series,
    )


def settled_picture(boots: Sequence[Result], of: tuple[str, str]) -> Picture:
    here = [boot for boot in boots if measures.image(boot) == of]
    series = by_mechanism(here, cpus, measures.settled)
    return Lines(
        f"Time until udev has settled, {image_name(of)}",
        in_words(series, "s"),
        "virtual CPUs",
        "seconds",
        series,
    )


def coldplug(boots: Sequence[Result]) -> str:
    images = sorted({measures.image(boot) for boot in boots})
    if not images:
        return "<p>Not measured.</p>"
    modules = sorted({module for boot in boots for module in boot.values["modules"].split()})
    rows = [row for of in images for row in tables.boots(boots, of)]
    columns = [name for name in rows[0] if name != "failed loads"]
    return (
        "<p>Real boots: systemd-udevd asks for the modules of every device and every CPU. "
        f"Each CPU asks for the herd: {len(modules)} modules with the names, sizes and "
        f"dependencies of Debian's own: {escape(', '.join(modules))}. They do nothing when "
        "loaded. In Debian 12, kmod decompresses .ko.zst in user space and calls init_module(); "
        "all other images use finit_module().</p>"
        + pictures("waste", (waste_picture(boots, of) for of in images))
        + pictures("settled", (settled_picture(boots, of) for of in images))
        + table(tables.table(rows, *columns))
        + '<p class="soft">Several boots are shown as median (least–most). "Settled / c" is the '
        'median of the ratios of boots made in turn, not the ratio of the medians. "udev in user '
        'space" is the share of CPU time that udevd and its workers spend in user space. '
        '"Decompression" is an estimate in CPU seconds: the time kmod takes to read every '
        "module once after the boot, scaled to the bytes passed to all loads.</p>"
        + repeat(
            boots,
            "coldplug",
            'make coldplug CPUS=64 ARGS="--suite bookworm --modules zst" VARIANT=c',
            'make coldplug CPUS=64 ARGS="--suite bookworm --modules zst"',
        )
    )


def storm_picture(
    storms: Sequence[Result],
    call: tuple[str, str, str],
    name: str,
    title: str,
    unit: str,
    scale: float,
) -> Picture:
    series = {
        mechanism: {
            callers: Spread(got.median / scale, got.least / scale, got.most / scale, got.count)
            for callers, rows in line.items()
            if callers > 1
            for got in [column(rows, name)]
        }
        for mechanism, line in storm_rows(storms, call[0], call[1]).items()
    }
    return Lines(
        f"{title}, {call[2]}",
        in_words(series, unit),
        "callers at once",
        unit,
        series,
        logarithmic=True,
    )


def storm(storms: Sequence[Result]) -> str:
    if not storms:
        return "<p>Not measured.</p>"
    shown = [
        storm_picture(storms, call, name, title, unit, scale)
        for name, title, unit, scale in (
            ("owner us", "Time of the owner's load", "ms", 1e3),
            ("waiter median us", "Time of a waiter's load", "ms", 1e3),
            ("vmalloc peak KiB", "Peak vmalloc usage", "MiB", 1024.0),
        )
        for call in tables.CALLS[:2]
    ]
    return (
        "<p>Many threads of one process load one module at the same moment, released by a "
        "barrier. The owner is the first thread whose load succeeds.</p>"
        + pictures("storm", shown)
        + table(tables.table(tables.storms(storms)))
        + '<p class="soft">"Peak vmalloc" is the largest vmalloc usage beyond the usage before '
        "the storm; a thread of higher priority samples it every millisecond. "
        '"Wasted" is the kernel\'s count of bytes that failed loads had allocated, from debugfs. '
        'Loads avoided by a wait appear in neither. "/ c" is the ratio of storms made in '
        "turn.</p>"
        + repeat(
            storms,
            "storm",
            "scripts/vm --variant c --mem 8G -- env DEDUP_MODULES=build/bench/storm-c build/bench/storm 3 1 16 255",
        )
    )


def memory_picture(runs: Sequence[Result]) -> Bars:
    groups: dict[str, dict[str, Spread]] = {}
    for name, of in tables.in_memory(runs).items():
        for mechanism in NAMES:
            peak = spread(tables.used(run) / 1024 for run in of if run.mechanism == mechanism)
            if peak:
                groups.setdefault(name, {})[mechanism] = peak
    words = (
        f"{name}: "
        + ", ".join(f"{NAMES[mechanism]} {of.median:,.1f} MiB" for mechanism, of in bars.items())
        for name, bars in groups.items()
    )
    return Bars(
        "Peak memory usage",
        "; ".join(words) + ".",
        "",
        "MiB",
        groups,
    )


def memory(runs: Sequence[Result]) -> str:
    rows = tables.memory(runs)
    if not rows:
        return "<p>Not measured.</p>"
    return (
        "<p>kmod.sh 0008 requests modules from 50 kernel threads. stress-ng --module loads and "
        "unloads xfs from 100 processes for a fixed time, so compare its operations. "
        '"Used" is the value that free(1) shows, sampled every 10 ms. C replays the result of a '
        "request for 60 s, even after the module was unloaded. In kmod.sh 0008, C therefore loads "
        "the module once, while Rust loads it in every round and takes longer.</p>"
        + pictures("memory", [memory_picture(runs)])
        + table(tables.table(rows))
        + '<p class="soft">"Peak used / c" is the ratio of runs made in turn.</p>'
        + repeat(
            [run for of in tables.in_memory(runs).values() for run in of],
            "kmod.sh|stress-ng",
            "make selftest VARIANT=c T=0008",
        )
    )


def cost(runs: Sequence[Result]) -> str:
    return (
        "<p>Instructions of a unique load, that is one without duplicates, of a module of 9 KB "
        "that does nothing, counted by QEMU (-icount): the least of 201 loads.</p>"
        + table(tables.table(tables.costs(runs)))
        + "<p>Bytes linked into kernel/module/. Only the Rust variant has KUnit tests built in; "
        "their functions and data are listed apart. Their string literals have no symbols and "
        "therefore count as rodata.</p>"
        + table(tables.table(tables.sizes(runs)))
        + repeat(runs, "cost|size", "make cost")
    )


def failures(runs: Sequence[Result]) -> str:
    bad = [run for run in runs if run.error]
    if not bad:
        return "<p>None.</p>"
    head = ["experiment", "setting", "kernel", "#", "error"]
    rows = [
        [r.experiment, str(r.setting), NAMES[r.mechanism], str(r.repeat), r.error or ""]
        for r in bad
    ]
    return table(Table(head, rows), "claims")


def page(runs: Sequence[Result], left_out: int) -> str:
    good = [run for run in runs if not run.error]
    of = {name: [r for r in good if r.experiment == name] for name in ("coldplug", "storm")}
    last = runs[-1]
    kernels = ", ".join(
        f"{kernel['release']} (image {kernel['image']}, config {kernel['config']})"
        for kernel in last.kernels.values()
    )
    machine = last.machine
    shown = [[claim.wanted, claim.verdict, claim.found] for claim in claims.claims(good)]
    verdicts = table(Table(["goal", "verdict", "measured"], shown), "claims")
    for word in ("met", "missed"):
        verdicts = verdicts.replace(f"<td>{word}</td>", f'<td class="{word}">{word}</td>')
    parts = [
        "<h1>Module load deduplication: Rust compared with C</h1>",
        f"<p>{len(runs)} runs, {len(runs) - len(good)} of them failed. Kernels: {escape(kernels)}. "
        f"Machine: {escape(machine['cpu'])}, {machine['cores']} cores, "
        f"{machine['memory_kib'] / 2**20:.0f} GiB, QEMU {escape(machine['qemu'])}. "
        + provenance.in_words(runs, lambda command: f"<code>{escape(command)}</code>")
        + " "
        + (f"{left_out} runs of other kernels or code are left out. " if left_out else "")
        + "Load average of the machine at the start of a run: "
        + f"{format_spread(spread(r.load for r in runs), 1)}. "
        + "Ratios are between boots made in turn. The machine is emulated, with more CPUs than "
        "the host has cores: compare its times, but do not expect them on real hardware.</p>",
        "<h2>Goals</h2>",
        verdicts,
        "<h2>Boots: waste and time against CPUs</h2>",
        coldplug(of["coldplug"]),
        "<h2>Storms of system calls</h2>",
        storm(of["storm"]),
        "<h2>kmod.sh 0008 and stress-ng</h2>",
        memory(good),
        "<h2>Cost of a unique load, and size</h2>",
        cost(good),
        "<h2>Failed runs</h2>",
        failures(runs),
        "<h2>How to repeat the measurements</h2>",
        AGAIN,
    ]
    style = (HERE / "page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>Module load deduplication: measurements</title><style>{style}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="results file to read")
    parser.add_argument("--page", type=Path, required=True, help="HTML file to write")
    parser.add_argument(
        "--docs", type=Path, help="also write the results page, as this path plus .rst and .svg"
    )
    arguments = parser.parse_args()

    lines = read(arguments.results)
    if not lines:
        raise BadResults(f"{arguments.results} has no results")
    # The latest run, and all runs that compare with it.
    source = (lines[-1].kernels, lines[-1].code, lines[-1].machine)
    runs = [line for line in lines if (line.kernels, line.code, line.machine) == source]
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    arguments.page.write_text(page(runs, len(lines) - len(runs)))
    print(arguments.page)
    if arguments.docs:
        boots = [run for run in runs if run.experiment == "coldplug" and not run.error]
        picture = waste_picture(boots, ("bookworm", "zst"))
        docs.write(arguments.docs, runs, picture)


if __name__ == "__main__":
    try:
        main()
    except (BadResults, OSError) as error:
        sys.exit(f"error: {error}")
