"""Losses and class weights for long-tailed training sets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.samplers import check_counts


def class_balanced_weights(counts: Sequence[int] | torch.Tensor, beta: float = 0.9999) -> torch.Tensor:
    """Weights (1−β)/(1−β^n_c), normalised to sum C [paper: Cui et al. 2019, eq. 2].

    β = 0 gives 1 for every class; β → 1 approaches inverse frequency.

    Args:
        counts: C training images per class, all ≥ 1.
        beta: β in [0, 1).

    Returns:
        (C,) float32 with sum C: the `weight` of `torch.nn.functional.cross_entropy`.

    Raises:
        UserError: β outside [0, 1), or a class without images.

    >>> class_balanced_weights([5000, 50], beta=0.9999)
    tensor([0.0250, 1.9750])
    """
    n = check_counts(counts)
    if not 0.0 <= beta < 1.0:
        raise UserError(f"beta: got {beta!r}; wanted 0 ≤ β < 1 (0 is no re-weighting, 0.9999 the usual value)")
    # β^n → exp(n·log β) by expm1: 1 − β^n keeps its digits where n(1−β) is tiny
    effective = torch.ones_like(n) if beta == 0.0 else -torch.expm1(n * torch.tensor(beta, dtype=n.dtype).log())
    weights = (1.0 - beta) / effective
    return (weights * (len(n) / weights.sum())).float()


class BalancedSoftmax(nn.Module):
    """Cross-entropy of z + log n_c [paper: Ren et al. 2020, eq. 4]: the training prior is inside the loss.

    The shift acts in training only: at test time the plain logits z are the balanced prediction.

    Args:
        counts: C training images per class, all ≥ 1: of the images trained on.

    Raises:
        UserError: a class without images.

    Shapes: logits (N, C), targets (N,) int64; the loss is the mean over N, a scalar.

    >>> loss = BalancedSoftmax([90, 10])
    >>> loss(torch.zeros(1, 2), torch.tensor([1]))     # −log(10/100)
    tensor(2.3026)
    """

    log_counts: torch.Tensor

    def __init__(self, counts: Sequence[int] | torch.Tensor) -> None:
        super().__init__()
        # not part of a checkpoint: the counts come from the data, not from training
        self.register_buffer("log_counts", check_counts(counts).log().float(), persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of (N, C) logits against (N,) targets."""
        if logits.ndim != 2 or logits.shape[1] != len(self.log_counts):
            raise UserError(
                f"logits: got shape {tuple(logits.shape)}; wanted (N, {len(self.log_counts)}), one column a class"
            )
        # float32 inside: log n_c of a large class is rounded away in bf16
        return F.cross_entropy(logits.float() + self.log_counts, targets)

    def extra_repr(self) -> str:
        return f"num_classes={len(self.log_counts)}"
