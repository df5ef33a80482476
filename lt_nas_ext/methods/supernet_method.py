"""What methods over one supernet share: DARTS, FairDARTS and SSF-NAS differ in gates and losses only."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from lt_nas_ext import nn as lt_nn
from lt_nas_ext.methods.base import Method, ParameterGroup
from lt_nas_ext.space import Genotype, Supernet

# [ours] Under the rules without a threshold a gate must at least be able to stand apart: two candidates moving
# in opposite directions then differ by 1 in alpha, a factor e in a softmax.
APART = 0.5


class SupernetMethod(Method):
    """One supernet with two groups of cells, (14, K) architecture parameters each [paper: DARTS]."""

    gate: str = "softmax"

    def supernet(self, networks: nn.Module) -> Supernet:
        """The supernet among the networks; here it is the networks."""
        return cast(Supernet, networks)

    @property
    def primitives(self) -> tuple[str, ...]:
        """The candidates' names, in the order of alpha's columns."""
        return lt_nn.DARTS if self.settings.primitives == "darts" else lt_nn.FAIR_DARTS

    def build_supernet(self) -> Supernet:
        """The supernet of the settings, for the images and classes of the problem."""
        settings, problem = self.settings, self.problem
        return Supernet(
            channels=settings.channels,
            num_classes=problem.num_classes,
            layers=settings.layers,
            gate=self.gate,
            primitives=self.primitives,
            in_channels=problem.image_shape[0],
            nodes=settings.nodes,
            alpha_init=settings.alpha_init,
            recompute=settings.recompute,
        )

    def build(self) -> nn.Module:
        return self.build_supernet()

    def alpha_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        return [ParameterGroup("alpha", tuple(self.supernet(networks).arch_parameters()))]

    def logits(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.supernet(networks)(images))

    def features(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return self.supernet(networks).features(images)

    def alphas(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        normal, reduce = self.supernet(networks).arch_parameters()
        return {"normal": normal.detach(), "reduce": reduce.detach()}

    def gates(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        return {name: gate.detach() for name, gate in self.supernet(networks).gates().items()}

    def derive(self, networks: nn.Module) -> Genotype:
        return self.supernet(networks).genotype(rule=self.settings.rule, threshold=self.settings.threshold)

    def reachable_gate(self, travel: float) -> float:
        """softmax: the best candidate goes up by `travel` while the K - 1 others go down by it."""
        others = len(self.primitives) - 1
        return 1.0 / (1.0 + others * math.exp(-2.0 * travel))

    def needed_travel(self) -> float:
        if not self.settings.rule.startswith("threshold"):
            return APART
        others, threshold = len(self.primitives) - 1, self.settings.threshold
        return max(0.0, 0.5 * math.log(others * threshold / (1.0 - threshold)))
