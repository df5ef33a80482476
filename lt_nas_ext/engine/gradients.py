"""Which parameters get a gradient, and how large the gradients of a loss's parts are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from lt_nas_ext.methods import Loss


@contextlib.contextmanager
def gradients_for(wanted: Sequence[torch.Tensor], everything: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this context only the `wanted` of all parameters require gradients.

    The frozen rest is what makes the steps cheap: with α frozen a node's sum keeps no candidate for backward, with w
    frozen no weight gradient is computed.
    """
    before = [parameter.requires_grad for parameter in everything]
    try:
        for parameter in everything:
            parameter.requires_grad_(False)
        for one in wanted:
            one.requires_grad_(True)
        yield
    finally:
        for parameter, required in zip(everything, before, strict=True):
            parameter.requires_grad_(required)


def gradient_norms(loss: Loss, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The norm of each part's gradient: does the regulariser drown in the task's loss, or the other way round?"""
    norms = {}
    for name, part in loss.parts.items():
        gradients = torch.autograd.grad(part, list(parameters), retain_graph=True, allow_unused=True)
        present = [gradient.flatten() for gradient in gradients if gradient is not None]
        norms[name] = torch.cat(present).norm() if present else torch.zeros(())
    return norms
