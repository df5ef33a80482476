"""A moving average of a network's weights, which tests better than any of the weights that it averages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """a ← d · a + (1 − d) · w after every step, over weights and running statistics alike.

    At step t = 1, 2, … d is min(decay, (1 + t) / (10 + t)), TensorFlow's rule: a short run is not left with the
    initial weights.

    Args:
        network: whose weights are averaged; they must be updated in place, as optimisers do.
        decay: d of later steps, in (0, 1).

    >>> network = nn.Linear(1, 1, bias=False)
    >>> average = MovingAverage(network, decay=0.999)
    >>> with torch.no_grad():
    ...     _ = network.weight.fill_(average.state_dict()["average"]["weight"].item() + 1)
    >>> average.update()
    >>> with average.applied():
    ...     inside = network.weight.item()
    >>> round(network.weight.item() - inside, 4)     # d = 2 / 11
    0.1818
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay, self._steps = decay, 0
        # They share memory with the network. What is no floating-point tensor, such as a counter, has no average.
        state = network.state_dict()
        self._live = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        self._average = {name: value.clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Count the weights in as they are now."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        get_ema_multi_avg_fn(decay)(list(self._average.values()), list(self._live.values()), self._steps)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The average, of weights and running statistics, in one order."""
        return list(self._average.values())

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the network has the average for its weights."""
        own = {name: value.clone() for name, value in self._live.items()}
        self.apply()
        try:
            yield
        finally:
            self._write(own)

    def apply(self) -> None:
        """Give the network the average for its weights."""
        self._write(self._average)

    @torch.no_grad()
    def _write(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in self._live.items():
            value.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._steps = state["steps"]
        for name, value in self._average.items():
            value.copy_(state["average"][name])
