"""The supernet of DARTS + BBN: a backbone, and two heads of one normal cell with architectures of their own."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn as tnn

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.space.bbn_genotype import BbnGenotype
from lt_nas_ext.space.derive import derive_cells
from lt_nas_ext.space.fused_cell import FusedCell
from lt_nas_ext.space.genotype import Genotype
from lt_nas_ext.space.layout import CellPlace, check_sizes
from lt_nas_ext.space.recompute import recomputed
from lt_nas_ext.space.supernet import Supernet, initial_alpha
from lt_nas_ext.space.two_heads import TwoHeads


class SupernetHead(tnn.Module):
    """One normal cell with an α of its own, a global average and a linear classifier [paper: HLS].

    Args:
        place: where it stands: the `head_place` of its backbone.
        num_classes: outputs of the classifier.
        gate, primitives, nodes, alpha_init, recompute: as of `Supernet`.

    >>> net = Supernet(channels=4, num_classes=None, layers=3)
    >>> SupernetHead(net.head_place, 10)(*net.states(torch.ones(2, 3, 8, 8))).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        place: CellPlace,
        num_classes: int,
        gate: str = "softmax",
        primitives: tuple[str, ...] = nn.DARTS,
        nodes: int = 4,
        alpha_init: str = "noise",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        self.place, self.num_classes = place, num_classes
        self.gate, self.primitives, self.recompute = gate, tuple(primitives), recompute
        self.cell = FusedCell(**place._asdict(), gate=gate, primitives=self.primitives, nodes=nodes)
        self.classifier = tnn.Linear(nodes * place.channels, num_classes)
        self.alpha = initial_alpha(nodes, self.primitives, alpha_init)

    def forward(self, s0: torch.Tensor, s1: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of the outputs of a backbone's last two cells."""
        states = (s0, s1, self.alpha)
        last = recomputed(self.cell, *states) if self.recompute else self.cell(*states)
        logits: torch.Tensor = self.classifier(last.mean((2, 3)))
        return logits


class BbnSupernet(TwoHeads):
    """Four sets of architecture parameters: backbone normal, backbone reduction, instance head, class head [paper].

    Args:
        backbone: a `Supernet` without classifier (num_classes=None).
        instance_head, class_head: fed by its last two cells.
        test_ratio: the mixing ratio r of `forward`.

    Raises:
        UserError: a head does not fit the backbone.

    >>> net = BbnSupernet.of(Supernet(channels=4, num_classes=None, layers=3), num_classes=10)
    >>> net(torch.ones(2, 3, 8, 8)).shape, list(net.alphas())
    (torch.Size([2, 10]), ['normal', 'reduce', 'instance_head', 'class_head'])
    """

    def __init__(
        self, backbone: Supernet, instance_head: SupernetHead, class_head: SupernetHead, test_ratio: float = 0.0
    ) -> None:
        super().__init__(backbone, instance_head, class_head, test_ratio)
        for name, head in (("instance_head", instance_head), ("class_head", class_head)):
            for field in ("gate", "primitives"):
                came, wanted = getattr(head, field), getattr(backbone, field)
                if came != wanted:
                    raise UserError(f"{name}: {field} is {came!r}, and the backbone's {wanted!r}; wanted the same")

    @classmethod
    def of(cls, backbone: Supernet, num_classes: int, alpha_init: str = "noise") -> BbnSupernet:
        """The backbone with two heads that fit it."""

        def head() -> SupernetHead:
            place, nodes = backbone.head_place, backbone.feature_dim // backbone.head_place.channels
            shape = (backbone.gate, backbone.primitives, nodes, alpha_init, backbone.recompute)
            return SupernetHead(place, num_classes, *shape)

        return cls(backbone, head(), head())

    def alphas(self) -> dict[str, tnn.Parameter]:
        """The raw architecture parameters by cell, (E, K) each."""
        normal, reduce = cast(Supernet, self.backbone).arch_parameters()
        instance, classes = (cast(SupernetHead, head).alpha for head in (self.instance_head, self.class_head))
        return {"normal": normal, "reduce": reduce, "instance_head": instance, "class_head": classes}

    def arch_parameters(self) -> list[tnn.Parameter]:
        """All of them in that order."""
        return list(self.alphas().values())

    def gates(self) -> dict[str, torch.Tensor]:
        """The weights that α give now, by cell, differentiable."""
        gate = cast(Supernet, self.backbone).gate
        return {name: ops.gate_weights(alpha, gate) for name, alpha in self.alphas().items()}

    def genotype(self, rule: str = "top2", threshold: float = 0.85) -> BbnGenotype:
        """The genotype that α stand for now; rules, errors and warnings are those of `space.derive`."""
        backbone = cast(Supernet, self.backbone)
        cells = derive_cells(self.alphas(), backbone.primitives, backbone.gate, rule, threshold)
        return BbnGenotype(
            Genotype(cells["normal"], cells["reduce"], rule), cells["instance_head"], cells["class_head"]
        )
