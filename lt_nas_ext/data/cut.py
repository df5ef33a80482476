"""The long tail: which training images of a source an experiment keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from lt_nas_ext.data.datasets import Dataset
from lt_nas_ext.data.sources import Part, Source
from lt_nas_ext.data.split import split_mask
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.distributions import check_distribution, check_seed, class_counts, subset_indices

TEST_FRACTION = 0.2


def cut(
    source: Source,
    imbalance: str,
    factor: float,
    seed: int,
    class_order: Sequence[int | str] | None,
    n_max: int | None,
) -> Dataset:
    """Source -> `Dataset`: a test split where there is none, counts from head to tail, the chosen images in memory.

    The arguments are those of `lt_nas_ext.data.load`.
    """
    check_seed(seed)
    check_distribution(imbalance, factor, len(source.class_names), 1 if n_max is None else n_max)
    train, test = train_and_test(source)
    order = _class_order(class_order, source.class_names)
    available = np.bincount(train.labels, minlength=len(order))[list(order)].tolist()  # from head to tail
    if imbalance == "balance" and n_max is None:
        ranked = tuple(available)
    else:
        ranked = feasible_counts(imbalance, factor, available, n_max, [source.class_names[c] for c in order])
    counts = [0] * len(order)
    for c, n in zip(order, ranked, strict=True):
        counts[c] = n
    chosen = subset_indices(torch.from_numpy(train.labels), counts, seed).numpy()
    data = Dataset(
        name=source.name,
        train=train.take(chosen),
        test=test.take(np.arange(len(test.labels))),
        class_names=source.class_names,
        imbalance=imbalance,
        factor=float(factor),
        seed=seed,
        class_order=order,
        views=source.views,
        augment=source.augment,
    )
    if data.train.images.shape[1:] != data.test.images.shape[1:]:
        raise UserError(
            f"test: images of shape {tuple(data.test.images.shape[1:])} beside training images of shape "
            f"{tuple(data.train.images.shape[1:])}; give size=, and both grey or both colour"
        )
    return data


def train_and_test(source: Source) -> tuple[Part, Part]:
    """The two parts of a source; where it has no test set, that is a stratified 20 % which no seed changes.

    Raises:
        UserError: a class without images in one of them, or labels that are none.
    """
    train, test = source.train, source.test
    _check_labels(source, train.labels, "training")
    if test is None:
        _check_both_sides(source)
        kept = split_mask(train.labels, 1 - TEST_FRACTION, seed=0)
        train, test = train.narrow(np.flatnonzero(kept)), train.narrow(np.flatnonzero(~kept))
    _check_labels(source, test.labels, "test")
    return train, test


def feasible_counts(
    imbalance: str, factor: float, available: list[int], n_max: int | None, names: list[str]
) -> tuple[int, ...]:
    """Counts from head to tail: of the n_max asked for, or of the largest that every class can follow."""

    def short(n: int) -> list[int]:
        counts = class_counts(imbalance, factor, len(available), n)
        return [r for r, (want, have) in enumerate(zip(counts, available, strict=True)) if want > have]

    if n_max is not None:
        if lacking := short(n_max):
            r = lacking[0]
            raise UserError(
                f"n_max: {n_max} images of the head class ask for more of {names[r]!r} than its {available[r]} "
                "training images; give a smaller n_max, another class_order, or none for the most that fits"
            )
        return class_counts(imbalance, factor, len(available), n_max)
    # n_c grows with n_max, so the largest n_max that fits is found by bisection
    low, high = 0, available[0]
    while low < high:
        middle = (low + high + 1) // 2
        fits = middle * factor < 1 or not short(middle)  # too small for its own tail: class_counts tells, below
        low, high = (middle, high) if fits else (low, middle - 1)
    return class_counts(imbalance, factor, len(available), max(low, 1))


def _class_order(class_order: Sequence[int | str] | None, names: tuple[str, ...]) -> tuple[int, ...]:
    if class_order is None:
        return tuple(range(len(names)))
    wanted = f"wanted every class once, from head to tail: a permutation of 0 … {len(names) - 1}, or the names"
    if not isinstance(class_order, Iterable):
        raise UserError(f"class_order: got {class_order!r}; {wanted}")
    order = []
    for entry in class_order:
        if isinstance(entry, str) and entry not in names:
            raise UserError(f"class_order: no class is called {entry!r}; the classes are {', '.join(names[:20])}")
        if not isinstance(entry, (str, int, np.integer)):
            raise UserError(f"class_order: got {entry!r} in it; {wanted}")
        order.append(names.index(entry) if isinstance(entry, str) else int(entry))
    if sorted(order) != list(range(len(names))):
        raise UserError(f"class_order: got {list(class_order)}; {wanted}")
    return tuple(order)


def _check_both_sides(source: Source) -> None:
    """Raise `UserError` where a class has too few images to train and to test on."""
    counts = np.bincount(source.train.labels, minlength=len(source.class_names))
    if counts.min() < 2:
        raise UserError(
            f"images: class {source.class_names[counts.argmin()]!r} has 1 image and there is no test set, so it would "
            "have none to train or none to test on; add images of it, leave it out, or give a test set"
        )


def _check_labels(source: Source, labels: np.ndarray, part: str) -> None:
    num_classes = len(source.class_names)
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise UserError(
            f"labels: the {part} set has {labels.min()} … {labels.max()}; with {num_classes} class names wanted "
            f"0 … {num_classes - 1}"
        )
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        raise UserError(
            f"labels: class {source.class_names[missing[0]]!r} has no images in the {part} set; every class needs some"
        )
