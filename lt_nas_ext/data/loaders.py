"""Batches out of memory: no worker processes, no iterator to restart, every epoch reproducible on its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lt_nas_ext.data.datasets import ImageSet
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.samplers import epoch_length, epoch_order


class Batches:
    """Mini-batches of an `ImageSet`, on the device where its images are.

    Epoch e is a pure function of (seed, e): a resumed run sees what it would have seen. Two streams over the same
    images (BBN: one instance-sampled, one class-uniform) are two `Batches` with two seeds.

    Args:
        images: the set.
        batch_size: images a batch; a smaller set gives one batch of all of it.
        seed: random seed, ≥ 0.
        sampler: "instance" (every image once an epoch), "class_uniform", "reverse" or "sqrt" (`class_probabilities`;
            an epoch then draws as many images as the set has, with replacement), or "under_sampling" (as many of every
            class as the smallest has).
        drop_last: leave out the last, smaller batch.

    Attributes:
        class_counts: images of each label that occurs, 0 … max.

    Raises:
        UserError: an empty set, batch_size < 1, or as `epoch_order`.

    >>> from lt_nas_ext.data import load
    >>> batches = Batches(load("digits", imbalance="exp", factor=0.1).train, batch_size=64, seed=0)
    >>> images, labels = next(batches.epoch(0))
    >>> len(batches), images.shape, images.dtype
    (8, torch.Size([64, 1, 8, 8]), torch.uint8)
    """

    def __init__(
        self, images: ImageSet, batch_size: int, seed: int = 0, sampler: str = "instance", drop_last: bool = True
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size: got {batch_size!r}; wanted a whole number, at least 1")
        if not len(images):
            raise UserError("images: the set is empty; there is nothing to make batches of")
        self.images, self.seed, self.sampler, self.drop_last = images, seed, sampler, drop_last
        self._labels = images.labels.cpu()
        self._length = epoch_length(self._labels, sampler)
        self.batch_size = min(batch_size, self._length)
        self.class_counts = tuple(torch.bincount(self._labels).tolist())
        epoch_order(self._labels, sampler, seed, 0)  # a bad seed is told now, not in the first epoch

    def __len__(self) -> int:
        whole, rest = divmod(self._length, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of epoch `epoch` from batch `start` on: (B, C, H, W) uint8 images and (B,) labels."""
        for chosen in self.indices(epoch, start):
            yield self.images.images[chosen], self.images.labels[chosen]

    def indices(self, epoch: int, start: int = 0) -> Iterator[torch.Tensor]:
        """Which images these batches have, (B,) each: for what is kept of every image in place of its pixels."""
        order = epoch_order(self._labels, self.sampler, self.seed, epoch).to(self.images.images.device)
        for b in range(start, len(self)):
            yield order[b * self.batch_size : (b + 1) * self.batch_size]
