"""Supervised augmentation, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lt_nas_ext.data.draws import as_floats
from lt_nas_ext.data.geometry import cutout, pad_crop_flip
from lt_nas_ext.data.views import Augmentation, DigitView
from lt_nas_ext.errors import UserError

AUGMENTATIONS = ("none", "cifar", "digits")


def augment(name: str, cutout: bool = False, fill: Sequence[float] | float = 0.0) -> Augmentation:
    """The supervised augmentation of that name, to be applied before `normalize`.

    `none`: nothing. `cifar` [paper: DARTS and before]: zero padding by 4 pixels (H/8 below 32), random crop, flip with
    probability ½. `digits` [ours]: rotation ±10°, scale ±10 %, shift ±1 pixel; no flip, no colour.

    Args:
        name: one of `AUGMENTATIONS`.
        cutout: then cut a square of side H/2 out of each image (nothing below 16 pixels).
        fill: what the cut-out square becomes; `Dataset.mean` is what DARTS does (it cuts after normalisation).

    Returns:
        `f(images, generator)`: (N, C, H, W) uint8 or float in [0, 1] -> float of the same shape.

    Raises:
        UserError: an unknown name.

    >>> images = torch.rand(2, 3, 32, 32)
    >>> augment("cifar", cutout=True)(images, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"augment: got {name!r}; wanted one of {', '.join(AUGMENTATIONS)}")
    values = tuple(fill) if isinstance(fill, Sequence) else (float(fill),)
    return Supervised(name, cutout, values)


@dataclass(frozen=True)
class Supervised:
    """What `augment` returns."""

    name: str
    cutout: bool
    fill: tuple[float, ...]

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """The augmented batch."""
        if self.name == "cifar":
            h = min(images.shape[-2:])
            pad = 4 if h >= 32 else max(h // 8, 1)
            images = as_floats(pad_crop_flip(images, pad, flip=0.5, generator=generator))
        elif self.name == "digits":
            images = _LIGHT(images, generator)
        else:
            images = as_floats(images)
        return cutout(images, generator, fill=torch.tensor(self.fill)) if self.cutout else images


_LIGHT = DigitView(rotation=10.0, scale=0.1, shift=1.0, intensity=0.0, noise=0.0, erase=0)
