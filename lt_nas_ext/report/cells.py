"""Found cells as pictures: a layered graph in plain SVG, inputs on the left, output on the right.

Every chosen operation is a labelled box of its own between the state that it reads and the node that it feeds, so
labels never lie on top of each other. A cell's output is the concatenation of its nodes [paper: DARTS, section 2.1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from lt_nas_ext.report.layout import Box, Key, Layout, Point, layout
from lt_nas_ext.report.palette import FAMILIES, FONT, INK, LINE, MUTED, PAPER, family, short_name

if TYPE_CHECKING:
    from lt_nas_ext.space.bbn_genotype import AnyGenotype
    from lt_nas_ext.space.genotype import CellGenotype

STRIDE_NOTE = "edges from the inputs have stride 2"

_PAD, _HEADER, _NODE, _OP_HEIGHT = 24, 72, 32, 26


@dataclass(frozen=True)
class _Drawing:
    head: str
    body: str
    width: float
    height: float


@dataclass(frozen=True)
class _Place:
    x: float
    y: float
    room: float
    drawing: _Drawing


def draw_cell(cell: CellGenotype, title: str = "Cell", note: str = "", nodes: int | None = None) -> str:
    """One cell as a stand-alone SVG document.

    `nodes` is the number of intermediate nodes of the search space: nodes that a threshold rule left without an input
    are then named as vanished. By default it is the highest node that the cell mentions.

    >>> from lt_nas_ext.space.genotype import CellGenotype, Edge
    >>> cell = CellGenotype((Edge("sep_conv_3x3", 0, 2), Edge("skip_connect", 1, 2)), concat=(2,))
    >>> "Normal cell" in draw_cell(cell, "Normal cell")
    True
    """
    drawing = _draw(cell, title, note, nodes)
    return _document([_Place(0, 0, drawing.height, drawing)], drawing.width, drawing.height, title, [cell])


def draw_genotype(
    genotype: AnyGenotype, nodes: int | None = None, title: str = "Found cells", beside: bool | None = None
) -> str:
    """All cells, normal and reduction and those of heads, as one SVG document with one legend.

    `beside=None` puts them side by side where that stays readable (1600 pixels), else one above the other.

    >>> from lt_nas_ext.space.genotype import CellGenotype, Edge, Genotype
    >>> cell = CellGenotype((Edge("max_pool_3x3", 0, 2), Edge("skip_connect", 1, 2)), concat=(2,))
    >>> draw_genotype(Genotype(cell, cell)).count("skip</text>")
    2
    """
    drawings = [_draw(cell, cell_title(name), cell_note(name), nodes) for name, cell in genotype.cells.items()]
    cells = list(genotype.cells.values())
    if beside is None:
        beside = sum(drawing.width for drawing in drawings) <= 1600
    placed, right, top = [], 0.0, 0.0
    height = max(drawing.height for drawing in drawings)
    for drawing in drawings:
        if beside:
            placed.append(_Place(right, 0, height, drawing))
            right += drawing.width + 12
        else:
            placed.append(_Place(0, top, drawing.height, drawing))
            top += drawing.height
    if beside:
        return _document(placed, right - 12, height, title, cells)
    return _document(placed, max(drawing.width for drawing in drawings), top, title, cells)


CELL_TITLES = {
    "normal": "Normal cell",
    "reduce": "Reduction cell",
    "instance_head": "Instance head",
    "class_head": "Class head",
}
"""What the cells of a genotype are called, by their names in genotype.json."""


def cell_title(name: str) -> str:
    """The heading of a cell.

    >>> cell_title("reduce"), cell_title("instance_head")
    ('Reduction cell', 'Instance head')
    """
    return CELL_TITLES.get(name, name)


def cell_note(name: str) -> str:
    """What to know of a cell of this name: in a reduction cell, where the stride is."""
    return STRIDE_NOTE if name == "reduce" else ""


def vanished(cell: CellGenotype, nodes: int | None = None) -> list[int]:
    """The nodes, counted from 0, that no edge enters.

    >>> from lt_nas_ext.space.genotype import CellGenotype, Edge
    >>> vanished(CellGenotype((Edge("skip_connect", 0, 3),), concat=(3,)))
    [0]
    """
    entered = {edge.target for edge in cell.edges}
    last = max(entered) if nodes is None else nodes + 1
    return [state - 2 for state in range(2, last + 1) if state not in entered]


def _draw(cell: CellGenotype, title: str, note: str, nodes: int | None) -> _Drawing:
    placed = _place(cell)
    shapes = _lines(cell, placed) + _operations(cell, placed) + _states(cell, placed)
    words = [f"{len(cell.edges)} operation{'s' * (len(cell.edges) > 1)}"]
    gone = vanished(cell, nodes)
    if gone:
        names = ", ".join(map(str, gone))
        words.append(f"node{'s' * (len(gone) > 1)} {names} vanished: no operation reached the threshold")
    if note:
        words.append(note)
    caption = " · ".join(words)
    width = max(placed.width, 5.8 * len(caption)) + 2 * _PAD
    head = (
        f'<text x="{_PAD}" y="32" font-size="16" font-weight="600" fill="{INK}">{escape(title)}</text>'
        f'<text x="{_PAD}" y="50" font-size="12" fill="{MUTED}">{escape(caption)}</text>'
    )
    return _Drawing(head, "".join(shapes), width, placed.height + _HEADER + _PAD)


def _place(cell: CellGenotype) -> Layout:
    columns = _columns(cell)
    last = max(columns.values()) + 1
    boxes = [Box(state, column, 52 if state < 2 else _NODE, _NODE) for state, column in columns.items()]
    boxes.append(Box("out", last, 40, max(_NODE, 20 * len(cell.concat))))
    links: list[tuple[Key, Key]] = []
    for i, edge in enumerate(cell.edges):
        boxes.append(Box(("op", i), columns[edge.target] - 1, _op_width(edge.op), _OP_HEIGHT))
        links += [(edge.source, ("op", i)), (("op", i), edge.target)]
    links += [(state, "out") for state in cell.concat]
    return layout(boxes, links)


def _columns(cell: CellGenotype) -> dict[int, int]:
    """Columns of the states: the inputs at 0, a node two to the right of the last state that it reads."""
    columns = {0: 0, 1: 0}
    for target in sorted({edge.target for edge in cell.edges}):
        columns[target] = 2 + max(columns[edge.source] for edge in cell.edges if edge.target == target)
    return columns


def _op_width(op: str) -> float:
    return 20 + 6.7 * len(short_name(op))


def _curve(points: Sequence[Point]) -> str:
    """Level where it passes a column, an S between columns."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        if abs(y1 - y0) < 0.05:
            text += f"L{x1:.1f} {y1:.1f}"
        else:
            bend = (x1 - x0) / 2
            text += f"C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return text


