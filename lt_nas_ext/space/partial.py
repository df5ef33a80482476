"""PC-DARTS: only a part of the channels goes through an edge's candidates (Xu et al., arXiv:1907.05737)."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import nn as tnn
from torch.nn import functional as F

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.space.derive import derive
from lt_nas_ext.space.genotype import Genotype
from lt_nas_ext.space.per_edge import PerEdgeCell
from lt_nas_ext.space.supernet import Supernet


class PartialCell(PerEdgeCell):
    """`PerEdgeCell` of partial channel connections and edge normalisation [paper: PC-DARTS, eqs. 2, 3].

    The first channel in `share` of a state goes through an edge's candidates, the others past them (through a 2x2 max
    pool where the edge has stride 2), and both are shuffled together. A node sums its edges by the softmax of their
    weights β.

    >>> cell = PartialCell(6, 8, 8, share=4, reduction=True, reduction_prev=False, gate="softmax")
    >>> cell(torch.ones(2, 6, 7, 8), torch.ones(2, 8, 7, 8), torch.zeros(14, 8), torch.zeros(14)).shape
    torch.Size([2, 32, 4, 4])
    """

    def __init__(
        self, channels_prev_prev: int, channels_prev: int, channels: int, share: int = 4, **arguments: Any
    ) -> None:
        if channels % share:
            raise UserError(
                f"partial_channels: got {share} for {channels} channels of a node; wanted a divisor of them"
            )
        super().__init__(channels_prev_prev, channels_prev, channels, edge_channels=channels // share, **arguments)
        self.share = share

    def forward(  # type: ignore[override]
        self, s0: torch.Tensor, s1: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor
    ) -> torch.Tensor:
        """The concatenation of the nodes, (N, nodes · channels, H', W').

        Args:
            s0: as of `PerEdgeCell`.
            s1: likewise.
            alpha: likewise.
            beta: (E,) raw weights of the edges, in the same order.
        """
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edges = zip(self.edges, alpha, strict=True)
        for node_beta in beta.split([2 + node for node in range(self.nodes)]):
            sums: list[torch.Tensor | None] = []
            for source, state in enumerate(states):
                edge, own = next(edges)
                sums.append(self._edge(cast(nn.MixedOp, edge), own, state, self.reduction and source < 2))
            states.append(ops.mixed_sum(sums, node_beta, "softmax"))
        return torch.cat(states[2:], dim=1)

    def _edge(self, edge: nn.MixedOp, alpha: torch.Tensor, state: torch.Tensor, halves: bool) -> torch.Tensor:
        width = state.shape[1] // self.share
        mixed = ops.mixed_sum(edge.outputs(state[:, :width].contiguous()), alpha, self.gate)
        # An odd size is rounded up, as the candidates do [ours].
        past = F.max_pool2d(state[:, width:], 2, ceil_mode=True) if halves else state[:, width:]
        joined = torch.cat([mixed, past], dim=1)
        images, channels, *size = joined.shape
        return joined.view(images, self.share, width, *size).transpose(1, 2).reshape(images, channels, *size)


class PartialSupernet(Supernet):
    """`Supernet` of `PartialCell`s, with the weights β of the edges beside α.

    Args:
        share: one channel in so many goes through the candidates; 4 in the paper.
        **arguments: those of `Supernet`, but for `cell`.

    >>> net = PartialSupernet(share=4, channels=4, num_classes=10, layers=3, in_channels=1)
    >>> net(torch.ones(2, 1, 8, 8)).shape, [tuple(p.shape) for p in net.arch_parameters()]
    (torch.Size([2, 10]), [(14, 8), (14, 8), (14,), (14,)])
    """

    def __init__(self, share: int = 4, **arguments: Any) -> None:
        super().__init__(**arguments, cell=partial(PartialCell, share=share))
        edges = self.alphas_normal.shape[0]
        self.betas_normal = tnn.Parameter(1e-3 * torch.randn(edges))
        self.betas_reduce = tnn.Parameter(1e-3 * torch.randn(edges))

    def cell_parameters(self, reduction: bool) -> tuple[torch.Tensor, ...]:
        return (*super().cell_parameters(reduction), self.betas_reduce if reduction else self.betas_normal)

    def arch_parameters(self) -> list[tnn.Parameter]:
        """[α normal, α reduction, β normal, β reduction]."""
        return [*super().arch_parameters(), self.betas_normal, self.betas_reduce]

    def gates(self) -> dict[str, torch.Tensor]:
        """The weight that a candidate has in its node's sum: its gate times its edge's share [paper, section 3.3]."""
        shares = {"normal": edge_shares(self.betas_normal), "reduce": edge_shares(self.betas_reduce)}
        return {name: gate * shares[name][:, None] for name, gate in super().gates().items()}

    def genotype(self, rule: str = "top2", threshold: float = 0.85) -> Genotype:
        """As of `Supernet`, from `gates`."""
        gates = self.gates()
        return derive(gates["normal"], gates["reduce"], self.primitives, "identity", rule, threshold)


def edge_shares(beta: torch.Tensor) -> torch.Tensor:
    """The softmax of β (E,) over the edges of each node.

    >>> edge_shares(torch.zeros(5))
    tensor([0.5000, 0.5000, 0.3333, 0.3333, 0.3333])
    """
    shares, done = list[torch.Tensor](), 0
    while done < len(beta):
        edges = 2 + len(shares)
        shares.append(torch.softmax(beta[done : done + edges], 0))
        done += edges
    return torch.cat(shares)
