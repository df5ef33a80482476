"""Two disjoint parts of a training set: w learns on one, α on the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lt_nas_ext.data.datasets import ImageSet
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.distributions import check_seed


def split(
    images: ImageSet,
    fraction: float = 0.5,
    seed: int = 0,
    stratify: bool = True,
    class_names: Sequence[str] | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Split a set in two, the same way for the same seed.

    Stratified, each class is shuffled on its own and gives round(fraction · n_c) images to the first part, at least
    one to each part. Otherwise labels are not looked at (the label-free case): one shuffle of all images.

    Args:
        images: the set; each part keeps its order.
        fraction: share of the first part, in (0, 1).
        seed: random seed, 0 ≤ seed < 2³².
        stratify: whether to split class by class.
        class_names: what errors call the classes; their labels by default.

    Returns:
        (first, second): disjoint, together complete.

    Raises:
        UserError: fewer than two images (stratified: of some class), a fraction outside (0, 1), or a bad seed.

    >>> from lt_nas_ext.data import load
    >>> first, second = split(load("digits", imbalance="exp", factor=0.1).train, fraction=0.8)
    >>> len(first), len(second), second.counts(10)
    (422, 105, (26, 20, 15, 12, 9, 7, 6, 4, 3, 3))
    """
    first = split_mask(images.labels.cpu().numpy(), fraction, seed, stratify, class_names)
    return images.subset(_where(first)), images.subset(_where(~first))


def split_mask(
    labels: np.ndarray, fraction: float, seed: int, stratify: bool = True, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """(N,) booleans: which images go to the first part (`split`'s rule, on labels alone)."""
    if not isinstance(fraction, int | float) or not 0.0 < fraction < 1.0:
        raise UserError(f"fraction: got {fraction!r}; wanted the share of the first part, in (0, 1)")
    check_seed(seed)
    random = np.random.RandomState(seed)
    first = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels) if stratify else [None]:
        members = np.arange(len(labels)) if c is None else np.flatnonzero(labels == c)
        if len(members) < 2:
            what = "the set has" if c is None else f"class {class_names[c]!r} has" if class_names else f"class {c} has"
            raise UserError(
                f"images: {what} {len(members)} image, which cannot be on both sides of a split; "
                "add images, drop the class, or use stratify=False"
            )
        taken = min(max(int(fraction * len(members) + 0.5), 1), len(members) - 1)
        first[random.permutation(members)[:taken]] = True
    return first


def _where(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(mask))
