"""Separable units of all edges that leave one state: (BN,) ReLU, depthwise and pointwise convolution, in one visit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import _kernels
from lt_nas_ext.ops.bn_mixed_sum import channel_moments_eager, check_eps

MAX_KERNEL = 7
# Of the CUDA kernel (csrc/sep_unit/sep_unit_body.h).
MAX_EDGES = 64
MAX_OUT_CHANNELS = 1024


def sep_unit_eager(
    x: torch.Tensor | Sequence[torch.Tensor],
    depthwise: torch.Tensor,
    pointwise: torch.Tensor,
    stride: int = 1,
    dilation: int = 1,
    moments: torch.Tensor | None = None,
    batch: bool = True,
    eps: float = 1e-5,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The eager twin of `sep_unit` in plain PyTorch: the reference of its tests and benchmarks, and the fallback.

    >>> z, moments = sep_unit_eager(torch.ones(1, 4, 3, 3), torch.ones(8, 1, 3, 3), torch.ones(8, 4, 1, 1))
    >>> len(z), z[0][0, 0, 1, 1].item(), moments.shape
    (2, 36.0, torch.Size([2, 2, 4]))
    """
    images = _checked(x, depthwise, pointwise, stride, dilation, moments, eps)
    edges, padding = depthwise.shape[0] // pointwise.shape[1], dilation * (depthwise.shape[-1] // 2)
    z = []
    for edge, (taps, mixing) in enumerate(zip(depthwise.chunk(edges), pointwise.chunk(edges), strict=True)):
        own = 0 if len(images) == 1 else edge
        a = images[own]
        if moments is not None:
            mean, var = (None, None) if batch else moments[:, own]
            a = F.batch_norm(a, mean, var, training=batch, eps=eps)
        u = F.conv2d(a.relu(), taps, None, stride, padding, dilation, a.shape[1])
        z.append(F.conv2d(u, mixing))
    return z, torch.stack([channel_moments_eager(one) for one in z], 1)


