"""`load`: a name (or anybody's images) and a distribution -> the data set of an experiment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import torch

from lt_nas_ext.data import sources
from lt_nas_ext.data.cifar import cifar
from lt_nas_ext.data.cut import cut
from lt_nas_ext.data.datasets import Dataset, ImageSet
from lt_nas_ext.data.folder import folder
from lt_nas_ext.data.manifest import read_rows
from lt_nas_ext.data.medmnist import MEDMNIST, medmnist
from lt_nas_ext.data.own import class_names_of, own_part
from lt_nas_ext.data.sources import Source
from lt_nas_ext.errors import UserError

DATA = ("digits", "cifar10", "cifar100", "folder", *MEDMNIST)
PathLike = str | os.PathLike[str]


def load(
    name: str | Dataset | torch.utils.data.Dataset[Any],
    imbalance: str = "balance",
    factor: float = 1.0,
    seed: int = 0,
    class_order: Sequence[int | str] | None = None,
    root: PathLike | None = None,
    size: int | None = None,
    n_max: int | None = None,
    channels: int | None = None,
    title: str | None = None,
) -> Dataset:
    """Images with a long-tailed training set, cut by `lt_nas_ext.longtail.class_counts` [paper: LDAM-DRW].

    Args:
        name: "digits" (scikit-learn's, 1×8×8, the embedded default), "cifar10", "cifar100" (through torchvision),
            "folder" (any directory with one sub-folder a class, see `root`), or a set of MedMNIST (through its
            package) such as "bloodmnist"; or a `Dataset` of ours, whose training set is then cut; or a PyTorch
            `Dataset`, as `from_dataset`.
        imbalance: "balance" (all training images there are, however distributed), "exp" or "step".
        factor: μ = n_min / n_max in (0, 1].
        seed: which images of a class stay (`lt_nas_ext.longtail.subset_indices`). The test set does not depend on it.
        class_order: the classes from head to tail, by label or by name; 0 … C−1 by default.
        root: the directory of "folder": `root/CLASS/…`, or `root/train/CLASS/…` beside `root/test/CLASS/…`; the
            download folder of CIFAR or MedMNIST.
        size: side of the images; every one has its shorter side resized to it, then its centre cut out. Unchanged by
            default; images of a folder that differ take their median shorter side, to a multiple of 8, at most 224.
        n_max: images of the head class; by default the most that every class can follow (5000 of CIFAR-10, 130 of
            digits). With "balance" each class keeps exactly so many.
        channels: a folder as 1 (grey) or 3 (RGB); by default 1 where all of its images are grey.
        title: what results call the data set; by default its name.

    Returns:
        `Dataset`.

    Raises:
        UserError: an argument that cannot be served; the message says which and what would be.

    >>> data = load("digits", imbalance="exp", factor=0.1, seed=0)
    >>> data.counts, len(data.train), len(data.test)
    ((130, 100, 77, 60, 46, 36, 28, 21, 16, 13), 527, 440)
    """
    if root is not None and not isinstance(root, str | os.PathLike):
        raise UserError(f"root: got {type(root).__name__}; wanted the path of a directory")
    if title is not None and (not isinstance(title, str) or not title.strip()):
        raise UserError(f"title: got {title!r}; wanted what results shall call it, such as 'CIFAR-10 JPEG-Q75'")
    if isinstance(name, torch.utils.data.Dataset):
        own = from_dataset(name, None, None, imbalance, factor, seed, class_order, size, n_max)
        return dataclasses.replace(own, title=title)
    if isinstance(name, Dataset):
        source = Source(
            name.name, name.class_names, sources.of_set(name.train), sources.of_set(name.test), name.views, name.augment
        )
    elif name == "digits":
        source = sources.digits()
    elif name in ("cifar10", "cifar100"):
        source = cifar(name, root)
    elif name in MEDMNIST:
        source = medmnist(name, root)
    elif name == "folder":
        found = cut(folder(root, size, channels), imbalance, factor, seed, class_order, n_max)
        return _remembering(found, root, title)
    else:
        directory = isinstance(name, str) and os.path.isdir(name)
        hint = f"; for a directory: data='folder', root={name!r}" if directory else ""
        raise UserError(f"data: got {name!r}; wanted one of {', '.join(DATA)}, or a Dataset{hint}")
    if channels is not None:
        raise UserError(f"channels: got {channels!r} for {source.name}; it is for data='folder' only")
    if size is not None:
        source = sources.resized(source, size)
    if isinstance(name, Dataset) and title is None:
        title = name.title
    return _remembering(cut(source, imbalance, factor, seed, class_order, n_max), root, title)


def _remembering(data: Dataset, root: PathLike | None, title: str | None) -> Dataset:
    """The data set with what a run must remember: where to find the images again, and what results call them."""
    return dataclasses.replace(data, root=None if root is None else os.path.abspath(root), title=title)


def from_dataset(
    train: torch.utils.data.Dataset[Any],
    test: torch.utils.data.Dataset[Any] | None = None,
    class_names: Sequence[str] | None = None,
    imbalance: str = "balance",
    factor: float = 1.0,
    seed: int = 0,
    class_order: Sequence[int | str] | None = None,
    size: int | None = None,
    n_max: int | None = None,
    name: str = "own",
    views: str = "barlow-cifar",
    augment: str = "cifar",
) -> Dataset:
    """A user's own map-style PyTorch `Dataset`s of (image, label) pairs, read into memory once.

    Args:
        train: items (image, label): a Pillow image, an (H, W) or (H, W, C) uint8 array, or a (C, H, W) tensor, uint8
            or float in [0, 1] (no `Normalize`, no random transform: augmentation is the library's); label 0 … C−1.
        test: the same; without it a stratified 20 % of `train` that no seed changes.
        class_names: C names; `train.classes`, else the label numbers, by default.
        imbalance: as `load`.
        factor: as `load`.
        seed: as `load`.
        class_order: as `load`.
        size: as `load`; needed where images differ in size.
        n_max: as `load`.
        name: what the data set is called in reports.
        views: name of the two views that suit the images (`two_views`).
        augment: name of the supervised augmentation that suits them (`augment`).

    Returns:
        `Dataset`.

    Raises:
        UserError: an item, image or label of another kind; a class without images.

    >>> pictures = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    >>> own = torch.utils.data.TensorDataset(pictures, torch.arange(20) % 2)
    >>> from_dataset(own, class_names=["cat", "dog"]).counts
    (8, 8)
    """
    if class_names is not None and (isinstance(class_names, str) or not isinstance(class_names, Sequence)):
        raise UserError(f"class_names: got {class_names!r}; wanted a list with the name of each class")
    train_part = own_part(train, "train", size)
    test_part = own_part(test, "test", size) if test is not None else None
    largest = int(max(p.labels.max() for p in (train_part, test_part) if p is not None))
    names = tuple(class_names) if class_names is not None else class_names_of(train, largest + 1)
    source = Source(name, names, train_part, test_part, views, augment)
    return cut(source, imbalance, factor, seed, class_order, n_max)


def from_manifest(
    path: PathLike, source: str | Dataset, root: PathLike | None = None, size: int | None = None
) -> dict[str, ImageSet]:
    """The image sets that a manifest names, with exactly its images in its order.

    Args:
        path: a manifest.csv with the columns file, label, split.
        source: where the images are: a name as for `load`, or a `Dataset` that holds them.
        root: as `load`, where `source` is a name.
        size: as `load`, where `source` is a name.

    Returns:
        Split name -> `ImageSet`.

    Raises:
        UserError: no manifest, an image that the source has not, or one that has another label there.

    >>> import tempfile
    >>> data = load("digits", imbalance="exp", factor=0.1)
    >>> with tempfile.TemporaryDirectory() as run:
    ...     data.write_manifest(f"{run}/manifest.csv")
    ...     same = from_manifest(f"{run}/manifest.csv", "digits")
    >>> same["train"].files == data.train.files
    True
    """
    data = source if isinstance(source, Dataset) else load(source, root=root, size=size)
    place = {file: (s, i) for s in (data.train, data.test) for i, file in enumerate(s.files)}
    chosen: dict[str, list[tuple[ImageSet, int]]] = {}
    for file, label, split_name in read_rows(path):
        if file not in place:
            raise UserError(
                f"path: {path} names {file!r}, which {data.name} does not have; give the source (root) it is of"
            )
        images, i = place[file]
        if int(images.labels[i]) != label:
            raise UserError(
                f"path: {path} gives {file!r} the label {label}; in {data.name} it is {int(images.labels[i])}"
            )
        chosen.setdefault(split_name, []).append((images, i))
    return {split_name: _gather(rows) for split_name, rows in chosen.items()}


def _gather(rows: list[tuple[ImageSet, int]]) -> ImageSet:
    return ImageSet(
        torch.stack([images.images[i] for images, i in rows]),
        torch.stack([images.labels[i] for images, i in rows]),
        tuple(images.files[i] for images, i in rows),
    )
