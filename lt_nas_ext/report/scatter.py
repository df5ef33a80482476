"""Points of two figures of the same networks: does the one tell the other?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lt_nas_ext.report.figure import WIDTH, legend, open_figure, to_svg
from lt_nas_ext.report.palette import BLUE, GRID, ORANGE

Point = tuple[float, float]

COLUMNS = 4


@dataclass(frozen=True)
class Panel:
    """One scatter plot.

    Attributes:
        points: (x, y) of each network.
        said: a few words on how they agree, above the plot's title.
        marked: other networks, by name: drawn apart, and no part of what is said.
    """

    points: Sequence[Point]
    said: str
    marked: Mapping[str, Point] = field(default_factory=dict)


def scatter_plots(panels: Mapping[str, Panel], x: str, y: str, points: str, title: str, name: str) -> str:
    """A panel a distribution, up to four in a row.

    Args:
        panels: by title.
        x: label of the axis to the right.
        y: label of the axis upwards.
        points: what a dot is.
        title: of the whole, for those who do not see it.
        name: prefix of its identifiers, unique on the page.

    >>> panel = Panel([(50.0, 40.0), (60.0, 42.0)], "τ = 1.00", {"found": (55.0, 41.0)})
    >>> scatter_plots({"exp": panel}, "balanced", "long-tailed", "a network", "Both", "both")[:4]
    '<svg'
    """
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    marks = {mark: None for panel in panels.values() for mark in panel.marked}
    with open_figure(WIDTH if columns > 2 else WIDTH * columns / 3, 0.4 + 3.0 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for place, (axes, (heading, panel)) in enumerate(zip(grid, panels.items(), strict=False)):
            for at in panel.marked.values():
                axes.plot(*at, "D", color=ORANGE, markersize=6, zorder=3)
            axes.plot(*zip(*panel.points, strict=True), "o", color=BLUE, markersize=5, alpha=0.75, linestyle="none")
            axes.set_title(f"{heading}\n{panel.said}")
            axes.grid(True, axis="both", color=GRID)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel(x)
            if place % columns == 0:
                axes.set_ylabel(y)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        dots = {points: Line2D([], [], marker="o", linestyle="none", color=BLUE)}
        dots |= {mark: Line2D([], [], marker="D", linestyle="none", color=ORANGE) for mark in marks}
        legend(figure, dots)
        return to_svg(figure, title, name)
