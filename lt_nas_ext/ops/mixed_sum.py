"""The gated sum of candidate operations: Σ_e Σ_k gate(α)_ek · x_ek, in K + 1 passes over memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import _kernels
from lt_nas_ext.ops.gates import check_alpha, check_gate, gate_weights


def mixed_sum_eager(
    candidates: Sequence[torch.Tensor | None], alpha: torch.Tensor, gate: str = "softmax"
) -> torch.Tensor:
    """The eager twin of `mixed_sum` in plain PyTorch: the reference of its tests and benchmarks, and the fallback.

    >>> mixed_sum_eager([torch.ones(2), None], torch.zeros(2))
    tensor([0.5000, 0.5000])
    """
    present, slots = _present(candidates, alpha, gate)
    weights = gate_weights(alpha, gate).flatten()
    weights = weights.to(torch.promote_types(present[0].dtype, torch.float32))
    terms = [weights[slot].to(x.dtype) * x for slot, x in zip(slots, present, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def mixed_sum(candidates: Sequence[torch.Tensor | None], alpha: torch.Tensor, gate: str = "softmax") -> torch.Tensor:
    """y = Σ_e Σ_k gate(α)_ek · x_ek: the mixed operation of DARTS (arXiv:1806.09055, eq. 2), a whole node at once.

    One pass over each candidate and one over the output, forward; backward forms every gradient in one sweep.
    Where `alpha` needs no gradient, no candidate is kept for backward. Differentiable twice. Deterministic to the bit.

    Args:
        candidates: tensors of one shape, type, device and dense layout (another layout is converted to that of the
            first present one), or `None` for a candidate that is identically zero: its share of a softmax stays,
            nothing is allocated for it. Row by row: `len(candidates) == alpha.numel()`.
        alpha: (K,) for one edge or (E, K) for all E edges of a node; floating point, on the candidates' device.
        gate: "softmax" (over K, each edge on its own), "sigmoid" or "identity" (α are the weights themselves).

    Returns:
        The sum, of the candidates' shape, type and layout. Accumulated in float32 (float64 for float64).

    Raises:
        UserError: a wrong shape, type, device or gate, or no tensor at all; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> x = [torch.full((2, 3), float(k)) for k in range(3)]
    >>> lt.ops.mixed_sum([*x, None], torch.zeros(4), gate="softmax")
    tensor([[0.7500, 0.7500, 0.7500],
            [0.7500, 0.7500, 0.7500]])
    """
    present, slots = _present(candidates, alpha, gate)
    if not _kernels.use_kernels(present[0]):
        return mixed_sum_eager(candidates, alpha, gate)
    return torch.ops.lt_nas_ext.mixed_sum(present, alpha, slots, gate)


def _present(
    candidates: Sequence[torch.Tensor | None], alpha: torch.Tensor, gate: str
) -> tuple[list[torch.Tensor], list[int]]:
    """The candidates that are not `None` with their places in the flattened α; every argument checked."""
    check_gate(gate)
    check_alpha(alpha)
    if not isinstance(candidates, list | tuple):
        came = "one tensor" if isinstance(candidates, torch.Tensor) else type(candidates).__name__
        raise UserError(f"candidates: got {came}; wanted a list or tuple of tensors (or None), one a candidate")
    if len(candidates) != alpha.numel():
        raise UserError(
            f"candidates: got {len(candidates)} for alpha of shape {tuple(alpha.shape)}; "
            f"wanted {alpha.numel()}, row by row"
        )
    present: list[torch.Tensor] = []
    slots: list[int] = []
    for slot, x in enumerate(candidates):
        if x is None:
            continue
        if not _kernels.computable(x):
            raise UserError(
                f"candidates[{slot}]: got {_kernels.came(x)}; wanted a floating-point tensor or None ({_kernels.KINDS})"
            )
        present.append(x)
        slots.append(slot)
    if not present:
        raise UserError("candidates: all are None; wanted at least one tensor, whose shape the sum takes")
    first, autocast = present[0], torch.is_autocast_enabled(present[0].device.type)
    for slot, x in zip(slots, present, strict=True):
        if x.shape != first.shape:
            raise UserError(
                f"candidates[{slot}]: got shape {tuple(x.shape)}; wanted {tuple(first.shape)}, as the first"
            )
        if x.dtype != first.dtype and not autocast:
            raise UserError(f"candidates[{slot}]: got {x.dtype}; wanted {first.dtype}, as the first (or use autocast)")
        if x.device != first.device:
            raise UserError(f"candidates[{slot}]: got device {x.device}; wanted {first.device}, as the first")
    if alpha.device != first.device:
        raise UserError(f"alpha: got device {alpha.device}; wanted {first.device}, that of the candidates")
    return present, slots


if _kernels.status().active:

    @torch.library.register_fake("lt_nas_ext::mixed_sum")
    def _(candidates: list[torch.Tensor], alpha: torch.Tensor, slots: list[int], gate: str) -> torch.Tensor:
        return torch.empty_like(candidates[0])

    @torch.library.register_fake("lt_nas_ext::mixed_sum_backward")
    def _(
        grad: torch.Tensor,
        candidates: list[torch.Tensor],
        alpha: torch.Tensor,
        slots: list[int],
        gate: str,
        need_x: list[bool],
        need_alpha: bool,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        grad_alpha = torch.empty_like(alpha) if need_alpha else alpha.new_empty(0)
        return [torch.empty_like(grad) for needed in need_x if needed], grad_alpha
