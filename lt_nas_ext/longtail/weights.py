"""Weights of classes in a loss: inverse frequency, class-balanced, and both deferred to the last epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.samplers import check_counts

WARM_UP = 5
"""Epochs in which LDAM-DRW's learning rate rises to its full value [paper]."""


def class_balanced_weights(
    counts: Sequence[int] | torch.Tensor, beta: float = 0.9999, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Weights (1−β)/(1−β^n_c), normalised to sum C [paper: Cui et al. 2019, eq. 2].

    β = 0 gives 1 for every class; β → 1 approaches inverse frequency.

    Args:
        counts: C training images per class, all ≥ 1.
        beta: β in [0, 1).
        dtype: of the result.

    Returns:
        (C,) with sum C: the `weight` of `torch.nn.functional.cross_entropy`.

    Raises:
        UserError: β outside [0, 1), or a class without images.

    >>> class_balanced_weights([5000, 50], beta=0.9999)
    tensor([0.0250, 1.9750])
    """
    n = check_counts(counts)
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0.0 <= beta < 1.0:
        raise UserError(f"beta: got {beta!r}; wanted 0 ≤ β < 1 (0 is no re-weighting, 0.9999 the usual value)")
    # β^n → exp(n·log β) by expm1: 1 − β^n keeps its digits where n(1−β) is tiny
    effective = torch.ones_like(n) if beta == 0.0 else -torch.expm1(n * torch.tensor(beta, dtype=n.dtype).log())
    return _normalised((1.0 - beta) / effective).to(dtype)


def inverse_frequency_weights(counts: Sequence[int] | torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Weights 1/n_c, normalised to sum C: every class weighs the same in the training set as a whole.

    Args:
        counts: C training images per class, all ≥ 1.
        dtype: of the result.

    Returns:
        (C,) with sum C: the `weight` of `torch.nn.functional.cross_entropy`.

    Raises:
        UserError: a class without images.

    >>> inverse_frequency_weights([30, 10])
    tensor([0.5000, 1.5000])
    """
    return _normalised(1.0 / check_counts(counts)).to(dtype)


def _normalised(weights: torch.Tensor) -> torch.Tensor:
    return weights * (len(weights) / weights.sum())


@dataclass(frozen=True)
class DeferredReweighting:
    """DRW: no class weights, then class-balanced ones from 80 % of the epochs on [paper: Cao et al. 2019, alg. 1].

    A value without state, for any loop and any loss that takes class weights.

    Attributes:
        counts: C training images per class, all ≥ 1.
        epochs: of the whole training, ≥ 1.
        start: share of the epochs after which re-weighting begins; 160 of 200 in the paper.
        beta: β of the class-balanced weights from then on.

    Raises:
        UserError: a value out of its range.

    >>> drw = DeferredReweighting((30, 10), epochs=200, beta=0.9)
    >>> drw.weights(159), drw.weights(160)
    (tensor([1., 1.]), tensor([0.8096, 1.1904]))

    In a loop, with a loss of this package and the learning rates of the paper:

    >>> from lt_nas_ext.longtail import CrossEntropy
    >>> criterion = CrossEntropy()
    >>> optimiser = torch.optim.SGD(torch.nn.Linear(4, 2).parameters(), lr=0.1, momentum=0.9)
    >>> schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, drw.lr_factor)
    >>> for epoch in range(2):
    ...     criterion.reweight(drw.weights(epoch))
    ...     optimiser.step()     # of every batch
    ...     schedule.step()
    """

    counts: tuple[int, ...]
    epochs: int
    start: float = 0.8
    beta: float = 0.9999

    def __post_init__(self) -> None:
        class_balanced_weights(self.counts, self.beta)
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise UserError(f"epochs: got {self.epochs!r}; wanted a whole number, at least 1")
        if isinstance(self.start, bool) or not isinstance(self.start, int | float) or not 0.0 <= self.start <= 1.0:
            raise UserError(f"start: got {self.start!r}; wanted a share of the epochs in [0, 1], such as 0.8")

    def begins(self) -> int:
        """The first epoch, counted from 0, that is re-weighted."""
        return round(self.start * self.epochs)

    def weights(self, epoch: int) -> torch.Tensor:
        """(C,) class weights of an epoch, counted from 0."""
        return class_balanced_weights(self.counts, 0.0 if epoch < self.begins() else self.beta)

    def lr_factor(self, epoch: int) -> float:
        """Factor on the learning rate: 5 epochs of warm-up, ×.01 where re-weighting begins and again halfway after.

        [paper: LDAM-DRW's code, 160 and 180 of 200.] It is what `torch.optim.lr_scheduler.LambdaLR` takes.
        """
        if epoch >= round((1.0 + self.start) / 2.0 * self.epochs):
            return 1e-4
        return 1e-2 if epoch >= self.begins() else min(1.0, (epoch + 1) / WARM_UP)
