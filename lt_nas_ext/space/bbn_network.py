"""The derived network of a BBN genotype: its backbone and its two heads, to be trained on their own."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn as tnn

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.bbn_genotype import BbnGenotype
from lt_nas_ext.space.genotype import CellGenotype
from lt_nas_ext.space.layout import CellPlace, check_sizes
from lt_nas_ext.space.network import DerivedCell, DropPathOn, Network
from lt_nas_ext.space.two_heads import TwoHeads


class NetworkHead(tnn.Module):
    """One derived cell, a global average and a linear classifier.

    Args:
        genotype: the cell.
        place: where it stands: the `head_place` of its backbone.
        num_classes: outputs of the classifier.

    Attributes:
        drop_path: as of `Network`.
        drop_path_on: likewise.
    """

    def __init__(self, genotype: CellGenotype, place: CellPlace, num_classes: int) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        self.place, self.num_classes = place, num_classes
        self.drop_path, self.drop_path_on = 0.0, cast(DropPathOn, "operations")
        self.cell = DerivedCell(genotype, place)
        self.classifier = tnn.Linear(len(genotype.concat) * place.channels, num_classes)

    def forward(self, s0: torch.Tensor, s1: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of the outputs of a backbone's last two cells."""
        last = self.cell(s0, s1, self.drop_path if self.training else 0.0, self.drop_path_on)
        logits: torch.Tensor = self.classifier(last.mean((2, 3)))
        return logits


class BbnNetwork(TwoHeads):
    """The backbone of a BBN genotype as a `Network` without classifier, and its two heads.

    Args:
        genotype: the four cells.
        channels, num_classes, layers, in_channels, drop_path: as of `Network`; the heads are one cell more.
        test_ratio: the mixing ratio r of `forward`; ½ is BBN's own [paper: BBN].

    >>> import lt_nas_ext as lt
    >>> found = BbnGenotype(lt.space.DARTS_V2, lt.space.DARTS_V2.normal, lt.space.DARTS_V2.normal)
    >>> net = BbnNetwork(found, channels=4, num_classes=10, layers=3, in_channels=1)
    >>> net(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        genotype: BbnGenotype,
        channels: int = 36,
        num_classes: int = 10,
        layers: int = 20,
        in_channels: int = 3,
        drop_path: float = 0.0,
        test_ratio: float = 0.5,
    ) -> None:
        if not isinstance(genotype, BbnGenotype):
            raise UserError(f"genotype: got {type(genotype).__name__}; wanted a space.BbnGenotype")
        backbone = Network(genotype.backbone, channels, None, layers, in_channels)
        instance_head = NetworkHead(genotype.instance_head, backbone.head_place, num_classes)
        class_head = NetworkHead(genotype.class_head, backbone.head_place, num_classes)
        super().__init__(backbone, instance_head, class_head, test_ratio)
        self.genotype = genotype
        self.drop_path = drop_path

    @property
    def drop_path(self) -> float:
        """As of `Network`, in backbone and heads; may be set at any time."""
        return cast(Network, self.backbone).drop_path

    @drop_path.setter
    def drop_path(self, probability: float) -> None:
        cast(Network, self.backbone).drop_path = probability
        for head in (self.instance_head, self.class_head):
            cast(NetworkHead, head).drop_path = float(probability)

    @property
    def drop_path_on(self) -> DropPathOn:
        """As of `Network`, in backbone and heads; may be set at any time."""
        return cast(Network, self.backbone).drop_path_on

    @drop_path_on.setter
    def drop_path_on(self, name: DropPathOn) -> None:
        cast(Network, self.backbone).drop_path_on = name
        for head in (self.instance_head, self.class_head):
            cast(NetworkHead, head).drop_path_on = name
