"""How the gates moved: one small panel an edge, laid out as the cell's adjacency matrix, in plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from lt_nas_ext import nn
from lt_nas_ext.report.cells import cell_title
from lt_nas_ext.report.palette import FAMILIES, FONT, GRID, INK, LINE, MUTED, family, short_name
from lt_nas_ext.report.runs import Run

Matrix = Sequence[Sequence[float]]  # (E, K) gates of one epoch

_PANEL_WIDTH, _PANEL_HEIGHT, _GAP_X, _GAP_Y = 86.0, 58.0, 13.0, 34.0
_LEFT, _TOP, _BETWEEN = 62.0, 52.0, 30.0


@dataclass(frozen=True)
class _Scale:
    """From an epoch and a value to a place in a panel."""

    first: int
    last: int
    low: float
    high: float

    def x(self, epoch: int) -> float:
        span = self.last - self.first
        return _PANEL_WIDTH * ((epoch - self.first) / span if span else 0.5)

    def y(self, value: float) -> float:
        return _PANEL_HEIGHT * (1 - (value - self.low) / ((self.high - self.low) or 1.0))


def gates_over_epochs(run: Run, name: str = "") -> str:
    """The gate of every candidate on every edge over the epochs of a search, chosen operations in bold.

    Rows are the nodes that an edge enters, columns the states that it leaves. Where a run wrote no gates, α is drawn.
    """
    key = "gates" if any(row.get("gates") for row in run.history) else "alpha"
    epochs = [(i + 1, row[key]) for i, row in enumerate(run.history) if row.get(key)]
    cells = list(epochs[0][1]) if epochs else []
    if not cells:
        return ""
    edges, candidates = len(epochs[0][1][cells[0]]), len(epochs[0][1][cells[0]][0])
    names, nodes = candidate_names(candidates), _nodes(edges)
    values = [value for _, state in epochs for cell in cells for row in state[cell] for value in row]
    scale = _Scale(epochs[0][0], epochs[-1][0], *_limits(key, values))
    width = _LEFT + (nodes + 1) * (_PANEL_WIDTH + _GAP_X)
    height = _TOP + nodes * (_PANEL_HEIGHT + _GAP_Y)
    shapes = []
    pitch = height + _BETWEEN
    for place, cell in enumerate(cells):  # two in a row
        series = [(x, state[cell]) for x, state in epochs]
        body = _triangle(run, cell, series, names, nodes, scale)
        x, y = place % 2 * (width + _BETWEEN), place // 2 * pitch
        shapes.append(f'<g transform="translate({x:.0f} {y:.0f})">{body}</g>')
    whole = min(len(cells), 2) * (width + _BETWEEN) - _BETWEEN
    height += (len(cells) - 1) // 2 * pitch
    legend = _legend(names, height + 22)
    title = f"{'Gates' if key == 'gates' else 'Architecture parameters'} of every edge over the search epochs of {name}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole:.0f}" height="{height + 36:.0f}" role="img" '
        f'viewBox="0 0 {whole:.0f} {height + 36:.0f}" font-family="{escape(FONT)}" font-size="11.5" fill="{MUTED}">'
        f"<title>{escape(title)}</title>{''.join(shapes)}{legend}</svg>"
    )


def _nodes(edges: int) -> int:
    """Nodes of a cell with 2 + 3 + … edges."""
    nodes = 0
    while nodes * (nodes + 3) // 2 < edges:
        nodes += 1
    return nodes


def candidate_names(candidates: int) -> tuple[str, ...]:
    """What so many columns of α stand for."""
    for names in (nn.DARTS, nn.FAIR_DARTS):
        if len(names) == candidates:
            return names
    return tuple(f"candidate {k}" for k in range(candidates))


def _limits(key: str, values: Sequence[float]) -> tuple[float, float]:
    if key == "alpha":
        return min(values), max(values)
    # Softmax gates that never leave 1/K would be a flat line on a scale up to 1.
    return 0.0, 1.0 if max(values) > 0.5 else 0.5


def _triangle(
    run: Run, cell: str, series: Sequence[tuple[int, Matrix]], names: Sequence[str], nodes: int, scale: _Scale
) -> str:
    found = run.genotype.cells.get(cell) if run.genotype else None
    chosen = {(edge.op, edge.source, edge.target) for edge in found.edges} if found else set()
    threshold = run.settings.get("threshold") if str(run.settings.get("rule")).startswith("threshold") else None
    heading = escape(cell_title(cell))
    shapes = [f'<text x="0" y="16" font-size="13" font-weight="600" fill="{INK}">{heading}</text>']
    edge = 0
    for node in range(nodes):
        top = _TOP + node * (_PANEL_HEIGHT + _GAP_Y)
        middle = top + _PANEL_HEIGHT / 2
        shapes.append(
            f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">to node {node}</text>'
        )
        for value in (scale.low, scale.high):
            shapes.append(
                f'<text x="{_LEFT - 6:.0f}" y="{top + scale.y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
            )
        for source in range(node + 2):
            left = _LEFT + source * (_PANEL_WIDTH + _GAP_X)
            lines = [(x, matrix[edge]) for x, matrix in series]
            kept = {name for name in names if (name, source, node + 2) in chosen}
            panel = _panel(lines, names, kept, scale, threshold)
            if source == node + 1 or (node == 0 and source == 0):  # the highest panel of its column
                state = ("c[k−2]", "c[k−1]")[source] if source < 2 else f"node {source - 2}"
                panel += f'<text x="{_PANEL_WIDTH / 2:.0f}" y="-8" text-anchor="middle">from {state}</text>'
            if node == nodes - 1:
                panel += _epochs(scale)
            shapes.append(f'<g transform="translate({left:.0f} {top:.0f})">{panel}</g>')
            edge += 1
    return "".join(shapes)


def _epochs(scale: _Scale) -> str:
    ends = [(scale.first, "start"), (scale.last, "end")] if scale.last > scale.first else [(scale.first, "middle")]
    y = _PANEL_HEIGHT + 14
    return "".join(f'<text x="{scale.x(x):.0f}" y="{y:.0f}" text-anchor="{anchor}">{x}</text>' for x, anchor in ends)


def _panel(
    series: Sequence[tuple[int, Sequence[float]]],
    names: Sequence[str],
    kept: set[str],
    scale: _Scale,
    threshold: float | None,
) -> str:
    shapes = [
        f'<rect width="{_PANEL_WIDTH:.0f}" height="{_PANEL_HEIGHT:.0f}" fill="{"none" if kept else "#f6f8fa"}"/>',
        f'<path d="M0 0V{_PANEL_HEIGHT:.0f}H{_PANEL_WIDTH:.0f}" fill="none" stroke="{LINE}" stroke-width="0.8"/>',
        f'<path d="M0 {_PANEL_HEIGHT / 2:.0f}H{_PANEL_WIDTH:.0f}" stroke="{GRID}" stroke-width="0.8"/>',
    ]
    if threshold is not None:
        y = scale.y(float(threshold))
        shapes.append(f'<path d="M0 {y:.1f}H{_PANEL_WIDTH:.0f}" stroke="{MUTED}" stroke-dasharray="2 2"/>')
    for k, name in sorted(enumerate(names), key=lambda pair: pair[1] in kept):
        points = [(scale.x(x), scale.y(row[k])) for x, row in series]
        shapes.append(_curve(points, name, bold=name in kept))
    return "".join(shapes)


def _curve(points: Sequence[tuple[float, float]], name: str, bold: bool) -> str:
    colour = FAMILIES[family(name)].colour
    look = f'stroke-width="{2.4 if bold else 1}" stroke-opacity="{1 if bold else 0.6}"'
    if len(points) == 1:  # one epoch: a short dash, a line of one point would be invisible
        x, y = points[0]
        points = [(x - 6, y), (x + 6, y)]
    steps = "".join(f"l{x1 - x0:.1f} {y1 - y0:.1f}" for (x0, y0), (x1, y1) in pairwise(_rounded(points)))
    x, y = _rounded(points)[0]
    return (
        f'<path d="M{x:.1f} {y:.1f}{steps}" fill="none" stroke="{colour}" {look}{_dashes(name)}>'
        f"<title>{escape(short_name(name))}</title></path>"
    )


def _rounded(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    # Relative steps are short text, but rounding must come before them or it would add up.
    return [(round(x, 1), round(y, 1)) for x, y in points]


def _dashes(name: str) -> str:
    return ' stroke-dasharray="5 3"' if "5x5" in name or name.startswith("avg") else ""


def _legend(names: Sequence[str], y: float) -> str:
    shapes, x = [], 0.0
    for name in names:
        colour = FAMILIES[family(name)].colour
        shapes.append(
            f'<path d="M{x:.0f} {y - 4:.0f}h24" stroke="{colour}" stroke-width="2.4"{_dashes(name)}/>'
            f'<text x="{x + 30:.0f}" y="{y:.0f}" fill="{INK}">{escape(short_name(name))}</text>'
        )
        x += 30 + 6.6 * len(short_name(name)) + 20
    shapes.append(f'<text x="{x + 10:.0f}" y="{y:.0f}">horizontal: search epochs</text>')
    return "".join(shapes)
