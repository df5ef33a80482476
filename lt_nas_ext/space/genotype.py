"""A found architecture as a value: validated when made, readable on disk, and in the forms other code prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lt_nas_ext import nn
from lt_nas_ext.errors import UserError
from lt_nas_ext.space.darts_form import CellText, fits_pairs, read_darts, write_darts


class Edge(NamedTuple):
    """One operation of a cell: `op` applied to state `source`, added to node `target`.

    States 0 and 1 are the cell's inputs (the outputs of the two cells before it), nodes count from 2.
    """

    op: str
    source: int
    target: int


@dataclass(frozen=True)
class CellGenotype:
    """The edges of one cell, and the nodes whose concatenation is its output.

    Attributes:
        edges: kept in the order given. A node sums all edges that end in it: any number of edges, and between two
            states any number of different operations.
        concat: nodes with at least one edge each.

    Raises:
        UserError: an operation is not one of `nn.DARTS` (or is `none`), an edge does not go from a state that exists
            to a later node, comes twice, or a node of `concat` receives nothing.

    >>> CellGenotype((Edge("skip_connect", 0, 2), Edge("sep_conv_3x3", 1, 2)), concat=(2,)).nodes
    (2,)
    >>> CellGenotype((Edge("skip_connect", 3, 4),), concat=(4,))
    Traceback (most recent call last):
        ...
    lt_nas_ext.errors.UserError: edges[0]: 'skip_connect' comes from state 3, which receives no edge itself
    """

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(Edge(*edge) for edge in self.edges))
        object.__setattr__(self, "concat", tuple(self.concat))
        for place, edge in enumerate(self.edges):
            _check_edge(place, edge)
        states = {0, 1, *self.nodes}
        for place, edge in enumerate(self.edges):
            if edge.source not in states:
                raise UserError(
                    f"edges[{place}]: {edge.op!r} comes from state {edge.source}, which receives no edge itself"
                )
            if edge in self.edges[:place]:
                raise UserError(
                    f"edges[{place}]: {tuple(edge)} comes twice; wanted each operation between two states once"
                )
        for node in self.concat:
            if type(node) is not int or node not in self.nodes:
                raise UserError(f"concat: got {node!r}; wanted nodes that receive an edge, here {list(self.nodes)}")
        if not self.concat or len(set(self.concat)) != len(self.concat):
            raise UserError(f"concat: got {list(self.concat)}; wanted at least one node, each once")

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that exist, in ascending order: those in which an edge ends."""
        return tuple(sorted({edge.target for edge in self.edges}))


def _check_edge(place: int, edge: Edge) -> None:
    if edge.op not in nn.FAIR_DARTS:
        raise UserError(f"edges[{place}]: got operation {edge.op!r}; wanted one of {', '.join(nn.FAIR_DARTS)}")
    if type(edge.source) is not int or type(edge.target) is not int:
        raise UserError(f"edges[{place}]: got states {edge.source!r} and {edge.target!r}; wanted two integers")
    if edge.target < 2 or not 0 <= edge.source < edge.target:
        raise UserError(
            f"edges[{place}]: goes from state {edge.source} to {edge.target}; "
            "wanted an edge from an earlier state to a node from 2 on"
        )


