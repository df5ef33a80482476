"""Long-tailed recognition: distributions, samplers, losses, metrics. Usable without any search."""

from __future__ import annotations

from lt_nas_ext.longtail.calibration import Calibration, calibrate
from lt_nas_ext.longtail.decoupled import retrain_classifier, tau_normalized
from lt_nas_ext.longtail.distributions import IMBALANCES, class_counts, subset_indices
from lt_nas_ext.longtail.heads import CosineClassifier, cosine_classifier, last_linear
from lt_nas_ext.longtail.losses import (
    LDAM,
    LOSSES,
    BalancedSoftmax,
    ClassBalanced,
    CrossEntropy,
    Focal,
    InverseFrequency,
    LogitAdjustment,
    LongTailLoss,
    make_loss,
)
from lt_nas_ext.longtail.metrics import Metrics, RunningMetrics, class_groups, evaluate_predictions, longtailed_top1
from lt_nas_ext.longtail.mixed import MixedTargets, mixup, remix
from lt_nas_ext.longtail.mixing import MIXINGS, mixed_loss, mixing_ratios, schedule
from lt_nas_ext.longtail.samplers import SAMPLERS, ImageSampler, class_probabilities, epoch_length, epoch_order
from lt_nas_ext.longtail.tail import TailAugment
from lt_nas_ext.longtail.weights import DeferredReweighting, class_balanced_weights, inverse_frequency_weights

__all__ = [
    "IMBALANCES",
    "LDAM",
    "LOSSES",
    "MIXINGS",
    "SAMPLERS",
    "BalancedSoftmax",
    "Calibration",
    "ClassBalanced",
    "CosineClassifier",
    "CrossEntropy",
    "DeferredReweighting",
    "Focal",
    "ImageSampler",
    "InverseFrequency",
    "LogitAdjustment",
    "LongTailLoss",
    "Metrics",
    "MixedTargets",
    "RunningMetrics",
    "TailAugment",
    "calibrate",
    "class_balanced_weights",
    "class_counts",
    "class_groups",
    "class_probabilities",
    "cosine_classifier",
    "epoch_length",
    "epoch_order",
    "evaluate_predictions",
    "inverse_frequency_weights",
    "last_linear",
    "longtailed_top1",
    "make_loss",
    "mixed_loss",
    "mixing_ratios",
    "mixup",
    "remix",
    "retrain_classifier",
    "schedule",
    "subset_indices",
    "tau_normalized",
]
