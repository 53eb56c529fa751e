# SPDX-License-Identifier: GPL-2.0
"""Records and reads the tracepoints of the system module_dedup."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from .errors import HerdError, explain
from .kernel import printable

TRACEFS = Path("/sys/kernel/tracing")
# Python knows it by its other name.
ERRNO_NAMES = {**errno.errorcode, errno.EDEADLK: "EDEADLK"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Names may contain anything but are shorter than the fields around them, so that the last match
# of a field is the field.
EVENT = re.compile(
    r" *(?P<task>.*)-(?P<pid>\d+) +(\([^)]*\) +)?\[\d+\] .*: module_dedup_(?P<event>\w+):"
    r" kind=(?P<kind>\w+) name=(?P<name>.*) dev=(?P<dev>\d+:\d+) ino=(?P<ino>\d+)"
    r"( owner=.*\[\d+\])?( (result|error)=(?P<result>-?\d+))?( waited_us=(?P<waited>\d+))?"
)
# Events that the ring buffer had no room for, in trace_pipe and in trace.
LOST = re.compile(r"CPU:\d+ \[LOST (?P<lost>\d+) EVENTS\]")
KEPT = re.compile(r"# entries-in-buffer/entries-written: (?P<kept>\d+)/(?P<written>\d+)")


@dataclass
class Asked:
    """What the tasks of one name asked for."""

    task: str
    target: str
    times: int = 0
    waits: int = 0
    rejected: int = 0
    deadlocks: int = 0
    waited_us: int = 0
    longest_us: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, event: str, result: int, waited_us: int) -> None:
        """Count an event. Each request begins with a wait or is rejected at once."""
        if event == "wait_begin":
            self.times += 1
            return
        if event == "wait_end":
            self.waits += 1
            self.waited_us += waited_us
            self.longest_us = max(self.longest_us, waited_us)
            if result == -errno.EDEADLK:
                # A deadlock that was certain only after a while. It has an event of its own.
                self.times -= 1
            # The result is the owner's, and a module that is live rejects those that waited.
            if result in (0, -errno.EDEADLK):
                return
        elif event == "already_loaded":
            self.times += 1
            self.rejected += 1
        elif event == "pending":
            self.rejected += 1
        elif event == "deadlock":
            self.times += 1
            self.deadlocks += 1
        name = ERRNO_NAMES.get(-result, str(result))
        self.errors[name] = self.errors.get(name, 0) + 1


@dataclass
class Trace:
    """The events of a trace."""

    asked: list[Asked] = field(default_factory=list)
    events: int = 0
    lost: int = 0
    # Duration of a trace that module-herd recorded, and by how much the counters of `dedup`
    # increased meanwhile.
    seconds: float | None = None
    counters: dict[str, int] = field(default_factory=dict)


def parse(text: str) -> Trace:
    trace = Trace()
    rows: dict[tuple[str, str], Asked] = {}
    for line in text.split("\n"):
        if lost := LOST.search(line):
            trace.lost += int(lost["lost"])
        if kept := KEPT.match(line):
            trace.lost += int(kept["written"]) - int(kept["kept"])
        match = EVENT.fullmatch(line)
        if not match:
            continue
        trace.events += 1
        task = printable(match["task"])
        if match["kind"] == "file":
            target = f"file {match['dev']}:{match['ino']}"
        else:
            target = printable(f"{match['kind']} {match['name']}")
        row = rows.setdefault((task, target), Asked(task, target))
        row.add(match["event"], int(match["result"] or 0), int(match["waited"] or 0))
    trace.asked = sorted(rows.values(), key=lambda row: (-row.times, -row.waited_us))
    return trace


@contextlib.contextmanager
def instance() -> Iterator[Path]:
    """Make an instance of tracefs, which has buffers and events of its own, and remove it."""
    path = TRACEFS / "instances" / f"module-herd-{os.getpid()}"
    try:
        path.mkdir()
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()


def record(seconds: float) -> str:
    """Return the events of the next seconds. A signal ends the trace early."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    # Handlers that raise nothing cannot interrupt the removal of the instance.
    handlers = {number: signal.signal(number, stop) for number in SIGNALS}
    text = b""
    try:
        if not (TRACEFS / "instances").is_dir():
            raise HerdError(
                f"tracefs is not mounted on {TRACEFS}: run 'mount -t tracefs nodev {TRACEFS}'"
            )
        with instance() as path:
            enable = path / "events/module_dedup/enable"
            if not enable.exists():
                raise HerdError(
                    "this kernel cannot tell who asks: it has no tracepoints of module_dedup, "
                    "which need CONFIG_MODULE_DEDUP_RUST"
                )
            pipe = os.open(path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
            try:
                enable.write_text("1")
                print(f"tracing for {seconds:g} s; Ctrl-C ends it early", file=sys.stderr)
                end = time.monotonic() + seconds
                while not stopped and (left := end - time.monotonic()) > 0:
                    # Read often: the kernel remembers the names of few tasks.
                    time.sleep(min(left, 0.1))
                    text += read_available(pipe)
                enable.write_text("0")
                text += read_available(pipe)
            finally:
                os.close(pipe)
    except OSError as error:
        if error.filename is None:
            error.filename = TRACEFS
        raise explain(error) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return text.decode(errors="backslashreplace")


def read_available(pipe: int) -> bytes:
    text = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 16):
            text += part
    return text
