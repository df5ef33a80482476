"""How many training images each class keeps, and which ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

from lt_nas_ext.errors import UserError

Imbalance = Literal["balance", "exp", "step"]
IMBALANCES: tuple[str, ...] = get_args(Imbalance)

# An n_max·μ that is whole in exact arithmetic may come out as 28.999… in floating point; this lifts it back.
# No count of the published CIFAR tables is so close below an integer that it would change.
_ROUNDING = 1.0 + 1e-12


def class_counts(imbalance: str, factor: float, num_classes: int, n_max: int) -> tuple[int, ...]:
    """Training images of each class, from head to tail [paper: LDAM-DRW, Cao et al. 2019, section 4; Cui et al. 2019].

    `exp`: n_c = int(n_max · μ^(c/(C−1))). `step`: the first C//2 classes keep n_max, the rest int(n_max · μ).
    `balance`: every class keeps n_max.

    Args:
        imbalance: "balance", "exp" or "step".
        factor: μ = n_min / n_max in (0, 1]; 0.01 is "imbalance ratio 100".
        num_classes: C ≥ 1; at least 2 for "exp" and "step".
        n_max: images of the largest class, ≥ 1.

    Returns:
        C integers, none below 1, never increasing.

    Raises:
        UserError: an argument is out of its range, or a class would be left without an image.

    >>> class_counts("exp", 0.01, num_classes=10, n_max=5000)
    (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    >>> class_counts("step", 0.1, num_classes=4, n_max=50)
    (50, 50, 5, 5)
    """
    check_distribution(imbalance, factor, num_classes, n_max)
    if imbalance == "balance":
        return (n_max,) * num_classes
    if imbalance == "exp":
        exponents = [c / (num_classes - 1) for c in range(num_classes)]
    else:
        exponents = [0.0 if c < num_classes // 2 else 1.0 for c in range(num_classes)]
    counts = tuple(int(n_max * factor**e * _ROUNDING) for e in exponents)
    if counts[-1] < 1:
        raise UserError(
            f"factor: {factor:g} of n_max={n_max} leaves the last class without an image; "
            f"give a factor of at least 1/n_max = {1 / n_max:.2g}, or more images per class"
        )
    return counts


def subset_indices(labels: torch.Tensor | Sequence[int], counts: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Which images stay: a seeded shuffle within each class, then its first n_c [paper: LDAM-DRW's code].

    The recipe, whose seed 0 gives the canonical subset: `np.random.seed(0)`; then for each class, label 0 first, the
    indices of its images in their order, `np.random.shuffle`d, and of these the first n_c. (Here a `RandomState` of
    its own, which draws the same.) The choice depends only on the number and the order of a class's images, so it is
    LDAM-DRW's wherever the images of a class stand in CIFAR's own order, whatever file format they are in.

    Args:
        labels: (N,) class of each image, in 0 … C−1.
        counts: C integers; `counts[c]` images of label c are kept.
        seed: random seed, 0 ≤ seed < 2³².

    Returns:
        (Σ counts,) int64 indices into `labels`: label 0 first, shuffled within a class.

    Raises:
        UserError: a class has fewer images than `counts` asks for, a label lies outside 0 … C−1, or a bad seed.

    >>> subset_indices(torch.tensor([0, 0, 0, 1, 1, 1]), counts=[3, 1], seed=0)
    tensor([2, 1, 0, 5])
    """
    check_seed(seed)
    y = np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels, dtype=np.int64)
    if y.size and (y.min() < 0 or y.max() >= len(counts)):
        raise UserError(
            f"labels: found {y.min()} … {y.max()}; with {len(counts)} counts they must be in 0 … {len(counts) - 1}"
        )
    random = np.random.RandomState(seed)
    kept = []
    for c, wanted in enumerate(counts):
        members = np.flatnonzero(y == c)
        if wanted > len(members):
            raise UserError(f"counts: class {c} has {len(members)} images and {wanted} are wanted of it; ask for fewer")
        random.shuffle(members)
        kept.append(members[:wanted])
    return torch.from_numpy(np.concatenate(kept)) if kept else torch.empty(0, dtype=torch.int64)


def check_seed(seed: int) -> None:
    """Raise `UserError` where `seed` is no integer in 0 … 2³²−1 (the range of NumPy's `RandomState`).

    >>> check_seed(0)
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise UserError(f"seed: got {seed!r}; wanted an integer in 0 … 4294967295")


def check_distribution(imbalance: str, factor: float, num_classes: int, n_max: int) -> None:
    """Raise `UserError` where an argument of `class_counts` is of the wrong type or out of its range."""
    if imbalance not in IMBALANCES:
        raise UserError(f"imbalance: got {imbalance!r}; wanted one of {', '.join(map(repr, IMBALANCES))}")
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0.0 < factor <= 1.0:
        raise UserError(
            f"factor: got {factor!r}; wanted μ = n_min / n_max in (0, 1] (an imbalance ratio of 100 is factor=0.01)"
        )
    if imbalance == "balance" and factor != 1.0:
        raise UserError(
            f"factor: {factor:g} has no effect with imbalance='balance'; give imbalance='exp' or 'step', or factor=1"
        )
    least = 1 if imbalance == "balance" else 2
    if num_classes < least:
        raise UserError(f"num_classes: got {num_classes}; {imbalance!r} needs at least {least}")
    if isinstance(n_max, bool) or not isinstance(n_max, (int, np.integer)) or n_max < 1:
        raise UserError(f"n_max: got {n_max!r}; wanted at least one image in the largest class")
