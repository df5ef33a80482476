"""Which images a study runs on: the distributions of figure 6, and the share of a data set that a scale leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from lt_nas_ext.data import Dataset, sources
from lt_nas_ext.data.cifar import cifar
from lt_nas_ext.data.cut import cut, feasible_counts, train_and_test
from lt_nas_ext.data.folder import folder
from lt_nas_ext.data.sources import Part, Source
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import class_counts
from lt_nas_ext.methods.base import rounded_up

DATA = ("cifar10", "folder", "digits")

LEAST_IMAGES = 10
"""A scale leaves at least so many images of the largest class."""

CIFAR10_IMAGES = 5000
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Distribution:
    """How many training images each class has.

    Attributes:
        name: as in --distributions, and of its directory.
        title: in tables and pictures.
        imbalance, factor: of `lt_nas_ext.data.load`.
    """

    name: str
    title: str
    imbalance: str
    factor: float


DISTRIBUTIONS = {
    one.name: one
    for one in (
        Distribution("balance", "balance", "balance", 1.0),
        Distribution("exp-0.1", "exp μ = 0.1", "exp", 0.1),
        Distribution("exp-0.01", "exp μ = 0.01", "exp", 0.01),
        Distribution("step-0.01", "step μ = 0.01", "step", 0.01),
    )
}
"""[paper] The four of figure 6."""

MORE = {
    one.name: one
    for one in (
        Distribution("step-0.1", "step μ = 0.1", "step", 0.1),
        Distribution("exp-0.02", "exp μ = 0.02", "exp", 0.02),
        Distribution("step-0.02", "step μ = 0.02", "step", 0.02),
    )
}
"""What other studies take beside them; 0.02 is as far as 130 images of a class go."""

ALL = {**DISTRIBUTIONS, **MORE}


@dataclass(frozen=True)
class Images:
    """A data set at a scale, without the images: what the parent process knows and each worker loads.

    Attributes:
        data, root: as of `lt_nas_ext.data.load`.
        title: what results call it.
        class_names: of its classes.
        counts: training images of each class, by name of the distribution.
        n_max: images of the largest class, by name of the distribution; None: all there are.
        test: test images of each class at most; None: all there are.
        figure_6: training images of each class under all four distributions, at scale 1; those that are possible.
    """

    data: str
    root: str | None
    title: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    n_max: dict[str, int | None]
    test: int | None
    figure_6: dict[str, tuple[int, ...]]

    @property
    def of_cifar10(self) -> bool:
        """Whether the paper's numbers may stand beside results on it."""
        return self.title.startswith("CIFAR-10")

    def load(self, distribution: str, seed: int) -> Dataset:
        """The images themselves."""
        return _load(self.data, self.root, self.title, distribution, seed, self.n_max[distribution], self.test)


def survey(data: str, root: Path | None, scale: float, distributions: Sequence[str]) -> Images:
    """Look at the labels of a data set, and see what the scale leaves of it.

    Args:
        data: one of `DATA`.
        root: where it lies.
        scale: share of the images of a class, of training and of test images, in (0, 1].
        distributions: names out of `ALL`.

    Raises:
        UserError: the data set is not there, or a distribution leaves less than two images of a class: the search needs
            one on each side of its split.
    """
    place = None if root is None else os.path.abspath(root)
    source = _source(data, place)
    train, test = train_and_test(source)
    names, classes = source.class_names, len(source.class_names)
    available = np.bincount(train.labels, minlength=classes).tolist()
    n_max: dict[str, int | None] = {}
    counts: dict[str, tuple[int, ...]] = {}
    for name in distributions:
        one, whole = ALL[name], _whole(ALL[name], available, names)
        n_max[name], counts[name] = None, whole
        if scale < 1.0:
            most = min(whole) if one.imbalance == "balance" else max(whole)
            n_max[name] = n = min(max(LEAST_IMAGES, round(scale * most)), most)
            counts[name] = (
                class_counts(one.imbalance, one.factor, classes, n) if n * one.factor >= 1 else (0,) * classes
            )
        if min(counts[name]) < 2:
            raise UserError(_too_few(name, scale, min(counts[name]), 2 / (one.factor * max(whole))))
    tested = np.bincount(test.labels, minlength=classes).tolist()
    few = None if scale == 1.0 else min(max(LEAST_IMAGES, round(scale * max(tested))), max(tested))
    title = _title(source, train, available, place)
    return Images(data, place, title, names, counts, n_max, few, _all_four(available, names))


def _whole(one: Distribution, available: list[int], names: Sequence[str]) -> tuple[int, ...]:
    """Training images of each class, of all there are."""
    if one.imbalance == "balance":
        return tuple(available)
    return feasible_counts(one.imbalance, one.factor, available, None, list(names))


def _all_four(available: list[int], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for one in DISTRIBUTIONS.values():
        with contextlib.suppress(UserError):  # too few images for this one
            found[one.name] = _whole(one, available, names)
    return found


def _too_few(distribution: str, scale: float, images: int, needed: float) -> str:
    left = {0: "no image", 1: "1 image"}[images]
    wanted = "other distributions" if needed > 1 else f"a scale of at least {rounded_up(needed):g}, or others"
    return (
        f"distributions: {distribution} at scale {scale:g} leaves {left} of some class, and a search needs one on each "
        f"side of its split; wanted {wanted}"
    )


@lru_cache(maxsize=1)  # a worker trains many networks on the same images, one after the other
def _load(
    data: str, root: str | None, title: str, distribution: str, seed: int, n_max: int | None, test: int | None
) -> Dataset:
    source, chosen = _source(data, root), ALL[distribution]
    if test is not None:
        train, tests = train_and_test(source)
        source = dataclasses.replace(source, train=train, test=_first_of_each(tests, len(source.class_names), test))
    found = cut(source, chosen.imbalance, chosen.factor, seed, None, n_max)
    return dataclasses.replace(found, root=root, title=title)


@lru_cache(maxsize=1)
def _source(data: str, root: str | None) -> Source:
    if data == "digits":
        return sources.digits()
    return folder(root) if data == "folder" else cifar("cifar10", root)


def _first_of_each(part: Part, classes: int, most: int) -> Part:
    return part.narrow(np.concatenate([np.flatnonzero(part.labels == c)[:most] for c in range(classes)]))


def _title(source: Source, train: Part, available: Sequence[int], root: str | None) -> str:
    """ "CIFAR-10" for torchvision's; a folder that holds all of its images as JPEG says so, with their quality."""
    if source.name != "folder":
        return {"cifar10": "CIFAR-10"}.get(source.name, source.name)
    assert root is not None
    if list(source.class_names) == CIFAR10 and list(available) == [CIFAR10_IMAGES] * 10:
        with Image.open(Path(root, train.files[0])) as image:
            tables = getattr(image, "quantization", None)
        # libjpeg, from quality 50 on: its luminance table, whose entries sum to 3688, times 2 - quality / 50
        return f"CIFAR-10 JPEG-Q{round(100 - 50 * sum(tables[0]) / 3688)}" if tables else "CIFAR-10"
    return f"folder {Path(root).name}"
