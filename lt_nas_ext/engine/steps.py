"""The two steps of a search. Each computes only what it needs: no gradient of what it does not update.

The gradient of α is taken at the present w (first order), or through the step of w that follows (`unrolled`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lt_nas_ext.engine.gradients import gradient_norms, gradients_for
from lt_nas_ext.engine.optimisers import AlphaOptimiser, weight_optimiser
from lt_nas_ext.engine.unrolled import Unrolled
from lt_nas_ext.methods import Batch, Epoch, Loss, Method


class Steps:
    """A method's networks with the two optimisers that train them.

    Args:
        method: what is trained, and its settings.
        networks: what `method.build` returned, on its device.
    """

    def __init__(self, method: Method, networks: nn.Module) -> None:
        self.method, self.networks = method, networks
        self.weights = weight_optimiser(method.weight_groups(networks), method.settings, method.schedule)
        self.alphas = AlphaOptimiser(method.alpha_groups(networks), method.settings)
        # Once: a walk over the modules of a supernet takes milliseconds.
        self._parameters = list(networks.parameters())
        self._at = Epoch(0, 1)
        order = method.settings.order
        self._unrolled: Unrolled | None = None
        if order != "first":
            self._unrolled = Unrolled(method, networks, self.weights, self._parameters, exact=order == "exact")

    def begin(self, epoch: Epoch) -> None:
        """Set the learning rates of an epoch, who is frozen in it, and what the method changes."""
        self._at = epoch
        self.method.begin(self.networks, epoch)
        self.weights.begin(epoch)
        self.alphas.begin(epoch)

    def arch(
        self, batch: Batch, weight_batch: Batch, measure: Callable[[dict[str, torch.Tensor]], None] | None = None
    ) -> Loss:
        """One step of α on a batch of the second half.

        Args:
            batch: of the second half.
            weight_batch: what the step of w that follows will be taken on; the first order does not look at it.
            measure: gets the gradient norm of each part of the loss.
        """
        active = self.alphas.active
        if self._unrolled is not None:
            loss = self._unrolled.backward(active, batch, weight_batch, self._at, measure)
        else:
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
