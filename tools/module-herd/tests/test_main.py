# SPDX-License-Identifier: GPL-2.0
"""Runs the program on the files of real guests, and on machines that deny it access."""

import builtins
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import module_herd
from module_herd import kernel, trace
from module_herd.main import main

DATA = Path(__file__).parent / "data"
RUST = ["--from", str(DATA / "rust")]
C = ["--from", str(DATA / "c")]
Capture = pytest.CaptureFixture[str]


def output(arguments: list[str], capsys: Capture) -> str:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def failure(arguments: list[str], capsys: Capture) -> str:
    """Return the one message of a failed run, which prints nothing else."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("module-herd: ")
    return captured.err


def metrics(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_text(capsys: Capture) -> None:
    text = output([*RUST, "--trace-file", str(DATA / "rust/trace")], capsys)
    assert "21 of 22 loads were duplicates. The kernel did not read 242 kB" in text
    assert "3 duplicates came through init_module()" in text
    assert "request fs-herdfs   its modprobe[131]" in text
    assert "10 EEXIST" in text
    assert "Not shown" not in text


def test_text_of_c(capsys: Capture) -> None:
    text = output(C, capsys)
    assert "10 loads failed because the module was loaded" in text
    assert "allocated 115 kB for loads that failed" in text
    assert "no CONFIG_MODULE_DEDUP_RUST" in text


def test_no_herd(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "stats").write_text("Mods ever loaded\t5\n")
    assert output(["--from", str(tmp_path)], capsys).startswith("No herd:")


def test_json(capsys: Capture) -> None:
    tree = json.loads(output([*RUST, "--json"], capsys))
    assert tree["duplicates"] == 21
    assert tree["dedup"]["bytes_saved"] == 241584
    assert tree["pending"]["loads"][0]["owner"] == "insmod[112]"
    assert tree["trace"] is None
    tree = json.loads(output([*C, "--json"], capsys))
    assert tree["stats"]["modules"][0] == {
        "module": "test_dedup",
        "count": 10,
        "reason": "Becoming",
    }
    assert tree["dedup"] is None and len(tree["missing"]) == 1


def test_prometheus(capsys: Capture) -> None:
    samples = metrics(output([*RUST, "--prometheus"], capsys))
    assert samples["module_dedup_ended_total,same_file"] == 11
    assert samples["module_dedup_saved_bytes_total"] == 241584
    assert samples["module_dedup_wait_seconds_total"] == 17.127
    assert samples["module_dedup_waiting_tasks"] == 15
    samples = metrics(output([*C, "--prometheus"], capsys))
    assert samples["module_stats_duplicates_total,test_dedup"] == 10
    assert samples["module_stats_wasted_bytes_total,becoming"] == 115040
    assert not any(name.startswith("module_dedup") for name in samples)


def test_output_replaces_the_file(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "herd.prom"
    path.write_text("old")
    assert output([*RUST, "--prometheus", "--output", str(path)], capsys) == ""
    assert metrics(path.read_text())["module_dedup_loads_total"] == 22
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["herd.prom"]


def test_failed_output_changes_nothing(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "herd.json"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in failure([*RUST, "--json", "--output", str(path)], capsys)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["herd.json"]


def test_output_never_replaces_a_device(capsys: Capture) -> None:
    text = failure([*RUST, "--json", "--output", "/dev/null"], capsys)
    assert "not a regular file" in text
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "user, number, message",
    [
        (1000, errno.EACCES, "run module-herd as root"),
        (0, errno.EACCES, "Permission denied\n"),
        (0, errno.EPERM, "locked down"),
    ],
)
def test_denied(
    user: int, number: int, message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = builtins.open

    def denied(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith("/sys/kernel/debug/"):
            raise PermissionError(number, os.strerror(number), str(path))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", denied)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    text = failure([], capsys)
    assert "/sys/kernel/debug/modules/stats" in text and message in text


@pytest.mark.parametrize(
    "is_mounted, message",
    [(False, "run 'mount -t debugfs"), (True, "neither CONFIG_MODULE_STATS nor")],
)
def test_no_files(
    is_mounted: bool,
    message: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "DEBUGFS", tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: is_mounted)
    assert message in failure([], capsys)


def test_no_tracefs(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/stats").write_text("Mods ever loaded\t5\n")
    monkeypatch.setattr(kernel, "DEBUGFS", tmp_path)
    monkeypatch.setattr(trace, "TRACEFS", tmp_path)
    assert "run 'mount -t tracefs" in failure(["--trace", "1"], capsys)
    # A kernel without the tracepoints: the instance is removed.
    (tmp_path / "instances").mkdir()
    assert "no tracepoints of module_dedup" in failure(["--trace", "1"], capsys)
    assert os.listdir(tmp_path / "instances") == []


def test_missing_library(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "module_herd.prometheus", raising=False)
    monkeypatch.delattr(module_herd, "prometheus", raising=False)
    text = failure([*RUST, "--prometheus"], capsys)
    assert "apt install python3-prometheus-client" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--prometheus"],
        ["--trace", "0"],
        ["--trace", "nan"],
        ["--trace", "1", *RUST],
        ["--trace", "1", "--prometheus"],
        ["--nope"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().out == ""


def test_missing_input(tmp_path: Path, capsys: Capture) -> None:
    assert "neither a file 'stats'" in failure(["--from", str(tmp_path)], capsys)
    assert "there is no file" in failure([*RUST, "--trace-file", str(tmp_path / "x")], capsys)
