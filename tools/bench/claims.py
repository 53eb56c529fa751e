# SPDX-License-Identifier: GPL-2.0
"""What the measurements must show, and whether they do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import measures
from measures import BY_INIT_MODULE, DEBIAN
from results import Result, ratios, spread


@dataclass(frozen=True)
class Claim:
    wanted: str
    # None: not measured.
    met: bool | None
    found: str

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: "not measured"}[self.met]


def no_waste(boots: Sequence[Result]) -> Claim:
    full = [boot for boot in boots if boot.mechanism == "full"]
    wanted = "rust, full: 0 wasted bytes and 0 failed duplicate loads in every boot"
    if not full:
        return Claim(wanted, None, "")
    bad = [boot for boot in full if measures.failed(boot) or measures.wasted(boot)]
    cpus = sorted({boot.setting["cpus"] for boot in full})
    images = sorted({measures.image_name(measures.image(boot)) for boot in full})
    found = f"{len(full)} boots with {', '.join(map(str, cpus))} CPUs ({'; '.join(images)}): "
    if not bad:
        return Claim(wanted, True, found + "all of them at 0")
    worst = max(bad, key=measures.wasted)
    found += (
        f"{len(bad)} are not at 0; the worst failed {measures.failed(worst):.0f} loads and wasted "
        f"{measures.wasted(worst) / 1e6:.1f} MB with {worst.setting['cpus']} CPUs"
    )
    return Claim(wanted, False, found)


def settled(
    boots: Sequence[Result],
    wanted: str,
    least_cpus: int,
    by_init: bool,
    is_met: Callable[[list[float]], bool],
) -> Claim:
    chosen = [
        boot
        for boot in boots
        if (measures.image(boot) in BY_INIT_MODULE) == by_init
        and boot.setting["cpus"] >= least_cpus
    ]
    met = None
    found = []
    for suite, modules, cpus in sorted({(*measures.image(b), b.setting["cpus"]) for b in chosen}):
        here = [boot for boot in chosen if boot.has(suite=suite, modules=modules, cpus=cpus)]
        got = ratios(here, "full", measures.settled)
        if not got:
            continue
        good = is_met(got)
        met = good if met is None else met and good
        words = f"{DEBIAN[suite]} .{modules}, {cpus} CPUs: {ratio_text(got)}"
        if by_init:
            own = spread(measures.user_share(boot) for boot in here if boot.mechanism == "full")
            words += f", {own.median:.0%} of udev's CPU time in user space" if own else ""
        alone = spread(measures.settled(boot) for boot in here if boot.mechanism == "c")
        if not good and alone:
            differ = f"boots of c differ by {alone.most / alone.least - 1:.0%}"
            words += f": missed, where {differ if alone.count > 1 else 'one pair says little'}"
        found.append(words)
    return Claim(wanted, met, "; ".join(found))


def ratio_text(got: list[float]) -> str:
    of = spread(got)
    if not of:
        return "-"
    pairs = "1 pair" if of.count == 1 else f"{of.count} pairs, {of.least:.2f} to {of.most:.2f}"
    return f"{of.median:.2f} ({pairs})"


def storm_memory(storms: Sequence[Result]) -> Claim:
    wanted = "255 init_module() of 4 MB at once: peak of vmalloc at least 100 times less than c"
    rows = measures.storm_rows(storms, "init_module", "storm_large")
    if not all(255 in rows.get(mechanism, {}) for mechanism in ("c", "full")):
        return Claim(wanted, None, "")
    c = measures.column(rows["c"][255], "vmalloc peak KiB")
    full = measures.column(rows["full"][255], "vmalloc peak KiB")
    times = c.median / max(1, full.median)
    found = (
        f"{c.median / 1024:,.0f} MiB on c, {full.median / 1024:,.1f} MiB on rust, full: "
        f"{times:.0f} times less (medians of {c.count} and {full.count})"
    )
    return Claim(wanted, times >= 100, found)


def unique_load(costs: Sequence[Result]) -> Claim:
    wanted = "a load that nobody else does: at most 1.01 times the instructions of c"
    parts = []
    met = None
    for mechanism in ("inode", "full"):
        for call in ("finit_module", "init_module"):
            label = f"{call} test_dedup least"
            got = spread(ratios(costs, mechanism, partial(Result.number, label=label)))
            here = [cost for cost in costs if cost.mechanism in ("c", mechanism)]
            least = {cost.mechanism: cost.number(label) for cost in here}
            if not got or len(least) < 2:
                continue
            more = least[mechanism] - least["c"]
            parts.append(f"{mechanism}, {call}: {got.median:.3f} ({more:+,.0f} instructions)")
            if mechanism == "full":
                met = got.median <= 1.01 and met is not False
    if met is False:
        parts.append(
            "full reads the name of the module before the rest, in five small reads, and makes, "
            "looks up and frees an entry for the file and one for the name; this module is about "
            "the smallest that there is, and a larger one has the same to bear"
        )
    return Claim(wanted, met, "; ".join(parts))


def claims(results: Sequence[Result]) -> list[Claim]:
    of = {
        name: [r for r in results if r.experiment == name] for name in ("coldplug", "storm", "cost")
    }
    return [
        no_waste(of["coldplug"]),
        settled(
            of["coldplug"],
            "settled, rust full / c: at most 1.00 within the spread where loads are by finit_module()",
            0,
            False,
            lambda got: min(got) <= 1,
        ),
        settled(
            of["coldplug"],
            "settled, rust full / c: below 1.00 with 64 and more CPUs where they are by init_module()",
            64,
            True,
            lambda got: median(got) < 1,
        ),
        storm_memory(of["storm"]),
        unique_load(of["cost"]),
    ]
