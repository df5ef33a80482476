"""The pixels that a factorized reduction looks at."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def diagonal_pixels(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper left and the lower right pixel of every 2 x 2 block, without their negative numbers.

    The same as `relu(x)[:, :, ::2, ::2]` and `relu(x)[:, :, 1::2, 1::2]`, but half the image is never touched, and the
    gradient comes in the layout of the image and in one piece, where each slice would make zeros of its own.

    Args:
        x: (N, C, H, W), any layout; what lies below the last row or beyond the last column is 0.

    Returns:
        Two images (N, C, ⌈H/2⌉, ⌈W/2⌉) in the layout of x.

    >>> upper, lower = diagonal_pixels(torch.arange(-4.0, 5.0).view(1, 1, 3, 3))
    >>> upper.flatten().tolist(), lower.flatten().tolist()
    ([0.0, 0.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0])
    """
    pair: tuple[torch.Tensor, torch.Tensor] = _DiagonalPixels.apply(x)  # type: ignore[no-untyped-call]
    return pair


class _DiagonalPixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = x.shape[-2:]
        upper = x[:, :, ::2, ::2].relu()
        lower = F.pad(x[:, :, 1::2, 1::2].relu(), (0, width % 2, 0, height % 2))
        ctx.shape = x.shape
        ctx.layout = (
            torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        ctx.save_for_backward(upper, lower)
        return upper, lower

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        upper, lower = (
            torch.ops.aten.threshold_backward(gradient, pixels, 0)
            for gradient, pixels in zip(gradients, ctx.saved_tensors, strict=True)
        )
        height, width = ctx.shape[-2:]
        dx = torch.empty(ctx.shape, dtype=upper.dtype, device=upper.device, memory_format=ctx.layout).zero_()
        dx[:, :, ::2, ::2] = upper
        dx[:, :, 1::2, 1::2] = lower[:, :, : height // 2, : width // 2]
        return dx
