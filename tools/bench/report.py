# SPDX-License-Identifier: GPL-2.0
"""Makes the page, and the pages of Documentation/, out of the lines of results."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import claims
import docs
import made
import measures
import tables
from figures import NAMES, Bars, Lines, Picture
from measures import by_mechanism, column, image_name, storm_rows
from results import BadResults, Result, Spread, read, spread
from tables import Table, said

HERE = Path(__file__).parent

AGAIN = """<p>QEMU's command line, kernels, configurations and machine of every run are in its line
of build/bench/results.jsonl; this page can be made again from that alone. A run that
is there for the same kernels, code and machine is not made again: to repeat it, move
that file away first.</p>
<pre><code>make bench             # everything
make bench QUICK=1     # in 10 minutes on 2 cores
scripts/bench --list   # what that is, and how long each run takes
scripts/bench --report # this page again</code></pre>"""


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
    """The command for that section, and others for a SINGLE boot of it."""
    # What made them: the quick runs have other settings than the long ones.
    quick = "--quick " if made.commands(runs) == [made.QUICK] else ""
    lines = [f"scripts/bench {quick}--only {shlex.quote(only)}"]
    if single:
        lines += ["# or a single one:", *single]
    code = escape("\n".join(lines))
    return f'<p class="soft">To repeat it:</p><pre><code>{code}</code></pre>'


def in_words(series: dict[str, dict[int, Spread]], unit: str, digits: int = 1) -> str:
    """The text alternative: the ends of every line."""
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
        "<p>Real boots: systemd-udevd asks for the modules of every device and CPU. "
        f"The herd, what each CPU asks for, is {len(modules)} modules with the names, sizes and "
        f"dependencies of Debian's own: {escape(', '.join(modules))}. They do nothing when they "
        "are loaded. Debian 12's kmod unpacks .ko.zst itself and calls init_module(); the "
        "others call finit_module().</p>"
        + pictures("waste", (waste_picture(boots, of) for of in images))
        + pictures("settled", (settled_picture(boots, of) for of in images))
        + table(tables.table(rows, *columns))
        + '<p class="soft">Of several boots: median (least–most). "Settled / c" is the ratio of '
        'boots made in turn, and not of the medians. "udev in user space" is its part of '
        'the CPU time of udevd and its workers. "Unpacking" is user space\'s too: what reading '
        "every module once takes kmod after the boot, times the bytes that loads were "
        "called with; in seconds of one CPU.</p>"
        + repeat(
            boots,
            "coldplug",
            "scripts/coldplug --suite bookworm --modules zst --cpus 64 --variant c",
            "scripts/coldplug --suite bookworm --modules zst --cpus 64 --append module.dedup=full",
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
            ("owner us", "How long the owner's load takes", "ms", 1e3),
            ("waiter median us", "How long a waiter waits", "ms", 1e3),
            ("vmalloc peak KiB", "The most vmalloc space at one time", "MiB", 1024.0),
        )
        for call in tables.CALLS[:2]
    ]
    return (
        "<p>Threads of one process, released by a barrier, load one module. The owner is the one "
        "whose load succeeded first.</p>"
        + pictures("storm", shown)
        + table(tables.table(tables.storms(storms)))
        + '<p class="soft">Nothing counts every byte that was allocated. "Peak vmalloc, more" is '
        "the most vmalloc space in use at one time beyond what was before the storm, as a thread "
        'of higher priority sees it every millisecond; "wasted" is what the kernel counts in '
        "debugfs: the bytes that loads which failed had allocated. Loads that a wait spared "
        'appear in neither. "/ c" is of storms made in turn.</p>'
        + repeat(
            storms,
            "storm",
            "scripts/vm --variant c --mem 8G -- build/bench/storm build/bench/storm-c 3 1 16 255",
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
        "The most memory in use at one time",
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
        "<p>kmod.sh 0008 asks for modules from 50 kernel threads; stress-ng --module loads and "
        "unloads xfs from 100 processes for a fixed time, so its operations are what compares. "
        '"Used" is what free(1) shows, seen every 10 ms. C answers a request for 60 s from what '
        "it remembers, even if the module was unloaded since: in kmod.sh 0008, it loads the module "
        "once, where rust loads it in every round, which takes its time.</p>"
        + pictures("memory", [memory_picture(runs)])
        + table(tables.table(rows))
        + '<p class="soft">"Peak used / c" is of runs made in turn.</p>'
        + repeat(
            [run for of in tables.in_memory(runs).values() for run in of],
            "kmod.sh|stress-ng",
            "scripts/selftest c 0008",
        )
    )


def cost(runs: Sequence[Result]) -> str:
    return (
        "<p>Instructions of one load of a module of 9 KB that does nothing, counted by QEMU "
        "(-icount): the least of 201.</p>"
        + table(tables.table(tables.costs(runs)))
        + "<p>Bytes in what is linked into kernel/module/. KUnit tests, which only the rust that "
        "is measured has built in, are counted apart: their functions and data. The texts that "
        "they print are among rodata, because nothing tells these from others.</p>"
        + table(tables.table(tables.sizes(runs)))
        + repeat(runs, "cost|size", "scripts/cost")
    )


def failures(runs: Sequence[Result]) -> str:
    bad = [run for run in runs if run.error]
    if not bad:
        return "<p>None.</p>"
    head = ["experiment", "setting", "of", "#", "what went wrong"]
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
    verdicts = table(Table(["what it must show", "verdict", "measured"], shown), "claims")
    for word in ("met", "missed"):
        verdicts = verdicts.replace(f"<td>{word}</td>", f'<td class="{word}">{word}</td>')
    parts = [
        "<h1>Module load deduplication: C and Rust, measured in turn</h1>",
        f"<p>{len(runs)} runs, {len(runs) - len(good)} of them failed. Kernels: {escape(kernels)}. "
        f"Machine: {escape(machine['cpu'])}, {machine['cores']} cores, "
        f"{machine['memory_kib'] / 2**20:.0f} GiB, QEMU {escape(machine['qemu'])}. "
        + made.in_words(runs, lambda command: f"<code>{escape(command)}</code>")
        + " "
        + (f"{left_out} runs of other kernels or code are left out. " if left_out else "")
        + f"Load average of the machine when a run began: {said(spread(r.load for r in runs), 1)}. "
        + "Ratios are between boots made in turn; an emulated machine with more CPUs than there "
        "are cores is slow, so times compare and do not predict.</p>",
        "<h2>What it must show</h2>",
        verdicts,
        "<h2>Boots: waste and time against CPUs</h2>",
        coldplug(of["coldplug"]),
        "<h2>Storms of system calls</h2>",
        storm(of["storm"]),
        "<h2>kmod.sh 0008 and stress-ng</h2>",
        memory(good),
        "<h2>A load that nobody else does, and size</h2>",
        cost(good),
        "<h2>Runs that failed</h2>",
        failures(runs),
        "<h2>All of it again</h2>",
        AGAIN,
    ]
    style = (HERE / "page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>Module load deduplication, measured</title><style>{style}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--docs", type=Path, help="path of .rst and .svg, without these")
    arguments = parser.parse_args()

    lines = read(arguments.results)
    if not lines:
        raise BadResults(f"{arguments.results} has no results")
    # What was measured last, and what compares with it.
    made_of = (lines[-1].kernels, lines[-1].code, lines[-1].machine)
    runs = [line for line in lines if (line.kernels, line.code, line.machine) == made_of]
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
