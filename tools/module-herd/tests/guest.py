# SPDX-License-Identifier: GPL-2.0
"""Runs module-herd during and after a small herd. Called in the guest by scripts/test/herd.

Usage: guest.py VARIANT, with the test modules of that variant in the folder $DEDUP_MODULES.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

HERD = Path(__file__).parents[1] / "module-herd"
MODULE = Path(os.environ["DEDUP_MODULES"]) / "test_dedup.ko"
PARK = Path("/sys/module/test_dedup/parameters/park")
PENDING = Path("/sys/kernel/debug/modules/pending")
INSTANCES = Path("/sys/kernel/tracing/instances")
NOBODY = 65534
# Loads of the same file, and of copies of it.
SAME_FILE, SAME_NAME = 8, 4

has_dedup = sys.argv[1] != "c"


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(HERD), *arguments]


def run(*arguments: str) -> str:
    """Return the report of a run that must succeed."""
    done = subprocess.run(command(*arguments), check=False, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout


def fail(expected: str, *arguments: str, before: str = "pass") -> None:
    """Check that a run fails with one message. `before` is Python code that runs first."""
    code = f"import sys; from module_herd.main import main; {before}; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        cwd=HERD.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not done.stdout, done
    assert done.stderr.count("\n") == 1 and expected in done.stderr, done
    print(f"ok: {done.stderr.strip()}")


def report() -> Any:
    return json.loads(run("--json"))


def wait_until(what: str, is_true: Any) -> None:
    end = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def insmod(path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["insmod", path, "park=1"], stderr=subprocess.DEVNULL)


def start_trace() -> "subprocess.Popen[str]":
    """Start a trace and wait until it records."""
    tracer = subprocess.Popen(
        command("--json", "--trace", "120"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr
    line = tracer.stderr.readline()
    assert line.startswith("tracing for"), line
    assert instances()
    return tracer


def end_trace(tracer: "subprocess.Popen[str]", number: int) -> Any:
    """End a trace by a signal. Return the report."""
    tracer.send_signal(number)
    out, err = tracer.communicate()
    assert tracer.returncode == 0 and not err, (tracer.returncode, err)
    assert not instances()
    return json.loads(out)


def instances() -> list[Path]:
    return list(INSTANCES.glob("module-herd-*"))


def herd(folder: Path) -> None:
    copies = [folder / f"{number}.ko" for number in range(SAME_NAME)]
    for copy in copies:
        shutil.copy(MODULE, copy)
    tasks = [insmod(MODULE)]
    wait_until("the first load is parked", PARK.exists)
    tasks += [insmod(MODULE) for _ in range(SAME_FILE)]
    tasks += [insmod(copy) for copy in copies]
    if has_dedup:
        waiters = SAME_FILE + SAME_NAME
        wait_until("all others wait", lambda: PENDING.read_text().count("waiter\t") == waiters)
        text = run()
        assert "Waiting tasks" in text and "module test_dedup" in text, text
    PARK.write_text("0")
    for task in tasks:
        task.wait()


def metrics(folder: Path) -> dict[str, float]:
    path = folder / "herd.prom"
    assert run("--prometheus", "--output", str(path)) == ""
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def check_dedup(folder: Path) -> None:
    tracer = start_trace()
    herd(folder)
    recorded = end_trace(tracer, signal.SIGINT)["trace"]
    assert recorded["counters"]["loads"] == 1 + SAME_FILE + SAME_NAME, recorded
    asked = {row["target"]: row for row in recorded["asked"] if row["task"] == "insmod"}
    assert asked[f"file {os_target(MODULE)}"]["times"] == SAME_FILE, recorded
    assert asked["module test_dedup"]["errors"] == {"EEXIST": SAME_NAME}, recorded
    print("ok: a trace, ended by SIGINT")

    end_trace(start_trace(), signal.SIGTERM)
    print("ok: a trace, ended by SIGTERM")

    tree = report()
    assert tree["duplicates"] == SAME_FILE + SAME_NAME, tree
    assert not tree["pending"]["loads"] and not tree["pending"]["waiters"], tree
    assert f"{SAME_FILE + SAME_NAME} of {1 + SAME_FILE + SAME_NAME} loads" in run()
    found = metrics(folder)
    assert found["module_dedup_ended_total,performed"] == 1, found
    assert found["module_dedup_saved_bytes_total"] == tree["dedup"]["bytes_saved"], found


def os_target(path: Path) -> str:
    """Return a file as the kernel identifies it, as /proc/self/mountinfo does."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == "/":
            device = fields[2]
    return f"{device}:{path.stat().st_ino}"


def check_c(folder: Path) -> None:
    fail("no tracepoints of module_dedup", "--trace", "1")
    assert not instances()
    herd(folder)
    tree = report()
    assert tree["dedup"] is None and tree["pending"] is None and tree["missing"], tree
    # C may see more: a load of the same file that began after all others had ended.
    assert tree["duplicates"] >= SAME_NAME, tree
    text = run()
    assert "test_dedup" in text and "no CONFIG_MODULE_DEDUP_RUST" in text, text
    found = metrics(folder)
    assert found["module_stats_duplicates_total,test_dedup"] == tree["duplicates"], found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        if has_dedup:
            check_dedup(Path(name))
        else:
            check_c(Path(name))
    print(run())
    fail("run module-herd as root", before=f"import os; os.setuid({NOBODY})")
    subprocess.run(["umount", "--lazy", "/sys/kernel/tracing"], check=True)
    fail("tracefs is not mounted", "--trace", "1")
    subprocess.run(["umount", "--lazy", "/sys/kernel/debug"], check=True)
    fail("debugfs is not mounted")


main()
