# SPDX-License-Identifier: GPL-2.0
"""Measures: the numbers that the report takes from the results of a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from plan import MECHANISMS
from results import Result, Spread, spread

FAILURES = ("kread", "decompress", "becoming", "load")

# Images whose kmod decompresses modules in user space and calls init_module(2).
BY_INIT_MODULE = {("bookworm", "zst")}
DEBIAN = {"bookworm": "Debian 12", "trixie": "Debian 13"}


def failed(result: Result) -> float:
    return sum(result.number(f"stats.Mods failed on {kind}") for kind in FAILURES)


def wasted(result: Result) -> float:
    return result.number("stats.Virtual mem wasted bytes")


def settled(result: Result) -> float:
    return result.number("settled")


def user_share(result: Result) -> float:
    """Return the share of CPU time that udevd and its workers spent in user space."""
    user, system = result.number("udev user s"), result.number("udev system s")
    return user / (user + system) if user + system else 0


def decompressing(result: Result) -> float:
    """Estimate the CPU seconds that kmod spent on decompression: the time to read the herd once,
    scaled to the bytes passed to the kernel."""
    herd = result.number("herd bytes")
    if not herd:
        return 0
    passed = herd + wasted(result) + result.number("dedup.bytes_saved")
    return result.number("read herd s") * passed / herd


def image(result: Result) -> tuple[str, str]:
    return result.setting["suite"], result.setting["modules"]


def image_name(of: tuple[str, str]) -> str:
    call = "init_module" if of in BY_INIT_MODULE else "finit_module"
    return f"{DEBIAN[of[0]]}, .ko{'.zst' if of[1] == 'zst' else ''} ({call})"


def by_mechanism(
    results: Iterable[Result], x: Callable[[Result], int], value: Callable[[Result], float]
) -> dict[str, dict[int, Spread]]:
    """Return the spread of the value by mechanism, then by x."""
    found: dict[str, dict[int, list[float]]] = {}
    for result in results:
        found.setdefault(result.mechanism, {}).setdefault(x(result), []).append(value(result))
    return {
        mechanism: {
            at: got for at in sorted(found[mechanism]) if (got := spread(found[mechanism][at]))
        }
        for mechanism in MECHANISMS
        if mechanism in found
    }


def storm_rows(
    results: Iterable[Result], call: str, module: str
) -> dict[str, dict[int, list[Mapping[str, Any]]]]:
    """Return all rows of that call and module by mechanism, then by number of callers."""
    found: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for result in sorted(results, key=lambda result: MECHANISMS.index(result.mechanism)):
        for row in result.values:
            if (row["call"], row["module"]) == (call, module):
                callers = found.setdefault(result.mechanism, {})
                callers.setdefault(int(row["callers"]), []).append(row)
    return found


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Spread:
    got = spread(float(row[name]) for row in rows)
    assert got
    return got


def storm_value(result: Result, call: str, module: str, callers: int, name: str) -> float | None:
    """Return the median over the storms of one run with that call, module and number of callers."""
    rows = storm_rows([result], call, module).get(result.mechanism, {}).get(callers)
    return column(rows, name).median if rows else None
