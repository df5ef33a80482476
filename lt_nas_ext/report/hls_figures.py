"""The pictures of searches with two heads: what the mixing ratio does to losses, accuracies and learning rates.

All take row -> the searches of its seeds. A bold line is the mean over the seeds, thin ones are the seeds; the mixing
ratio is grey and dashed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lt_nas_ext.methods import hls_factor
from lt_nas_ext.report.curves import whole_epochs
from lt_nas_ext.report.figure import WIDTH, legend, open_figure, to_svg
from lt_nas_ext.report.palette import BLUE, INK, LINE, MUTED, ORANGE, PURPLE, SKY
from lt_nas_ext.report.readings import accuracy_at, chosen_ratio, final_accuracy, has_readings, sweep
from lt_nas_ext.report.runs import Run
from lt_nas_ext.report.study_figures import Colours, Curve, draw_seeds

Searches = Mapping[str, Sequence[Run]]
"""Row -> its searches, a seed each."""

_DASHED: Literal["--"] = "--"
_RATIO = Line2D([], [], color=MUTED, linestyle=_DASHED, linewidth=1.2)


def epoch_curves(searches: Searches) -> str:
    """Training loss, validation loss and accuracy by epoch, a column a row, with the mixing ratio [paper: figure 2]."""
    losses = [("train_loss", INK), ("val_loss", BLUE)]
    accuracies = [("val_accuracy", BLUE), ("test_accuracy", ORANGE)]
    with open_figure(WIDTH, 5.4) as figure:
        grid = figure.subplots(2, len(searches), sharex=True, sharey="row", squeeze=False)
        for place, (row, runs) in enumerate(searches.items()):
            for axes, lines, scale in zip(grid[:, place], (losses, accuracies), (1.0, 100.0), strict=True):
                for key, colour in lines:
                    draw_seeds(axes, [_series(run, key, scale) for run in runs], colour)
                _draw_ratio(axes, runs[0], last=place == len(searches) - 1)
                whole_epochs(axes)
            grid[0, place].set_title(f"{row}:\nloss")
            grid[1, place].set_title("accuracy (%)")
            grid[1, place].set_xlabel("search epoch")
        halves = {"training": _line(INK), "validation": _line(BLUE), "test": _line(ORANGE)}
        legend(figure, {**halves, "mixing ratio": _RATIO})
        return to_svg(figure, "Loss and accuracy over the search epochs, with the mixing ratio", "epochs")


def ratio_curves(searches: Searches, colours: Colours) -> str:
    """Accuracy at the end against the test-time mixing ratio, the rows over each other [paper: figures 4 and 6].

    Rings are the ratios chosen on validation images, where the right panel is highest; what has no heads is a level
    line.
    """
    with open_figure(WIDTH, 3.6) as figure:
        test, val = figure.subplots(1, 2)
        for row, runs in searches.items():
            if not has_readings(runs[0]):
                level = sum(map(final_accuracy, runs)) / len(runs)
                test.axhline(100 * level, color=colours[row], linewidth=1.2)
                continue
            draw_seeds(test, [_percent(sweep(run)) for run in runs], colours[row])
            draw_seeds(val, [_percent(sweep(run, "val_macro")) for run in runs], colours[row])
            chosen = [(ratio, 100 * sweep(run)[ratio]) for run in runs if (ratio := chosen_ratio(run)) is not None]
            test.plot(*zip(*chosen, strict=True), "o", color=colours[row], fillstyle="none", markersize=8)
        test.set_title("Balanced test set (%)")
        val.set_title("Validation images, mean over classes (%)")
        for axes in (test, val):
            axes.set_xlim(-0.03, 1.03)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\nclass head", "¼", "½", "¾", "1\ninstance head"])
            axes.set_xlabel("test-time mixing ratio")
        ring = Line2D([], [], color=MUTED, marker="o", fillstyle="none", linestyle="none", markersize=8)
        legend(figure, {**{row: _line(colours[row]) for row in searches}, "chosen on validation": ring})
        return to_svg(figure, "Accuracy against the test-time mixing ratio", "ratio")


def continued_curves(searches: Searches) -> str:
    """Test accuracy of both heads by epoch, a panel a variant of continuous training [paper: figure 8]."""
    heads = {"class head alone": (0.0, PURPLE), "instance head alone": (1.0, SKY)}
    with open_figure(WIDTH, 3.3) as figure:
        grid = figure.subplots(1, len(searches), sharey=True, squeeze=False)[0]
        for place, (axes, (row, runs)) in enumerate(zip(grid, searches.items(), strict=True)):
            for ratio, colour in heads.values():
                draw_seeds(axes, [accuracy_at(run, ratio) for run in runs], colour)
            epochs = float(runs[0].settings["epochs"])
            axes.axvspan(epochs + 0.5, len(runs[0].history) + 0.5, color=LINE, alpha=0.25, linewidth=0)
            _draw_ratio(axes, runs[0], last=place == len(searches) - 1)
            axes.set_title(row.replace(": ", ":\n"))
            axes.set_xlabel("search epoch")
            whole_epochs(axes)
        grid[0].set_ylabel("balanced test set (%)")
        shown = {name: _line(colour) for name, (_, colour) in heads.items()}
        band = Line2D([], [], color=LINE, alpha=0.5, linewidth=8)
        legend(figure, {**shown, "mixing ratio": _RATIO, "continuous training": band})
        return to_svg(figure, "Test accuracy of both heads over the search and what continues it", "continued")


def factor_curves(searches: Searches, colours: Colours) -> str:
    """The factor on the learning rate of the backbone's α, against the mixing ratio and by epoch [paper: figure 5].

    On the left the function, and a dot for every epoch of the searches.
    """
    with open_figure(WIDTH, 3.4) as figure:
        against, over = figure.subplots(1, 2)
        ratios, k = [i / 100 for i in range(101)], float(next(iter(searches.values()))[0].settings["hls_k"])
        against.plot(ratios, [hls_factor(r, k) for r in ratios], color=INK)
        against.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.2)
        against.annotate("the ratio itself", (0.45, 0.45), (-8, 6), textcoords="offset points", ha="right", color=MUTED)
        for row, runs in searches.items():
            rows = [entry for entry in runs[0].history if "mixing_ratio" in entry]
            places = [entry["mixing_ratio"] for entry in rows]
            against.plot(places, _factors(rows), "o", color=colours[row], markersize=4, alpha=0.7)
            over.plot(range(1, len(rows) + 1), _factors(rows), color=colours[row])
            over.plot(range(1, len(rows) + 1), places, _DASHED, color=MUTED, linewidth=1.2)
        against.set_title(f"g(r) = exp(−k(1/r − 1)), k = {k:g}, and the epochs of the searches")
        against.set_xlabel("mixing ratio r")
        over.set_title("Factor on the learning rate of the backbone's α")
        over.set_xlabel("search epoch")
        over.set_ylim(-0.03, 1.03)
        whole_epochs(over)
        legend(figure, {**{row: _line(colours[row]) for row in searches}, "g(r)": _line(INK), "mixing ratio": _RATIO})
        return to_svg(figure, "Learning-rate factor against the mixing ratio and over the epochs", "factor")


def _factors(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["lr_factors"]["alpha_normal"] for row in rows]


def _draw_ratio(axes: Axes, run: Run, last: bool) -> None:
    """The mixing ratio of a search by epoch, on a scale of its own at the right, whose numbers the `last` one has."""
    epochs, ratios = run.series("mixing_ratio")
    if not epochs:
        return
    right = axes.twinx()
    right.grid(visible=False)
    right.set_ylim(-0.03, 1.03)
    right.set_yticks([0, 0.5, 1], ["0", "½", "1"] if last else [""] * 3)
    right.set_ylabel("mixing ratio" if last else "")
    right.plot(epochs, ratios, _DASHED, color=MUTED, linewidth=1.2)


def _series(run: Run, key: str, scale: float) -> Curve:
    epochs, values = run.series(key)
    return epochs, [scale * value for value in values]


def _percent(accuracies: Mapping[float, float]) -> Curve:
    return list(accuracies), [100 * accuracy for accuracy in accuracies.values()]


def _line(colour: str) -> Line2D:
    return Line2D([], [], color=colour)
