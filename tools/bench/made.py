# SPDX-License-Identifier: GPL-2.0
"""Which commands made the results that are there, and how much of what they make that is."""

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
    """Those that made a run which the other does not make; both if there is none."""
    there = {key(run.identity()) for run in runs}
    quick, everything = keys(plan.quick()), keys(plan.everything())
    found = [QUICK] if there & (quick - everything) else []
    if there & (everything - quick):
        found.append(EVERYTHING)
    return found or [QUICK, EVERYTHING]


def passes_text(there: set[str], passes: Sequence[set[str]]) -> str:
    """How much of each pass is there."""
    parts = []
    for number, wanted in enumerate(passes, 1):
        made = len(wanted & there)
        amount = f"all {made} runs" if made == len(wanted) else f"{made} of {len(wanted)} runs"
        parts.append(amount if len(passes) == 1 else f"pass {number}, {amount}")
    return "; ".join(parts)


def in_words(runs: Sequence[Result], code: Callable[[str], str]) -> str:
    """Sentences; CODE marks a command."""
    there = {key(run.identity()) for run in runs}
    passes = {
        QUICK: [keys(plan.quick())],
        EVERYTHING: [keys(one) for one in plan.passes()],
    }
    made = commands(runs)
    parts = [f"{code(command)} ({passes_text(there, passes[command])})" for command in made]
    words = f"Made by {' and '.join(parts)}."
    known = {name for command in made for one in passes[command] for name in one}
    if other := len(there - known):
        words += f" {other} runs are none that the plan has today."
    return words
