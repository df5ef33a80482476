"""The figures of a report, as SVG text: one idea a figure, axes with units, the same colour for the same thing.

All take what `report.runs` read from disk. A run without the figures that a picture needs is left out of it; a picture
with nothing to show is the empty text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter

from lt_nas_ext.report import palette
from lt_nas_ext.report.figure import WIDTH, legend, open_figure, to_svg
from lt_nas_ext.report.palette import INK, MUTED, TAIL
from lt_nas_ext.report.runs import Network, Run


def colours(networks: Sequence[Network]) -> dict[str, str]:
    """A colour for each network's name: hues for what was searched, greys for what was not."""
    names: dict[str, str] = {}
    hues, greys = iter(palette.SEARCHED * 9), iter(palette.CONTROLS * 9)
    for network in networks:
        if network.name not in names:
            names[network.name] = next(hues if network.searched else greys)
    return names


def per_class_accuracy(networks: Sequence[Network]) -> str:
    """Accuracy of each class beside its number of training images, classes from head to tail.

    Several seeds of one network are averaged. Networks trained on other counts than the first are left out.
    """
    shown = [n for n in networks if n.per_class and len(n.per_class) == len(n.run.counts)]
    if not shown:
        return ""
    counts, names = shown[0].run.counts, shown[0].run.class_names
    shown = [n for n in shown if n.run.counts == counts]
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    chosen = colours(networks)
    means = {
        name: _mean_per_class([n for n in shown if n.name == name]) for name in dict.fromkeys(n.name for n in shown)
    }
    with open_figure(WIDTH, 4.2) as figure:
        tail, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.6])
        draw_counts(tail, [counts[c] for c in order], "Training images of each class")
        for i, (name, values) in enumerate(means.items()):
            heights = [100 * values[c] for c in order]
            _draw_classes(axes, heights, name, chosen[name], i, len(means))
        axes.set_title("Accuracy of each class on the test set (%)")
        axes.set_ylim(0, 100)
        label_classes(axes, [names[c] for c in order])
        axes.set_xlabel("class, from head to tail")
        legend(figure, {name: Patch(color=chosen[name]) for name in means})
        return to_svg(figure, "Accuracy of each class against its number of training images", "classes")


def _mean_per_class(networks: Sequence[Network]) -> list[float]:
    columns = zip(*(n.per_class for n in networks), strict=True)
    present = [[v for v in column if v is not None] for column in columns]
    return [sum(values) / len(values) if values else math.nan for values in present]


def draw_counts(axes: Axes, counts: Sequence[int], title: str) -> None:
    """Bars of training images, from head to tail, with their numbers where there is room."""
    edges = [i - 0.5 for i in range(len(counts) + 1)]
    axes.stairs(counts, edges, fill=True, color=TAIL)
    axes.stairs(counts, edges, color=MUTED, linewidth=1.2)
    axes.set_ylim(0, 1.25 * max(counts, default=1) or 1)
    if len(counts) <= 20:
        for i, count in enumerate(counts):
            axes.annotate(
                f"{count:,}".replace(",", "\u202f"), (i, count), (0, 2), textcoords="offset points", ha="center",
                va="bottom", fontsize=8, color=MUTED,
            )  # fmt: skip
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_title(title)


def _draw_classes(axes: Axes, heights: Sequence[float], name: str, colour: str, i: int, of: int) -> None:
    if len(heights) > 20:  # bars of a hundred classes are a barcode
        axes.plot(range(len(heights)), heights, color=colour, label=name, linewidth=1.2)
        return
    width = 0.8 / of
    places = [c - 0.4 + (i + 0.5) * width for c in range(len(heights))]
    axes.bar(places, heights, 0.86 * width, color=colour, label=name)


def label_classes(axes: Axes, names: Sequence[str], letters: int = 110) -> None:
    """The names of the classes under their bars, aslant where they would take more `letters`; numbers of many."""
    axes.set_xlim(-0.6, len(names) - 0.4)
    if len(names) <= 20:
        long = max(map(len, names)) * len(names) > letters
        axes.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))


