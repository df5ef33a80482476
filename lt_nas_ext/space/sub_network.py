"""A supernet restricted to one genotype: what weight-sharing searches judge in place of a trained network."""

from __future__ import annotations

import copy
from typing import cast

import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.fused_cell import FusedCell
from lt_nas_ext.space.genotype import Genotype
from lt_nas_ext.space.partial import PartialSupernet
from lt_nas_ext.space.runners_up import alpha_places
from lt_nas_ext.space.supernet import Supernet


def sub_network(supernet: Supernet, genotype: Genotype) -> Supernet:
    """A copy of a supernet with a gate of 1 on each edge of the genotype, and nothing else computed [ours].

    Weights, classifier and running statistics are the supernet's. The latter were taken of the mixture of all
    candidates: a copy that is to be judged wants its own (`engine.recalibrate`). The copy cannot be written as a
    checkpoint of DARTS.

    Args:
        supernet: it is left as it is.
        genotype: of the supernet's operations and nodes, each node with an edge at least.

    Raises:
        UserError: an operation or a node that the supernet has not, a node without an edge, or partial channels.

    >>> from lt_nas_ext.space import random_genotype
    >>> net = Supernet(channels=4, layers=3, in_channels=1)
    >>> sub = sub_network(net, random_genotype(0))
    >>> sub(torch.ones(2, 1, 8, 8)).shape, sum(p.numel() for p in sub.parameters()) < 20_000
    (torch.Size([2, 10]), True)
    """
    if isinstance(supernet, PartialSupernet):
        raise UserError("supernet: got partial channels, whose sub-networks are not its genotypes; wanted all channels")
    nodes = cast(FusedCell, supernet.cells[0]).nodes
    for name, cell in genotype.cells.items():
        unknown = sorted({edge.op for edge in cell.edges} - set(supernet.primitives))
        if unknown:
            raise UserError(
                f"genotype: its {name} cell has {unknown[0]!r}; wanted operations of the supernet: "
                f"{', '.join(supernet.primitives)}"
            )
        if cell.nodes != tuple(range(2, nodes + 2)) or sorted(cell.concat) != list(cell.nodes):
            raise UserError(
                f"genotype: its {name} cell has the nodes {list(cell.nodes)}; wanted all {nodes} of the supernet, "
                f"2 … {nodes + 1}, each with an edge"
            )
    restricted = copy.deepcopy(supernet)
    restricted.gate = "identity"
    chosen = {name: alpha_places(cell, supernet.primitives) for name, cell in genotype.cells.items()}
    with torch.no_grad():
        for name, alpha in (("normal", restricted.alphas_normal), ("reduce", restricted.alphas_reduce)):
            alpha.zero_()
            for row, column in chosen[name]:
                alpha[row, column] = 1.0
    for place in restricted.cells:
        fused = cast(FusedCell, place)  # or another that has its methods
        rows: dict[int, set[int]] = {}
        for row, column in chosen["reduce" if fused.reduction else "normal"]:
            rows.setdefault(row, set()).add(column)
        fused.gate = "identity"
        fused.keep(rows)
    return restricted
