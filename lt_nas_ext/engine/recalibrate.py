"""Running statistics of batch norms, taken anew from images that the network was not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.fused_edges import RunningMoments

NORMS = (nn.BatchNorm2d, RunningMoments)


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace all running statistics by the plain mean over these batches of each batch's own.

    No parameter changes, there is no gradient, and the network keeps its mode. All batch norms use their batch's
    statistics meanwhile, as in training.

    Args:
        network: from normalised images to anything.
        batches: normalised images (N, C, H, W), of equal N.

    Raises:
        UserError: no batch.

    >>> norm = nn.BatchNorm2d(1)
    >>> recalibrate(norm, [torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 5.0)])
    >>> norm.running_mean, norm.running_var, norm.momentum
    (tensor([4.]), tensor([0.]), 0.1)
    """
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    before, was_training, count = [norm.momentum for norm in norms], network.training, 0
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    try:
        for count, images in enumerate(batches, 1):
            for norm in norms:
                norm.momentum = 1.0 / count
            network(images)
    finally:
        network.train(was_training)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
    if not count:
        raise UserError("batches: got none; wanted at least one batch of images to take statistics of")
