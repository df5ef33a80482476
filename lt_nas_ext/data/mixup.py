"""Mixup: each image of a batch blended with another, and the loss with the other's label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Mixed(NamedTuple):
    """A batch of which each image is `share` of its own and 1 − share of another.

    Attributes:
        images: (N, C, H, W).
        labels: (N,) of the larger part.
        others: (N,) of the smaller part; None where nothing is mixed.
        share: of the larger part, in [½, 1].
    """

    images: torch.Tensor
    labels: torch.Tensor
    others: torch.Tensor | None = None
    share: float = 1.0


def mixup(images: torch.Tensor, labels: torch.Tensor, strength: float, numbers: np.random.Generator) -> Mixed:
    """Blend the images of a batch in pairs, with one share for the batch [paper: Zhang et al. 2018].

    Args:
        images: (N, C, H, W).
        labels: (N,).
        strength: α of Beta(α, α), from which the share is drawn; the larger the more is mixed.
        numbers: the source of the draws.

    >>> images = torch.eye(2).view(2, 1, 1, 2)
    >>> mixed = mixup(images, torch.tensor([0, 1]), 1.0, np.random.default_rng(0))
    >>> mixed.images.sum((1, 2, 3)).tolist(), 0.5 <= mixed.share <= 1
    ([1.0, 1.0], True)
    """
    share = numbers.beta(strength, strength)
    share = max(share, 1.0 - share)  # which of a pair is called the other is a matter of names
    order = torch.from_numpy(numbers.permutation(len(labels))).to(images.device)
    # lerp keeps the memory format of its first argument
    return Mixed(images.lerp(images[order], 1.0 - share), labels, labels[order], share)
