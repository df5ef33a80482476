"""SSF-NAS: FairDARTS' gates searched with Barlow Twins instead of labels, for long-tailed images."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from lt_nas_ext import nn as lt_nn
from lt_nas_ext.longtail import BalancedSoftmax
from lt_nas_ext.methods.base import Batch, Epoch, LabelledViews, Loss, Problem, Stream, TwoViews
from lt_nas_ext.methods.fair_darts import SigmoidMethod
from lt_nas_ext.methods.settings import SearchSettings
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

    With `label_free` off, balanced-softmax cross-entropy, the mean over the two views, is added to both losses [ours].
    """

    name = "ssf-nas"
    paper_preset = "paper-ssf"

    def __init__(self, settings: SearchSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.weight_stream = self.alpha_stream = Stream("two_views" if settings.label_free else "labelled_views")
        self._supervised = None if settings.label_free else BalancedSoftmax(problem.class_counts)

    def build(self) -> SsfNetworks:
        settings, supernet = self.settings, self.build_supernet()
        projector = lt_nn.projector((supernet.feature_dim, *settings.projector))
        scale = 1.0 / settings.projector[-1] if settings.bt_scale == "dim" else 1.0
        return SsfNetworks(supernet, lt_nn.BarlowTwinsLoss(projector, lambd=settings.lambda_bt, scale=scale))

    def supernet(self, networks: nn.Module) -> Supernet:
        return cast(SsfNetworks, networks).supernet

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self._twins(cast(SsfNetworks, networks), batch)

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        twins = self._twins(cast(SsfNetworks, networks), batch)
        return Loss({**twins.parts, "zero_one": self.zero_one(networks, epoch)}, twins.logits, twins.features)

    def _twins(self, networks: SsfNetworks, batch: Batch) -> Loss:
        """Barlow Twins of two views, one pass through the supernet each [paper: the official code]; labels beside."""
        assert isinstance(batch, TwoViews)
        features = [networks.supernet.features(view) for view in (batch.first, batch.second)]
        loss: torch.Tensor = networks.criterion(*features)
        parts = {"barlow_twins": loss}
        if self._supervised is None:
            return Loss(parts, features=features[0].detach())
        assert isinstance(batch, LabelledViews)
        logits = [networks.supernet.classifier(one) for one in features]
        first, second = (self._supervised.to(loss.device)(one, batch.labels) for one in logits)
        parts["balanced_softmax"] = (first + second) / 2
        return Loss(parts, logits[0].detach(), features[0].detach())
