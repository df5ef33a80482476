"""A supernet's cell whose edges run together: everything that leaves one state in one visit to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import nn as tnn

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.space.fused_edges import FusedEdges


class FusedCell(tnn.Module):
    """The cell of DARTS (arXiv:1806.09055, section 2.1), with the mathematics of `PerEdgeCell` and its arguments.

    All edges that leave a state share one ReLU, one pool of each kind and its batch norm (they have no parameters),
    and each kind of their convolutions is one `ops.sep_unit`. The batch norms at the end of an edge's candidates are
    folded into the sum of the node, `ops.bn_mixed_sum`. Images are channels_last inside.

    >>> import torch
    >>> cell = FusedCell(8, 8, 4, reduction=True, reduction_prev=False, gate="softmax")
    >>> cell(torch.ones(2, 8, 8, 8), torch.ones(2, 8, 8, 8), torch.zeros(14, 8)).shape
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
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.gate = gate
        self.nodes = nodes
        self.primitives = tuple(primitives)
        self.preprocess0 = (
            nn.FactorizedReduce(channels_prev_prev, channels, affine=False)
            if reduction_prev
            else nn.ReLUConvBN(channels_prev_prev, channels, affine=False)
        )
        self.preprocess1 = nn.ReLUConvBN(channels_prev, channels, affine=False)
        self.sources = tnn.ModuleList(
            FusedEdges(channels, nodes - _first_node(source), 2 if reduction and source < 2 else 1, primitives)
            for source in range(nodes + 1)
        )

    def forward(self, s0: torch.Tensor, s1: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """The concatenation of the nodes, (N, nodes · channels, H', W'); arguments as of `PerEdgeCell`."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        outgoing = [self.sources[0](states[0])]
        for node, node_alpha in enumerate(alpha.split([2 + node for node in range(self.nodes)])):
            outgoing.append(self.sources[node + 1](states[-1]))
            outputs = [out for source in range(2 + node) for out in outgoing[source][node - _first_node(source)]]
            candidates, moments = [tensor for tensor, _ in outputs], [own for _, own in outputs]
            total = ops.bn_mixed_sum(candidates, node_alpha, self.gate, moments, batch=self.training)
            states.append(self.joined(states, total))
        return torch.cat(states[2:], dim=1)

    def joined(self, states: Sequence[torch.Tensor], total: torch.Tensor) -> torch.Tensor:
        """A node, from the states that it sees and the gated sum over its edges: here that sum."""
        return total

    def keep(self, chosen: Mapping[int, Collection[int]]) -> None:
        """From now on compute these candidates of each edge and no other: row of α -> columns."""
        for source, edges in enumerate(self._sources()):
            rows = self._edges_of(source)
            columns = enumerate(self.primitives)
            edges.keep({name: [e for e, row in enumerate(rows) if k in chosen.get(row, ())] for k, name in columns})

    def darts_state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and running statistics under the names of a cell of the original DARTS code.

        >>> cell = FusedCell(4, 4, 4, reduction=False, reduction_prev=False, gate="softmax")
        >>> cell.darts_state_dict()["_ops.0._ops.4.op.1.weight"].shape
        torch.Size([4, 1, 3, 3])
        """
        named = {name: value for name, value in self.state_dict().items() if not name.startswith("sources.")}
        for source, edges in enumerate(self._sources()):
            for own, edge in enumerate(self._edges_of(source)):
                named.update({f"_ops.{edge}.{name}": value for name, value in edges.edge_state_dict(own).items()})
        return named

    def from_darts_state_dict(self, cell: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The entries of `darts_state_dict`, all of them, under this module's own names: what it would load.

        Raises:
            UserError: the edges that leave a state have not the same statistics of a pool, of which this cell has one.
        """
        own = {name: value for name, value in cell.items() if not name.startswith("_ops.")}
        for source, edges in enumerate(self._sources()):
            entries = [
                {name.removeprefix(f"_ops.{edge}."): cell[name] for name in cell if name.startswith(f"_ops.{edge}.")}
                for edge in self._edges_of(source)
            ]
            try:
                loaded = edges.from_edge_state_dicts(entries)
            except UserError as error:
                raise UserError(f"state_dict: edges {self._edges_of(source)} of a cell: {error}") from None
            own.update({f"sources.{source}.{name}": value for name, value in loaded.items()})
        return own

    def _sources(self) -> list[FusedEdges]:
        return [cast(FusedEdges, edges) for edges in self.sources]

    def _edges_of(self, source: int) -> list[int]:
        """Rows of α, and places in the original, of the edges that leave a state."""
        return [node * (node + 3) // 2 + source for node in range(_first_node(source), self.nodes)]


def _first_node(source: int) -> int:
    """The first node that a state reaches: states 0 and 1 are the inputs, state 2 + j is node j."""
    return max(0, source - 1)
