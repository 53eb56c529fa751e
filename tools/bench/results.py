# SPDX-License-Identifier: GPL-2.0
"""The file of results: a line of JSON for each finished run."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


class BadResults(Exception):
    """The file is not one of ours."""


@dataclass(frozen=True)
class Result:
    experiment: str
    setting: dict[str, Any]
    mechanism: str
    repeat: int
    # Release and checksums of both kernels, and of the code that measured.
    kernels: dict[str, dict[str, str]]
    code: str
    # Where and how: CPU model, cores, QEMU's version; QEMU's command line.
    machine: dict[str, Any]
    qemu: str
    seconds: float
    # None, or what went wrong.
    error: str | None
    # Label and value; of a storm, a list of rows.
    values: Any
    # The machine's load average when it began: what else was going on.
    load: float
    # Which runs it was made in turn with: those that have the same number. Not in the file.
    turn: int = field(default=0, compare=False)

    def identity(self) -> dict[str, Any]:
        """As that of a plan.Run."""
        names = ("experiment", "setting", "mechanism", "repeat")
        return {name: getattr(self, name) for name in names}

    def belongs_to(self, other: "Result") -> bool:
        """Whether the two differ in what deduplicates only."""
        return (self.experiment, self.setting, self.repeat) == (
            other.experiment,
            other.setting,
            other.repeat,
        )

    def line(self) -> str:
        """As it stands in the file."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "turn"})

    def number(self, label: str) -> float:
        return float(self.values.get(label, 0))

    def has(self, **setting: Any) -> bool:
        return all(self.setting.get(name) == value for name, value in setting.items())


def read(path: Path) -> list[Result]:
    """What is in the file. Runs that are to be compared were made in turn if they are in it one
    after the other: what was made at another time had another machine around it."""
    found: list[Result] = []
    turn = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BadResults(f"{path}: line {number} is no result: {error}") from None
        if not found or not result.belongs_to(found[-1]):
            turn += 1
        found.append(replace(result, turn=turn))
    return found


@dataclass(frozen=True)
class Spread:
    """What several runs gave."""

    median: float
    least: float
    most: float
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    got = sorted(values)
    if not got:
        return None
    return Spread(statistics.median(got), got[0], got[-1], len(got))


def turns(
    results: Iterable[Result], mechanism: str, value: Callable[[Result], float | None]
) -> list[tuple[float, float]]:
    """c's value and that mechanism's, wherever both were run in the same turn."""
    pairs: dict[int, dict[str, float]] = {}
    for result in results:
        if (got := value(result)) is not None:
            pairs.setdefault(result.turn, {})[result.mechanism] = got
    return [
        (pair["c"], pair[mechanism]) for pair in pairs.values() if "c" in pair and mechanism in pair
    ]


def ratios(
    results: Iterable[Result], mechanism: str, value: Callable[[Result], float | None]
) -> list[float]:
    """That mechanism / c, each with the run of c that it was made in turn with."""
    return [other / c for c, other in turns(results, mechanism, value) if c]
