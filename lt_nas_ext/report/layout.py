"""Layered layout of a small directed graph: columns are given, rows are found.

The classic three steps (Sugiyama, Tagawa and Toda, 1981): a link over several columns gets a way-point in each of them,
the order in a column is chosen so that few links cross, and the rows are chosen so that links run straight.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Key = Hashable
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A vertex: its key, its column (0 is leftmost) and its size in pixels."""

    key: Key
    column: int
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Where everything stands: the centre of each box, the way-points of each link, and the picture's size."""

    centre: dict[Key, Point]
    route: dict[tuple[Key, Key], list[Point]]
    width: float
    height: float


@dataclass
class _Graph:
    boxes: dict[Key, Box]
    columns: list[list[Key]]
    after: dict[Key, list[Key]] = field(default_factory=dict)
    before: dict[Key, list[Key]] = field(default_factory=dict)

    def connect(self, a: Key, b: Key) -> None:
        if b not in self.after[a]:
            self.after[a].append(b)
            self.before[b].append(a)

    def add(self, box: Box) -> None:
        if box.key not in self.boxes:
            self.boxes[box.key] = box
            self.columns[box.column].append(box.key)
            self.after[box.key], self.before[box.key] = [], []


def layout(
    boxes: Sequence[Box],
    links: Sequence[tuple[Key, Key]],
    gap_x: float = 27,
    gap_y: float = 11,
    lane: float = 8,
) -> Layout:
    """Place `boxes` so that every link runs from left to right.

    All links that leave one box share its way-points: a value with several readers is drawn as one line that
    branches where it is read. `gap_x`, `gap_y` are the free pixels between columns and boxes, `lane` the height that
    a passing line occupies.

    Raises ValueError for a link that does not lead to a later column.

    >>> placed = layout([Box("a", 0, 20, 20), Box("b", 1, 20, 20)], [("a", "b")])
    >>> placed.route["a", "b"]
    [(20.0, 10.0), (47.0, 10.0)]
    """
    graph = _Graph({}, [[] for _ in range(max(b.column for b in boxes) + 1)])
    for box in boxes:
        graph.add(box)
    paths = {(a, b): _path(graph, a, b, lane) for a, b in links}
    _order(graph)
    y = _rows(graph, gap_y)
    top = min(y[k] - b.height / 2 for k, b in graph.boxes.items())
    bottom = max(y[k] + b.height / 2 for k, b in graph.boxes.items())
    x, width = _column_centres(graph, gap_x)
    at = {k: (x[b.column], y[k] - top) for k, b in graph.boxes.items()}
    return Layout(
        {b.key: at[b.key] for b in boxes},
        {link: _points(graph, path, at) for link, path in paths.items()},
        width,
        bottom - top,
    )


def _path(graph: _Graph, a: Key, b: Key, lane: float) -> list[Key]:
    first, last = graph.boxes[a].column, graph.boxes[b].column
    if last <= first:
        raise ValueError(f"a link must lead to a later column: {a!r} is in {first}, {b!r} in {last}")
    path = [a]
    for column in range(first + 1, last):
        graph.add(Box((a, "passes", column), column, 0, lane))
        path.append((a, "passes", column))
    path.append(b)
    for left, right in pairwise(path):
        graph.connect(left, right)
    return path


def _crossings(graph: _Graph, rank: dict[Key, int], c: int) -> int:
    pairs = [(rank[a], rank[b]) for a in graph.columns[c] for b in graph.after[a]]
    return sum((a1 - a2) * (b1 - b2) < 0 for i, (a1, b1) in enumerate(pairs) for a2, b2 in pairs[:i])


def _ranks(graph: _Graph) -> dict[Key, int]:
    return {key: i for column in graph.columns for i, key in enumerate(column)}


def _total(graph: _Graph) -> int:
    rank = _ranks(graph)
    return sum(_crossings(graph, rank, c) for c in range(len(graph.columns) - 1))


