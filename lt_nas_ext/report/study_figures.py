"""The pictures of a study: its label distributions, and accuracy over the epochs of searches and trainings.

Accuracies come as panels: row of the figure -> line -> the runs of its seeds. A bold line is the mean over the seeds,
thin ones are the seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lt_nas_ext.report.curves import draw_counts, draw_line, label_classes, whole_epochs
from lt_nas_ext.report.figure import WIDTH, legend, open_figure, to_svg
from lt_nas_ext.report.palette import INK
from lt_nas_ext.report.runs import Network, Run

Panels = Mapping[str, Mapping[str, Sequence[Network]]]
"""Row of a figure -> line -> its networks, a seed each."""

Colours = Mapping[str, str]

Curve = tuple[Sequence[float], Sequence[float]]
"""Where, and how high."""


def label_distributions(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> str:
    """Training images of each class, a panel a distribution [paper: SSF-NAS, figure 6]."""
    columns = min(2, len(counts))
    rows = math.ceil(len(counts) / columns)
    with open_figure(WIDTH, 0.3 + 1.9 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (title, ranked) in zip(grid, counts.items(), strict=False):
            total = f"{sum(ranked):,}".replace(",", "\u202f")
            draw_counts(axes, ranked, f"{title}: {total} training images")
            label_classes(axes, class_names, letters=110 // columns)
        for axes in grid[len(counts) :]:
            axes.set_axis_off()
        return to_svg(figure, "Training images of each class under each distribution", "distributions")


def supernet_curves(panels: Panels, colours: Colours) -> str:
    """Accuracy of the supernets over the search, on balanced and long-tailed test sets [paper: SSF-NAS, figure 7]."""
    panels = {row: _searched(lines) for row, lines in panels.items()}
    titles = {"test_accuracy": "balanced test set (%)", "test_longtailed_accuracy": "long-tailed test set (%)"}
    with open_figure(WIDTH, 0.5 + 2.6 * len(panels)) as figure:
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for (row, lines), pair in zip(panels.items(), grid, strict=True):
            for axes, (key, title) in zip(pair, titles.items(), strict=True):
                for label, networks in lines.items():
                    _seeds(axes, [n.search for n in networks if n.search], key, colours[label])
                axes.set_title(f"{row}: {title}" if row else title.capitalize())
                axes.set_xlabel("search epoch")
        _legend_of(figure, panels, colours)
        return to_svg(figure, "Test accuracy of the supernets over the search", "supernet")


def training_curves(panels: Panels, colours: Colours) -> str:
    """Test accuracy of the trained networks, by epoch and at the end [paper: SSF-NAS, figure 8]."""
    with open_figure(WIDTH, 0.5 + 2.8 * len(panels)) as figure:
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for (row, lines), (curves, bars) in zip(panels.items(), grid, strict=True):
            for label, networks in lines.items():
                _seeds(curves, [n.training for n in networks if n.training], "test_top1", colours[label])
            head = f"{row}: " if row else ""
            curves.set_title(f"{head}balanced test set (%)")
            curves.set_xlabel("training epoch")
            _final(bars, lines, colours)
            bars.set_title(f"{head}at the end (%), light: long-tailed test set")
        _legend_of(figure, panels, colours)
        return to_svg(figure, "Test accuracy of the trained networks, by epoch and at the end", "training")


def _searched(lines: Mapping[str, Sequence[Network]]) -> dict[str, Sequence[Network]]:
    return {label: networks for label, networks in lines.items() if any(n.search for n in networks)}


def _legend_of(figure: Figure, panels: Panels, colours: Colours) -> None:
    labels = dict.fromkeys(label for lines in panels.values() for label in lines)
    legend(figure, {label: Line2D([], [], color=colours[label]) for label in labels})


def _seeds(axes: Axes, runs: Sequence[Run], key: str, colour: str) -> None:
    drawn = [run.series(key) for run in runs]
    draw_seeds(axes, [(epochs, [100 * a for a in accuracies]) for epochs, accuracies in drawn], colour)
    whole_epochs(axes)


def draw_seeds(axes: Axes, curves: Sequence[Curve], colour: str, style: str = "-") -> None:
    """The seeds' curves thin, their mean over the places that all have bold."""
    values: dict[float, list[float]] = {}
    for places, heights in curves:
        for place, height in zip(places, heights, strict=True):
            values.setdefault(place, []).append(height)
        if len(curves) > 1:
            axes.plot(places, heights, color=colour, linewidth=0.6, alpha=0.45)
    shared = sorted(place for place, found in values.items() if len(found) == len(curves))
    draw_line(axes, shared, [statistics.fmean(values[place]) for place in shared], colour, None, style)


def _final(axes: Axes, lines: Mapping[str, Sequence[Network]], colours: Colours) -> None:
    """A pair of bars a line, a dot a seed."""
    for i, (label, networks) in enumerate(lines.items()):
        for shift, key, alpha in ((-0.2, "top1", 1.0), (0.2, "longtailed_top1", 0.4)):
            found = [100 * n.metrics[key] for n in networks if n.metrics.get(key) is not None]
            if not found:
                continue
            mean = statistics.fmean(found)
            axes.bar(i + shift, mean, 0.36, color=colours[label], alpha=alpha)
            axes.annotate(f"{mean:.1f}", (i + shift, max(found)), (0, 3), textcoords="offset points", ha="center",
                          fontsize=8, color=INK)  # fmt: skip
            if len(found) > 1:
                axes.plot([i + shift] * len(found), found, "o", color=INK, markersize=2.2)
    axes.set_xticks(range(len(lines)), [label.replace(" ", "\n", 1) for label in lines], fontsize=7.5)
    axes.set_ylim(0, 112)
