"""Architecture weights over the epochs of a search as heat maps: every edge of every group of cells at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage

from lt_nas_ext.report.cells import cell_title
from lt_nas_ext.report.curves import whole_epochs
from lt_nas_ext.report.figure import WIDTH, open_figure, to_svg
from lt_nas_ext.report.gates import candidate_names
from lt_nas_ext.report.palette import BLUE, INK, MUTED, PAPER, SKY, short_name
from lt_nas_ext.report.runs import Run

_COLOURS = LinearSegmentedColormap.from_list("gates", [PAPER, SKY, BLUE, INK])


def gate_maps(searches: Mapping[str, Run]) -> str:
    """The gates of each search by epoch, a row a search and a column a group of cells [paper: HLS, figures 3 and 7].

    A line of a map is one candidate on one edge: the candidates one below the other, within each the edges in order.
    All maps share one scale.
    """
    states = {name: [row["gates"] for row in run.history if row.get("gates")] for name, run in searches.items()}
    groups = list(next(iter(states.values()))[0])
    maps = {(name, group): _lines([s[group] for s in found]) for name, found in states.items() for group in groups}
    most = max(float(one.max()) for one in maps.values())
    with open_figure(WIDTH, 0.4 + 3.3 * len(searches)) as figure:
        grid = figure.subplots(len(searches), len(groups), squeeze=False)
        for (name, found), row in zip(states.items(), grid, strict=True):
            for axes, group in zip(row, groups, strict=True):
                names = candidate_names(len(found[0][group][0]))
                drawn = _draw(axes, maps[name, group], names, first=group == groups[0], most=most)
                axes.set_title(f"{name}:\n{_title(group)}")
        for axes in grid[-1]:
            axes.set_xlabel("search epoch")
        bar = figure.colorbar(drawn, ax=grid, shrink=0.5, aspect=30, pad=0.01)
        bar.outline.set_linewidth(0.0)  # type: ignore[operator]
        bar.set_label("gate, after the softmax")
        return to_svg(figure, "Gates of every edge and group of cells over the search epochs", "gatemaps")


def _title(group: str) -> str:
    return {"normal": "backbone, normal", "reduce": "backbone, reduction"}.get(group, cell_title(group).lower())


def _lines(states: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """(T, E, K) gates as K · E lines of T epochs, candidate by candidate."""
    gates = np.asarray(states)
    return gates.transpose(2, 1, 0).reshape(-1, len(gates))


def _draw(axes: Axes, lines: np.ndarray, names: Sequence[str], first: bool, most: float) -> AxesImage:
    edges, epochs = len(lines) // len(names), lines.shape[1]
    drawn = axes.imshow(
        lines, _COLOURS, vmin=0.0, vmax=most, aspect="auto", interpolation="none",
        extent=(0.5, epochs + 0.5, len(lines), 0),
    )  # fmt: skip
    axes.grid(visible=False)
    for place in range(1, len(names)):
        axes.axhline(place * edges, color=MUTED, linewidth=0.6)
    middles = [(place + 0.5) * edges for place in range(len(names))]
    axes.set_yticks(middles, [short_name(name) for name in names] if first else [""] * len(names))
    whole_epochs(axes)
    return drawn