def sep_unit(
    x: torch.Tensor | Sequence[torch.Tensor],
    depthwise: torch.Tensor,
    pointwise: torch.Tensor,
    stride: int = 1,
    dilation: int = 1,
    moments: torch.Tensor | None = None,
    batch: bool = True,
    eps: float = 1e-5,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """z_e = pointwise_e * depthwise_e * relu(x), E edges at once: half of DARTS' sep_conv, or its whole dil_conv.

    An image is read and rectified once into cache for all edges that share it, what is between the two convolutions
    never leaves the cache, and the mean and variance of every z are taken in the same visit. Backward makes both weight
    gradients and dx in one visit more. Images are (N, C, H, W), taken as channels_last, padded so that only the stride
    shrinks them. Differentiable any number of times. Deterministic to the bit.

    On CUDA the factors of the products with `pointwise`, what is between the two convolutions among them, come in the
    type of `x`; sums are float32 (float64 in float64). Where float32 products may be taken in TF32
    (`torch.set_float32_matmul_precision("high")`) when the unit is called, its float32 factors are rounded to 10 bits,
    forward and backward.

    Args:
        x: one tensor (N, C, H, W) that all edges share, or a sequence of E, one an edge.
        depthwise: (E · C, 1, K, K), edge by edge, K one of 1, 3, 5, 7.
        pointwise: (E · C', C, 1, 1), likewise.
        stride: 1 or 2, of the depthwise convolution.
        dilation: 1 or 2, likewise.
        moments: mean and variance of each tensor of `x`, (2, len(x), C), by which it is normalised before the ReLU;
            None: it is not normalised.
        batch: `moments` are those of `x` itself, and their share of the gradient counts; False: they are constants, as
            in evaluation.
        eps: added to the variance.

    Returns:
        E channels_last tensors (N, C', ⌈H/stride⌉, ⌈W/stride⌉), and their mean and (biased) variance per channel,
        (2, E, C'), which take no gradient. Channels that are no multiple of 4, types that the device's kernel does not
        take (on a CPU it takes float32 and float64) and devices without one are the eager twin's.

    Raises:
        UserError: a wrong shape, type or device; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> x, depthwise, pointwise = torch.randn(2, 8, 6, 6), torch.randn(24, 1, 5, 5), torch.randn(12, 8, 1, 1)
    >>> z, moments = lt.ops.sep_unit(x, depthwise, pointwise, stride=2)
    >>> len(z), z[0].shape, moments.shape
    (3, torch.Size([2, 4, 3, 3]), torch.Size([2, 3, 4]))
    """
    images = _checked(x, depthwise, pointwise, stride, dilation, moments, eps)
    *inputs, taps, mixing = _kernels.lowered(*images, depthwise, pointwise)
    if not _covered(inputs[0], taps, mixing):
        return sep_unit_eager(images, depthwise, pointwise, stride, dilation, moments, batch, eps)
    mean = inv_std = None
    if moments is not None:
        wide = moments.to(torch.promote_types(inputs[0].dtype, torch.float32))
        mean, inv_std = wide[0], (wide[1] + eps).rsqrt()
    tf32 = _kernels.tf32_allowed()
    z, own = torch.ops.lt_nas_ext.sep_unit(inputs, taps, mixing, stride, dilation, mean, inv_std, batch, tf32)
    return z, own


def _covered(x: torch.Tensor, depthwise: torch.Tensor, pointwise: torch.Tensor) -> bool:
    edges = depthwise.shape[0] // x.shape[1]
    return (
        _kernels.cover_images(x)
        and depthwise.dtype == pointwise.dtype == x.dtype
        and pointwise.shape[0] % (4 * edges) == 0
        and (x.device.type == "cpu" or (edges <= MAX_EDGES and pointwise.shape[0] // edges <= MAX_OUT_CHANNELS))
    )


def _checked(
    x: torch.Tensor | Sequence[torch.Tensor],
    depthwise: torch.Tensor,
    pointwise: torch.Tensor,
    stride: int,
    dilation: int,
    moments: torch.Tensor | None,
    eps: float,
) -> list[torch.Tensor]:
    """The tensors of x as a list; every argument checked."""
    check_eps(eps)
    images = [x] if isinstance(x, torch.Tensor) else list(x)
    first = images[0] if images else torch.empty(0)
    if first.dim() != 4 or not first.is_floating_point():
        raise UserError(
            f"x: got {first.dtype} of shape {tuple(first.shape)}; wanted floating-point images (N, C, H, W)"
        )
    channels, kernel = first.shape[1], depthwise.shape[-1] if depthwise.dim() == 4 else 0
    edges = depthwise.shape[0] // max(channels, 1)
    if (
        kernel not in range(1, MAX_KERNEL + 1, 2)
        or edges < 1
        or depthwise.shape != (edges * channels, 1, kernel, kernel)
    ):
        raise UserError(
            f"depthwise: got shape {tuple(depthwise.shape)}; wanted (E · {channels}, 1, K, K), K one of 1, 3, 5, 7"
        )
    if pointwise.dim() != 4 or pointwise.shape[0] % edges or pointwise.shape[1:] != (channels, 1, 1):
        raise UserError(f"pointwise: got shape {tuple(pointwise.shape)}; wanted ({edges} · C', {channels}, 1, 1)")
    for name, value in (("stride", stride), ("dilation", dilation)):
        if value not in (1, 2):
            raise UserError(f"{name}: got {value}; wanted 1 or 2")
    if len(images) not in (1, edges):
        raise UserError(f"x: got {len(images)} tensors; wanted one, or one for each of the {edges} edges")
    for place, one in enumerate(images):
        if one.shape != first.shape or one.dtype != first.dtype or one.device != first.device:
            raise UserError(
                f"x[{place}]: got {one.dtype} of shape {tuple(one.shape)} on {one.device}; wanted {first.dtype} of "
                f"{tuple(first.shape)} on {first.device}, as x[0]"
            )
    for name, tensor in (("depthwise", depthwise), ("pointwise", pointwise), ("moments", moments)):
        if tensor is not None and tensor.device != first.device:
            raise UserError(f"{name}: got device {tensor.device}; wanted {first.device}, that of x")
    if moments is not None and moments.shape != (2, len(images), channels):
        raise UserError(f"moments: got shape {tuple(moments.shape)}; wanted (2, {len(images)}, {channels})")
    return images


if _kernels.status().active:

    @torch.library.register_fake("lt_nas_ext::sep_unit")
    def _(
        x: list[torch.Tensor],
        depthwise: torch.Tensor,
        pointwise: torch.Tensor,
        stride: int,
        dilation: int,
        mean: torch.Tensor | None,
        inv_std: torch.Tensor | None,
        batch: bool,
        tf32: bool,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        images, _, height, width = x[0].shape
        edges = depthwise.shape[0] // pointwise.shape[1]
        channels = pointwise.shape[0] // edges
        shape = (images, channels, -(-height // stride), -(-width // stride))
        z = [x[0].new_empty(shape).to(memory_format=torch.channels_last) for _ in range(edges)]
        return z, x[0].new_empty(2, edges, channels, dtype=torch.promote_types(x[0].dtype, torch.float32))

    @torch.library.register_fake("lt_nas_ext::sep_unit_backward")
    def _(
        dz: list[torch.Tensor],
        x: list[torch.Tensor],
        depthwise: torch.Tensor,
        pointwise: torch.Tensor,
        stride: int,
        dilation: int,
        mean: torch.Tensor | None,
        inv_std: torch.Tensor | None,
        batch: bool,
        tf32: bool,
        need_x: bool,
        need_weights: bool,
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        dx = [torch.empty_like(one, memory_format=torch.channels_last) for one in x] if need_x else []
        if not need_weights:
            return dx, depthwise.new_empty(0), pointwise.new_empty(0)
        return dx, torch.empty_like(depthwise), torch.empty_like(pointwise)
