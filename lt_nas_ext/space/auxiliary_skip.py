"""DARTS−: a skip connection beside every edge, which vanishes by the end (Chu et al., arXiv:2009.01027)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn as tnn

from lt_nas_ext import nn
from lt_nas_ext.space.fused_cell import FusedCell


class AuxiliarySkipCell(FusedCell):
    """`FusedCell` whose edges add β · skip(state) to their gated sum [paper: DARTS−, eq. 3].

    The skip is the state itself, and on an edge of stride 2 a factorized reduction of its own [paper: the authors'
    code]. What helps the optimisation as a residual connection so need not come from the candidate, and its gate is
    left to say how good an operation it is.

    Attributes:
        strength: β, set from outside; at 0 this is `FusedCell`.

    >>> cell = AuxiliarySkipCell(4, 4, 4, reduction=False, reduction_prev=False, gate="softmax", nodes=1)
    >>> s, alpha = torch.randn(2, 4, 5, 5), torch.zeros(2, 8)
    >>> with_skips = cell.eval()(s, s, alpha)
    >>> cell.strength = 0.0
    >>> torch.allclose(with_skips - cell(s, s, alpha), cell.preprocess0(s) + cell.preprocess1(s), atol=1e-5)
    True
    """

    def __init__(self, channels_prev_prev: int, channels_prev: int, channels: int, **arguments: Any) -> None:
        super().__init__(channels_prev_prev, channels_prev, channels, **arguments)
        self.strength = 1.0
        reductions = 2 * self.nodes if self.reduction else 0
        self.auxiliary = tnn.ModuleList(
            nn.FactorizedReduce(channels, channels, affine=False) for _ in range(reductions)
        )

    def joined(self, states: Sequence[torch.Tensor], total: torch.Tensor) -> torch.Tensor:
        node = len(states) - 2
        skips = [self.auxiliary[2 * node + source](states[source]) for source in range(2 if self.reduction else 0)]
        return total + self.strength * torch.stack([*skips, *states[len(skips) :]]).sum(0)