def without_vanished(edges: Iterable[Edge], concat: Iterable[int]) -> CellGenotype:
    """The cell that is left where some nodes have no input: they vanish, edges from them too, and the concat narrows.

    >>> without_vanished([Edge("skip_connect", 0, 2), Edge("skip_connect", 3, 4)], concat=range(2, 5))
    CellGenotype(edges=(Edge(op='skip_connect', source=0, target=2),), concat=(2,))
    """
    edges = tuple(edges)
    # Before any is dropped: an edge that could never be is an error, not a vanished one.
    for place, edge in enumerate(edges):
        _check_edge(place, edge)
    alive = {0, 1}
    # Sources precede their targets, so one ascending pass also finds the nodes fed by vanished nodes only.
    for node in sorted({edge.target for edge in edges}):
        if any(edge.target == node and edge.source in alive for edge in edges):
            alive.add(node)
    return CellGenotype(
        tuple(edge for edge in edges if edge.source in alive), tuple(node for node in concat if node in alive)
    )


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network: what a search returns and what a retraining takes.

    Attributes:
        normal: the cell that keeps the size of an image.
        reduce: the cell that halves it.
        rule: how they were derived ("top2", …), where known.

    `print(genotype)` gives the DARTS form, `genotype.save("genotype.json")` the file of a run.

    >>> cell = CellGenotype((Edge("skip_connect", 0, 2), Edge("max_pool_3x3", 1, 2)), concat=(2,))
    >>> genotype = Genotype(cell, cell, rule="top2")
    >>> Genotype.from_json(genotype.to_json()) == genotype
    True
    >>> print(genotype)
    Genotype(normal=[('skip_connect', 0), ('max_pool_3x3', 1)], normal_concat=[2], \
reduce=[('skip_connect', 0), ('max_pool_3x3', 1)], reduce_concat=[2])
    """

    normal: CellGenotype
    reduce: CellGenotype
    rule: str | None = None

    def __str__(self) -> str:
        return self.to_darts()

    @property
    def cells(self) -> dict[str, CellGenotype]:
        """The two cells by name."""
        return {"normal": self.normal, "reduce": self.reduce}

    def to_json(self) -> str:
        """The text of `genotype.json`, one line an edge."""
        return cell_json(self.rule, self.cells)

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read `to_json`'s text.

        Raises:
            UserError: it is not JSON or not a genotype; the message says what is wrong where.

        >>> Genotype.from_json('{"normal": {}}')
        Traceback (most recent call last):
            ...
        lt_nas_ext.errors.UserError: normal: 'edges' is missing; wanted a list
        """
        content = read_object(text)
        rule = content.get("rule")
        if rule is not None and not isinstance(rule, str):
            raise UserError(f"rule: got {rule!r}; wanted a text or null")
        return cls(cell_from_json(content, "normal"), cell_from_json(content, "reduce"), rule)

    def to_darts(self) -> str:
        """The genotype as the code that the original projects print and paste; `rule` is not part of it.

        Where every node sums two edges and none vanished, DARTS' pairs (operation, source). Otherwise FairDARTS'
        triples (operation, target, source).
        """
        normal, reduce = (
            CellText(cell.edges, cell.concat, triples=not fits_pairs(cell.edges)) for cell in (self.normal, self.reduce)
        )
        return write_darts(normal, reduce)

    @classmethod
    def from_darts(cls, text: str) -> Genotype:
        """Read `Genotype(normal=[…], normal_concat=…, reduce=[…], reduce_concat=…)` without running it as code.

        Both forms of `to_darts` are read, with `range(2, 6)` or a leading `NAME =` too. Triples may leave a node
        without input, as FairDARTS' own do: it vanishes, edges from it too, and the concat narrows.

        Raises:
            UserError: the text has another form, or is not a valid genotype.

        >>> Genotype.from_darts(
        ...     "Genotype(normal=[('skip_connect', 2, 1)], normal_concat=range(2, 6),"
        ...     " reduce=[('skip_connect', 2, 0), ('sep_conv_3x3', 2, 0)], reduce_concat=[2])"
        ... ).normal
        CellGenotype(edges=(Edge(op='skip_connect', source=1, target=2),), concat=(2,))
        """
        normal, reduce = read_darts(text)
        return cls(_cell_from_text(normal, "normal"), _cell_from_text(reduce, "reduce"))

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Read a file that holds either JSON or `Genotype(…)`; of a `BbnGenotype` the backbone.

        Raises:
            UserError: the file cannot be read or holds no genotype; the message names the file and what is wrong.
        """
        return read_text(path, cls.from_json)


FoundT = TypeVar("FoundT")


def read_text(path: str | Path, from_json: Callable[[str], FoundT]) -> FoundT | Genotype:
    """What `from_json` makes of a file that holds JSON, or the genotype of one that holds `Genotype(…)`.

    Raises:
        UserError: the file cannot be read or holds no genotype; the message names the file and what is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return from_json(text) if text.lstrip().startswith(("{", "[")) else Genotype.from_darts(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a genotype: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_object(text: str) -> dict[str, Any]:
    """The object that a JSON text holds; `UserError` where it is none."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"genotype: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"genotype: got {type(content).__name__}; wanted an object with 'normal' and 'reduce'")
    return content


def cell_json(rule: str | None, cells: Mapping[str, CellGenotype]) -> str:
    """Cells by name as JSON, one line an edge."""

    def text(cell: CellGenotype) -> str:
        edges = ",\n      ".join(json.dumps(edge._asdict()) for edge in cell.edges)
        return f'{{\n    "edges": [\n      {edges}\n    ],\n    "concat": {json.dumps(cell.concat)}\n  }}'

    parts = [f'"rule": {json.dumps(rule)}', *(f'"{name}": {text(cell)}' for name, cell in cells.items())]
    return "{\n  " + ",\n  ".join(parts) + "\n}\n"


def cell_from_json(content: dict[str, Any], name: str) -> CellGenotype:
    """The cell of this name in the object of a `genotype.json`; `UserError` where it is not one."""
    cell = content.get(name)
    if not isinstance(cell, dict):
        raise UserError(f"{name}: got {cell!r}; wanted an object with 'edges' and 'concat'")
    for field in ("edges", "concat"):
        if not isinstance(cell.get(field), list):
            came = f"is {cell[field]!r}" if field in cell else "is missing"
            raise UserError(f"{name}: {field!r} {came}; wanted a list")
    for place, edge in enumerate(cell["edges"]):
        if not isinstance(edge, dict) or set(edge) != set(Edge._fields):
            raise UserError(f"{name}: edges[{place}] is {edge!r}; wanted an object with {', '.join(Edge._fields)}")
    try:
        return CellGenotype(tuple(Edge(**edge) for edge in cell["edges"]), tuple(cell["concat"]))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _cell_from_text(cell: CellText, name: str) -> CellGenotype:
    edges = tuple(Edge(*edge) for edge in cell.edges)
    try:
        return without_vanished(edges, cell.concat) if cell.triples else CellGenotype(edges, tuple(cell.concat))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
