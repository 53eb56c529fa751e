# SPDX-License-Identifier: GPL-2.0
"""Provenance of the results: the commands that made them, and how complete their runs are."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import plan
from results import Result

QUICK = "make bench QUICK=1"
EVERYTHING = "make bench"


def key(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def keys(runs: Iterable[plan.Run]) -> set[str]:
    return {key(run.identity()) for run in runs}


def commands(runs: Sequence[Result]) -> list[str]:
    """Return the commands that made the results: each one with a run that only it makes, or both
    if there is no such run."""
    there = {key(run.identity()) for run in runs}
    quick, everything = keys(plan.quick()), keys(plan.everything())
    found = [QUICK] if there & (quick - everything) else []
    if there & (everything - quick):
        found.append(EVERYTHING)
    return found or [QUICK, EVERYTHING]


def passes_text(there: set[str], passes: Sequence[set[str]]) -> str:
    """Say how much of each pass is complete."""
    parts = []
    for number, wanted in enumerate(passes, 1):
        done = len(wanted & there)
        amount = f"all {done} runs" if done == len(wanted) else f"{done} of {len(wanted)} runs"
        parts.append(amount if len(passes) == 1 else f"pass {number}, {amount}")
    return "; ".join(parts)


def in_words(runs: Sequence[Result], code: Callable[[str], str]) -> str:
    """Describe the provenance in sentences; CODE marks up a command."""
    there = {key(run.identity()) for run in runs}
    passes = {
        QUICK: [keys(plan.quick())],
        EVERYTHING: [keys(one) for one in plan.passes()],
    }
    used = commands(runs)
    parts = [f"{code(command)} ({passes_text(there, passes[command])})" for command in used]
    words = f"Made by {' and '.join(parts)}."
    known = {name for command in used for one in passes[command] for name in one}
    if other := len(there - known):
        words += f" {other} runs are no longer part of the plan."
    return words
