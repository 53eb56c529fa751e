# SPDX-License-Identifier: GPL-2.0
"""Metrics for the textfile collector of node_exporter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Union

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from .kernel import Pending, Snapshot, Stats

Metric = Union[CounterMetricFamily, GaugeMetricFamily]

STAGES = ("kread", "decompress", "becoming", "load")
OUTCOMES = ("performed", "same_file", "same_name", "already_loaded", "from_memory", "aborted")


def counter(name: str, help_: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_, value=value)


def counters(name: str, help_: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    metric = CounterMetricFamily(name, help_, labels=[label])
    for key, value in values:
        metric.add_metric([key], value)
    return metric


def of_stats(stats: Stats) -> Iterator[Metric]:
    yield counter("module_stats_loaded", "Modules that were loaded.", stats.get("mods_ever_loaded"))
    yield counters(
        "module_stats_failed",
        "Module loads that failed, by stage.",
        "stage",
        [(stage, stats.get(f"mods_failed_on_{stage}")) for stage in STAGES],
    )
    yield counters(
        "module_stats_wasted_bytes",
        "Memory allocated for module loads that failed, by stage.",
        "stage",
        [
            (stage, stats.get(f"failed_{'kmod' if stage == 'load' else stage}_bytes"))
            for stage in STAGES
        ],
    )
    yield counters(
        "module_stats_duplicates",
        "Duplicate reads of modules that were loaded or being loaded.",
        "module",
        [(row.module, row.count) for row in stats.modules],
    )


def of_dedup(dedup: dict[str, int]) -> Iterator[Metric]:
    def get(label: str) -> int:
        return dedup.get(label, 0)

    yield counter("module_dedup_loads", "finit_module() and init_module() calls.", get("loads"))
    yield counters(
        "module_dedup_ended",
        "Module loads that ended, by outcome.",
        "outcome",
        [(label, get(label)) for label in OUTCOMES],
    )
    yield counters(
        "module_dedup_requests",
        "request_module() calls that another modprobe process answered.",
        "modprobe",
        [("joined", get("requests_joined")), ("replayed", get("requests_replayed"))],
    )
    for label, help_ in [
        ("untracked", "Loads that continued although other tasks cannot wait for them."),
        ("deadlocks", "Waits rejected with EDEADLK."),
        ("waits", "Waits for another task."),
        ("waits_interrupted", "Waits that a signal ended."),
    ]:
        yield counter(f"module_dedup_{label}", help_, get(label))
    yield counter(
        "module_dedup_saved_bytes", "Size of the images that were not read.", get("bytes_saved")
    )
    yield counter(
        "module_dedup_wait_seconds", "Total time of all waits.", get("wait_time_ms") / 1000
    )
    yield GaugeMetricFamily(
        "module_dedup_longest_wait_seconds", "Longest wait.", get("max_wait_ms") / 1000
    )


def of_pending(pending: Pending) -> Iterator[Metric]:
    loads = GaugeMetricFamily(
        "module_dedup_pending", "Loads and requests in flight.", labels=["kind"]
    )
    for kind in ("file", "module", "request"):
        count = sum(row.target.startswith(f"{kind} ") for row in pending.loads)
        loads.add_metric([kind], count)
    yield loads
    yield GaugeMetricFamily("module_dedup_waiting_tasks", "Tasks that wait.", len(pending.waiters))
    yield GaugeMetricFamily(
        "module_dedup_oldest_wait_seconds",
        "Time since the oldest wait began.",
        max((row.age_ms for row in pending.waiters), default=0) / 1000,
    )


class Metrics(Collector):
    def __init__(self, snapshot: Snapshot):
        self.snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        if self.snapshot.stats is not None:
            yield from of_stats(self.snapshot.stats)
        if self.snapshot.dedup is not None:
            yield from of_dedup(self.snapshot.dedup)
        if self.snapshot.pending is not None:
            yield from of_pending(self.snapshot.pending)


def render(snapshot: Snapshot) -> str:
    registry = CollectorRegistry()
    registry.register(Metrics(snapshot))
    return generate_latest(registry).decode()
