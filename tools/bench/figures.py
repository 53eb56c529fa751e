# SPDX-License-Identifier: GPL-2.0
"""Pictures as SVG: a line or bar per mechanism, with the spread of its runs."""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from typing import ClassVar, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results import Spread

matplotlib.use("svg")
matplotlib.rcParams.update(
    {
        # Text stays text; the reader's fonts show it.
        "svg.fonttype": "none",
        "svg.hashsalt": "module-dedup",
        "font.family": "sans-serif",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)

NAMES = {
    "c": "C",
    "none": "Rust, none",
    "early": "Rust, early",
    "inode": "Rust, inode",
    "full": "Rust, full",
}

# Placeholder colours for matplotlib to write. Each is replaced with a property of the
# style sheet in a page, or with a fixed colour on white in a file of its own.
INK, GRID = "#010101", "#020202"
COLOURS = {
    INK: ("--ink", "#1a1a1a"),
    GRID: ("--grid", "#d0d0d0"),
    "#0c0001": ("--c", "#b3261e"),
    "#0c0002": ("--none", "#8a5a00"),
    "#0c0003": ("--early", "#6a3fb5"),
    "#0c0004": ("--inode", "#00708a"),
    "#0c0005": ("--full", "#1b6e2e"),
}
LINES = {
    "c": ("#0c0001", "o", "-"),
    "none": ("#0c0002", "s", "--"),
    "early": ("#0c0003", "^", "-."),
    "inode": ("#0c0004", "v", ":"),
    "full": ("#0c0005", "D", "-"),
}

Series = Mapping[str, Mapping[int, Spread]]


def to_svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)


@dataclass(frozen=True)
class Picture(ABC):
    title: str
    # Text alternative.
    text: str
    x_label: str
    y_label: str
    grid: ClassVar[Literal["both", "x", "y"]] = "both"

    @abstractmethod
    def plot(self, axes: Axes) -> None:
        """Draw the data; draw() adds the parts that all pictures share."""

    def draw(self) -> str:
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        self.plot(axes)
        axes.set_xlabel(self.x_label, color=INK)
        axes.set_ylabel(self.y_label, color=INK)
        axes.tick_params(colors=INK)
        for spine in axes.spines.values():
            spine.set_edgecolor(INK)
        axes.grid(axis=self.grid, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(labelcolor=INK)
        return to_svg(figure)

    def inline(self, name: str) -> str:
        """Return SVG for a page: colours from its style sheet, ids prefixed to be unique."""
        svg = self.draw()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
        for colour, (name_of_property, _) in COLOURS.items():
            svg = svg.replace(colour, f"var({name_of_property})")
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        label = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
        words = f'<title id="{name}-title">{escape(self.title)}</title>'
        words += f'<desc id="{name}-desc">{escape(self.text)}</desc>'
        svg = svg.replace("<svg", label, 1)
        head, rest = svg.split(">", 1)
        return f"{head}>{words}{rest}"

    def alone(self) -> str:
        """Return SVG for a file of its own, drawn for a white background."""
        svg = self.draw()
        for colour, (_, value) in COLOURS.items():
            svg = svg.replace(colour, value)
        return svg


@dataclass(frozen=True)
class Lines(Picture):
    # By mechanism, then by number of CPUs or callers.
    series: Series
    logarithmic: bool = False

    def plot(self, axes: Axes) -> None:
        points = sorted({x for line in self.series.values() for x in line})
        for mechanism, line in self.series.items():
            colour, marker, style = LINES[mechanism]
            xs = sorted(line)
            middle = [line[x].median for x in xs]
            below = [line[x].median - line[x].least for x in xs]
            above = [line[x].most - line[x].median for x in xs]
            axes.errorbar(
                xs,
                middle,
                yerr=[below, above],
                label=NAMES[mechanism],
                color=colour,
                marker=marker,
                linestyle=style,
                markersize=5,
                capsize=3,
                clip_on=False,
            )
        spreads = [spread for line in self.series.values() for spread in line.values()]
        highest = max((spread.most for spread in spreads), default=1)
        if self.logarithmic:
            # Whole decades, so that a factor has the same height in every picture.
            lowest = max(0.1, min((spread.least for spread in spreads), default=1))
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(10 ** floor(log10(lowest)), 10 ** ceil(log10(highest) + 0.1))
        else:
            axes.set_ylim(0, 1.15 * max(highest, 1))
        if len(points) <= 9:
            axes.set_xticks(points, [str(x) for x in points])
            axes.minorticks_off()
            if not self.logarithmic:
                # On an axis up to 255, the labels of 2 and 8 would run into each other.
                for (x, label), (after, next_label) in pairwise(
                    zip(points, axes.get_xticklabels(), strict=True)
                ):
                    if after - x < 0.05 * points[-1]:
                        label.set_horizontalalignment("right")
                        next_label.set_horizontalalignment("left")


@dataclass(frozen=True)
class Bars(Picture):
    # By test, then by mechanism.
    groups: Mapping[str, Mapping[str, Spread]]
    grid = "y"

    def plot(self, axes: Axes) -> None:
        mechanisms = [name for name in NAMES if any(name in bars for bars in self.groups.values())]
        width = 0.8 / max(1, len(mechanisms))
        for number, mechanism in enumerate(mechanisms):
            colour = LINES[mechanism][0]
            bars = [
                (at + (number - (len(mechanisms) - 1) / 2) * width, bars[mechanism])
                for at, bars in enumerate(self.groups.values())
                if mechanism in bars
            ]
            drawn = axes.bar(
                [x for x, _ in bars],
                [of.median for _, of in bars],
                width,
                yerr=[
                    [of.median - of.least for _, of in bars],
                    [of.most - of.median for _, of in bars],
                ],
                label=NAMES[mechanism],
                # The hatching still tells the bars apart in greyscale.
                facecolor=colour if mechanism == "c" else "none",
                hatch=None if mechanism == "c" else "///",
                edgecolor=colour,
                ecolor=INK,
                capsize=3,
            )
            axes.bar_label(drawn, [f"{of.median:,.0f}" for _, of in bars], padding=2, color=INK)
        highest = max((of.most for bars in self.groups.values() for of in bars.values()), default=1)
        # Leave room for the legend.
        axes.set_ylim(0, 1.4 * highest)
        # Long names side by side: break them into lines.
        names = [name.replace(", ", "\n") for name in self.groups]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.6, len(names) - 0.4)
