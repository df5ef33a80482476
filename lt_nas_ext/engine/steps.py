"""The two steps of a search. Each computes only what it needs: no gradient of what it does not update.

The α step is first order: its gradient is taken at the present w. Another order is another way to fill α's gradient
in `Steps.arch`, where the w optimiser is at hand; `search` has drawn the w batch by then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lt_nas_ext.engine.optimisers import AlphaOptimiser, weight_optimiser
from lt_nas_ext.methods import Batch, Epoch, Loss, Method


class Steps:
    """A method's networks with the two optimisers that train them.

    Args:
        method: what is trained, and its settings.
        networks: what `method.build` returned, on its device.
    """

    def __init__(self, method: Method, networks: nn.Module) -> None:
        self.method, self.networks = method, networks
        self.weights = weight_optimiser(method.weight_groups(networks), method.settings)
        self.alphas = AlphaOptimiser(method.alpha_groups(networks), method.settings)
        # Once: a walk over the modules of a supernet takes milliseconds.
        self._parameters = list(networks.parameters())
        self._at = Epoch(0, 1)

    def begin(self, epoch: Epoch) -> None:
        """Set the learning rates of an epoch, and who is frozen in it."""
        self._at = epoch
        self.weights.begin(epoch)
        self.alphas.begin(epoch)

    def arch(self, batch: Batch, measure: Callable[[dict[str, torch.Tensor]], None] | None = None) -> Loss:
        """One step of α on a batch of the second half. `measure` gets the gradient norm of each part of the loss."""
        active = self.alphas.active
        with gradients_for(active, self._parameters):
            loss = self.method.alpha_loss(self.networks, batch, self._at)
            if measure is not None:
                measure(gradient_norms(loss, active))
            loss.total.backward()
            self.alphas.step()
        return loss

    def weight(self, batch: Batch) -> Loss:
        """One step of w on a batch of the first half, the whole gradient's norm clipped."""
        active = self.weights.active
        with gradients_for(active, self._parameters):
            loss = self.method.weight_loss(self.networks, batch, self._at)
            loss.total.backward()
            nn.utils.clip_grad_norm_(active, self.method.settings.grad_clip)
            self.weights.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "weights": self.weights.state_dict(),
            "alphas": self.alphas.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])


@contextlib.contextmanager
def gradients_for(wanted: Sequence[nn.Parameter], everything: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this context only the `wanted` of all parameters require gradients.

    The frozen rest is what makes the steps cheap: with α frozen a node's sum keeps no candidate for backward, with w
    frozen no weight gradient is computed.
    """
    before = [parameter.requires_grad for parameter in everything]
    try:
        for parameter in everything:
            parameter.requires_grad_(False)
        for parameter in wanted:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, required in zip(everything, before, strict=True):
            parameter.requires_grad_(required)


def gradient_norms(loss: Loss, parameters: Sequence[nn.Parameter]) -> dict[str, torch.Tensor]:
    """The norm of each part's gradient: does the regulariser drown in the task's loss, or the other way round?"""
    norms = {}
    for name, part in loss.parts.items():
        gradients = torch.autograd.grad(part, list(parameters), retain_graph=True, allow_unused=True)
        present = [gradient.flatten() for gradient in gradients if gradient is not None]
        norms[name] = torch.cat(present).norm() if present else torch.zeros(())
    return norms
