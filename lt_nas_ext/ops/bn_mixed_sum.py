"""The gated sum of candidates with their batch norms folded in: Σ_k gate(α)_k · (x_k − mean_k) / √(var_k + eps)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import _kernels
from lt_nas_ext.ops.mixed_sum import mixed_sum_eager, present_candidates

Moments = Sequence[torch.Tensor | None]


def channel_moments(x: torch.Tensor) -> torch.Tensor:
    """Mean and (biased) variance of every channel of images (N, C, H, W): (2, C), without a gradient.

    In float32, and in float64 for float64.

    >>> channel_moments(torch.arange(8.0).view(2, 4, 1, 1))[0]
    tensor([2., 3., 4., 5.])
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise UserError(f"x: got {x.dtype} of shape {tuple(x.shape)}; wanted floating-point images (N, C, H, W)")
    x = x.detach()
    if _kernels.cover_images(x):
        return torch.ops.lt_nas_ext.channel_moments(x)
    return channel_moments_eager(x)


def channel_moments_eager(x: torch.Tensor) -> torch.Tensor:
    """The eager twin of `channel_moments` in plain PyTorch.

    >>> channel_moments_eager(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)).flatten()
    tensor([2., 1.])
    """
    wide = x.detach().to(_sums_type(x))
    var, mean = torch.var_mean(wide, (0, 2, 3), unbiased=False)
    return torch.stack([mean, var])


def bn_mixed_sum_eager(
    candidates: Sequence[torch.Tensor | None],
    alpha: torch.Tensor,
    gate: str = "softmax",
    moments: Moments | None = None,
    batch: bool = True,
    eps: float = 1e-5,
) -> torch.Tensor:
    """The eager twin of `bn_mixed_sum` in plain PyTorch: the reference of its tests and benchmarks, and the fallback.

    >>> x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    >>> bn_mixed_sum_eager([x, None], torch.zeros(2)).flatten().round(decimals=4)
    tensor([-0.5000,  0.5000])
    """
    present, slots = present_candidates(candidates, alpha, gate)
    given = _checked(present, slots, moments, len(candidates), eps)
    terms: list[torch.Tensor | None] = list(candidates)
    for slot, x, own in zip(slots, present, given, strict=True):
        if moments is not None and own is None:
            continue
        mean, var = (None, None) if batch or own is None else own.to(x.dtype)
        terms[slot] = F.batch_norm(x, mean, var, training=mean is None, eps=eps)
    return mixed_sum_eager(terms, alpha, gate)


def bn_mixed_sum(
    candidates: Sequence[torch.Tensor | None],
    alpha: torch.Tensor,
    gate: str = "softmax",
    moments: Moments | None = None,
    batch: bool = True,
    eps: float = 1e-5,
) -> torch.Tensor:
    """y = Σ_e Σ_k gate(α)_ek · BN(x_ek): `mixed_sum` with a batch norm without weight and bias before every term.

    No normalised copy is made or kept. Backward takes the batch norms' gradients and dα from the same sums over a
    channel. Images are taken as channels_last. Differentiable any number of times. Deterministic to the bit.

    Args:
        candidates: as in `mixed_sum`, images (N, C, H, W).
        alpha: as in `mixed_sum`.
        gate: as in `mixed_sum`.
        moments: for each candidate its mean and (biased) variance per channel, (2, C), which whoever made it may have
            taken already, or None for a candidate that is not normalised. Left out: every candidate is normalised by
            its own, taken here.
        batch: the moments are those of the candidates themselves, and their share of the gradient counts; False: they
            are constants, as in evaluation.
        eps: added to the variance.

    Returns:
        The sum, of the candidates' shape and type, channels_last. Accumulated in float32 (float64 for float64).
        Channels that are no multiple of 4, types that the device's kernel does not take (on a CPU it takes float32 and
        float64) and devices without one are the eager twin's.

    Raises:
        UserError: a wrong shape, type, device or gate, or no tensor at all; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> x = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    >>> y = lt.ops.bn_mixed_sum([*x, None], torch.zeros(4))
    >>> normed = [torch.nn.functional.batch_norm(one, None, None, training=True) for one in x]
    >>> torch.allclose(y, sum(normed) / 4, atol=1e-6)
    True
    """
    present, slots = present_candidates(candidates, alpha, gate)
    given = _checked(present, slots, moments, len(candidates), eps)
    # Under autocast candidates may come in different types (a convolution's and a state's): the widest sums them.
    widest = functools.reduce(torch.promote_types, (x.dtype for x in present))
    present = [x.to(widest) for x in present]
    first = present[0]
    if not _kernels.cover_images(first):
        return bn_mixed_sum_eager(candidates, alpha, gate, moments, batch, eps)
    if moments is None:
        given = [channel_moments(x) for x in present]
    plain = first.new_zeros(2, first.shape[1], dtype=_sums_type(first))
    stacked = torch.stack([plain if own is None else own for own in given]).to(plain.dtype)
    mean, inv_std = stacked[:, 0], (stacked[:, 1] + eps).rsqrt()
    for place, own in enumerate(given):  # by number: a list of places would be copied to the device
        if own is None:
            inv_std[place] = 1
    batches = [batch and own is not None for own in given]
    return torch.ops.lt_nas_ext.bn_mixed_sum(present, alpha, slots, gate, mean, inv_std, batches)


def _sums_type(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def check_eps(eps: float) -> None:
    """Raise `UserError` where eps is not positive: a channel of one value has no variance."""
    if not eps > 0:
        raise UserError(f"eps: got {eps}; wanted a number > 0, such as 1e-5")


def _checked(
    present: Sequence[torch.Tensor], slots: Sequence[int], moments: Moments | None, count: int, eps: float
) -> list[torch.Tensor | None]:
    """The moments of the candidates present; they and the images checked."""
    first = present[0]
    if first.dim() != 4:
        raise UserError(f"candidates: got shape {tuple(first.shape)}; wanted images (N, C, H, W)")
    check_eps(eps)
    if moments is None:
        return [None] * len(present)
    if len(moments) != count:
        raise UserError(f"moments: got {len(moments)}; wanted one (or None) for each of the {count} candidates")
    given = [moments[slot] for slot in slots]
    for slot, own in zip(slots, given, strict=True):
        if own is not None and own.shape != (2, first.shape[1]):
            wanted = f"(2, {first.shape[1]}), mean and variance"
            raise UserError(f"moments[{slot}]: got shape {tuple(own.shape)}; wanted {wanted}")
    return given


if _kernels.status().active:

    @torch.library.register_fake("lt_nas_ext::channel_moments")
    def _(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(2, x.shape[1], dtype=_sums_type(x))

    @torch.library.register_fake("lt_nas_ext::bn_mixed_sum")
    def _(
        candidates: list[torch.Tensor],
        alpha: torch.Tensor,
        slots: list[int],
        gate: str,
        mean: torch.Tensor,
        inv_std: torch.Tensor,
        batch: list[bool],
    ) -> torch.Tensor:
        return torch.empty_like(candidates[0], memory_format=torch.channels_last)

    @torch.library.register_fake("lt_nas_ext::bn_mixed_sum_backward")
    def _(
        grad: torch.Tensor,
        candidates: list[torch.Tensor],
        alpha: torch.Tensor,
        slots: list[int],
        gate: str,
        mean: torch.Tensor,
        inv_std: torch.Tensor,
        batch: list[bool],
        need_x: list[bool],
        need_alpha: bool,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        dx = [torch.empty_like(grad, memory_format=torch.channels_last) for needed in need_x if needed]
        return dx, torch.empty_like(alpha) if need_alpha else alpha.new_empty(0)
