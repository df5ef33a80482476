"""The genotypes that came second: each undoes one decision of the one that was derived."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.derive import GateTieWarning, derive
from lt_nas_ext.space.genotype import CellGenotype, Edge, Genotype

Gates = Mapping[str, torch.Tensor]


def from_gates(gates: Gates, primitives: Sequence[str], rule: str = "top2", threshold: float = 0.85) -> Genotype:
    """`derive` from gates themselves, {"normal": (E, K), "reduce": (E, K)}; rules, errors and warnings are its own.

    >>> gates = {"normal": torch.tensor([[0.9], [0.2]]), "reduce": torch.tensor([[0.5], [0.6]])}
    >>> from_gates(gates, ["skip_connect"]).reduce.edges[0].source
    1
    """
    if rule != "per_edge":
        return derive(gates["normal"], gates["reduce"], primitives, "identity", rule, threshold)
    # The rule asks for a softmax: that of the logarithms is the gates again, where those of an edge sum to 1.
    logs = {cell: gate.double().clamp_min(1e-300).log() for cell, gate in gates.items()}
    return derive(logs["normal"], logs["reduce"], primitives, "softmax", rule, threshold)


def runners_up(
    gates: Gates, primitives: Sequence[str], count: int, rule: str = "top2", threshold: float = 0.85
) -> list[Genotype]:
    """Up to `count` genotypes next to the derived one, by how much gate they give away, the least first [ours].

    Each is what the rule reads where one chosen candidate of one edge is out of the running: the second-best operation
    of the edge, or the second-best edge of the node, whichever the rule prefers.

    >>> gates = {"normal": torch.tensor([[0.9, 0.8], [0.2, 0.7]]), "reduce": torch.tensor([[0.5, 0.1], [0.6, 0.1]])}
    >>> best, second = runners_up(gates, ["skip_connect", "max_pool_3x3"], count=2)
    >>> [(edge.op, edge.source) for edge in best.normal.edges]
    [('max_pool_3x3', 0), ('max_pool_3x3', 1)]
    """
    gates = {cell: gate.detach().cpu().double() for cell, gate in gates.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GateTieWarning)
        chosen = from_gates(gates, primitives, rule, threshold)
        total = _sum(chosen, gates, primitives)
        found: list[tuple[float, Genotype]] = []
        for name, cell in _cells(chosen):
            for row, column in alpha_places(cell, primitives):
                without = {other: gate.clone() for other, gate in gates.items()}
                without[name][row, column] = 0.0
                try:
                    variant = from_gates(without, primitives, rule, threshold)
                except UserError:  # no node of the cell survives
                    continue
                found.append((total - _sum(variant, gates, primitives), variant))
    ranked = [variant for _, variant in sorted(found, key=lambda pair: pair[0])]
    return distinct([chosen, *ranked])[1 : count + 1]


def distinct(genotypes: Iterable[Genotype]) -> list[Genotype]:
    """Those that are another network than all before them: the order of edges makes none.

    >>> from lt_nas_ext.space import DARTS_V2
    >>> len(distinct([DARTS_V2, DARTS_V2]))
    1
    """
    found: dict[tuple[frozenset[Edge], ...], Genotype] = {}
    for genotype in genotypes:
        found.setdefault((frozenset(genotype.normal.edges), frozenset(genotype.reduce.edges)), genotype)
    return list(found.values())


def _cells(genotype: Genotype) -> list[tuple[str, CellGenotype]]:
    return [("normal", genotype.normal), ("reduce", genotype.reduce)]


def alpha_places(cell: CellGenotype, primitives: Sequence[str]) -> list[tuple[int, int]]:
    """Row and column of α of each edge: rows are ordered by node and then by source."""
    return [((e.target - 2) * (e.target + 1) // 2 + e.source, list(primitives).index(e.op)) for e in cell.edges]


def _sum(genotype: Genotype, gates: Gates, primitives: Sequence[str]) -> float:
    return sum(float(gates[name][place]) for name, cell in _cells(genotype) for place in alpha_places(cell, primitives))
