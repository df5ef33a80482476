"""Logits over a set of images, and the figures of a long-tailed classifier from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from lt_nas_ext.data import ImageSet, normalize
from lt_nas_ext.data.draws import as_floats
from lt_nas_ext.engine.classifier import Classifier
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import Metrics, evaluate_predictions

BATCH = 500


@torch.no_grad()
def batched(
    function: Callable[[torch.Tensor], torch.Tensor],
    images: ImageSet,
    device: torch.device,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    group: Group = ALONE,
) -> torch.Tensor:
    """`function` of the normalised images, a batch at a time: (N, ...), on the device.

    Several processes take turns with the batches, and each gets what one process would have made of all of them.
    """

    def made(part: torch.Tensor) -> torch.Tensor:
        return function(normalize(part.to(device), mean, std).contiguous(memory_format=torch.channels_last))

    parts = images.images.split(BATCH)
    if group.size == 1:
        return torch.cat([made(part) for part in parts])
    turns = []
    for first in range(0, len(parts), group.size):
        own = made(parts[min(first + group.rank, len(parts) - 1)])  # where none is left, one that is not looked at
        whole = own.new_zeros(BATCH, *own.shape[1:])  # all send as much
        whole[: len(own)] = own
        turns.append(group.gather(whole).flatten(0, 1))
    return torch.cat(turns)[: len(images)]


@torch.no_grad()
def predict_logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits (N, classes) of a model that takes images in [0, 1], such as a `Classifier`. It keeps its mode.

    Args:
        model: the module; it computes where its parameters are.
        images: (N, C, H, W), uint8 or floating point in [0, 1]; computed in float32.
    """
    was_training = model.training
    device = next((parameter.device for parameter in model.parameters()), images.device)
    model.eval()
    try:
        parts = []
        for part in images.split(BATCH):
            pixels = as_floats(part.to(device)).float()
            parts.append(model(pixels.contiguous(memory_format=torch.channels_last)))
        return torch.cat(parts)
    finally:
        model.train(was_training)


def evaluate(
    model: nn.Module, images: ImageSet, train_counts: Sequence[int] | None = None, adjusted: bool = False
) -> Metrics:
    """Accuracy on a set of images: balanced and long-tailed, by class and group, with confusion and calibration.

    Args:
        model: what `retrain` returned, or any module from images (N, C, H, W) in [0, 1] to logits. A network that
            wants normalised images: `Classifier.of(network, data)`.
        images: such as `data.test`.
        train_counts: training images of each class, which make the groups; by default those the model was trained on.
        adjusted: read the logits by the logit adjustment and temperature that were fitted on the run's validation
            images (`Calibration.adjusted`), instead of as they are.

    Raises:
        UserError: no training counts, no images, images that the model cannot take, or nothing fitted to adjust by.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model: got {type(model).__name__}; wanted what retrain returned, or a module")
    if not isinstance(images, ImageSet):
        raise UserError(f"images: got {type(images).__name__}; wanted an ImageSet, such as data.test")
    if train_counts is None:
        if not isinstance(model, Classifier):
            raise UserError(
                "train_counts: a plain module does not know how many images each class had; pass data.counts, "
                "or wrap the network: Classifier.of(network, data)"
            )
        train_counts = model.train_counts
    if not len(images):
        raise UserError("images: the set is empty; wanted at least one image to evaluate on")
    if isinstance(model, Classifier) and images.images.shape[1] != model.image_shape[0]:
        raise UserError(
            f"images: got {images.images.shape[1]} channel(s); wanted {model.image_shape[0]}, as the training images"
        )
    calibration = model.calibration if isinstance(model, Classifier) else None
    if adjusted and calibration is None:
        raise UserError("adjusted: got True for a model without calibration; wanted one trained with val_fraction > 0")
    logits = predict_logits(model, images.images)
    if adjusted and calibration is not None:
        logits = calibration.adjusted(logits, train_counts)
    return evaluate_predictions(logits, images.labels, train_counts)
