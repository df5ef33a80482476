"""Batches as a method's losses take them: labelled, two views, or paired. A pure function of (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from lt_nas_ext.data import Batches, Dataset, ImageSet, augment, normalize, two_views
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.engine.resident import epoch_on
from lt_nas_ext.engine.seeds import derived_seed, generator
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import TailAugment
from lt_nas_ext.longtail.samplers import epoch_length
from lt_nas_ext.methods import Batch, Labelled, LabelledViews, Paired, Stream, TwoViews


class Draw(NamedTuple):
    """One step's batch, and the labels of its first images beside it: for what is shown, out of the losses' reach."""

    batch: Batch
    labels: torch.Tensor


class Feed:
    """What a stream yields from a set of images.

    Args:
        stream: what the method asks for.
        images: the half of the training images to draw from, on the device or on the host.
        device: where batches are wanted.
        data: the data set: normalisation, and the augmentation of the name "default".
        batch_size: images a step, over all processes.
        seed: of the run.
        role: "weights" or "alpha": different roles draw differently.
        views, augmentation: names, or "default" for the data set's own.
        cutout: whether a square is cut out of labelled images after that; it becomes the mean, which DARTS' 0 after
            normalisation is.
        tail: whether labelled images of rare classes are mostly augmented as the first of the two views.
        group: the processes, of which each takes every so many-th image of every batch, and augments by draws of its
            own. Where there are fewer images than a batch takes, what does not divide evenly is left out.

    Raises:
        UserError: a sampler draws classes, and one of them has no image; or the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        stream: Stream,
        images: ImageSet,
        device: torch.device,
        data: Dataset,
        batch_size: int,
        seed: int,
        role: str,
        views: str = "default",
        augmentation: str = "default",
        cutout: bool = False,
        tail: bool = False,
        group: Group = ALONE,
    ) -> None:
        group.check_batch(batch_size)
        self._stream, self._seed, self._role = stream, seed, role
        self._device = device
        self._mean, self._std = data.mean, data.std
        self._views = two_views(data.views if views == "default" else views)
        self._augment = augment(data.augment if augmentation == "default" else augmentation, cutout, data.mean)
        self._tail = TailAugment(self._augment, self._views.a, data.counts) if tail else None
        _check_classes(stream, images, data, role)
        self._images, self._size, self._group = images, batch_size, group
        self._sets = self._batches()

    def __len__(self) -> int:
        return len(self._sets[0])

    def epoch(self, epoch: int, steps: int | None = None, attempt: int = 0) -> Iterator[Draw]:
        """The draws of an epoch: one pass over the images, or as many passes as `steps` take.

        Another `attempt` draws another order and augments otherwise.
        """
        steps = len(self) if steps is None else steps
        passes, again = math.ceil(steps / len(self)), _again(attempt)
        sets = [self._passes(batches, epoch, passes) for batches in (self._batches(*again) if again else self._sets)]
        for step, pairs in zip(range(steps), zip(*sets, strict=True), strict=False):
            own = tuple((images[self._mine], labels[self._mine]) for images, labels in pairs)
            purpose = ("augment", self._role, epoch, step, *again, *self._group.mark)
            yield self._draw(own, generator(self._device, self._seed, *purpose))

    def chosen(self, epoch: int, attempt: int = 0) -> Iterator[torch.Tensor]:
        """Which images the draws of an epoch are of: for what is kept of every image in place of its pixels."""
        again = _again(attempt)
        (batches,) = self._batches(*again) if again else self._sets
        for chosen in batches.indices(epoch):
            yield chosen[self._mine]

    @property
    def _mine(self) -> slice:
        """Which images of a batch are this process's."""
        return slice(self._group.rank, None, self._group.size)

    def _batches(self, *again: str | int) -> list[Batches]:
        return [
            Batches(
                self._images,
                self._shared(sampler),
                derived_seed(self._seed, "order", self._role, place, *again),
                sampler,
            )
            for place, sampler in enumerate(self._stream.samplers)
        ]

    def _shared(self, sampler: str) -> int:
        """Images of a batch: as many as the processes can share evenly of what there is."""
        if self._group.size == 1:
            return self._size
        there = epoch_length(self._images.labels, sampler)
        if there < 2 * self._group.size:
            raise UserError(
                f"data: got {there} image(s) for {self._role} and {self._group.size} processes; wanted two each or more"
            )
        return min(self._size, there - there % self._group.size)

    def _passes(self, batches: Batches, epoch: int, passes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # Each pass has a number of its own in the whole run, so no order comes twice.
        for turn in range(passes):
            yield from epoch_on(self._device, batches, epoch * passes + turn)

    def _draw(self, pairs: tuple[tuple[torch.Tensor, torch.Tensor], ...], draws: torch.Generator) -> Draw:
        labels = pairs[0][1]
        if self._stream.kind in ("two_views", "labelled_views"):
            first, second = (self._ready(view) for view in self._views(_floats(pairs[0][0]), draws))
            if self._stream.kind == "two_views":
                return Draw(TwoViews(first, second), labels)
            return Draw(LabelledViews(first, second, labels), labels)
        batches = [Labelled(self._ready(self._augmented(_floats(images), own, draws)), own) for images, own in pairs]
        return Draw(batches[0] if self._stream.kind == "labelled" else Paired(batches[0], batches[1]), labels)

    def _augmented(self, images: torch.Tensor, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        return self._augment(images, draws) if self._tail is None else self._tail(images, labels, draws)

    def _ready(self, images: torch.Tensor) -> torch.Tensor:
        # channels_last: two to three times faster convolutions on CPUs, and no slower on CUDA.
        return normalize(images, self._mean, self._std).contiguous(memory_format=torch.channels_last)


def _check_classes(stream: Stream, images: ImageSet, data: Dataset, role: str) -> None:
    """Raise `UserError` where a sampler could not draw a class: it would silently be left out."""
    empty = [name for name, n in zip(data.class_names, images.counts(data.num_classes), strict=True) if not n]
    drawing = [sampler for sampler in stream.samplers if sampler != "instance"]
    if empty and drawing:
        raise UserError(
            f"data: class {empty[0]!r} has no images for {role}, and the {drawing[0]} sampler draws every class; "
            "wanted at least one of each class on either side (stratify=True), or the class left out"
        )


def _again(attempt: int) -> tuple[str | int, ...]:
    return ("attempt", attempt) if attempt else ()


def _floats(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255.0