def label_distribution(counts: Sequence[int], class_names: Sequence[str]) -> str:
    """Training images of each class, from head to tail."""
    if not counts:
        return ""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    with open_figure(WIDTH, 1.9) as figure:
        axes = figure.subplots()
        draw_counts(axes, [counts[c] for c in order], "Training images of each class")
        label_classes(axes, [class_names[c] for c in order])
        return to_svg(figure, "Training images of each class", "counts")


def search_curves(networks: Sequence[Network]) -> str:
    """Loss, accuracy and learning rates of each search, a row a search."""
    runs = {n.name: n.search for n in networks if n.search and n.search.kind == "search" and n.search.history}
    if not runs:
        return ""
    with open_figure(WIDTH, 0.5 + 2.1 * len(runs)) as figure:
        grid = figure.subplots(len(runs), 3, squeeze=False)
        for (name, run), (loss, accuracy, rate) in zip(runs.items(), grid, strict=True):
            colour = colours(networks)[name]
            _lines(loss, run, {"w step": ("train_loss", INK), "α step": ("val_loss", colour)})
            loss.set_title(f"{name}: loss of the task")
            measured = {"train": ("train_accuracy", INK), "validation": ("val_accuracy", colour)}
            if run.series("probe_accuracy")[0]:
                measured = {"linear probe, detached": ("probe_accuracy", colour)}
            _lines(accuracy, run, {**measured, "test": ("test_accuracy", palette.SKY)}, percent=True)
            accuracy.set_title("Accuracy of the supernet (%)")
            _lines(rate, run, {"w": ("w_lr", INK), "α": ("alpha_lr", colour)})
            rate.set_yscale("log")
            rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            rate.yaxis.set_minor_formatter(NullFormatter())
            rate.set_title("Learning rates (log scale)")
        for axes in grid[-1]:
            axes.set_xlabel("search epoch")
        return to_svg(figure, "Loss, accuracy and learning rates of each search", "search")


def training_curves(networks: Sequence[Network]) -> str:
    """Loss, accuracy and learning rate of every network while it was trained."""
    shown = [n for n in networks if n.training and n.training.history]
    if not shown:
        return ""
    chosen = colours(networks)
    panels = [
        ("Training loss", ("train_loss",), "train", 1.0),
        ("Training accuracy (%)", ("train_accuracy",), "train", 100.0),
        ("Test accuracy, class mean (%)", ("test_macro", "test_top1"), "train", 100.0),
        ("Learning rate", ("lr",), "train", 1.0),
    ]
    if any(n.training.series("train_loss", phase="pretrain")[0] for n in shown if n.training):
        panels.insert(0, ("Loss of pre-training", ("train_loss",), "pretrain", 1.0))
    with open_figure(WIDTH, 2.9) as figure:
        grid = figure.subplots(1, len(panels))
        for axes, (title, keys, phase, scale) in zip(grid, panels, strict=True):
            for network in shown:
                assert network.training is not None
                x, y = network.training.series(*keys, phase=phase)
                draw_line(axes, x, [scale * v for v in y], chosen[network.name], network.name)
            axes.set_title(title)
            axes.set_xlabel("pre-training epoch" if phase == "pretrain" else "training epoch")
            whole_epochs(axes)
        legend(figure, {name: Line2D([], [], color=chosen[name]) for name in dict.fromkeys(n.name for n in shown)})
        return to_svg(figure, "Loss and accuracy of every network while it was trained", "training")


def _lines(axes: Axes, run: Run, lines: Mapping[str, tuple[str, str]], percent: bool = False) -> None:
    for label, (key, colour) in lines.items():
        x, y = run.series(key)
        draw_line(axes, x, [100 * v if percent else v for v in y], colour, label)
    if axes.get_lines():
        axes.legend(loc="best")
    whole_epochs(axes)


def draw_line(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str | None, style: str = "-"
) -> None:
    """A curve over epochs."""
    if x:
        # One epoch is a point: a line of one point would be invisible.
        axes.plot(x, y, style, color=colour, label=label, marker="o" if len(x) == 1 else None, markersize=4)


def whole_epochs(axes: Axes) -> None:
    """No half epochs on the axis."""
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