def _order(graph: _Graph, restarts: int = 12, sweeps: int = 8) -> None:
    """Barycentre sweeps from several starting orders, each polished by swaps; the fewest crossings win."""
    rng = random.Random(0)  # the same picture every time
    best, fewest = [list(c) for c in graph.columns], _total(graph)
    for start in range(restarts):
        if start:
            for column in graph.columns[1:]:
                rng.shuffle(column)
        for sweep in range(sweeps):
            forward = sweep % 2 == 0
            neighbours = graph.before if forward else graph.after
            order = graph.columns if forward else graph.columns[::-1]
            for fixed, column in pairwise(order):
                rank = {key: i / max(1, len(fixed) - 1) for i, key in enumerate(fixed)}
                own = {key: i / max(1, len(column) - 1) for i, key in enumerate(column)}
                column.sort(key=lambda k: _mean([rank[n] for n in neighbours[k]], own[k]))
        _swap(graph)
        now = _total(graph)
        if now < fewest:
            best, fewest = [list(c) for c in graph.columns], now
    graph.columns[:] = best


def _swap(graph: _Graph) -> None:
    fewest, improved = _total(graph), True
    while improved and fewest:
        improved = False
        for column in graph.columns[1:]:
            for i in range(len(column) - 1):
                column[i], column[i + 1] = column[i + 1], column[i]
                now = _total(graph)
                if now < fewest:
                    fewest, improved = now, True
                else:
                    column[i], column[i + 1] = column[i + 1], column[i]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _rows(graph: _Graph, gap: float, sweeps: int = 160) -> dict[Key, float]:
    """Each box wants to stand level with its neighbours; order and gaps are kept exactly by an isotonic fit."""
    y: dict[Key, float] = {}
    offset: dict[Key, float] = {}
    for column in graph.columns:
        here = 0.0
        for i, key in enumerate(column):
            if i:
                here += (graph.boxes[column[i - 1]].height + graph.boxes[key].height) / 2 + gap
            offset[key] = here
        for key in column:
            y[key] = offset[key] - here / 2
    for sweep in range(sweeps):
        columns = graph.columns if sweep % 2 == 0 else graph.columns[::-1]
        for column in columns:
            wanted = []
            for key in column:
                near = graph.before[key] + graph.after[key]
                pulls = [(y[n], _pull(graph, key, n, abs(y[n] - y[key]))) for n in near]
                total = sum(w for _, w in pulls)
                level = sum(v * w for v, w in pulls) / total if total else y[key]
                wanted.append((level - offset[key], total or 1.0))
            for key, level in zip(column, _isotonic(wanted), strict=True):
                y[key] = level + offset[key]
    return y


def _pull(graph: _Graph, a: Key, b: Key, distance: float) -> float:
    # A passing line should be straight before anything else. Dividing by the distance turns its sum of squares into
    # a sum of distances: one clear bend, no staircase. Boxes keep the squares and stand amid their neighbours.
    passing = sum(graph.boxes[k].width == 0 for k in (a, b))
    return (0.4, 1.0, 4.0)[passing] / (max(distance, 0.5) if passing else 10.0)


def _isotonic(values: list[tuple[float, float]]) -> list[float]:
    """Nearest non-decreasing sequence to (value, weight) pairs: pool adjacent violators."""
    pools: list[list[float]] = []
    for value, weight in values:
        pools.append([value * weight, weight, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, weight_, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += weight_
            pools[-1][2] += count
    return [total / weight for total, weight, count in pools for _ in range(int(count))]


def _column_centres(graph: _Graph, gap: float) -> tuple[list[float], float]:
    centres, right = [], -gap
    for column in graph.columns:
        width = max((graph.boxes[k].width for k in column), default=0.0)
        centres.append(right + gap + width / 2)
        right += gap + width
    return centres, right


def _points(graph: _Graph, path: list[Key], at: dict[Key, Point]) -> list[Point]:
    """From the right side of the first box to the left side of the last, level across each column between."""
    points: list[Point] = [(at[path[0]][0] + graph.boxes[path[0]].width / 2, at[path[0]][1])]
    for key in path[1:-1]:
        column = graph.columns[graph.boxes[key].column]
        half = max(graph.boxes[k].width for k in column) / 2
        points += [(at[key][0] - half, at[key][1]), (at[key][0] + half, at[key][1])]
    points.append((at[path[-1]][0] - graph.boxes[path[-1]].width / 2, at[path[-1]][1]))
    return points
