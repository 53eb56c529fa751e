# SPDX-License-Identifier: GPL-2.0
"""The report for people."""

from __future__ import annotations

import io

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .advice import plural, size
from .report import Report

# A herd is as wide as the machine: the rest is in the other formats.
MAX_ROWS = 20

OUTCOMES = {
    "performed": "performed by the module loader",
    "same_file": "got the result of another load of the file",
    "same_name": "rejected: the same module was being loaded",
    "already_loaded": "rejected: the module was live",
    "from_memory": "rejected: the same, but by init_module()",
    "aborted": "ended in a wait, by a signal or a deadlock",
}

WASTED = {
    "Becoming": "image",
    "Load": "image and module",
    "Becoming & Load": "image; at times the module",
}


def seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f} s"


def add_table(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table. A column whose title begins with ">" is aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="underline")
    for name in columns:
        right = name.startswith(">")
        table.add_column(
            name.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in rows[:MAX_ROWS]:
        # Text, because rich would interpret a name like "[red]".
        table.add_row(*map(Text, row))
    console.print(Text(f"{title}:", style="bold"))
    console.print(Padding(table, (0, 0, 1, 2)))
    if len(rows) > MAX_ROWS:
        console.print(f"  and {len(rows) - MAX_ROWS} more, see --json\n")


def render(report: Report, is_terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, highlight=False, markup=False)
    snapshot, trace = report.snapshot, report.trace

    for found in report.findings:
        console.print(Text(found.text, style="bold"))
        if found.advice:
            console.print(Padding(Text(found.advice), (0, 0, 0, 2)))
    for text in report.missing:
        console.print(Text(f"Not shown: {text}"))
    console.print()

    if snapshot.dedup is not None:
        dedup = snapshot.dedup
        rows = [[text, str(dedup.get(label, 0))] for label, text in OUTCOMES.items()]
        add_table(console, "Loads since boot", ["Result", ">Loads"], rows)
        console.print(
            f"  {plural(dedup.get('waits', 0), 'wait')}, {seconds(dedup.get('wait_time_ms', 0))} "
            f"in total, {seconds(dedup.get('max_wait_ms', 0))} at most\n"
        )
    if snapshot.stats is not None:
        stats = snapshot.stats
        rows = [
            [text, str(failed), size(stats.get(f"failed_{of}_bytes"))]
            for label, of, text in [
                ("kread", "kread", "while it was read"),
                ("decompress", "decompress", "while it was decompressed"),
                ("becoming", "becoming", "after it was read"),
                ("load", "kmod", "after the module was allocated"),
            ]
            if (failed := stats.get(f"mods_failed_on_{label}"))
        ]
        if rows:
            add_table(console, "Failed loads since boot", ["Failed", ">Loads", ">Wasted"], rows)
        if stats.modules:
            modules = sorted(stats.modules, key=lambda row: -row.count)
            add_table(
                console,
                "Duplicate reads of modules",
                ["Module", ">Times", "Wasted"],
                [
                    [
                        row.module,
                        str(row.count),
                        WASTED.get(row.reason, row.reason),
                    ]
                    for row in modules
                ],
            )
    if snapshot.pending and (snapshot.pending.loads or snapshot.pending.waiters):
        add_table(
            console,
            "Pending loads and requests",
            ["Load or request", "By", ">Waiters", ">Age"],
            [
                [report.name(row.target), row.owner, str(row.waiters), seconds(row.age_ms)]
                for row in snapshot.pending.loads
            ],
        )
        add_table(
            console,
            "Waiting tasks",
            ["Task", "Waits for", "Of", ">Age"],
            [
                [
                    row.task + (f" in modprobe[{row.in_helper}]" if row.in_helper else ""),
                    report.name(row.blocked_on),
                    row.owner or f"its modprobe[{row.helper}]",
                    seconds(row.age_ms),
                ]
                for row in sorted(snapshot.pending.waiters, key=lambda row: -row.age_ms)
            ],
        )
    if trace:
        span = "" if trace.seconds is None else f" within {trace.seconds:.1f} s"
        add_table(
            console,
            f"Who asked for what{span}",
            ["Task", "Load or request", ">Times", ">Waited", ">Longest", "Errors"],
            [
                [
                    row.task,
                    report.name(row.target),
                    str(row.times),
                    seconds(row.waited_us / 1000),
                    seconds(row.longest_us / 1000),
                    ", ".join(f"{count} {name}" for name, count in sorted(row.errors.items())),
                ]
                for row in trace.asked
            ],
        )
        if trace.counters:
            counted = ", ".join(f"{count} {label}" for label, count in trace.counters.items())
            console.print(Text(f"  Counters: {counted}\n"))
        if trace.lost:
            console.print(f"  {plural(trace.lost, 'event')} lost: the numbers are too low\n")
    lines = (line.rstrip() for line in out.getvalue().strip("\n").split("\n"))
    return "\n".join(lines) + "\n"
