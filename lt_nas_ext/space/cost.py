"""What a network costs: its parameters and its multiply-adds, as papers count them."""

from __future__ import annotations

import torch
from torch import nn as tnn
from torch.utils.flop_counter import FlopCounterMode

from lt_nas_ext.space.genotype import CellGenotype, Edge, Genotype
from lt_nas_ext.space.layout import STEM_MULTIPLIER, CellPlace, plan_cells


def param_count(model: tnn.Module) -> int:
    """Parameters of a network without its auxiliary classifier, as papers count them.

    >>> import lt_nas_ext as lt
    >>> param_count(lt.space.Network(lt.space.DARTS_V2, channels=36, num_classes=10, layers=20))
    3349342
    """
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith("auxiliary_head"))


def genotype_param_count(
    genotype: Genotype, channels: int, layers: int, num_classes: int = 10, in_channels: int = 3
) -> int:
    """`param_count` of a genotype's network, worked out without building it.

    Args:
        genotype: the two cells.
        channels: C of the first cells.
        layers: number of cells.
        num_classes: outputs of the classifier.
        in_channels: channels of an image.

    >>> import lt_nas_ext as lt
    >>> genotype_param_count(lt.space.DARTS_V2, channels=36, layers=20)
    3349342
    """
    stem = STEM_MULTIPLIER * channels
    places, features = plan_cells(channels, layers, stem, len(genotype.normal.concat), len(genotype.reduce.concat))
    cells = sum(_of_cell(genotype.reduce if place.reduction else genotype.normal, place) for place in places)
    return 9 * in_channels * stem + 2 * stem + cells + (features + 1) * num_classes


def _of_cell(cell: CellGenotype, place: CellPlace) -> int:
    width = place.channels
    inputs = _projection(place.channels_prev_prev, width) + _projection(place.channels_prev, width)
    return inputs + sum(_of_edge(edge, width, place.reduction) for edge in cell.edges)


def _of_edge(edge: Edge, width: int, reduction: bool) -> int:
    if edge.op == "skip_connect":
        return _projection(width, width) if reduction and edge.source < 2 else 0
    if edge.op.endswith("_pool_3x3"):
        return 0
    kernel, units = int(edge.op[-1]), 2 if edge.op.startswith("sep") else 1
    return units * (kernel**2 * width + _projection(width, width))


def _projection(c_in: int, c_out: int) -> int:
    """A pointwise convolution, whole or in two halves, and its batch norm."""
    return c_in * c_out + 2 * c_out


@torch.no_grad()
def multiply_adds(model: tnn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds (MACs, what papers mostly call FLOPs; operations are twice as many) of one image's way through.

    Convolutions and matrix products count; batch norms, pools and activations do not [paper: FairDARTS' count]. An
    operator of a user's own that PyTorch cannot count adds nothing.

    Args:
        model: from (N, C, H, W) to logits; it computes where its parameters are, and keeps its mode.
        image_shape: (C, H, W).

    >>> multiply_adds(tnn.Conv2d(3, 4, kernel_size=3, padding=1), (3, 8, 8)) == 8 * 8 * 4 * 3 * 9
    True
    """
    # The counter hooks every output that requires a gradient, and fails on one that is a parameter itself.
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    device = next((value.device for value in parameters.values()), None)
    was_training = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            torch.func.functional_call(model, parameters, (torch.zeros(1, *image_shape, device=device),))
    finally:
        model.train(was_training)
    return int(counter.get_total_flops()) // 2
