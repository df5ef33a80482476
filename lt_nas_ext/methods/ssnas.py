"""SSNAS: DARTS' softmax gates searched with two views of an image instead of labels."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from lt_nas_ext import nn as lt_nn
from lt_nas_ext.methods.base import Batch, Epoch, Loss, Stream, TwoViews
from lt_nas_ext.methods.ssf_nas import SsfNetworks
from lt_nas_ext.methods.supernet_method import SupernetMethod
from lt_nas_ext.space import Supernet


class Ssnas(SupernetMethod):
    """L_w = L_α = L_BT on either half, gates by a softmax, no labels.

    Its code's hyper-parameters [paper: the authors' code]: those of DARTS, both views in one pass through the network
    (they share batch statistics), a projector Linear-ReLU-Linear without batch norm, its own views. Its code searches
    with InfoNCE, and its Barlow Twins compares a view with itself: the loss here is Barlow Twins as published [ours].
    """

    name = "ssnas"
    paper_preset = "ssnas"
    weight_stream = Stream("two_views")
    alpha_stream = Stream("two_views")

    def build(self) -> SsfNetworks:
        settings, supernet = self.settings, self.build_supernet()
        projector = lt_nn.projector((supernet.feature_dim, *settings.projector), relu_bn=False)
        scale = 1.0 / settings.projector[-1] if settings.bt_scale == "dim" else 1.0
        return SsfNetworks(supernet, lt_nn.BarlowTwinsLoss(projector, lambd=settings.lambda_bt, scale=scale))

    def supernet(self, networks: nn.Module) -> Supernet:
        return cast(SsfNetworks, networks).supernet

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        assert isinstance(batch, TwoViews)
        both = cast(SsfNetworks, networks)
        # In channels_last, as each view is.
        joined = torch.cat([batch.first, batch.second]).contiguous(memory_format=torch.channels_last)
        first, second = both.supernet.features(joined).chunk(2)
        loss: torch.Tensor = both.criterion(first, second)
        return Loss({"barlow_twins": loss}, features=first.detach())

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self.regularised(self.weight_loss(networks, batch, epoch), networks, epoch)
