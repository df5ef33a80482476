"""Short training of several genotypes, one after the other; the best on validation images wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from lt_nas_ext.longtail import BalancedSoftmax, evaluate_predictions
from lt_nas_ext.methods.base import Batch, Epoch, Labelled, Loss, Method, ParameterGroup, Problem
from lt_nas_ext.methods.settings import SearchSettings
from lt_nas_ext.space import Genotype, Network


class Contestants(nn.Module):
    """The networks, the macro accuracy that each has reached (-1: not trained yet), and whose turn it is."""

    scores: torch.Tensor

    def __init__(self, networks: Sequence[Network], counts: Sequence[int]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.criterion = BalancedSoftmax(counts)
        self.register_buffer("scores", torch.full((len(networks),), -1.0, dtype=torch.float64))
        self.turn = 0

    @property
    def present(self) -> Network:
        """The network whose turn it is."""
        return cast(Network, self.networks[self.turn])


class Contest(Method):
    """Networks of the supernet's size, `candidate_epochs` each: weights on the first half, judged on the second [ours].

    Trained with balanced softmax and judged by macro accuracy, so that the tail counts as much as the head; a cosine
    schedule each. The second half gives no gradient: there is no α. It reads labels, whatever came before.

    Args:
        settings: as of any method; `epochs` is the number of genotypes times `candidate_epochs`.
        problem: what is known of the data.
        genotypes: the candidates. The first of equals wins.
    """

    name = "contest"
    paper_preset = "random"

    def __init__(self, settings: SearchSettings, problem: Problem, genotypes: Sequence[Genotype]) -> None:
        super().__init__(settings, problem)
        self.genotypes = tuple(genotypes)

    def build(self) -> Contestants:
        settings, problem = self.settings, self.problem
        sizes = (settings.channels, problem.num_classes, settings.layers, problem.image_shape[0])
        return Contestants([Network(genotype, *sizes) for genotype in self.genotypes], problem.class_counts)

    def begin(self, networks: nn.Module, epoch: Epoch) -> None:
        cast(Contestants, networks).turn = self._turn(epoch)

    def _turn(self, epoch: Epoch) -> int:
        return epoch.index // self.settings.candidate_epochs

    def schedule(self, epoch: Epoch) -> Epoch:
        return Epoch(epoch.index % self.settings.candidate_epochs, self.settings.candidate_epochs)

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        assert isinstance(batch, Labelled)
        contestants = cast(Contestants, networks)
        logits = contestants.present(batch.images)
        loss: torch.Tensor = contestants.criterion(logits, batch.labels)
        return Loss({"balanced_softmax": loss}, logits=logits.detach())

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        """Never asked for: no group of α has a parameter."""
        return self.weight_loss(networks, batch, epoch)

    def alpha_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        return [ParameterGroup("alpha", ())]

    def weight_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        return [
            ParameterGroup(f"candidate {place}", tuple(network.parameters()), partial(self._factor, place))
            for place, network in enumerate(cast(Contestants, networks).networks)
        ]

    def _factor(self, place: int, epoch: Epoch) -> float:
        return float(self._turn(epoch) == place)

    def logits(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, cast(Contestants, networks).present(images))

    def features(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return cast(Contestants, networks).present.features(images)

    def judge(self, networks: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        contestants = cast(Contestants, networks)
        macro = evaluate_predictions(logits, labels, self.problem.class_counts).macro
        contestants.scores[contestants.turn] = macro
        return {"candidate": contestants.turn, "val_macro": macro}

    def report(self, networks: nn.Module) -> dict[str, Any]:
        scores = cast(Contestants, networks).scores.tolist()
        candidates = zip(self.genotypes, scores, strict=True)
        return {"candidates": [{"genotype": str(genotype), "val_macro": macro} for genotype, macro in candidates]}

    def alphas(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        return {}

    def gates(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        return {}

    def deciding_gates(self, networks: nn.Module) -> torch.Tensor:
        return torch.zeros(0)

    def derive(self, networks: nn.Module) -> Genotype:
        """The best of those trained so far."""
        return self.genotypes[int(cast(Contestants, networks).scores.argmax())]

    def reachable_gate(self, travel: float) -> None:
        return None

    def needed_travel(self) -> float:
        return 0.0


def contest(genotypes: Sequence[Genotype], settings: SearchSettings, problem: Problem) -> Contest:
    """The contest of these genotypes, with the numbers of the search that proposed them."""
    return Contest(replace(settings, epochs=len(genotypes) * settings.candidate_epochs), problem, genotypes)
