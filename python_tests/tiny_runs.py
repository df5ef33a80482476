"""Images and settings so small that a whole search takes a second, for the tests of methods and engine."""

from __future__ import annotations

from typing import Any

import torch

from lt_nas_ext.data import Dataset, ImageSet
from lt_nas_ext.methods import SearchSettings, preset
from lt_nas_ext.methods.settings import overridden

COUNTS = (24, 14, 10)
TINY: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 12,
    "channels": 2,
    "layers": 3,
    "nodes": 1,
    "projector": (8, 8),
    "alpha_lr": 0.3,
    "device": "cpu",
}


def tiny_data(label_seed: int | None = None, side: int = 8) -> Dataset:
    """48 training and 30 test images of three classes, a bar at left, middle or right. `label_seed`: random ones."""
    generator = torch.Generator().manual_seed(0)

    def images(counts: tuple[int, ...], name: str) -> ImageSet:
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        pixels = torch.randint(0, 80, (len(labels), 1, side, side), generator=generator, dtype=torch.uint8)
        for place, label in enumerate(labels.tolist()):
            pixels[place, :, :, 2 * label + 1 : 2 * label + 3] += 150
        return ImageSet(pixels, labels, tuple(f"{name}/{place}.png" for place in range(len(labels))))

    train, test = images(COUNTS, "train"), images((10, 10, 10), "test")
    if label_seed is not None:
        shuffled = torch.randint(0, 3, train.labels.shape, generator=torch.Generator().manual_seed(label_seed))
        train = ImageSet(train.images, shuffled, train.files)
    return Dataset("tiny", train, test, ("left", "middle", "right"), views="digits", augment="digits")


def tiny_settings(name: str, **overrides: Any) -> SearchSettings:
    """A preset made tiny."""
    return overridden(preset(name), {**TINY, **overrides})


class Silent:
    """A progress that shows nothing and counts what it was told."""

    def __init__(self) -> None:
        self.total = self.steps = self.epochs = self.done = 0
        self.closed = False

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        self.total, self.done = total_steps, done

    def step(self, figures: object) -> None:
        self.steps += 1

    def epoch(self, row: object) -> None:
        self.epochs += 1

    def close(self) -> None:
        self.closed = True
