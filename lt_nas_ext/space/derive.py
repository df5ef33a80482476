"""From architecture parameters to a genotype: the four published rules, and the random control."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.nn.primitives import check_primitives
from lt_nas_ext.space.genotype import CellGenotype, Edge, Genotype, without_vanished

Rule = Literal["top2", "per_edge", "threshold_sparse", "threshold_edge"]
RULES: tuple[str, ...] = get_args(Rule)

TIE = 1e-3
"""Gates of a cell that all lie within this of each other tell nothing apart [ours]."""


class GateTieWarning(UserWarning):
    """All gates of a cell tie: the genotype derived from them is noise, or the order of the candidate list."""


class EmptyCellError(UserError):
    """A rule left no node of a cell: another rule or threshold reads a genotype from the same gates."""


class _Choice(NamedTuple):
    """A candidate operation (no `none`) on an edge, with its gate."""

    gate: float
    edge: Edge


def derive(
    alpha_normal: torch.Tensor,
    alpha_reduce: torch.Tensor,
    primitives: Sequence[str] = nn.DARTS,
    gate: str = "softmax",
    rule: str = "top2",
    threshold: float = 0.85,
) -> Genotype:
    """The genotype that a rule reads from architecture parameters.

    Rules, by name:
        top2: for each node the 2 edges whose best candidate is strongest, and that candidate on each; `none` is never
            chosen, but has its share of a softmax [paper: DARTS].
        per_edge: the strongest candidate of every edge; where it is `none` the edge is dropped (eq. 4 of the SSF-NAS
            text) [paper]. Softmax gates only.
        threshold_sparse: as top2, then only edges whose gate is at least `threshold` [paper: FairDARTS].
        threshold_edge: on every edge its two best candidates, those whose gate is at least `threshold`
            [paper: FairDARTS].
    A tie goes to the lower index (of source, then of candidate). A node left without an edge vanishes, with the edges
    from it and its share of the cell's output. Edges come node by node; within a node the strongest first under top2
    and threshold_sparse (as the original prints them), else by source.

    Args:
        alpha_normal: (E, K) of the normal cell, E = 2 + 3 + … edges ordered by node and then by source.
        alpha_reduce: (E, K) of the reduction cell.
        primitives: the K names of the columns.
        gate: "softmax", "sigmoid", or "identity" where α hold the gates themselves.
        rule: one of the above.
        threshold: of the two threshold rules, on gates (0 to 1).

    Raises:
        UserError: a shape, name or value cannot be used, or `per_edge` without softmax gates.
        EmptyCellError: no node of a cell survives the rule; the message names the threshold that would keep one.

    Warns:
        GateTieWarning: all gates of a cell lie within 1e-3 of each other.

    >>> alpha = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    >>> print(derive(alpha, alpha, primitives=("skip_connect", "sep_conv_3x3")))
    Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], \
