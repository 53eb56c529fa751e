# SPDX-License-Identifier: GPL-2.0
"""What is measured: the runs of a benchmark, in their order."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

# What deduplicates: the pristine kernel's C, or rust with module.dedup= that.
MECHANISMS = ("c", "none", "early", "inode", "full")


@dataclass(frozen=True)
class Run:
    """One boot, or one look at what was built."""

    experiment: str
    setting: dict[str, Any]
    mechanism: str
    repeat: int
    # How long it takes, in seconds, on two cores that emulate.
    guess: int = field(compare=False)

    @property
    def variant(self) -> str:
        return "c" if self.mechanism == "c" else "rust"

    @property
    def append(self) -> str:
        """What the kernel's command line says of it."""
        return "" if self.mechanism == "c" else f"module.dedup={self.mechanism}"

    def identity(self) -> dict[str, Any]:
        """What makes a result that of this run."""
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
    repeats: int,
    guess: int,
    mechanisms: tuple[str, ...] = MECHANISMS,
) -> Iterator[Run]:
    """The mechanisms one after the other, and again: A B A B."""
    for repeat in range(1, repeats + 1):
        for mechanism in mechanisms:
            yield Run(experiment, setting, mechanism, repeat, guess)


def coldplug(
    suite: str,
    modules: str,
    cpus: int,
    repeats: int,
    mechanisms: tuple[str, ...] = MECHANISMS,
) -> Iterator[Run]:
    guess = {2: 11, 8: 12, 32: 18, 64: 25, 128: 70, 255: 400}[cpus]
    setting = {"suite": suite, "modules": modules, "cpus": cpus}
    return in_turn("coldplug", setting, repeats, guess, mechanisms)


def quick() -> Iterator[Run]:
    """In 10 minutes on 2 cores: each experiment, c and full in turn."""
    both = ("c", "full")
    yield from in_turn("size", {}, 1, 1, both)
    yield from in_turn("cost", {}, 1, 25, ("c", "inode", "full"))
    yield from coldplug("bookworm", "zst", 8, 1, ("none", "early", "inode"))
    yield from coldplug("bookworm", "zst", 8, 2, both)
    yield from coldplug("bookworm", "ko", 8, 1, both)
    yield from coldplug("trixie", "zst", 8, 1, both)
    setting: dict[str, Any] = {"cpus": 4, "repeats": 1, "callers": [1, 16, 255]}
    yield from in_turn("storm", setting, 2, 18, both)
    yield from in_turn("kmod.sh 0008", {"cpus": 4, "count": 10}, 2, 15, both)
    yield from in_turn("stress-ng", {"cpus": 4, "count": 100, "seconds": 5}, 2, 17, both)
    yield from coldplug("bookworm", "zst", 64, 1, ("none", "early", "inode"))
    yield from coldplug("bookworm", "zst", 64, 2, both)


def everything() -> Iterator[Run]:
    """The same at every number of CPUs, on every image: what is soon done first."""
    both = ("c", "full")
    yield from in_turn("size", {}, 1, 1, both)
    yield from in_turn("cost", {}, 3, 25, ("c", "inode", "full"))
    setting: dict[str, Any] = {
        "cpus": 4,
        "repeats": 3,
        "callers": [1, 2, 4, 8, 16, 32, 64, 128, 255],
    }
    yield from in_turn("storm", setting, 3, 150)
    yield from in_turn("kmod.sh 0008", {"cpus": 8, "count": 150}, 3, 90, both)
    yield from in_turn("stress-ng", {"cpus": 8, "count": 100, "seconds": 15}, 3, 40, both)
    for cpus in (2, 8, 32, 64, 128, 255):
        for suite in ("bookworm", "trixie"):
            for modules in ("ko", "zst"):
                yield from coldplug(suite, modules, cpus, 2 if cpus == 255 else 3)
