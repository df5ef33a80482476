"""Numbers that depend on the images at hand: what the settings `fit` and `min_steps` ask for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lt_nas_ext.data.split import split_mask
from lt_nas_ext.methods.settings import SearchSettings

# [ours] All five.
STEPS_AN_EPOCH = 8
SMALLEST_BATCH = 16
WIDTHS_A_BATCH = 8
TRAVEL = 8.0
IMAGES_TO_SPLIT = 10


def fitted(settings: SearchSettings, class_counts: tuple[int, ...]) -> SearchSettings:
    """The settings with the numbers that these training images call for; the same ones where nothing is asked.

    >>> from lt_nas_ext.methods import preset
    >>> found = fitted(preset("recommended"), (130, 100, 77, 60, 46, 36, 28, 21, 16, 13))
    >>> found.batch_size, found.epochs, found.projector, found.alpha_lr > 0.005
    (32, 154, (256, 256, 256), True)
    """
    if not settings.fit and not settings.min_steps:
        return settings
    if settings.fit and min(class_counts) < IMAGES_TO_SPLIT:
        settings = replace(settings, one_level=True, candidates=0)
    images = weight_images(settings, class_counts)
    if settings.fit:
        batch = settings.batch_size
        while images // batch < STEPS_AN_EPOCH and batch // 2 >= SMALLEST_BATCH:
            batch //= 2
        widths = tuple(min(width, WIDTHS_A_BATCH * batch) for width in settings.projector)
        settings = replace(settings, batch_size=batch, projector=widths)
    steps = max(images // settings.batch_size, 1)
    epochs = max(settings.epochs, math.ceil(settings.min_steps / steps))
    settings = replace(settings, epochs=epochs)
    if settings.fit:
        alpha_steps = (epochs - frozen_epochs(settings.alpha_frozen, epochs)) * steps
        settings = replace(settings, alpha_lr=max(settings.alpha_lr, TRAVEL / alpha_steps))
    return settings


def weight_images(settings: SearchSettings, class_counts: tuple[int, ...]) -> int:
    """How many images train w."""
    if settings.one_level:
        return sum(class_counts)
    labels = np.repeat(np.arange(len(class_counts)), class_counts)
    return int(split_mask(labels, settings.split, settings.seed, settings.stratify).sum())


def frozen_epochs(share: float, epochs: int) -> int:
    """Epochs in which α is frozen: rounded down, so that a single one is never frozen.

    >>> frozen_epochs(0.3, 50), frozen_epochs(0.25, 7), frozen_epochs(0.9, 1)
    (15, 1, 0)
    """
    return math.floor(share * epochs + 1e-9)  # 0.3 · 10 is not quite 3