def _lines(cell: CellGenotype, placed: Layout) -> list[str]:
    """Grey: a state's value on its way to its readers. Coloured: what an operation makes of it."""
    grey: dict[int, list[str]] = {}
    for state, y in zip(cell.concat, _ports(cell, placed), strict=True):
        points = placed.route[state, "out"]
        grey.setdefault(state, []).append(_curve([*points[:-1], (points[-1][0], y)]))
    for i, edge in enumerate(cell.edges):
        grey.setdefault(edge.source, []).append(_curve(placed.route[edge.source, ("op", i)]))
    shapes = []
    for paths in grey.values():
        # A white line under all branches of one value lifts it off the lines that it crosses.
        path = "".join(paths)
        for colour, width in ((PAPER, 5), (LINE, 1.5)):
            shapes.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    for target in {edge.target for edge in cell.edges}:
        shapes += _arrows(cell, placed, target)
    return shapes


def _ports(cell: CellGenotype, placed: Layout) -> list[float]:
    """Heights at which the concatenated nodes enter the output bar: in the order in which they arrive."""
    coming = sorted(cell.concat, key=lambda state: placed.route[state, "out"][-2][1])
    middle = placed.centre["out"][1]
    return [middle + 20 * (coming.index(state) - (len(coming) - 1) / 2) for state in cell.concat]