reduce=[('sep_conv_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])
    """
    cells = _cells({"normal": alpha_normal, "reduce": alpha_reduce}, primitives, gate, rule, threshold)
    return Genotype(**cells, rule=rule)


def derive_cells(
    alphas: Mapping[str, torch.Tensor],
    primitives: Sequence[str] = nn.DARTS,
    gate: str = "softmax",
    rule: str = "top2",
    threshold: float = 0.85,
) -> dict[str, CellGenotype]:
    """The cells that a rule reads from any number of architecture parameters by name; all else as of `derive`.

    >>> list(derive_cells({"head": torch.rand(14, 8)}))
    ['head']
    """
    return _cells(alphas, primitives, gate, rule, threshold)


def _cells(
    alphas: Mapping[str, torch.Tensor], primitives: Sequence[str], gate: str, rule: str, threshold: float
) -> dict[str, CellGenotype]:
    primitives = tuple(primitives)
    check_primitives(primitives)
    if rule not in RULES:
        raise UserError(f"rule: got {rule!r}; wanted one of {', '.join(map(repr, RULES))}")
    if rule == "per_edge" and gate != "softmax":
        raise UserError(
            f"rule: got 'per_edge' with gate={gate!r}; it needs gate='softmax', where `none` competes with the other "
            "candidates of an edge. Sigmoid gates are independent of each other, and that of `none` receives no task "
            f"gradient at all: wanted one of {', '.join(repr(other) for other in RULES if other != 'per_edge')}"
        )
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold: got {threshold}; wanted a gate value, 0 to 1")
    cells = {}
    for name, alpha in alphas.items():
        gates = _gates(f"alpha_{name}", alpha, primitives, gate)
        _warn_of_a_tie(name, gates, primitives)
        cells[name] = _derive_cell(name, gates, primitives, rule, threshold)
    return cells


def _gates(name: str, alpha: torch.Tensor, primitives: tuple[str, ...], gate: str) -> list[list[float]]:
    """One row an edge, as plain numbers: a genotype is read once, and must not depend on a device's rounding."""
    if not isinstance(alpha, torch.Tensor) or alpha.dim() != 2 or alpha.shape[1] != len(primitives):
        came = tuple(alpha.shape) if isinstance(alpha, torch.Tensor) else type(alpha).__name__
        raise UserError(f"{name}: got {came}; wanted a tensor (edges, {len(primitives)}), a column for each primitive")
    if _nodes(alpha.shape[0]) is None:
        raise UserError(f"{name}: got {alpha.shape[0]} rows; wanted 2, 5, 9, 14, …: the edges of 1, 2, 3, 4, … nodes")
    if not bool(alpha.isfinite().all()):
        raise UserError(f"{name}: holds values that are not finite; the search has diverged")
    return ops.gate_weights(alpha.detach().to("cpu", torch.float64), gate).tolist()


def _nodes(edges: int) -> int | None:
    nodes = 0
    while edges > 0:
        nodes += 1
        edges -= nodes + 1
    return nodes if edges == 0 and nodes > 0 else None


def _warn_of_a_tie(name: str, gates: list[list[float]], primitives: tuple[str, ...]) -> None:
    values = [value for row in gates for value, op in zip(row, primitives, strict=True) if op != "none"]
    if max(values) - min(values) <= TIE:
        warnings.warn(
            f"all gates of the {name} cell lie within {TIE:g} of each other ({min(values):.4f} to {max(values):.4f}): "
            "its genotype is noise or list order; search for more steps or with a larger α learning rate",
            GateTieWarning,
            stacklevel=4,  # at the caller of derive or derive_cells
        )


def _derive_cell(
    name: str, gates: list[list[float]], primitives: tuple[str, ...], rule: str, threshold: float
) -> CellGenotype:
    nodes = _nodes(len(gates)) or 0
    offered: list[_Choice] = []
    rows = iter(gates)
    for target in range(2, nodes + 2):
        # One list for each incoming edge: its candidates from strong to weak. Python's sort keeps the order of equals.
        edges = [
            sorted(
                (_Choice(value, Edge(op, source, target)) for value, op in zip(next(rows), primitives, strict=True)),
                key=lambda choice: -choice.gate,
            )
            for source in range(target)
        ]
        offered += _RULES[rule](edges)
    kept = [choice for choice in offered if not rule.startswith("threshold") or choice.gate >= threshold]
    if not any(choice.edge.source < 2 for choice in kept):
        raise EmptyCellError(_no_node(name, offered, rule, threshold))
    return without_vanished([choice.edge for choice in kept], range(2, nodes + 2))


def _without_none(edge: list[_Choice]) -> list[_Choice]:
    return [choice for choice in edge if choice.edge.op != "none"]


def _top2(edges: list[list[_Choice]]) -> list[_Choice]:
    return sorted((_without_none(edge)[0] for edge in edges), key=lambda choice: -choice.gate)[:2]


def _per_edge(edges: list[list[_Choice]]) -> list[_Choice]:
    return [edge[0] for edge in edges if edge[0].edge.op != "none"]


def _two_an_edge(edges: list[list[_Choice]]) -> list[_Choice]:
    return [choice for edge in edges for choice in _without_none(edge)[:2]]


_RULES: dict[str, Callable[[list[list[_Choice]]], list[_Choice]]] = {
    "top2": _top2,
    "per_edge": _per_edge,
    "threshold_sparse": _top2,
    "threshold_edge": _two_an_edge,
}


def _no_node(name: str, offered: list[_Choice], rule: str, threshold: float) -> str:
    """Why the cell is empty. A cell has a node exactly if an edge from one of its inputs (states 0, 1) is kept."""
    if rule == "per_edge":
        return (
            f"alpha_{name}: no node of the {name} cell survives, `none` wins on its edges; rule='top2' keeps them all"
        )
    strongest = max(choice.gate for choice in offered if choice.edge.source < 2)
    # Rounded down, so that the threshold named does keep the node.
    reachable = int(strongest * 1e4) / 1e4
    return (
        f"threshold: no node of the {name} cell survives {threshold:g}; its strongest gate on an edge from an input is "
        f"{strongest:.4f}: a threshold of at most {reachable:.4f} keeps a node, or rule='top2', which has none"
    )


def random_genotype(seed: int, primitives: Sequence[str] = nn.FAIR_DARTS, nodes: int = 4) -> Genotype:
    """A genotype drawn at random, the control of every search: per node two different sources, on each an operation.

    Both are drawn uniformly, so every network that `top2` finds can come. `none` among the primitives is left out.

    Args:
        seed: the same seed gives the same genotype everywhere.
        primitives: names out of `nn.DARTS`.
        nodes: nodes of each cell.

    >>> random_genotype(0) == random_genotype(0), random_genotype(0) == random_genotype(1)
    (True, False)
    """
    return next(random_genotypes(seed, primitives, nodes))


def random_genotypes(seed: int, primitives: Sequence[str] = nn.FAIR_DARTS, nodes: int = 4) -> Iterator[Genotype]:
    """Random genotypes without end, all of one seed; the first is `random_genotype(seed)`.

    >>> next(random_genotypes(3)) == random_genotype(3)
    True
    """
    check_primitives(tuple(primitives))
    if nodes < 1:
        raise UserError(f"nodes: got {nodes}; wanted at least 1")
    draw = random.Random(seed)
    operations = [name for name in primitives if name != "none"]

    def cell() -> CellGenotype:
        edges = (
            Edge(draw.choice(operations), source, target)
            for target in range(2, nodes + 2)
            for source in sorted(draw.sample(range(target), 2))
        )
        return CellGenotype(tuple(edges), tuple(range(2, nodes + 2)))

    while True:
        yield Genotype(cell(), cell(), rule="random")
