"""Depthwise convolution with an optional ReLU on load, and gradients that do not fall off a cliff on a CPU."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import _kernels

KERNELS = (1, 3, 5, 7)


def depthwise_conv_eager(
    x: torch.Tensor, weight: torch.Tensor, stride: int = 1, dilation: int = 1, relu: bool = False
) -> torch.Tensor:
    """The eager twin of `depthwise_conv` in plain PyTorch: the reference of its tests and benchmarks, and the fallback.

    >>> depthwise_conv_eager(torch.ones(1, 4, 3, 3), torch.ones(4, 1, 3, 3))[0, 0, 1].tolist()
    [6.0, 9.0, 6.0]
    """
    _check(x, weight, stride, dilation)
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x.relu() if relu else x, weight, None, stride, padding, dilation, groups=x.shape[1])


def depthwise_conv(
    x: torch.Tensor, weight: torch.Tensor, stride: int = 1, dilation: int = 1, relu: bool = False
) -> torch.Tensor:
    """Every channel by kernels of its own: y = weight * x, or weight * relu(x); only the stride shrinks an image.

    Forward, dx and dweight are one visit to each image; the rectified copy of x is never stored. Differentiable any
    number of times. Deterministic to the bit.

    Args:
        x: images (N, C, H, W).
        weight: (C · M, 1, K, K), K one of 1, 3, 5, 7; M is the channel multiplier.
        stride: 1 or 2.
        dilation: 1 or 2.
        relu: rectify x on load.

    Returns:
        (N, C · M, ⌈H/stride⌉, ⌈W/stride⌉), channels_last where x is. What PyTorch does faster, or the kernel does not
        cover, is PyTorch's: see `served`.

    Raises:
        UserError: a wrong shape, type or device; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> x, weight = torch.randn(2, 8, 9, 9), torch.randn(8, 1, 5, 5)
    >>> lt.ops.depthwise_conv(x, weight, stride=2, dilation=2, relu=True).shape
    torch.Size([2, 8, 5, 5])
    """
    _check(x, weight, stride, dilation)
    image, taps = _kernels.lowered(x, weight)
    if not served(image, taps, dilation):
        return depthwise_conv_eager(x, weight, stride, dilation, relu)
    return torch.ops.lt_nas_ext.depthwise_conv(image, taps, stride, dilation, relu)


def served(x: torch.Tensor, weight: torch.Tensor, dilation: int = 1) -> bool:
    """Whether the compiled kernel computes this: the device's types, M = 1, channels a multiple of 4.

    By measurement (benchmarks/bench_depthwise_conv.py) it does so for all channels_last images. For contiguous ones it
    computes the gradients, which it takes through channels_last, of dilated kernels and of those from 5×5 on;
    PyTorch's own forward pass and its gradients of 3×3 are faster there. On CUDA, where nothing was measured yet, it
    takes channels_last images.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    slow_in_pytorch = x.device.type == "cpu" and wanted and (dilation > 1 or weight.shape[-1] > 3)
    return (
        weight.dtype == x.dtype
        and weight.shape[0] == x.shape[1]
        and (slow_in_pytorch or x.is_contiguous(memory_format=torch.channels_last))
        and _kernels.cover_images(x)
    )


def _check(x: torch.Tensor, weight: torch.Tensor, stride: int, dilation: int) -> None:
    for name, value in (("x", x), ("weight", weight)):
        if not isinstance(value, torch.Tensor) or value.dim() != 4 or not value.is_floating_point():
            came = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value)
            wanted = "images (N, C, H, W)" if name == "x" else "(C · M, 1, K, K)"
            raise UserError(f"{name}: got {came}; wanted floating-point {wanted}")
    channels, kernel = x.shape[1], weight.shape[-1]
    whole = channels > 0 and weight.shape[0] > 0 and weight.shape[0] % channels == 0
    if not whole or weight.shape[1:] != (1, kernel, kernel) or kernel not in KERNELS:
        raise UserError(
            f"weight: got shape {tuple(weight.shape)}; wanted ({channels} · M, 1, K, K), K one of 1, 3, 5, 7"
        )
    if weight.device != x.device:
        raise UserError(f"weight: got device {weight.device}; wanted {x.device}, that of x")
    for name, number in (("stride", stride), ("dilation", dilation)):
        if number not in (1, 2):
            raise UserError(f"{name}: got {number}; wanted 1 or 2")


if _kernels.status().active:

    @torch.library.register_fake("lt_nas_ext::depthwise_conv")
    def _(x: torch.Tensor, weight: torch.Tensor, stride: int, dilation: int, relu: bool) -> torch.Tensor:
        images, channels, height, width = x.shape
        y = x.new_empty(images, channels, -(-height // stride), -(-width // stride))
        return y.to(memory_format=torch.channels_last) if x.is_contiguous(memory_format=torch.channels_last) else y

    @torch.library.register_fake("lt_nas_ext::depthwise_conv_backward")
    def _(
        dy: torch.Tensor,
        x: torch.Tensor,
        weight: torch.Tensor,
        stride: int,
        dilation: int,
        relu: bool,
        need_x: bool,
        need_weight: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dx = torch.empty_like(x, memory_format=torch.channels_last) if need_x else x.new_empty(0)
        return dx, torch.empty_like(weight) if need_weight else weight.new_empty(0)
