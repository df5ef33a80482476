"""Images in memory, and the data set of an experiment: a long-tailed training set beside a test set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lt_nas_ext.data.manifest import ManifestRow, write_rows
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import class_groups


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size, as one tensor.

    Attributes:
        images: (N, C, H, W) uint8, C = 1 (grey) or 3 (RGB).
        labels: (N,) int64.
        files: N names, unique within a `Dataset`: where each image came from. `manifest.csv` holds them.

    Raises:
        UserError: shapes, types or lengths that do not fit together.

    >>> two = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), ("a.png", "b.png"))
    >>> two.subset([1]).files, two.counts(3)
    (('b.png',), (1, 1, 0))
    """

    images: torch.Tensor
    labels: torch.Tensor
    files: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            if not isinstance(getattr(self, name), torch.Tensor):
                raise UserError(f"{name}: got {type(getattr(self, name)).__name__}; wanted a tensor")
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3):
            raise UserError(
                f"images: got {self.images.dtype} of shape {shape}; wanted uint8 (N, C, H, W) with C = 1 or 3"
            )
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != shape[:1] or len(self.files) != shape[0]:
            raise UserError(
                f"labels, files: got {self.labels.dtype} labels of shape {tuple(self.labels.shape)} and "
                f"{len(self.files)} files for {shape[0]} images; wanted one int64 label and one file name an image"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images, {'×'.join(map(str, self.images.shape[1:]))}, {self.images.device})"

    def subset(self, indices: torch.Tensor | list[int]) -> ImageSet:
        """The images at `indices` (M,), in that order."""
        picked = torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)
        return ImageSet(self.images[picked], self.labels[picked], tuple(self.files[i] for i in picked.tolist()))

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with images and labels on `device`."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.files)

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """Images of each class, `num_classes` integers."""
        return tuple(torch.bincount(self.labels, minlength=num_classes).tolist())


@dataclass(frozen=True, eq=False)
class Dataset:
    """What an experiment is run on; made by `load` and `from_dataset`.

    Attributes:
        name: "digits", "cifar10", "cifar100", "folder", or a user's own.
        train: the training set, already long-tailed.
        test: the test set (balanced where the source is), never selected upon.
        class_names: name of each label.
        imbalance, factor, seed: as given to `load`.
        class_order: labels from head to tail, as asked for.
        views: name of the two views that suit these images (`two_views`).
        augment: name of the supervised augmentation that suits them (`augment`).
        root: the directory that they were read from, if any: a run remembers it.
        title: what results call the data set, where `name` does not say it: "CIFAR-10 JPEG-Q75" of a folder.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    imbalance: str = "balance"
    factor: float = 1.0
    seed: int = 0
    class_order: tuple[int, ...] = ()
    views: str = "barlow-cifar"
    augment: str = "cifar"
    root: str | None = None
    title: str | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        c, h, w = self.train.images.shape[1:]
        return c, h, w

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Training images of each class, by label."""
        return self.train.counts(self.num_classes)

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the long-tailed training set, images in [0, 1]."""
        return self._moments[0]

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over the long-tailed training set, images in [0, 1]; 1 where it is 0."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        # exact in integers, a slice at a time: no float copy of the whole set
        channels = self.train.images.shape[1]
        total = square = torch.zeros(channels, dtype=torch.int64, device=self.train.images.device)
        for part in self.train.images.split(1024):
            values = part.to(torch.int32)
            total = total + values.sum((0, 2, 3))
            square = square + (values * values).sum((0, 2, 3))
        pixels = self.train.images.numel() // channels
        mean = total.double() / pixels
        std = (square.double() / pixels - mean**2).clamp(min=0).sqrt() / 255
        return tuple((mean / 255).tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with both image sets on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def manifest(self, splits: Mapping[str, ImageSet] | None = None) -> tuple[ManifestRow, ...]:
        """Rows (file, label, split) of the image sets by name; `train` and `test` by default.

        >>> from lt_nas_ext.data import load, split
        >>> digits = load("digits", imbalance="exp", factor=0.1)
        >>> weights, alpha = split(digits.train)
        >>> len(digits.manifest({"weights": weights, "alpha": alpha}))
        527
        """
        chosen = {"train": self.train, "test": self.test} if splits is None else splits
        return tuple(
            ManifestRow(file, label, name)
            for name, images in chosen.items()
            for file, label in zip(images.files, images.labels.tolist(), strict=True)
        )

    def write_manifest(self, path: str | os.PathLike[str], splits: Mapping[str, ImageSet] | None = None) -> None:
        """Write `manifest(splits)` as CSV: what `from_manifest` reads."""
        write_rows(path, self.manifest(splits))

    def describe(self) -> str:
        """A few lines for people: sizes, classes from head to tail, groups.

        >>> from lt_nas_ext.data import load
        >>> print(load("digits", imbalance="exp", factor=0.1).describe())
        digits: 10 classes, images 1×8×8, exp with factor 0.1, seed 0
        train 527 images (130 … 13 a class, imbalance ratio 10), test 440 images (44 … 44 a class)
        many (> 100) 1, medium (20 … 100) 7, few (< 20) 2 classes
        head to tail: 0 130, 1 100, 2 77, 3 60, 4 46, 5 36, 6 28, 7 21, 8 16, 9 13
        """
        counts, tests = self.counts, self.test.counts(self.num_classes)
        order = sorted(range(self.num_classes), key=lambda c: -counts[c])
        many, medium, few = (len(class_groups(counts)[name]) for name in ("many", "medium", "few"))
        shown = [f"{self.class_names[c]} {counts[c]}" for c in order]
        if len(shown) > 20:
            shown = [*shown[:10], "…", *shown[-10:]]
        long_tail = self.imbalance if self.imbalance == "balance" else f"{self.imbalance} with factor {self.factor:g}"
        return (
            f"{self.title or self.name}: {self.num_classes} classes, images {'×'.join(map(str, self.image_shape))}, "
            f"{long_tail}, seed {self.seed}\n"
            f"train {len(self.train)} images ({max(counts)} … {min(counts)} a class, "
            f"imbalance ratio {max(counts) / max(min(counts), 1):.3g}), "
            f"test {len(self.test)} images ({max(tests)} … {min(tests)} a class)\n"
            f"many (> 100) {many}, medium (20 … 100) {medium}, few (< 20) {few} classes\n"
            f"head to tail: {', '.join(shown)}"
        )
