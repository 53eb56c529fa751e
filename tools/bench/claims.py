# SPDX-License-Identifier: GPL-2.0
"""The goals of the project, and whether the measurements meet them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import measures
import plan
from measures import BY_INIT_MODULE, DEBIAN
from results import Result, ratios, spread, turns

# Suite, file format of the modules, number of CPUs.
Boot = tuple[str, str, int]


@dataclass(frozen=True)
class Claim:
    wanted: str
    # None: some of it was not measured, and the rest does not miss the goal.
    met: bool | None
    found: str

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: "not measured"}[self.met]


def boots_wanted() -> set[Boot]:
    """Return the boots of the whole benchmark that use module.dedup=full."""
    return {
        (run.setting["suite"], run.setting["modules"], run.setting["cpus"])
        for run in plan.everything()
        if (run.experiment, run.mechanism) == ("coldplug", "full")
    }


def boot_of(result: Result) -> Boot:
    return (*measures.image(result), result.setting["cpus"])


def boots_text(boots: Iterable[Boot]) -> str:
    """List boots by image; images measured with the same numbers of CPUs share an item."""
    by_image: dict[str, list[int]] = {}
    for suite, modules, cpus in sorted(boots):
        by_image.setdefault(f"{DEBIAN[suite]} .{modules}", []).append(cpus)
    images: dict[str, list[str]] = {}
    for image, numbers in by_image.items():
        images.setdefault(", ".join(map(str, numbers)), []).append(image)
    return "; ".join(f"{', '.join(names)} with {cpus} CPUs" for cpus, names in images.items())


def no_waste(boots: Sequence[Result]) -> Claim:
    wanted = "rust, full: 0 wasted bytes and 0 failed duplicate loads in every boot"
    full = [boot for boot in boots if boot.mechanism == "full"]
    measured = {boot_of(boot) for boot in full}
    missing = boots_wanted() - measured
    lacks = f"not measured: {boots_text(missing)}" if missing else ""
    if not full:
        return Claim(wanted, None, lacks)
    bad = [boot for boot in full if measures.failed(boot) or measures.wasted(boot)]
    found = f"{len(full)} boots ({boots_text(measured)}): "
    if bad:
        worst = max(bad, key=measures.wasted)
        found += (
            f"{len(bad)} are not at 0; the worst failed {measures.failed(worst):.0f} loads and "
            f"wasted {measures.wasted(worst) / 1e6:.1f} MB with {worst.setting['cpus']} CPUs"
        )
    else:
        found += "all of them at 0"
    if lacks:
        found += f". {lacks[0].upper()}{lacks[1:]}"
    # A missing boot could be the one that wastes memory.
    return Claim(wanted, False if bad else None if missing else True, found)


def settled(
    boots: Sequence[Result],
    wanted: str,
    least_cpus: int,
    by_init: bool,
    is_met: Callable[[list[float]], bool],
) -> Claim:
    def is_meant(boot: Boot) -> bool:
        return (boot[:2] in BY_INIT_MODULE) == by_init and boot[2] >= least_cpus

    missing = set(filter(is_meant, boots_wanted()))
    verdicts = []
    found = []
    for suite, modules, cpus in sorted(set(filter(is_meant, map(boot_of, boots)))):
        here = [boot for boot in boots if boot_of(boot) == (suite, modules, cpus)]
        got = ratios(here, "full", measures.settled)
        if not got:
            continue
        missing.discard((suite, modules, cpus))
        good = is_met(got)
        verdicts.append(good)
        words = f"{DEBIAN[suite]} .{modules}, {cpus} CPUs: {ratio_text(got)}"
        if by_init:
            own = spread(measures.user_share(boot) for boot in here if boot.mechanism == "full")
            words += f", {own.median:.0%} of udev's CPU time in user space" if own else ""
        alone = spread(measures.settled(boot) for boot in here if boot.mechanism == "c")
        if not good and alone:
            differ = f"while boots of c alone differ by {alone.most / alone.least - 1:.0%}"
            words += f": missed, {differ if alone.count > 1 else 'but one pair says little'}"
        found.append(words)
    if missing:
        found.append(f"not measured in turn: {boots_text(missing)}")
    met = None if missing else True
    return Claim(wanted, met if all(verdicts) else False, "; ".join(found))


def ratio_text(got: list[float]) -> str:
    of = spread(got)
    if not of:
        return "-"
    pairs = "1 pair" if of.count == 1 else f"{of.count} pairs, {of.least:.2f} to {of.most:.2f}"
    return f"{of.median:.2f} ({pairs})"


def storm_memory(storms: Sequence[Result]) -> Claim:
    wanted = "255 init_module() of 4 MB at once: peak of vmalloc at least 100 times less than c"
    peak = partial(
        measures.storm_value,
        call="init_module",
        module="storm_large",
        callers=255,
        name="vmalloc peak KiB",
    )
    pairs = turns(storms, "full", peak)
    # The watcher can miss a short peak. Count it as 1 KiB, not as 0.
    times = spread(c / max(1, full) for c, full in pairs)
    c, full = spread(c for c, _ in pairs), spread(full for _, full in pairs)
    if not times or not c or not full:
        return Claim(wanted, None, "no turn with both c and rust, full")
    count = f"{times.count} turns, {times.least:.0f} to {times.most:.0f}"
    found = (
        f"{times.median:.0f} times less ({'1 turn' if times.count == 1 else count}); "
        f"{c.median / 1024:,.0f} MiB on c, {full.median / 1024:,.1f} MiB on rust, full"
    )
    return Claim(wanted, times.median >= 100, found)


def unique_load(costs: Sequence[Result]) -> Claim:
    wanted = "a unique load: at most 1.01 times the instructions of c"
    parts = []
    met = None
    for mechanism in ("none", "inode", "full"):
        for call in ("finit_module", "init_module"):
            label = f"{call} test_dedup least"
            number = partial(Result.number, label=label)
            got = spread(ratios(costs, mechanism, number))
            more = spread(other - c for c, other in turns(costs, mechanism, number))
            if not got or not more:
                continue
            words = f"{got.median:.3f}"
            if got.count > 1:
                words += f" ({got.count} turns, {got.least:.3f} to {got.most:.3f})"
            parts.append(f"{mechanism}, {call}: {words}, {more.median:+,.0f} instructions")
            if mechanism == "full":
                met = got.median <= 1.01 and met is not False
    if met is False:
        parts.append(
            "none deduplicates nothing, so its share is the cost of a different kernel and of the "
            "calls into Rust; full peeks the name of the module in four small reads, and "
            "allocates, looks up and frees one entry for the file and one for the name; these "
            "costs do not grow with the module, and the one measured is among the smallest"
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
            "settled, rust full / c: at most 1.00 within the spread where udev uses finit_module()",
            0,
            False,
            lambda got: min(got) <= 1,
        ),
        settled(
            of["coldplug"],
            "settled, rust full / c: below 1.00 with 64 or more CPUs where udev uses init_module()",
            64,
            True,
            lambda got: median(got) < 1,
        ),
        storm_memory(of["storm"]),
        unique_load(of["cost"]),
    ]
