"""A backbone with two heads whose logits are mixed: the bilateral-branch network of search and of retraining alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

import torch
from torch import nn as tnn

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.mixing import check_ratio
from lt_nas_ext.space.layout import CellPlace


class Branches(NamedTuple):
    """The logits of both heads, (N, num_classes) each.

    >>> Branches(torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])).mixed(0.75)
    tensor([[3., 1.]])
    """

    instance: torch.Tensor
    classes: torch.Tensor

    def mixed(self, ratio: float) -> torch.Tensor:
        """z = r · z_I + (1 − r) · z_C at the mixing ratio r [paper: BBN]."""
        return ratio * self.instance + (1.0 - ratio) * self.classes


class Backbone(Protocol):
    """What two heads stand on: a `Supernet` or a `Network` without classifier."""

    head_place: CellPlace
    feature_dim: int

    def states(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...

    def features(self, x: torch.Tensor) -> torch.Tensor: ...


class TwoHeads(tnn.Module):
    """BBN (Zhou et al., arXiv:1912.02413) with one cell a head, each fed by the backbone's last two cells [paper: HLS].

    Two batches go through the backbone as one [ours]: its batch norms see both distributions in training, as its
    running statistics do afterwards, where one image goes through both heads.

    Args:
        backbone: what has `states`, `features`, `feature_dim` and `head_place`.
        instance_head: learns from instance-sampled images.
        class_head: learns from class-uniform images.
        test_ratio: the mixing ratio r of `forward`; may be set at any time.

    Raises:
        UserError: a head does not fit the backbone, or the two have other classes; or a ratio outside [0, 1].
    """

    def __init__(
        self, backbone: tnn.Module, instance_head: tnn.Module, class_head: tnn.Module, test_ratio: float = 0.0
    ) -> None:
        super().__init__()
        _check_fits(backbone, {"instance_head": instance_head, "class_head": class_head})
        self.backbone, self.instance_head, self.class_head = backbone, instance_head, class_head
        self.test_ratio = test_ratio

    @property
    def test_ratio(self) -> float:
        """The mixing ratio of `forward`: 0 is the class head alone, 1 the instance head alone."""
        return self._test_ratio

    @test_ratio.setter
    def test_ratio(self, ratio: float) -> None:
        self._test_ratio = check_ratio("test_ratio", ratio)

    @property
    def feature_dim(self) -> int:
        """Width of `features`."""
        return self._backbone.feature_dim

    @property
    def _backbone(self) -> Backbone:
        return cast(Backbone, self.backbone)

    def branches(self, x: torch.Tensor) -> Branches:
        """Both heads on the same images (N, C, H, W): one pass, from which every mixing ratio can be read."""
        s0, s1 = self._backbone.states(x)
        return Branches(self.instance_head(s0, s1), self.class_head(s0, s1))

    def pair(self, first: torch.Tensor, second: torch.Tensor) -> Branches:
        """The instance head on `first`, the class head on `second`: z_I(b(x_I)) and z_C(b(x_C)), (N, C, H, W) each."""
        if len(first) != len(second):
            raise UserError(f"second: got {len(second)} images beside {len(first)}; wanted as many in both batches")
        s0, s1 = self._backbone.states(torch.cat([first, second]))
        (a0, b0), (a1, b1) = s0.split(len(first)), s1.split(len(first))
        return Branches(self.instance_head(a0, a1), self.class_head(b0, b1))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The backbone's last output averaged over the image, (N, feature_dim)."""
        return self._backbone.features(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) at `test_ratio`."""
        return self.branches(x).mixed(self.test_ratio)


def _check_fits(backbone: tnn.Module, heads: dict[str, tnn.Module]) -> None:
    for name in ("states", "features", "feature_dim", "head_place"):
        if not hasattr(backbone, name):
            raise UserError(f"backbone: {type(backbone).__name__} has no {name!r}; wanted a Supernet or a Network")
    for name, head in heads.items():
        if not all(hasattr(head, attribute) for attribute in ("place", "num_classes")):
            raise UserError(f"{name}: got {type(head).__name__}; wanted a head of one cell with a classifier")
        for field, came, wanted in _differences(cast(CellPlace, head.place), cast(CellPlace, backbone.head_place)):
            raise UserError(f"{name}: {field} is {came}, and the backbone's last two cells want {wanted}")
    classes = [head.num_classes for head in heads.values()]
    if classes[0] != classes[1]:
        raise UserError(
            f"class_head: has {classes[1]} classes, and instance_head {classes[0]}; wanted as many, to mix their logits"
        )


def _differences(came: CellPlace, wanted: CellPlace) -> Iterator[tuple[str, object, object]]:
    for field in ("channels_prev_prev", "channels_prev", "reduction_prev"):
        if getattr(came, field) != getattr(wanted, field):
            yield field, getattr(came, field), getattr(wanted, field)