def _arrows(cell: CellGenotype, placed: Layout, target: int) -> list[str]:
    entering = [i for i, edge in enumerate(cell.edges) if edge.target == target]
    entering.sort(key=lambda i: placed.centre["op", i][1])
    x, y = placed.centre[target]
    step = min(10.0, 22 / max(1, len(entering) - 1))
    shapes = []
    for rank, i in enumerate(entering):
        dy = step * (rank - (len(entering) - 1) / 2)
        tip = x - math.sqrt((_NODE / 2) ** 2 - dy**2) - 1
        colour = FAMILIES[family(cell.edges[i].op)].colour
        start = placed.route[("op", i), target][0]
        path = _curve([start, (tip - 6, y + dy)])
        shapes.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        shapes.append(f'<path d="M{tip - 7:.1f} {y + dy - 3.4:.1f}l7 3.4l-7 3.4z" fill="{colour}"/>')
    return shapes


def _operations(cell: CellGenotype, placed: Layout) -> list[str]:
    shapes = []
    for i, edge in enumerate(cell.edges):
        x, y = placed.centre["op", i]
        width, kind = _op_width(edge.op), FAMILIES[family(edge.op)]
        shapes.append(
            f'<rect x="{x - width / 2:.1f}" y="{y - _OP_HEIGHT / 2:.1f}" width="{width:.1f}" '
            f'height="{_OP_HEIGHT}" rx="{_OP_HEIGHT / 2}" fill="{kind.tint}" stroke="{kind.colour}" '
            'stroke-width="1.3"/>'
            f'<text x="{x:.1f}" y="{y + 4.2:.1f}" font-size="12" text-anchor="middle" fill="{INK}">'
            f"{escape(short_name(edge.op))}</text>"
        )
    return shapes


def _states(cell: CellGenotype, placed: Layout) -> list[str]:
    read = {edge.source for edge in cell.edges}
    shapes = []
    for key, (x, y) in placed.centre.items():
        if isinstance(key, int) and key < 2:
            colour = INK if key in read else LINE
            shapes.append(_bar(x, y, 52, _NODE, colour) + _subscript(x, y, ("k−2", "k−1")[key]))
        elif isinstance(key, int):
            shapes.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_NODE / 2}" fill="{PAPER}" stroke="{INK}" '
                f'stroke-width="1.5"/><text x="{x:.1f}" y="{y + 4.6:.1f}" font-size="13" text-anchor="middle" '
                f'fill="{INK}">{key - 2}</text>'
            )
        elif key == "out":
            shapes.append(_bar(x, y, 40, max(_NODE, 20 * len(cell.concat)), INK) + _subscript(x, y, "k"))
    return shapes


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width}" height="{height}" rx="7" '
        f'fill="{colour}"/>'
    )


def _subscript(x: float, y: float, index: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y + 3.5:.1f}" font-size="13" text-anchor="middle" fill="{PAPER}">'
        f'<tspan font-style="italic">c</tspan><tspan dy="3.5" font-size="10">{index}</tspan></text>'
    )


def _document(placed: Sequence[_Place], width: float, height: float, title: str, cells: Sequence[CellGenotype]) -> str:
    drawings = "".join(
        f'<g transform="translate({p.x:.1f} {p.y:.1f})">{p.drawing.head}'
        f'<g transform="translate({_PAD} {_HEADER + (p.room - p.drawing.height) / 2:.1f})">{p.drawing.body}</g></g>'
        for p in placed
    )
    used = {family(edge.op) for cell in cells for edge in cell.edges}
    legend, legend_width = _legend([key for key in FAMILIES if key in used], height + 3)
    width, height = math.ceil(max(width, legend_width)), math.ceil(height + 34)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="{escape(FONT)}"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>{drawings}{legend}</svg>'
    )


def _legend(keys: Sequence[str], top: float) -> tuple[str, float]:
    shapes, x = [], float(_PAD)
    for key in keys:
        kind = FAMILIES[key]
        shapes.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="22" height="12" rx="6" fill="{kind.tint}" '
            f'stroke="{kind.colour}" stroke-width="1.3"/>'
            f'<text x="{x + 29:.1f}" y="{top + 10:.1f}" font-size="12" fill="{MUTED}">{kind.title}</text>'
        )
        x += 29 + 6.2 * len(kind.title) + 22
    return "".join(shapes), x
