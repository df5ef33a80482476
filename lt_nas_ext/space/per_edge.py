"""A supernet's cell with one MixedOp an edge: the reference, and the home of custom candidates."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import nn as tnn

from lt_nas_ext import nn, ops


class PerEdgeCell(tnn.Module):
    """The cell of DARTS (arXiv:1806.09055, section 2.1): every edge holds every candidate [paper].

    Node j sums its 2 + j incoming edges, and an edge its candidates, in one `ops.mixed_sum` over the whole node. The
    output is the concatenation of the nodes. In a reduction cell the edges from the two inputs have stride 2.

    Args:
        channels_prev_prev: channels of the output of the cell before the previous one.
        channels_prev: channels of the output of the previous cell.
        channels: channels of each node.
        reduction: the cell halves the image.
        reduction_prev: the previous cell did: the older input is still twice as large, and is reduced first.
        gate: how raw α become weights: "softmax", "sigmoid" or "identity".
        primitives: names of the candidates.
        nodes: number of nodes.
        edge_channels: channels that go through the candidates of an edge; by default all.

    Custom candidates: replace elements of `cell.edges` (a list of `nn.MixedOp`, ordered by node and then by source)
    by `nn.MixedOp(candidates=[…])`; each must have as many candidates as α has columns.

    >>> import torch, lt_nas_ext as lt
    >>> cell = PerEdgeCell(6, 8, 4, reduction=True, reduction_prev=False, gate="softmax")
    >>> cell(torch.ones(2, 6, 8, 8), torch.ones(2, 8, 8, 8), torch.zeros(14, 8)).shape
    torch.Size([2, 16, 4, 4])
    """

    def __init__(
        self,
        channels_prev_prev: int,
        channels_prev: int,
        channels: int,
        *,
        reduction: bool,
        reduction_prev: bool,
        gate: str,
        primitives: Sequence[str] = nn.DARTS,
        nodes: int = 4,
        edge_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.gate = gate
        self.nodes = nodes
        self.preprocess0 = (
            nn.FactorizedReduce(channels_prev_prev, channels, affine=False)
            if reduction_prev
            else nn.ReLUConvBN(channels_prev_prev, channels, affine=False)
        )
        self.preprocess1 = nn.ReLUConvBN(channels_prev, channels, affine=False)
        self.edges = tnn.ModuleList(
            nn.MixedOp(edge_channels or channels, 2 if reduction and source < 2 else 1, primitives, gate)
            for node in range(nodes)
            for source in range(2 + node)
        )

    def forward(self, s0: torch.Tensor, s1: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """The concatenation of the nodes, (N, nodes · channels, H', W').

        Args:
            s0: (N, channels_prev_prev, …), output of the cell before the previous one.
            s1: (N, channels_prev, …), output of the previous cell.
            alpha: (E, K) raw architecture parameters, rows in the order of `edges`.
        """
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edges = iter(self.edges)
        for node_alpha in alpha.split([2 + node for node in range(self.nodes)]):
            candidates: list[torch.Tensor | None] = []
            for state in states:
                candidates += cast(nn.MixedOp, next(edges)).outputs(state)
            states.append(ops.mixed_sum(candidates, node_alpha, self.gate))
        return torch.cat(states[2:], dim=1)

    def keep(self, chosen: Mapping[int, Collection[int]]) -> None:
        """From now on compute these candidates of each edge and no other: row of α -> columns."""
        for row, edge in enumerate(self.edges):
            candidates = cast(nn.MixedOp, edge).candidates
            for column in range(len(candidates)):
                if column not in chosen.get(row, ()):
                    candidates[column] = None  # type: ignore[assignment]

    def darts_state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and running statistics under the names of a cell of the original DARTS code.

        >>> cell = PerEdgeCell(4, 4, 4, reduction=False, reduction_prev=False, gate="softmax")
        >>> sorted(cell.darts_state_dict())[0]
        '_ops.0._ops.1.1.num_batches_tracked'
        """
        return {_to_darts(name): value for name, value in self.state_dict().items()}

    def from_darts_state_dict(self, cell: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The entries of `darts_state_dict`, all of them, under this module's own names: what it would load.

        Here it is a renaming, edge by edge, so each edge keeps its own running statistics of the pools. A cell that
        runs pool and batch norm of a source once for all its edges has one set of them: it must check that a
        checkpoint's are equal, and name the edge where they are not.
        """
        own = {_to_darts(name): name for name in self.state_dict()}
        return {own[name]: value for name, value in cell.items()}


def _to_darts(name: str) -> str:
    """`edges.3.candidates.4.op.1.weight` is `_ops.3._ops.4.op.1.weight` in the original."""
    return re.sub(r"^edges\.(\d+)\.candidates\.", r"_ops.\1._ops.", name)
