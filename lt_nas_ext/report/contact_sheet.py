"""Images side by side, as pictures that a page can take in."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lt_nas_ext.data import Dataset, two_views
from lt_nas_ext.data.sources import resize

SHOWN = 56  # pixels: small images are magnified to about this side, by a whole number
LARGEST = 96  # pixels: larger images are reduced to this side
GAP = 4  # pixels between two images

PER_CLASS = 8
MOST_CLASSES = 100
MOST_PAIRS = 12


@dataclass(frozen=True)
class Strip:
    """A row of images: what stands beside it, and the row as the address of a PNG that holds itself."""

    title: str
    note: str
    png: str


def samples(data: Dataset) -> list[Strip]:
    """The first training images of each class, from head to tail; of very many classes both ends."""
    order = sorted(range(data.num_classes), key=lambda c: -data.counts[c])
    if len(order) > MOST_CLASSES:
        order = order[: MOST_CLASSES // 2] + order[-MOST_CLASSES // 2 :]
    return [
        Strip(data.class_names[c], f"{data.counts[c]:,}".replace(",", "\u202f"), _png(_of_class(data, c)))
        for c in order
    ]


def views(data: Dataset) -> list[Strip]:
    """Training images of classes from head to tail, and below each what the two networks of Barlow Twins would see.

    The same data set gives the same draws.
    """
    order = sorted(range(data.num_classes), key=lambda c: -data.counts[c])
    count = min(len(order), MOST_PAIRS)
    images = torch.cat([_of_class(data, order[i * len(order) // count])[:1] for i in range(count)])
    pair = two_views(data.views)(images, torch.Generator().manual_seed(data.seed))
    rows = [images, *((view * 255).round().to(torch.uint8) for view in pair)]
    return [Strip(title, "", _png(row)) for title, row in zip(("image", "view A", "view B"), rows, strict=True)]


def _of_class(data: Dataset, c: int) -> torch.Tensor:
    """(M, C, H, W): the first M ≤ `PER_CLASS` training images of class c."""
    return data.train.images[data.train.labels == c][:PER_CLASS].cpu()


def _png(images: torch.Tensor) -> str:
    """(M, C, H, W) uint8 -> a row of M images as a data URI."""
    if max(images.shape[-2:]) > LARGEST:
        images = resize(images, LARGEST)
    factor = max(1, round(SHOWN / max(images.shape[-2:])))
    large = images.expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    gap = torch.full((3, large.shape[2], GAP), 255, dtype=torch.uint8)
    row = torch.cat([part for image in large for part in (image, gap)][:-1], 2)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(row.permute(1, 2, 0).numpy())).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
