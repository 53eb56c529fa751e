# SPDX-License-Identifier: GPL-2.0
"""The results file: one line of JSON for each finished run."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


class BadResults(Exception):
    """The file is not a results file of this benchmark."""


@dataclass(frozen=True)
class Result:
    experiment: str
    setting: dict[str, Any]
    mechanism: str
    repeat: int
    # Release and checksums of both kernels, and checksum of the benchmark code.
    kernels: dict[str, dict[str, str]]
    code: str
    # CPU model, cores and QEMU version; QEMU command line.
    machine: dict[str, Any]
    qemu: str
    seconds: float
    # Reason of the failure, or None.
    error: str | None
    # Labels and values; for a storm, a list of rows.
    values: Any
    # Load average of the machine when the run began: other activity shows here.
    load: float
    # Runs made in turn share this number. Not stored in the file.
    turn: int = field(default=0, compare=False)

    def identity(self) -> dict[str, Any]:
        """Return the same fields as plan.Run.identity()."""
        names = ("experiment", "setting", "mechanism", "repeat")
        return {name: getattr(self, name) for name in names}

    def belongs_to(self, other: "Result") -> bool:
        """Return whether the two runs differ in their mechanism only."""
        return (self.experiment, self.setting, self.repeat) == (
            other.experiment,
            other.setting,
            other.repeat,
        )

    def line(self) -> str:
        """Return the line that represents this result in the file."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "turn"})

    def number(self, label: str) -> float:
        return float(self.values.get(label, 0))

    def has(self, **setting: Any) -> bool:
        return all(self.setting.get(name) == value for name, value in setting.items())


def read(path: Path) -> list[Result]:
    """Read all results. Adjacent lines that differ in their mechanism only were made in turn.
    Runs made at different times are never compared: the load of the machine may have changed."""
    found: list[Result] = []
    turn = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BadResults(f"{path}: line {number} is not a result: {error}") from None
        if not found or not result.belongs_to(found[-1]):
            turn += 1
        found.append(replace(result, turn=turn))
    return found


@dataclass(frozen=True)
class Spread:
    """Median and extremes over several runs."""

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
    """Return pairs of values, of c and of that mechanism, one for each turn that has both."""
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
    """Return the ratios of that mechanism to c, one for each turn that has both."""
    return [other / c for c, other in turns(results, mechanism, value) if c]
