"""Sums of figures that stay on the device and are read once an epoch: reading one in a step would wait for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from lt_nas_ext.engine.processes import ALONE, Group


class Meter:
    """Weighted means by name.

    >>> meter = Meter()
    >>> meter.add({"loss": torch.tensor(1.0)}, weight=1)
    >>> meter.add({"loss": torch.tensor(3.0)}, weight=3)
    >>> meter.read()
    {'loss': 2.5}
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, figures: Mapping[str, torch.Tensor], weight: float = 1.0) -> None:
        """Count detached scalars in, each as the mean over `weight` images."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def add_accuracy(self, name: str, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count the share of (N, C) logits whose largest is the label (N,)."""
        self.add({name: (logits.argmax(1) == labels).float().mean()}, len(labels))

    def read(self, group: Group = ALONE) -> dict[str, float]:
        """The means, as numbers, over the processes of a group; this waits for the device."""
        group.average(list(self._sums.values()), exact=True)
        return {name: float(total) / self._weights[name] for name, total in self._sums.items()}


def finite(value: float | None) -> float | None:
    """None in place of what JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None
