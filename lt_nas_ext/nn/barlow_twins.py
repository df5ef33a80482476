"""The Barlow Twins criterion as a module, and the projector in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from lt_nas_ext import ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.ops.barlow_twins_loss import check_group, check_settings

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class BarlowTwinsLoss(nn.Module):
    """L = scale · (Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij²) of two views' embeddings: Barlow Twins (arXiv:2103.03230).

    Drops into a training loop where the loss of the official code stood; see `ops.barlow_twins_loss` for the formula,
    the forms and the global batch of several processes.

    Args:
        projector: module from features to embeddings, applied to each view on its own (its batch norms see one view
            at a time, as in the official code), or `None` where the views are embeddings already. Such as
            `projector((512, 2048, 2048, 2048))`.
        lambd: λ, the weight of the off-diagonal terms.
        scale: constant factor; `1 / D` makes the size of loss and gradients independent of the width.
        form: "auto", "gram" or "cross".
        group: process group over whose global batch the loss is taken, or `None`: this process's own batch.

    Raises:
        UserError: a number out of range, an unknown form; and in forward whatever `ops.barlow_twins_loss` raises.

    Shapes:
        za, zb: (N, features) with a projector, otherwise (N, D). Output: a scalar, float32 (float64 for float64).

    >>> import torch, lt_nas_ext as lt
    >>> crit = lt.nn.BarlowTwinsLoss(lt.nn.projector((16, 32, 32)))
    >>> za, zb = torch.randn(2, 8, 16, requires_grad=True)
    >>> crit(za, zb).backward()
    >>> crit
    BarlowTwinsLoss(
      lambd=0.005, scale=1.0, form='auto'
      (projector): Sequential(
        (0): Linear(in_features=16, out_features=32, bias=False)
        (1): BatchNorm1d(32, ...)
        (2): ReLU(inplace=True)
        (3): Linear(in_features=32, out_features=32, bias=False)
      )
    )
    """

    def __init__(
        self,
        projector: nn.Module | None = None,
        lambd: float = 5e-3,
        scale: float = 1.0,
        form: str = "auto",
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        check_settings(lambd, scale, form=form)
        check_group(group)
        if not isinstance(projector, nn.Module | None):
            raise UserError(
                f"projector: got {type(projector).__name__}; wanted a module, such as "
                "lt.nn.projector((512, 2048, 2048, 2048)), or None"
            )
        self.projector = projector
        self.lambd = lambd
        self.scale = scale
        self.form = form
        self.group = group

    def forward(self, za: torch.Tensor, zb: torch.Tensor) -> torch.Tensor:
        if self.projector is not None:
            _check_fits(self.projector, za=za, zb=zb)
            za, zb = self.projector(za), self.projector(zb)
        return ops.barlow_twins_loss(za, zb, lambd=self.lambd, scale=self.scale, form=self.form, group=self.group)

    def extra_repr(self) -> str:
        parts = f"lambd={self.lambd}, scale={self.scale}, form={self.form!r}"
        return parts if self.group is None else f"{parts}, processes={self.group.size()}"


def _check_fits(projector: nn.Module, **features: torch.Tensor) -> None:
    for name, z in features.items():
        if not isinstance(z, torch.Tensor):
            raise UserError(f"{name}: got {type(z).__name__}; wanted a tensor of features, a row an image")
        first = projector[0] if isinstance(projector, nn.Sequential) and len(projector) else None
        if isinstance(first, nn.Linear) and (z.dim() != 2 or z.shape[1] != first.in_features):
            raise UserError(
                f"{name}: got shape {tuple(z.shape)}; wanted (N, {first.in_features}), what the projector takes"
            )


def projector(sizes: Sequence[int], relu_bn: bool = True) -> nn.Sequential:
    """Linear(-BN)-ReLU blocks through `sizes`, the last Linear alone; no Linear has a bias.

    The official projector is `projector((2048, 8192, 8192, 8192))`. Rule of thumb [ours]: D ≤ 8 · batch for the last
    width, since the rank of C is below the batch size.

    Args:
        sizes: feature width, hidden widths, embedding width D: at least two, all positive.
        relu_bn: batch norm before each ReLU, as in the official code; `False` leaves Linear-ReLU, as in SSNAS.

    Raises:
        UserError: fewer than two sizes, or one that is not a positive integer.

    >>> projector((4, 8, 2), relu_bn=False)
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=False)
      (1): ReLU(inplace=True)
      (2): Linear(in_features=8, out_features=2, bias=False)
    )
    """
    whole = isinstance(sizes, Sequence) and all(type(size) is int and size >= 1 for size in sizes)
    if not whole or len(sizes) < 2:
        raise UserError(f"sizes: got {sizes}; wanted two or more positive integers: features, hidden widths, D")
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers.append(nn.Linear(before, after, bias=False))
        if relu_bn:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=False))
