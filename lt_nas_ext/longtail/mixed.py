"""Mixup and Remix: each image of a batch blended with another, and a target of two labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.samplers import check_counts


class MixedTargets(NamedTuple):
    """Two labels an image; every loss of this package takes it in place of (N,) labels.

    Attributes:
        labels: (N,) int64, of the larger part of the image.
        others: (N,) int64, of the smaller part.
        share: (N,) share of `labels` in the target, in [0, 1]; the rest is of `others`.
    """

    labels: torch.Tensor
    others: torch.Tensor
    share: torch.Tensor

    def soft(self, num_classes: int) -> torch.Tensor:
        """(N, C) probabilities: what `torch.nn.CrossEntropyLoss` takes.

        >>> MixedTargets(torch.tensor([0]), torch.tensor([2]), torch.tensor([0.75])).soft(3)
        tensor([[0.7500, 0.0000, 0.2500]])
        """
        first, second = (F.one_hot(labels, num_classes).to(self.share) for labels in (self.labels, self.others))
        return self.share[:, None] * first + (1.0 - self.share[:, None]) * second


def mixup(
    images: torch.Tensor, labels: torch.Tensor, alpha: float = 1.0, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, MixedTargets]:
    """x = λ x_i + (1 − λ) x_j and likewise the targets, λ ~ Beta(α, α) [paper: Zhang et al. 2018, section 2].

    One λ a batch, j a random permutation of the batch [paper: the authors' code]. Of each pair the larger part is
    called the first, so that its label is what an accuracy is shown for; the mixtures are the same.

    Args:
        images: (N, ...) floats.
        labels: (N,) int64.
        alpha: α > 0; the larger, the more is mixed.
        generator: the source of the draws; PyTorch's global one by default.

    Returns:
        (N, ...) images and their `MixedTargets`.

    Raises:
        UserError: images that are no floats, labels that are not one an image, or α ≤ 0.

    >>> images, targets = mixup(torch.eye(2), torch.tensor([0, 1]), generator=torch.Generator().manual_seed(0))
    >>> images.sum(1), bool((targets.share >= 0.5).all())
    (tensor([1., 1.]), True)
    """
    mixed, order, share = _blended(images, labels, alpha, generator)
    return mixed, MixedTargets(labels, labels[order], torch.full(labels.shape, share, device=images.device))


def remix(
    images: torch.Tensor,
    labels: torch.Tensor,
    counts: Sequence[int] | torch.Tensor,
    alpha: float = 1.0,
    kappa: float = 3.0,
    tau: float = 0.5,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, MixedTargets]:
    """Mixup whose target is wholly the rarer class's where one is κ times rarer [paper: Chou et al. 2020, section 3].

    Images are mixed as in `mixup`. The share λ_y of the first label is 0 where n_i/n_j ≥ κ and λ < τ, 1 where
    n_i/n_j ≤ 1/κ and 1 − λ < τ, and λ elsewhere: a mixture goes to the rarer class unless the other's share of the
    image is 1 − τ or more.

    Args:
        images: (N, ...) floats.
        labels: (N,) int64.
        counts: C training images per class, all ≥ 1.
        alpha: α > 0 of mixup.
        kappa: κ ≥ 1: how many times rarer a class must be.
        tau: τ in [0, 1].
        generator: the source of the draws; PyTorch's global one by default.

    Returns:
        (N, ...) images and their `MixedTargets`.

    Raises:
        UserError: as `mixup`, labels outside the counts, or κ or τ out of range.

    >>> images, labels = torch.rand(64, 3), torch.arange(64) % 2
    >>> mixed, targets = remix(images, labels, counts=[300, 10], generator=torch.Generator().manual_seed(0))
    >>> pairs = (targets.labels == 1) & (targets.others == 0)     # more than half of class 1, which is rare
    >>> targets.share[pairs].unique()
    tensor([1.])
    """
    n = check_counts(counts)
    for name, value, wanted, fits in (
        ("kappa", kappa, "κ ≥ 1, such as 3", lambda v: v >= 1),
        ("tau", tau, "τ in [0, 1], such as 0.5", lambda v: 0 <= v <= 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise UserError(f"{name}: got {value!r}; wanted {wanted}")
    mixed, order, share = _blended(images, labels, alpha, generator)
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= len(n)):
        raise UserError(
            f"labels: found {int(labels.min())} … {int(labels.max())}; with {len(n)} counts wanted 0 … {len(n) - 1}"
        )
    others = labels[order]
    n = n.to(labels.device)
    ratio = n[labels] / n[others]
    shares = torch.full(labels.shape, share, device=images.device)
    shares[(ratio <= 1.0 / kappa) & (1.0 - share < tau)] = 1.0
    shares[(ratio >= kappa) & (share < tau)] = 0.0
    return mixed, MixedTargets(labels, others, shares)


def _blended(
    images: torch.Tensor, labels: torch.Tensor, alpha: float, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The mixed images, which image each was mixed with, and the share λ ≥ ½ of its own."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise UserError(f"alpha: got {alpha!r}; wanted α > 0 of Beta(α, α), such as 1.0")
    if not images.is_floating_point():
        raise UserError(f"images: got {images.dtype}; wanted floats, such as images / 255")
    if labels.dtype != torch.int64 or tuple(labels.shape) != tuple(images.shape[:1]):
        raise UserError(
            f"labels: got {labels.dtype} of shape {tuple(labels.shape)} for {len(images)} images; "
            f"wanted int64 of shape ({len(images)},)"
        )
    device = torch.device("cpu") if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    numbers = np.random.default_rng(seed)  # PyTorch has no Beta that takes a generator
    share = float(numbers.beta(alpha, alpha))
    share = max(share, 1.0 - share)
    order = torch.from_numpy(numbers.permutation(len(labels))).to(images.device)
    # lerp keeps the memory format of its first argument
    return images.lerp(images[order], 1.0 - share), order, share
