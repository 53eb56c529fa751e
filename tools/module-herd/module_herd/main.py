# SPDX-License-Identifier: GPL-2.0
"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import trace
from .errors import HerdError
from .kernel import Snapshot, module_files, read_snapshot, read_text
from .report import Report


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="module-herd",
        description="Shows whether this machine has a herd: many tasks that load the same kernel "
        "modules. Reads /sys/kernel/debug/modules/, so it needs root.",
        epilog="Exit status: 0 for a report, 1 for an error, 2 for wrong arguments.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--prometheus",
        action="store_true",
        help="print metrics for the textfile collector of node_exporter",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="replace FILE with the report, at once and only if there is one",
    )
    parser.add_argument(
        "--trace",
        metavar="SECONDS",
        type=float,
        help="record for SECONDS who asks for what, in a tracefs instance of its own",
    )
    parser.add_argument(
        "--trace-file",
        metavar="FILE",
        type=Path,
        help="read a trace, for example that of a boot with trace_instance=boot,module_dedup: "
        "/sys/kernel/tracing/instances/boot/trace",
    )
    parser.add_argument(
        "--from",
        dest="folder",
        metavar="FOLDER",
        type=Path,
        help="read copies of the files stats, dedup and pending",
    )
    options = parser.parse_args(arguments)
    if options.trace is not None:
        if not 0 < options.trace <= 86400:
            parser.error("--trace takes a number of seconds up to 86400")
        if options.folder or options.trace_file:
            parser.error("--trace records on this machine: not with --from or --trace-file")
    if options.prometheus and (options.trace is not None or options.trace_file):
        parser.error("--prometheus has totals since boot: not with --trace or --trace-file")
    return options


def record(seconds: float, before: Snapshot) -> tuple[Snapshot, trace.Trace]:
    """Trace for some time. Return the state afterwards, and the trace."""
    start = time.monotonic()
    recorded = trace.parse(trace.record(seconds))
    recorded.seconds = time.monotonic() - start
    after = read_snapshot()
    old = before.dedup or {}
    recorded.counters = {
        label: value - old.get(label, 0)
        for label, value in (after.dedup or {}).items()
        # A maximum has no increase.
        if label != "max_wait_ms" and value != old.get(label, 0)
    }
    return after, recorded


def render(options: argparse.Namespace) -> str:
    snapshot = read_snapshot(options.folder)
    recorded = None
    if options.trace is not None:
        snapshot, recorded = record(options.trace, snapshot)
    elif options.trace_file:
        text = read_text(options.trace_file)
        if text is None:
            raise HerdError(f"there is no file {options.trace_file}")
        recorded = trace.parse(text)
    # The libraries are imported where they are used, so that JSON needs none.
    try:
        if options.prometheus:
            from . import prometheus

            return prometheus.render(snapshot)
        report = Report(snapshot, recorded, {} if options.folder else module_files())
        if options.json:
            return report.json()
        from . import text as text_form

        return text_form.render(report, sys.stdout.isatty() and not options.output)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise HerdError(
            f"the Python package {package} is missing: run "
            f"'apt install python3-{package.replace('_', '-')}', or use --json"
        ) from error


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file at once: a reader sees all of the old text or all of the new one."""
    if path.exists() and not path.is_file():
        raise HerdError(f"{path} is not a regular file")
    # The collector reads all files whose names end in .prom.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".module-herd-", suffix=".tmp")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        text = render(options)
        if options.output:
            # node_exporter does not run as root. Other reports show what only root may read.
            write(options.output, text, 0o644 if options.prometheus else 0o600)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
    except BrokenPipeError:
        # Keep Python from flushing once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except HerdError as error:
        print(f"module-herd: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"module-herd: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
