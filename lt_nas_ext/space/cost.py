"""What a network costs: its parameters and its multiply-adds, as papers count them."""

from __future__ import annotations

import torch
from torch import nn as tnn
from torch.utils.flop_counter import FlopCounterMode


def param_count(model: tnn.Module) -> int:
    """Parameters of a network without its auxiliary classifier, as papers count them.

    >>> import lt_nas_ext as lt
    >>> param_count(lt.space.Network(lt.space.DARTS_V2, channels=36, num_classes=10, layers=20))
    3349342
    """
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith("auxiliary_head"))


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
