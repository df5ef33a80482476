"""Two accuracies of the same networks against each other: a dot a network, its seeds as a thin cross."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from lt_nas_ext.report.figure import WIDTH, open_figure, to_svg
from lt_nas_ext.report.palette import BLUE, LINE

Seeds = Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One comparison.

    Attributes:
        title: what is to be read from it.
        x_label, y_label: what was measured, with its unit.
        x, y: for each network its values, one a seed.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[Seeds]
    y: Sequence[Seeds]


def scatter(panels: Sequence[Panel], title: str, name: str) -> str:
    """The panels side by side, as SVG text; `title` for readers that see no picture, `name` unique on a page."""
    with open_figure(WIDTH, 3.6) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel)
        return to_svg(figure, title, name)


def _draw(axes: Axes, panel: Panel) -> None:
    (x, left_and_right), (y, below_and_above) = _means(panel.x), _means(panel.y)
    axes.errorbar(x, y, below_and_above, left_and_right, fmt="none", ecolor=LINE, elinewidth=0.7)
    axes.plot(x, y, "o", color=BLUE, markersize=4.5, markeredgewidth=0)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.grid(True, axis="both")


def _means(side: Sequence[Seeds]) -> tuple[list[float], tuple[list[float], list[float]]]:
    """The mean of each network, and how far its seeds reach below and above it."""
    means = [statistics.fmean(seeds) for seeds in side]
    below = [mean - min(seeds) for mean, seeds in zip(means, side, strict=True)]
    return means, (below, [max(seeds) - mean for mean, seeds in zip(means, side, strict=True)])
