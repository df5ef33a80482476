"""What a supernet and the network derived from it have in common: the stem, and the plan of their cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn as tnn

from lt_nas_ext.errors import UserError

STEM_MULTIPLIER = 3
"""The stem has three times the channels of the first cells' nodes [paper: DARTS]."""


class CellPlace(NamedTuple):
    """Where a cell stands: the channels it meets and makes, and whether it or the cell before it halves the image."""

    channels_prev_prev: int
    channels_prev: int
    channels: int
    reduction: bool
    reduction_prev: bool


def reduction_layers(layers: int) -> tuple[int, int]:
    """The places of the reduction cells: after one and two thirds of the depth [paper: DARTS].

    >>> reduction_layers(8), reduction_layers(20)
    ((2, 5), (6, 13))
    """
    return layers // 3, 2 * layers // 3


def plan_cells(
    channels: int, layers: int, stem: int, normal_nodes: int, reduce_nodes: int
) -> tuple[list[CellPlace], int]:
    """The cells of a network in order, and the channels of the last one's output.

    Args:
        channels: of a node in the first cells; a reduction cell doubles them.
        layers: number of cells.
        stem: channels of the stem's output.
        normal_nodes: nodes that a normal cell concatenates.
        reduce_nodes: nodes that a reduction cell concatenates.

    >>> places, width = plan_cells(channels=16, layers=8, stem=48, normal_nodes=4, reduce_nodes=4)
    >>> places[2]
    CellPlace(channels_prev_prev=64, channels_prev=64, channels=32, reduction=True, reduction_prev=False)
    >>> width
    256
    """
    places = []
    before, previous, reduced = stem, stem, False
    for layer in range(layers):
        reduction = layer in reduction_layers(layers)
        if reduction:
            channels *= 2
        places.append(CellPlace(before, previous, channels, reduction, reduced))
        before, previous, reduced = (
            previous,
            channels * (reduce_nodes if reduction else normal_nodes),
            reduction,
        )
    return places, previous


def head_place(last: CellPlace, width: int) -> CellPlace:
    """Where a head of one normal cell stands: behind the last cell of a backbone, fed as one more cell would be.

    Args:
        last: the backbone's last cell.
        width: channels of its output.

    >>> places, width = plan_cells(channels=16, layers=8, stem=48, normal_nodes=4, reduce_nodes=4)
    >>> head_place(places[-1], width)
    CellPlace(channels_prev_prev=256, channels_prev=256, channels=64, reduction=False, reduction_prev=False)
    """
    return CellPlace(last.channels_prev, width, last.channels, False, last.reduction)


def make_stem(in_channels: int, channels: int) -> tnn.Sequential:
    """Convolution 3x3 and a batch norm with weight and bias: the only one of a supernet that has them [paper: DARTS].

    >>> make_stem(1, 12)[0].weight.shape
    torch.Size([12, 1, 3, 3])
    """
    return tnn.Sequential(tnn.Conv2d(in_channels, channels, 3, padding=1, bias=False), tnn.BatchNorm2d(channels))


def check_sizes(**sizes: int) -> None:
    """Raise `UserError` where a size is not a positive integer; the keyword names it."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise UserError(f"{name}: got {size!r}; wanted an integer, at least 1")


class NoClassifier(tnn.Module):
    """The classifier of a backbone: it has none."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        raise UserError("num_classes: got None, so there is no classifier and no logits; wanted the number of classes")


def make_classifier(features: int, num_classes: int | None) -> tnn.Module:
    """Linear, or for None classes what says that there is none.

    >>> make_classifier(8, 3)(torch.zeros(2, 8)).shape
    torch.Size([2, 3])
    """
    return NoClassifier() if num_classes is None else tnn.Linear(features, num_classes)


def check_images(x: torch.Tensor, in_channels: int) -> None:
    """Raise `UserError` where x is not a batch of images with `in_channels` channels."""
    if x.dim() != 4 or x.shape[1] != in_channels or not x.is_floating_point():
        raise UserError(
            f"x: got {x.dtype} of shape {tuple(x.shape)}; wanted floating-point images (N, {in_channels}, H, W); "
            "another number of channels is the network's argument in_channels"
        )
