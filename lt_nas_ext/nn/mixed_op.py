"""The mixed operation of an edge: all its candidates, summed under their gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import nn

from lt_nas_ext import ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.nn.primitives import DARTS, check_primitives, make_primitive
from lt_nas_ext.ops.gates import check_gate


class MixedOp(nn.Module):
    """y = Σ_k w_k · o_k(x): the mixed operation of DARTS (arXiv:1806.09055, eq. 2), a drop-in for the original's.

    `op(x, weights)` takes ready weights, as in the original code. With `gate="softmax"` or `"sigmoid"` it takes raw α
    instead and the gate is part of the fused sum. `none` is never computed, but keeps its column.

    Args:
        channels: channels of input and output; not needed with `candidates`.
        stride: 1 or 2.
        primitives: names out of `nn.DARTS`, in the order of the columns of the weights.
        gate: "identity" (ready weights), "softmax" or "sigmoid" (raw α).
        candidates: your own modules instead of `primitives`, or None for one that is identically zero. They must
            agree in the shape of their output.

    Raises:
        UserError: an argument cannot be used; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> x = torch.randn(2, 4, 8, 8)
    >>> op = lt.nn.MixedOp(4, stride=2)
    >>> op(x, torch.softmax(torch.zeros(8), dim=-1)).shape
    torch.Size([2, 4, 4, 4])
    >>> mine = lt.nn.MixedOp(candidates=[torch.nn.Identity(), torch.nn.Tanh(), None], gate="softmax")
    >>> torch.allclose(mine(x, torch.zeros(3)), (x + x.tanh()) / 3)
    True
    """

    def __init__(
        self,
        channels: int | None = None,
        stride: int = 1,
        primitives: Sequence[str] = DARTS,
        gate: str = "identity",
        candidates: Sequence[nn.Module | None] | None = None,
    ) -> None:
        super().__init__()
        check_gate(gate)
        self.gate = gate
        self.channels = channels if candidates is None else None
        if candidates is None:
            if isinstance(primitives, str) or not isinstance(primitives, Iterable):
                raise UserError(f"primitives: got {primitives!r}; wanted several names, such as {DARTS[3:5]}")
            check_primitives(tuple(primitives))
            if type(channels) is not int or channels < 1:
                raise UserError(f"channels: got {channels!r}; wanted the channels of the input, at least 1")
            candidates = [make_primitive(name, channels, stride, affine=False, pool_bn=True) for name in primitives]
        _check_candidates(candidates)
        # A ModuleList keeps the place of a None: place k is column k of the weights, and of a DARTS checkpoint.
        self.candidates = nn.ModuleList(cast(Iterable[nn.Module], candidates))

    def outputs(self, x: torch.Tensor) -> list[torch.Tensor | None]:
        """What each candidate makes of x, None for `none`: a cell sums those of all edges of a node in one pass.

        >>> outputs = MixedOp(4, primitives=("none", "skip_connect")).outputs(torch.ones(1, 4, 2, 2))
        >>> [None if y is None else tuple(y.shape) for y in outputs]
        [None, (1, 4, 2, 2)]
        """
        return [None if candidate is None else candidate(x) for candidate in self.candidates]

    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The gated sum.

        Args:
            x: (N, C, H, W).
            weights: (K,), the weights themselves, or raw α where the module has a gate.

        Raises:
            UserError: `weights` is not a tensor with one entry a candidate, or x has other channels.
        """
        if self.channels is not None and not _are_images(x, self.channels):
            came = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
            raise UserError(f"x: got {came}; wanted floating-point (N, {self.channels}, H, W)")
        wanted = f"one entry for each of the {len(self.candidates)} candidates, shape ({len(self.candidates)},)"
        if not isinstance(weights, torch.Tensor):
            raise UserError(f"weights: got {type(weights).__name__}; wanted a tensor with {wanted}")
        if weights.shape != (len(self.candidates),):
            raise UserError(f"weights: got shape {tuple(weights.shape)}; wanted {wanted}")
        return ops.mixed_sum(self.outputs(x), weights, self.gate)

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"


def _are_images(x: object, channels: int) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() == 4 and x.shape[1] == channels


def _check_candidates(candidates: Sequence[nn.Module | None]) -> None:
    if not isinstance(candidates, Iterable):
        raise UserError(f"candidates: got {type(candidates).__name__}; wanted a list of torch.nn.Module (or None)")
    for place, candidate in enumerate(candidates):
        if candidate is not None and not isinstance(candidate, nn.Module):
            raise UserError(f"candidates[{place}]: got {type(candidate).__name__}; wanted a torch.nn.Module or None")
    if all(candidate is None for candidate in candidates):
        raise UserError(f"candidates: got {len(candidates)}, all None; wanted at least one torch.nn.Module")
