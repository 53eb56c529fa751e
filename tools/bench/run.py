# SPDX-License-Identifier: GPL-2.0
"""Make the runs that the results file lacks."""

import argparse
import hashlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plan
import results

ROOT = Path(__file__).absolute().parents[2]

# For each part of an object: its sections, and the types of their symbols in llvm-nm.
PARTS = {
    "text": (r"\.text|\.(init|exit)\.text$", "tTwW"),
    "rodata": (r"\.rodata", "rR"),
    "data": (r"\.data", "dDvV"),
    "bss": (r"\.bss", "bB"),
}


def digest(*paths: Path) -> str:
    """Hash the contents of files, and of all files in folders."""
    found = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
        for file in files:
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def first_match(pattern: str, path: str) -> str:
    match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return match[1] if match else "unknown"


def machine() -> dict[str, Any]:
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "cpu": first_match(r"^model name\s*: (.*)$", "/proc/cpuinfo"),
        "cores": os.cpu_count(),
        "memory_kib": int(first_match(r"^MemTotal:\s*(\d+)", "/proc/meminfo")),
        "qemu": version.split("\n", maxsplit=1)[0].removeprefix("QEMU emulator version "),
    }


class Bench:
    def __init__(self, build: Path, llvm_suffix: str) -> None:
        self.build = build
        self.llvm_suffix = llvm_suffix
        self.machine = machine()
        self.code = digest(
            *(ROOT / "tools/bench" / name for name in ("coldplug", "herd", "memory", "storm")),
            ROOT / "tools/bench/meminfo.h",
            *(ROOT / "scripts" / name for name in ("bench/coldplug", "build/image", "vm")),
        )
        self.kernels = {variant: self.kernel(variant) for variant in ("c", "rust")}

    def kernel(self, variant: str) -> dict[str, str]:
        objects = self.build / variant
        return {
            "release": (objects / "include/config/kernel.release").read_text().strip(),
            "image": digest(objects / "arch/x86/boot/bzImage"),
            "config": digest(objects / ".config"),
        }

    def is_like(self, result: results.Result) -> bool:
        """Return whether the result was made with the current kernels, code and machine. Both
        kernels must match, because only results of the same pair compare."""
        return (result.kernels, result.code, result.machine) == (
            self.kernels,
            self.code,
            self.machine,
        )

    def command(self, run: plan.Run, limit: int) -> list[str]:
        """Return the command of a run; empty if the run boots nothing."""
        scripts = ROOT / "scripts"
        common = ["--variant", run.variant, "--append", run.append, "--log", "bench"]
        common += ["--timeout", str(limit)]
        if "cpus" in run.setting:
            common += ["--cpus", str(run.setting["cpus"])]
        peak = str(self.build / "coldplug/bin/memory_peak")
        watch = [str(ROOT / "tools/bench/memory/watch"), peak]
        match run.experiment:
            case "coldplug":
                what = ["--suite", run.setting["suite"], "--modules", run.setting["modules"]]
                memory = "8G" if run.setting["cpus"] > 64 else "4G"
                return [f"{scripts}/bench/coldplug", *common, *what, "--mem", memory, "--prepared"]
            case "storm":
                bench = self.build / "bench"
                numbers = [run.setting["repeats"], *run.setting["callers"]]
                modules = f"DEDUP_MODULES={bench}/storm-{run.variant}"
                guest = ["env", modules, f"{bench}/storm", *map(str, numbers)]
                common += ["--mem", "8G"]
            case "kmod.sh 0008":
                source = (self.build / run.variant).resolve().parent
                kmod = source / "tools/testing/selftests/kmod/kmod.sh"
                guest = [*watch, "/", str(kmod), "-c", "0008", str(run.setting["count"])]
            case "stress-ng":
                stress = ["stress-ng", "--module", str(run.setting["count"])]
                stress += ["--module-name", "xfs", "--metrics", "--temp-path", "/tmp"]
                stress += ["--timeout", str(run.setting["seconds"])]
                guest = [*watch, str(self.build / "bench/stress-ng"), *stress]
            case "cost":
                tests = self.build / "selftests"
                guest = [f"{tests}/load_cost", f"{tests}/{run.variant}/test_dedup.ko"]
                common += ["--icount"]
            case _:
                return []
        return [f"{scripts}/vm", *common, "--", *guest]

    def sizes(self, variant: str) -> dict[str, int]:
        """Return the bytes linked into kernel/module/: of its sections, and of the KUnit tests
        among their symbols. String literals of the tests have no symbols, so they count as
        part of the sections only."""
        archive = str(self.build / variant / "kernel/module/built-in.a")
        found = {f"{what} {part}": 0 for what in ("sections", "tests") for part in PARTS}
        sections = self.output("llvm-size", "-A", archive)
        for name, size in re.findall(r"^(\.\S+) +(\d+) +\d+$", sections, re.MULTILINE):
            for part, (pattern, _) in PARTS.items():
                if re.match(pattern, name):
                    found[f"sections {part}"] += int(size)
        symbols = self.output("llvm-nm", "--print-size", archive)
        for size, kind, name in re.findall(r"^\S+ (\S+) (\w) (\S+)$", symbols, re.MULTILINE):
            if "kunit" in name or "5tests" in name:
                for part, (_, kinds) in PARTS.items():
                    if kind in kinds:
                        found[f"tests {part}"] += int(size, 16)
        return found

    def output(self, tool: str, *arguments: str) -> str:
        return subprocess.run(
            [f"{tool}{self.llvm_suffix}", *arguments], capture_output=True, text=True, check=True
        ).stdout

    def without_paths(self, text: str) -> str:
        """Replace paths of this machine: they must not appear in published results."""
        text = text.replace(str(self.build), "build").replace(str(ROOT), ".")
        text = text.replace(str(ROOT).lstrip("/"), ".")
        text = re.sub(r"/\S*/module-dedup/", "CACHE/", text)
        text = text.replace(tempfile.gettempdir() + "/", "TMP/").replace(f"{Path.home()}/", "~/")
        return re.sub(r"tmp\.\w+|virtme_ret\w+|(?<=virtme\.exec=)`[^`]*`", "...", text).strip()

    def run(self, run: plan.Run) -> results.Result:
        begun = time.monotonic()
        load = os.getloadavg()[0]
        values: Any = {}
        error = None
        qemu = ""
        if command := self.command(run, limit=180 + 5 * run.guess):
            # A process group of its own: Ctrl-C must reach this program only, which then
            # stops the guest.
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            ) as process:
                try:
                    out, err = process.communicate()
                except BaseException:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
                    raise
            if process.returncode:
                error = f"status {process.returncode}: {self.without_paths(err + out)[-600:]}"
            lines = [line.split("\t") for line in out.splitlines() if "\t" in line]
            if run.experiment == "storm":
                values = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
            else:
                values = {line[0]: line[1] for line in lines}
            if run.experiment == "coldplug":
                qemu = values.pop("qemu", "")
            else:
                qemu = (self.build / "log/bench.qemu").read_text()
            if not values and not error:
                error = "the run printed nothing"
        else:
            values = self.sizes(run.variant)
        return results.Result(
            **run.identity(),
            kernels=self.kernels,
            code=self.code,
            machine=self.machine,
            qemu=self.without_paths(qemu),
            seconds=round(time.monotonic() - begun, 1),
            error=error,
            values=values,
            load=round(load, 1),
        )


