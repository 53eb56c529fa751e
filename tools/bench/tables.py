# SPDX-License-Identifier: GPL-2.0
"""Tables shared by the report and the results page: results as rows of text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import measures
from figures import NAMES
from measures import FAILURES, column, image_name, storm_rows
from results import Result, Spread, ratios, spread

# Cells by column.
Row = dict[str, str]

CALLS = [
    ("init_module", "storm_large", "4 MB by init_module()"),
    ("finit_module", "storm_large", "4 MB by finit_module()"),
    ("init_module", "storm_small", "6 KB by init_module()"),
    ("finit_module", "storm_small", "6 KB by finit_module()"),
]


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def table(rows: Iterable[Row], *columns: str) -> Table:
    """Make a table of the named columns, or of all."""
    rows = list(rows)
    head = columns or (tuple(rows[0]) if rows else ())
    return Table(head, [[row[name] for name in head] for row in rows])


def format_spread(of: Spread | None, digits: int = 0, unit: float = 1) -> str:
    """Format the median, with the least and the most in parentheses where they differ."""
    if not of:
        return "-"
    median, least, most = (
        f"{value / unit:,.{digits}f}" for value in (of.median, of.least, of.most)
    )
    return median if least == most else f"{median} ({least}\N{EN DASH}{most})"


def ratio_to_c(
    results: Iterable[Result], mechanism: str, value: Callable[[Result], float | None]
) -> str:
    """Format the ratios to c over all turns."""
    if mechanism == "c":
        return "1"
    of = spread(ratios(results, mechanism, value))
    return format_spread(of, 2 if of and of.least >= 0.1 else 4)


def boots(of: Sequence[Result], image: tuple[str, str]) -> list[Row]:
    rows = []
    here = [boot for boot in of if measures.image(boot) == image]
    for cpus in sorted({boot.setting["cpus"] for boot in here}):
        at = [boot for boot in here if boot.setting["cpus"] == cpus]
        for mechanism in NAMES:
            if got := [boot for boot in at if boot.mechanism == mechanism]:
                rows.append(boot_row(image, mechanism, got, at))
    return rows


def boot_row(
    image: tuple[str, str], mechanism: str, here: Sequence[Result], at: Sequence[Result]
) -> Row:
    """Summarize HERE, the boots of that mechanism among those AT one number of CPUs."""
    of_udev = spread(measures.user_share(boot) for boot in here)
    by_kmod = format_spread(spread(map(measures.decompressing, here)), 1)
    return {
        "boot": image_name(image),
        "CPUs": str(here[0].setting["cpus"]),
        "kernel": NAMES[mechanism],
        "boots": str(len(here)),
        **{
            f"failed: {kind}": format_spread(
                spread(boot.number(f"stats.Mods failed on {kind}") for boot in here)
            )
            for kind in FAILURES
        },
        "failed loads": format_spread(spread(map(measures.failed, here))),
        "wasted MB": format_spread(spread(map(measures.wasted, here)), 1, 1e6),
        "peak vmalloc MiB": format_spread(
            spread(boot.number("vmalloc peak KiB") for boot in here), 1, 1024
        ),
        "settled s": format_spread(spread(map(measures.settled, here)), 1),
        "coldplug s": format_spread(spread(boot.number("coldplug") for boot in here), 1),
        "settled / c": ratio_to_c(at, mechanism, measures.settled),
        "udev in user space": f"{of_udev.median:.0%}" if of_udev else "-",
        "decompression s": by_kmod if image in measures.BY_INIT_MODULE else "-",
        "modules": str(len(here[0].values["modules"].split())),
    }


def storms(of: Sequence[Result]) -> list[Row]:
    rows = []
    for call, module, name in CALLS:
        found = storm_rows(of, call, module)
        for callers in sorted({callers for line in found.values() for callers in line}):
            for mechanism in found:
                if not (here := found[mechanism].get(callers)):
                    continue
                one = partial(measures.storm_value, call=call, module=module, callers=callers)
                rows.append(
                    {
                        "storm": name,
                        "callers": str(callers),
                        "kernel": NAMES[mechanism],
                        "storms": str(len(here)),
                        "wall ms": format_spread(column(here, "wall us"), 1, 1e3),
                        "wall / c": ratio_to_c(of, mechanism, partial(one, name="wall us")),
                        "owner ms": format_spread(column(here, "owner us"), 1, 1e3),
                        # A single caller has no waiters.
                        **{
                            f"{title} ms": format_spread(column(here, f"{part} us"), 1, 1e3)
                            if callers > 1
                            else "-"
                            for title, part in (
                                ("waiter", "waiter median"),
                                ("waiter p99", "waiter p99"),
                            )
                        },
                        "peak vmalloc MiB": format_spread(
                            column(here, "vmalloc peak KiB"), 1, 1024
                        ),
                        "peak / c": ratio_to_c(
                            of, mechanism, partial(one, name="vmalloc peak KiB")
                        ),
                        "wasted MB": format_spread(column(here, "wasted bytes"), 1, 1e6),
                        "loaded": format_spread(column(here, "loaded")),
                        "EEXIST": format_spread(column(here, "rejected")),
                        "other": format_spread(column(here, "other")),
                    }
                )
    return rows


def in_memory(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """Group the runs of kmod.sh 0008 and stress-ng by test and setting; only runs in the same
    group compare."""
    found: dict[str, list[Result]] = {}
    for run in runs:
        if run.experiment == "kmod.sh 0008":
            name = f"kmod.sh 0008, {run.setting['count']} times"
        elif run.experiment == "stress-ng":
            name = f"stress-ng, {run.setting['seconds']} s"
        else:
            continue
        found.setdefault(f"{name}, {run.setting['cpus']} CPUs", []).append(run)
    return {name: found[name] for name in sorted(found)}


def used(run: Result) -> float:
    return run.number("used peak KiB")


def memory(runs: Sequence[Result]) -> list[Row]:
    rows = []
    for name, of in in_memory(runs).items():
        for mechanism in NAMES:
            here = [run for run in of if run.mechanism == mechanism]
            if not here:
                continue
            done = format_spread(spread(run.number("operations") for run in here))
            rows.append(
                {
                    "test": name,
                    "kernel": NAMES[mechanism],
                    "runs": str(len(here)),
                    "command s": format_spread(spread(run.number("command s") for run in here), 1),
                    "peak used MiB": format_spread(spread(map(used, here)), 1, 1024),
                    "peak used / c": ratio_to_c(of, mechanism, used),
                    "peak vmalloc MiB": format_spread(
                        spread(run.number("vmalloc peak KiB") for run in here), 1, 1024
                    ),
                    "failed loads": format_spread(spread(map(measures.failed, here))),
                    "wasted MB": format_spread(spread(map(measures.wasted, here)), 1, 1e6),
                    "operations": done if here[0].experiment == "stress-ng" else "-",
                }
            )
    return rows


def costs(runs: Sequence[Result]) -> list[Row]:
    of = [run for run in runs if run.experiment == "cost"]
    rows = []
    for call in ("finit_module", "init_module"):
        number = partial(Result.number, label=f"{call} test_dedup least")
        for mechanism in NAMES:
            here = spread(number(run) for run in of if run.mechanism == mechanism)
            if here:
                ratio = format_spread(spread(ratios(of, mechanism, number)), 4)
                rows.append(
                    {
                        "call": f"{call}()",
                        "kernel": NAMES[mechanism],
                        "instructions": format_spread(here),
                        "/ c": "1" if mechanism == "c" else ratio,
                    }
                )
    return rows


# Parts that Bench.sizes() measures now.
PARTS = {
    "text": "text: .text*, .init.text, .exit.text",
    "rodata": "rodata: .rodata*",
    "data": "data: .data*",
    "bss": "bss: .bss*",
}
# Parts that it measured in older results files.
SYMBOLS = {
    "text": "functions, sum of their symbols",
    "data": "all other symbols, their sum",
    "tests": "KUnit tests, sum of their symbols",
}


def size_row(name: str, c: float, rust: float) -> Row:
    return {
        "part": name,
        "C": f"{c:,.0f}",
        "Rust": f"{rust:,.0f}",
        "/ c": f"{rust / c:.2f}" if c else "-",
    }


def sizes(runs: Sequence[Result]) -> list[Row]:
    of = {run.mechanism: run for run in runs if run.experiment == "size"}
    c, full = of.get("c"), of.get("full")
    if not c or not full:
        return []
    if "sections text" not in full.values:
        return [size_row(name, c.number(part), full.number(part)) for part, name in SYMBOLS.items()]

    def without_tests(run: Result, part: str) -> float:
        return run.number(f"sections {part}") - run.number(f"tests {part}")

    def tests(run: Result) -> float:
        return sum(run.number(f"tests {part}") for part in PARTS)

    rows = [
        size_row(name, without_tests(c, part), without_tests(full, part))
        for part, name in PARTS.items()
    ]
    return [*rows, size_row("KUnit tests", tests(c), tests(full))]
