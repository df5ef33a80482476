"""β-DARTS: keep softmax gates from running away early (Ye et al., arXiv:2203.01665)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def beta_decay(alphas: Sequence[torch.Tensor], rate: float, epoch: int) -> torch.Tensor:
    """L_β = rate · epoch · mean_e log Σ_k exp α_ek, over the edges of all cell types [paper: β-DARTS, Beta-Decay loss].

    Its gradient on an edge's α is their softmax: the strongest is held back most. The weight grows linearly, from 0 in
    the first epoch [paper].

    Args:
        alphas: (E, K) architecture parameters, one matrix a cell type.
        rate: what the weight grows by in an epoch; ½ in the paper.
        epoch: from 0.

    Returns:
        A scalar.

    >>> beta_decay([torch.zeros(14, 8)], rate=0.5, epoch=10)
    tensor(10.3972)
    """
    return rate * epoch * torch.cat([torch.logsumexp(alpha, dim=-1) for alpha in alphas]).mean()