def expected(run: plan.Run, there: Iterable[results.Result]) -> float:
    """Return the median duration of similar runs on this machine, or else the guess."""
    took = [
        result.seconds
        for result in there
        if not result.error
        and result.experiment == run.experiment
        and result.setting == run.setting
    ]
    return statistics.median(took) if took else run.guess


def minutes(seconds: float) -> str:
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="folder with the built kernels")
    parser.add_argument("--results", type=Path, required=True, help="file to read and append to")
    parser.add_argument("--llvm-suffix", default="", help="version suffix of the LLVM tools")
    parser.add_argument("--quick", action="store_true", help="the 10 minutes of runs")
    parser.add_argument("--only", default="", metavar="REGEX", help="only runs whose name matches")
    parser.add_argument("--list", action="store_true", help="list the missing runs and exit")
    parser.add_argument("--forecast", action="store_true", help="print the expected time and exit")
    arguments = parser.parse_args()

    bench = None
    try:
        bench = Bench(arguments.build, arguments.llvm_suffix)
    except FileNotFoundError as error:
        # Listing and forecasting work before anything is built.
        if not arguments.list and not arguments.forecast:
            sys.exit(f"error: there is no {error.filename} yet: run make bench without --prepared")
    there = results.read(arguments.results) if arguments.results.exists() else []
    runs = list(plan.quick() if arguments.quick else plan.everything())
    try:
        runs = [run for run in runs if re.search(arguments.only, str(run))]
    except re.error as error:
        parser.error(f"--only {arguments.only}: {error}")
    if not runs:
        parser.error(f"--only {arguments.only}: there is no such run, see --list")
    done = [result.identity() for result in there if bench and bench.is_like(result)]
    todo = [run for run in runs if run.identity() not in done]
    left = sum(expected(run, there) for run in todo)
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them are complete.", flush=True)
    if todo:
        print(
            f"The others take about {minutes(left)}. It is safe to stop and restart.",
            flush=True,
        )
    if arguments.list:
        for run in todo:
            print(f"{expected(run, there):6.0f} s  {run}")
    if not bench or arguments.list or arguments.forecast:
        return 0

    for number, run in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}, {minutes(left)} left] {run} ", end="", flush=True)
        left -= expected(run, there)
        result = bench.run(run)
        with arguments.results.open("a") as out:
            out.write(result.line() + "\n")
        print(f"{result.seconds:.0f} s", flush=True)
        if result.error:
            print(f"  FAILED, {result.error}", flush=True)
        there.append(result)
    failed = sum(bool(result.error) for result in there if bench.is_like(result))
    if failed:
        print(f"{failed} runs failed; the report lists them", file=sys.stderr)
    return 1 if failed else 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    try:
        sys.exit(main())
    except results.BadResults as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped; the same command continues from here", file=sys.stderr)
        sys.exit(130)
