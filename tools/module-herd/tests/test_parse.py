# SPDX-License-Identifier: GPL-2.0
"""Parses files of real guests (data/), and what a hostile program can put into them."""

from pathlib import Path

from module_herd import trace
from module_herd.kernel import (
    FailedModule,
    parse_dedup,
    parse_pending,
    parse_stats,
    read_snapshot,
)

DATA = Path(__file__).parent / "data"


def test_stats_of_c() -> None:
    stats = parse_stats((DATA / "c/stats").read_text())
    assert stats.get("mods_ever_loaded") == 1
    assert stats.get("mods_failed_on_becoming") == 10
    assert stats.get("failed_becoming_bytes") == 115040
    assert stats.get("virtual_mem_wasted_bytes") == 115040
    assert stats.modules == [FailedModule("test_dedup", 10, "Becoming")]
    assert not stats.is_cut


def test_cut_list() -> None:
    text = (DATA / "c/stats").read_text()
    assert parse_stats(text[:-20]).is_cut
    assert not parse_stats("").is_cut


def test_snapshot_of_rust() -> None:
    snapshot = read_snapshot(DATA / "rust")
    assert snapshot.stats and snapshot.stats.modules == []
    assert snapshot.dedup and snapshot.dedup["loads"] == 22
    assert snapshot.duplicates() == 21
    assert snapshot.mode is None


def test_snapshot_of_c() -> None:
    snapshot = read_snapshot(DATA / "c")
    assert snapshot.dedup is None and snapshot.pending is None
    assert snapshot.duplicates() == 10


def test_pending() -> None:
    pending = parse_pending((DATA / "rust/pending").read_text())
    assert [load.target.split()[0] for load in pending.loads] == [
        "file",
        "file",
        "module",
        "request",
    ]
    assert sum(load.waiters for load in pending.loads) == 14
    # The task that runs modprobe for a request waits as well.
    assert len(pending.waiters) == 15
    helper = [waiter for waiter in pending.waiters if waiter.helper]
    assert len(helper) == 1 and helper[0].owner is None
    assert helper[0].blocked_on == "request fs-herdfs"


def test_unknown_labels_are_ignored() -> None:
    pending = parse_pending("module\tx\nnew\t1\nowner\ta[1]\n\nnew\tblock\n\nwaiter\tb[2]\n\n")
    assert len(pending.loads) == len(pending.waiters) == 1
    assert parse_dedup("loads\t1\nnew\t2\nother\tx\n") == {"loads": 1, "new": 2}


def test_names_are_escaped() -> None:
    stats = parse_stats("           a\x1b[31m\t              3\t                     Load\n")
    assert stats.modules == [FailedModule("a\\x1b[31m", 3, "Load")]


def test_trace() -> None:
    recorded = trace.parse((DATA / "rust/trace").read_text())
    rows = {(row.task, row.target): row for row in recorded.asked}
    assert recorded.events == 38 and recorded.lost == 0
    # One load waited and was rejected then, nine met the live module.
    module = rows["insmod", "module test_dedup"]
    assert (module.times, module.waits, module.rejected) == (10, 1, 10)
    assert module.errors == {"EEXIST": 10}
    file = rows["insmod", "file 0:18:11031245"]
    assert (file.times, file.waits, file.rejected) == (8, 8, 0)
    assert file.longest_us == 1066272
    assert rows["mount", "request fs-herdfs"].times == 2


def event(task: str, text: str) -> str:
    return f"{task:>16}-1       [000] .....     1.0: module_dedup_{text}\n"


def test_late_deadlock_is_asked_for_once() -> None:
    target = "kind=module name=a dev=0:0 ino=0"
    text = (
        event("x", f"wait_begin: {target} owner=y[2]")
        + event("x", f"deadlock: {target} error=-35")
        + event("x", f"wait_end: {target} owner=y[2] result=-35 waited_us=9")
    )
    (row,) = trace.parse(text).asked
    assert (row.times, row.waits, row.deadlocks, row.errors) == (1, 1, 1, {"EDEADLK": 1})


def test_strange_names_in_a_trace() -> None:
    name = "a dev=1:1 ino=1 error=0"
    (row,) = trace.parse(
        event("b [0]-1 c", f"pending: kind=module name={name} dev=0:0 ino=0 error=-17")
    ).asked
    assert (row.task, row.target) == ("b [0]-1 c", f"module {name}")
    assert row.errors == {"EEXIST": 1}


def test_lost_events() -> None:
    assert trace.parse("CPU:3 [LOST 12 EVENTS]\n").lost == 12
    assert trace.parse("# entries-in-buffer/entries-written: 10/14   #P:4\n").lost == 4
