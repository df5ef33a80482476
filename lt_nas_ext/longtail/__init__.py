"""Long-tailed recognition: distributions, samplers, losses, metrics. Usable without any search."""

from __future__ import annotations

from lt_nas_ext.longtail.distributions import IMBALANCES, class_counts, subset_indices
from lt_nas_ext.longtail.losses import BalancedSoftmax, class_balanced_weights
from lt_nas_ext.longtail.metrics import Metrics, class_groups, evaluate_predictions, longtailed_top1
from lt_nas_ext.longtail.samplers import SAMPLERS, ImageSampler, class_probabilities, epoch_length, epoch_order

__all__ = [
    "IMBALANCES",
    "SAMPLERS",
    "BalancedSoftmax",
    "ImageSampler",
    "Metrics",
    "class_balanced_weights",
    "class_counts",
    "class_groups",
    "class_probabilities",
    "epoch_length",
    "epoch_order",
    "evaluate_predictions",
    "longtailed_top1",
    "subset_indices",
]
