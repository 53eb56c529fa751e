# SPDX-License-Identifier: GPL-2.0
"""The plan: all runs of a benchmark, in order."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

# "c" is the pristine kernel; the others are the variant rust with that value of module.dedup=.
MECHANISMS = ("c", "none", "early", "inode", "full")


@dataclass(frozen=True)
class Run:
    """One boot of a guest, or one inspection of the build."""

    experiment: str
    setting: dict[str, Any]
    mechanism: str
    repeat: int
    # Expected duration in seconds, emulated on two cores.
    guess: int = field(compare=False)

    @property
    def variant(self) -> str:
        return "c" if self.mechanism == "c" else "rust"

    @property
    def append(self) -> str:
        """Return the additions to the kernel command line."""
        return "" if self.mechanism == "c" else f"module.dedup={self.mechanism}"

    def identity(self) -> dict[str, Any]:
        """Return the fields by which a result is matched to this run."""
        return {name: value for name, value in asdict(self).items() if name != "guess"}

    def __str__(self) -> str:
        setting = " ".join(
            f"{value} CPUs" if name == "cpus" else str(value)
            for name, value in self.setting.items()
            if name not in ("repeats", "callers", "count", "seconds")
        )
        return f"{self.experiment} {setting} {self.mechanism} #{self.repeat}".replace("  ", " ")


def in_turn(
    experiment: str,
    setting: dict[str, Any],
    repeats: Iterable[int],
    guess: int,
    mechanisms: tuple[str, ...] = MECHANISMS,
) -> Iterator[Run]:
    """Alternate between the mechanisms: A B A B."""
    for repeat in repeats:
        for mechanism in mechanisms:
            yield Run(experiment, setting, mechanism, repeat, guess)


def coldplug(
    suite: str,
    modules: str,
    cpus: int,
    repeats: Iterable[int],
    mechanisms: tuple[str, ...] = MECHANISMS,
) -> Iterator[Run]:
    guess = {2: 11, 8: 12, 32: 18, 64: 25, 128: 70, 255: 400}[cpus]
    setting = {"suite": suite, "modules": modules, "cpus": cpus}
    return in_turn("coldplug", setting, repeats, guess, mechanisms)


BOTH = ("c", "full")


def quick() -> Iterator[Run]:
    """Return 10 minutes of runs on 2 cores: each experiment, with c and full in turn."""
    once, twice = (1,), (1, 2)
    yield from in_turn("size", {}, once, 1, BOTH)
    yield from in_turn("cost", {}, once, 25, ("c", "inode", "full"))
    yield from coldplug("bookworm", "zst", 8, once, ("none", "early", "inode"))
    yield from coldplug("bookworm", "zst", 8, twice, BOTH)
    yield from coldplug("bookworm", "ko", 8, once, BOTH)
    yield from coldplug("trixie", "zst", 8, once, BOTH)
    setting: dict[str, Any] = {"cpus": 4, "repeats": 1, "callers": [1, 16, 255]}
    yield from in_turn("storm", setting, twice, 18, BOTH)
    yield from in_turn("kmod.sh 0008", {"cpus": 4, "count": 10}, twice, 15, BOTH)
    yield from in_turn("stress-ng", {"cpus": 4, "count": 100, "seconds": 5}, twice, 17, BOTH)
    yield from coldplug("bookworm", "zst", 64, once, ("none", "early", "inode"))
    yield from coldplug("bookworm", "zst", 64, twice, BOTH)


def one_pass(repeat: int, mechanisms: tuple[str, ...], most_cpus: int = 255) -> Iterator[Run]:
    """Return everything once, the shortest runs first."""
    turn = (repeat,)
    yield from in_turn("cost", {}, turn, 25, ("c", "none", "inode", "full"))
    setting: dict[str, Any] = {
        "cpus": 4,
        "repeats": 3,
        "callers": [1, 2, 4, 8, 16, 32, 64, 128, 255],
    }
    yield from in_turn("storm", setting, turn, 150, mechanisms)
    yield from in_turn("kmod.sh 0008", {"cpus": 8, "count": 150}, turn, 90, BOTH)
    yield from in_turn("stress-ng", {"cpus": 8, "count": 100, "seconds": 15}, turn, 40, BOTH)
    for cpus in (2, 8, 32, 64, 128, 255):
        if cpus > most_cpus:
            break
        for suite in ("bookworm", "trixie"):
            for modules in ("ko", "zst"):
                yield from coldplug(suite, modules, cpus, turn, mechanisms)


def passes() -> list[list[Run]]:
    """Return the passes over all images and numbers of CPUs. The first pass has c and full only,
    so that the main comparison is complete after two hours."""
    return [
        [*in_turn("size", {}, (1,), 1, BOTH), *one_pass(1, BOTH)],
        list(one_pass(2, MECHANISMS)),
        list(one_pass(3, MECHANISMS, most_cpus=128)),
    ]


def everything() -> Iterator[Run]:
    for one in passes():
        yield from one
