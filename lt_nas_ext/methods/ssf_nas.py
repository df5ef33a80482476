"""SSF-NAS: FairDARTS' gates searched with Barlow Twins instead of labels, for long-tailed images."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from lt_nas_ext import nn as lt_nn
from lt_nas_ext.methods.base import Batch, Epoch, Loss, Stream, TwoViews
from lt_nas_ext.methods.fair_darts import SigmoidMethod
from lt_nas_ext.space import Supernet


class SsfNetworks(nn.Module):
    """The supernet and Barlow Twins' projector, which is thrown away after the search."""

    def __init__(self, supernet: Supernet, criterion: lt_nn.BarlowTwinsLoss) -> None:
        super().__init__()
        self.supernet = supernet
        self.criterion = criterion


class SsfNas(SigmoidMethod):
    """L_w = L_BT on the first half, L_α = L_BT + λ_01 · L_01 on the second; no label is read [paper].

    L_BT is Barlow Twins (Zbontar et al., arXiv:2103.03230) [paper, eqs. 8, 9]: the two views go through the network
    separately, each with its own batch-norm statistics. λ_01, λ of Barlow Twins, projector, views, α's start and
    Adam's betas are [ours]: the text does not state them.
    """

    name = "ssf-nas"
    paper_preset = "paper-ssf"
    weight_stream = Stream("two_views")
    alpha_stream = Stream("two_views")

    def build(self) -> SsfNetworks:
        settings, supernet = self.settings, self.build_supernet()
        projector = lt_nn.projector((supernet.feature_dim, *settings.projector))
        scale = 1.0 / settings.projector[-1] if settings.bt_scale == "dim" else 1.0
        return SsfNetworks(supernet, lt_nn.BarlowTwinsLoss(projector, lambd=settings.lambda_bt, scale=scale))

    def supernet(self, networks: nn.Module) -> Supernet:
        return cast(SsfNetworks, networks).supernet

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return barlow_twins(cast(SsfNetworks, networks), batch)

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        twins = barlow_twins(cast(SsfNetworks, networks), batch)
        return Loss({**twins.parts, "zero_one": self.zero_one(networks)}, features=twins.features)


def barlow_twins(networks: SsfNetworks, batch: Batch) -> Loss:
    """The Barlow Twins loss of two views: one pass through the supernet each [paper: the official code]."""
    assert isinstance(batch, TwoViews)
    first = networks.supernet.features(batch.first)
    second = networks.supernet.features(batch.second)
    loss: torch.Tensor = networks.criterion(first, second)
    return Loss({"barlow_twins": loss}, features=first.detach())
