# SPDX-License-Identifier: GPL-2.0
"""What the numbers mean, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from .kernel import Snapshot

# From this time on, the kernel logs a wait.
LONG_WAIT_MS = 30_000


@dataclass
class Finding:
    """Something to know. Without advice, there is nothing to do."""

    text: str
    advice: str = ""


def size(number: int) -> str:
    """Return a number of bytes for people."""
    if number < 10_000:
        return f"{number} bytes"
    return f"{number / 1e3:.0f} kB" if number < 1_000_000 else f"{number / 1e6:.1f} MB"


def plural(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def missing(snapshot: Snapshot, has_trace: bool) -> list[str]:
    """Return what the report cannot tell."""
    texts = []
    if snapshot.dedup is None:
        texts.append(
            "loads that shared a result, who waits and who asks: this kernel has no "
            "CONFIG_MODULE_DEDUP_RUST."
        )
    elif snapshot.duplicates() and not has_trace:
        texts.append(
            "who asked for what. Record it with --trace SECONDS. For the boot, add "
            "trace_instance=boot,module_dedup to the kernel command line, and read the trace with "
            "--trace-file /sys/kernel/tracing/instances/boot/trace."
        )
    if snapshot.stats is None:
        texts.append(
            "failed loads and the memory that they wasted: this kernel has no CONFIG_MODULE_STATS."
        )
    elif snapshot.stats.is_cut:
        texts.append("the rest of the list of modules: the kernel has cut it.")
    return texts


def findings(snapshot: Snapshot) -> list[Finding]:
    found = [summary(snapshot)]
    if snapshot.dedup is not None:
        found += of_dedup(snapshot.dedup)
    found += of_stats(snapshot)
    if snapshot.pending:
        oldest = max(snapshot.pending.waiters, key=lambda one: one.age_ms, default=None)
        if oldest and oldest.age_ms >= LONG_WAIT_MS:
            found.append(
                Finding(
                    f"{oldest.task} has been waiting for {oldest.blocked_on} for "
                    f"{oldest.age_ms // 1000} s.",
                    "Follow the waits in the table of pending loads from task to task.",
                )
            )
    return found


def summary(snapshot: Snapshot) -> Finding:
    count = snapshot.duplicates()
    if not count:
        return Finding("No herd: no load was a duplicate.")
    if snapshot.dedup is None:
        return Finding(
            f"{plural(count, 'load')} failed because the module was loaded or being loaded.",
            "A kernel with CONFIG_MODULE_DEDUP_RUST performs one load of each module. Without "
            "it, use kmod 31 or later, and modules that the kernel can decompress "
            "(CONFIG_MODULE_DECOMPRESS): the kernel recognizes concurrent loads of one file, "
            "but not of images that kmod has decompressed itself.",
        )
    return Finding(
        f"{count:,} of {plural(snapshot.dedup.get('loads', 0), 'load')} were duplicates. The "
        f"kernel did not read {size(snapshot.dedup.get('bytes_saved', 0))} for them."
    )


def of_dedup(dedup: dict[str, int]) -> list[Finding]:
    def get(label: str) -> int:
        return dedup.get(label, 0)

    found = []
    requests = get("requests_joined") + get("requests_replayed")
    if requests:
        found.append(
            Finding(
                f"{plural(requests, 'request')} of the kernel for a module got the result of "
                "another request, without a modprobe process."
            )
        )
    if get("from_memory"):
        found.append(
            Finding(
                f"{plural(get('from_memory'), 'duplicate')} came through init_module(): user "
                "space had read, and probably decompressed, the whole module.",
                "Use kmod 31 or later, and modules that the kernel can decompress "
                "(CONFIG_MODULE_DECOMPRESS).",
            )
        )
    if get("already_loaded"):
        found.append(
            Finding(
                f"{plural(get('already_loaded'), 'load')} asked for a live module.",
                "modprobe and udev skip live modules unless they race. Find tools that call "
                "insmod repeatedly with --trace.",
            )
        )
    if get("deadlocks"):
        found.append(
            Finding(
                f"{plural(get('deadlocks'), 'wait')} failed with EDEADLK.",
                "The kernel log describes each cycle: dmesg | grep 'deadlock detected'",
            )
        )
    if get("untracked"):
        found.append(
            Finding(
                f"{plural(get('untracked'), 'load')} went on without deduplication: memory was "
                "short, or a load of the same module was stuck for five seconds.",
                "Look for a slow or dead file system, or for a lack of memory, in the kernel log.",
            )
        )
    if get("max_wait_ms") >= LONG_WAIT_MS:
        found.append(
            Finding(
                f"The longest wait took {get('max_wait_ms') // 1000} s.",
                "The kernel log names the load that took so long: dmesg | grep 'has been waiting'",
            )
        )
    return found


def of_stats(snapshot: Snapshot) -> list[Finding]:
    stats = snapshot.stats
    if stats is None:
        return []
    found = []
    wasted = stats.get("virtual_mem_wasted_bytes")
    if wasted:
        advice = ""
        if snapshot.mode not in (None, "full"):
            advice = f"Boot without module.dedup={snapshot.mode}."
        found.append(Finding(f"The kernel allocated {size(wasted)} for loads that failed.", advice))
    failed = stats.get("mods_failed_on_becoming") + stats.get("mods_failed_on_load")
    others = failed - sum(row.count for row in stats.modules)
    if others > 0 and not stats.is_cut:
        found.append(
            Finding(
                f"{plural(others, 'load')} failed for another reason than a duplicate.",
                "The kernel log may have the reason: a signature, a version, a format, a missing "
                "symbol.",
            )
        )
    unread = stats.get("mods_failed_on_kread") + stats.get("mods_failed_on_decompress")
    if unread:
        found.append(
            Finding(
                f"{plural(unread, 'module')} could not be read or decompressed.",
                "Look for a lack of memory or damaged files in the kernel log.",
            )
        )
    return found
