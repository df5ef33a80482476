"""Images for benchmarks of whole trainings: nobody looks at what is learnt."""

from __future__ import annotations

import torch

from lt_nas_ext.data import Dataset, ImageSet


def noise(count: int, size: int) -> Dataset:
    """So many training images (3, size, size) of ten classes, and ten test images."""
    draws = torch.Generator().manual_seed(0)

    def images(count: int, name: str) -> ImageSet:
        pixels = torch.randint(0, 256, (count, 3, size, size), generator=draws, dtype=torch.uint8)
        return ImageSet(pixels, torch.arange(count) % 10, tuple(f"{name}/{i}" for i in range(count)))

    return Dataset("noise", images(count, "train"), images(10, "test"), tuple(map(str, range(10))))
