"""FairDARTS: independent sigmoid gates, pushed to 0 or 1 (Chu et al., arXiv:1911.12126)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.base import Batch, Epoch, Loss
from lt_nas_ext.methods.supernet_method import SupernetMethod, without


class SigmoidMethod(SupernetMethod):
    """Sigmoid gates: candidates do not compete. `none` cannot win and gets no task gradient (see `zero_one_loss`)."""

    gate = "sigmoid"

    @property
    def undecayed(self) -> tuple[int, ...]:
        """Where `none` stands among the candidates: () for the 7 of the authors' code."""
        return tuple(k for k, name in enumerate(self.primitives) if name == "none")

    def zero_one(self, networks: nn.Module, epoch: Epoch) -> torch.Tensor:
        """λ_01 · L_01 over all gates of both cell types."""
        loss = zero_one_loss(self.matrices(networks), self.settings.zero_one, skip=self.undecayed)
        return self.lambda_01(epoch) * loss

    def lambda_01(self, epoch: Epoch) -> float:
        """λ_01, constant [paper] or ramped: it lets the task choose before gates are pushed apart [ours]."""
        if not self.settings.lambda_01_ramp:
            return self.settings.lambda_01
        return self.settings.lambda_01 * epoch.index / max(epoch.count - 1, 1)

    def reachable_gate(self, travel: float) -> float:
        """σ(travel), from α = 0."""
        return 1.0 / (1.0 + math.exp(-travel))

    def needed_travel(self) -> float:
        if not self.settings.rule.startswith("threshold"):
            return super().needed_travel()
        return max(0.0, math.log(self.settings.threshold / (1.0 - self.settings.threshold)))


class FairDarts(SigmoidMethod):
    """L_α = L_val + λ_01 · L_01 [paper, eq. 5]; w by cross-entropy alone. First order in the paper."""

    name = "fair-darts"
    paper_preset = "authors-fairdarts"
    takes_loss = True

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self.labelled_loss(networks, batch, "weights")

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        supervised = self.labelled_loss(networks, batch, "alpha")
        return Loss({**supervised.parts, "zero_one": self.zero_one(networks, epoch)}, logits=supervised.logits)


def zero_one_loss(alphas: Sequence[torch.Tensor], kind: str = "l2", skip: Sequence[int] = ()) -> torch.Tensor:
    """L_01, which is lowest where every gate σ(α) is 0 or 1.

    l1: −mean |σ(α) − ½| [paper, eq. 6]; l2: −mean (σ(α) − ½)² [paper: the authors' code]. The mean is over all gates
    of all matrices; the text's N can also be read as per edge, which, summed over edges, is 28 times stronger. The
    gradient of l2 is exactly 0 at α = 0: the task's loss must break the tie.

    Args:
        alphas: (E, K) architecture parameters, one matrix a cell type.
        kind: "l1" or "l2".
        skip: columns that do not count. Under a sigmoid `none` has no task gradient, so the loss would polarise it
            by itself, one way or the other.

    Returns:
        A scalar in [−½, 0] (l1) or [−¼, 0] (l2).

    Raises:
        UserError: an unknown kind.

    >>> zero_one_loss([torch.zeros(14, 7)], "l2").abs()
    tensor(0.)
    >>> zero_one_loss([torch.full((14, 7), 50.0), torch.full((14, 7), -50.0)], "l1")
    tensor(-0.5000)
    """
    if kind not in ("l1", "l2"):
        raise UserError(f"zero_one: got {kind!r}; wanted 'l1' or 'l2'")
    distance = torch.cat([(torch.sigmoid(without(alpha, skip)) - 0.5).flatten() for alpha in alphas])
    return -(distance.abs().mean() if kind == "l1" else distance.square().mean())
