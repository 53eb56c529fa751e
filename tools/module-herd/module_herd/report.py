# SPDX-License-Identifier: GPL-2.0
"""All that module-herd reports, and its form as JSON."""

from __future__ import annotations

import dataclasses
import json

from .advice import Finding, findings, missing
from .kernel import Snapshot
from .trace import Trace


class Report:
    def __init__(self, snapshot: Snapshot, trace: Trace | None, files: dict[str, str]):
        self.snapshot = snapshot
        self.trace = trace
        # The names of module files, by target.
        self.files = files
        self.findings: list[Finding] = findings(snapshot)
        self.missing = missing(snapshot, trace is not None)

    def name(self, target: str) -> str:
        """Return a target with the name of its file, if that is known."""
        return f"{target} ({self.files[target]})" if target in self.files else target

    def json(self) -> str:
        targets = set()
        if self.snapshot.pending:
            targets |= {row.target for row in self.snapshot.pending.loads}
            targets |= {row.blocked_on for row in self.snapshot.pending.waiters}
        if self.trace:
            targets |= {row.target for row in self.trace.asked}
        tree = {
            "duplicates": self.snapshot.duplicates(),
            "findings": [dataclasses.asdict(found) for found in self.findings],
            "missing": self.missing,
            **dataclasses.asdict(self.snapshot),
            "trace": dataclasses.asdict(self.trace) if self.trace else None,
            "files": {target: name for target, name in self.files.items() if target in targets},
        }
        return json.dumps(tree, indent=2) + "\n"
