"""A method's two losses on its networks, computed in the precision that the settings ask for."""

from __future__ import annotations

from torch import nn

from lt_nas_ext.engine.device import autocast
from lt_nas_ext.methods import Batch, Epoch, Loss, Method


class MethodLosses:
    """What the steps differentiate.

    Args:
        method: whose losses.
        networks: what it built.
    """

    def __init__(self, method: Method, networks: nn.Module) -> None:
        self._method, self._networks = method, networks
        self._device = next(networks.parameters()).device

    def alpha(self, batch: Batch, at: Epoch) -> Loss:
        """The loss of the architecture parameters."""
        with autocast(self._device, self._method.settings.precision):
            return self._method.alpha_loss(self._networks, batch, at)

    def weight(self, batch: Batch, at: Epoch) -> Loss:
        """The loss of the weights."""
        with autocast(self._device, self._method.settings.precision):
            return self._method.weight_loss(self._networks, batch, at)
