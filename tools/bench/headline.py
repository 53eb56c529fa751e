# SPDX-License-Identifier: GPL-2.0
"""Draw the picture of the README, memory wasted against CPUs, from the results page."""

import argparse
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import to_svg

# The image whose loads C does not deduplicate.
TABLE = "Debian 12, .ko.zst (init_module)"
KERNELS = {"C": "C", "Rust, full": "Rust"}
FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Theme:
    ink: str
    soft: str
    grid: str
    colours: dict[str, str]


# The backgrounds are transparent: these suit white and dark grey.
THEMES = {
    "light": Theme("#1f2328", "#59636e", "#d9dee3", {"C": "#c4271f", "Rust": "#1a7f37"}),
    "dark": Theme("#f0f6fc", "#9198a1", "#353b43", {"C": "#ff7b72", "Rust": "#56d364"}),
}


@dataclass(frozen=True)
class Point:
    cpus: int
    failed: int
    wasted: float
    least: float
    most: float


def numbers(cell: str) -> list[float]:
    """Parse "median" or "median (least-most)"."""
    found = [float(text) for text in re.findall(r"[\d.]+", cell.replace(",", ""))]
    return found if len(found) == 3 else [found[0]] * 3


def read(page: Path) -> dict[str, list[Point]]:
    """Return the points of each kernel from the table of the page, or nothing without one."""
    _, found, rest = page.read_text().partition(f".. csv-table:: {TABLE}\n")
    if not found:
        return {}
    block = rest.split("\n\n", 2)
    head = next(csv.reader([block[0].split(":header: ")[1]], skipinitialspace=True))
    points: dict[str, list[Point]] = {name: [] for name in KERNELS.values()}
    for cells in csv.reader(io.StringIO(block[1]), skipinitialspace=True):
        row = dict(zip(head, (cell.strip() for cell in cells), strict=True))
        if name := KERNELS.get(row["kernel"]):
            wasted = numbers(row["wasted MB"])
            failed = int(numbers(row["failed loads"])[0])
            points[name].append(Point(int(row["CPUs"]), failed, *wasted))
    return points


def plot(axes: Axes, points: dict[str, list[Point]], theme: Theme) -> None:
    highest = max(point.most for line in points.values() for point in line)
    for name, line in points.items():
        colour = theme.colours[name]
        xs = [point.cpus for point in line]
        axes.fill_between(
            xs,
            [point.least for point in line],
            [point.most for point in line],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(
            xs,
            [point.wasted for point in line],
            color=colour,
            linewidth=2.4,
            marker="o",
            markersize=5,
            solid_capstyle="round",
            clip_on=False,
            zorder=3,
        )
        last = line[-1]
        # The labels of the lower line must stay clear of the axis.
        height = 25 if last.wasted < highest / 10 else 9
        for words, size, offset in (
            (f"{name}: {last.wasted:.0f} MB", 14, height),
            (f"{last.failed:,} failed loads", 11, height - 17),
        ):
            axes.annotate(
                words,
                (last.cpus, last.wasted),
                (15, offset),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=size,
                fontweight="bold" if size > 11 else "normal",
                annotation_clip=False,
            )
    axes.set_ylim(0, 1.04 * max(highest, 1))
    axes.set_xlim(0, max(point.cpus for line in points.values() for point in line))
    cpus = [point.cpus for point in points["C"] if point.cpus > 2]
    axes.set_xticks(cpus, [*map(str, cpus[:-1]), f"{cpus[-1]} CPUs"])
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter("{x:.0f} MB")
    axes.grid(axis="y", color=theme.grid, linewidth=1)
    axes.set_axisbelow(True)
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_edgecolor(theme.grid)
    axes.tick_params(length=0, labelcolor=theme.soft, labelsize=11, pad=7)


def draw(points: dict[str, list[Point]], theme: Theme) -> str:
    figure = Figure(figsize=(9, 4.3))
    axes = figure.add_axes((0.09, 0.1, 0.73, 0.66))
    plot(axes, points, theme)
    figure.text(
        0.025,
        0.93,
        "Memory wasted on duplicate module loads in one boot",
        color=theme.ink,
        fontsize=17,
        fontweight="bold",
        va="center",
    )
    figure.text(
        0.025,
        0.84,
        "Debian 12 with systemd-udevd and compressed modules; median, band from least to most",
        color=theme.soft,
        fontsize=11.5,
        va="center",
    )
    return re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, to_svg(figure))


def write(page: Path) -> None:
    """Draw both variants next to the page."""
    points = read(page)
    if not all(points.get(name) for name in KERNELS.values()):
        return
    for name, theme in THEMES.items():
        lines = draw(points, theme).splitlines()
        path = page.with_name(f"wasted-memory-{name}.svg")
        path.write_text("".join(f"{line.rstrip()}\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="the results page, results/measurements.rst")
    write(parser.parse_args().page)


if __name__ == "__main__":
    main()
