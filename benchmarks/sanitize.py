"""One small case of every CUDA kernel, forward, backward and odd-sized, for compute-sanitizer to watch.

compute-sanitizer python benchmarks/sanitize.py [DEVICE]
"""

from __future__ import annotations

import sys

import torch

import lt_nas_ext as lt


def mixed_sum(device: torch.device) -> None:
    for shape in [(3, 5, 7, 11), (4, 16, 32, 32)]:
        for dtype in (torch.float32, torch.bfloat16):
            x = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(9)]
            alpha = torch.randn(2, 5, device=device, requires_grad=True)
            lt.ops.mixed_sum([*x[:4], None, *x[4:]], alpha, "softmax").sum().backward()
            lt.ops.mixed_sum([*x[:4], None, *x[4:]], alpha.detach(), "sigmoid").sum().backward()


def bn_mixed_sum(device: torch.device) -> None:
    for shape in [(3, 12, 5, 7), (2, 72, 9, 5), (4, 16, 32, 32)]:
        for dtype in (torch.float32, torch.bfloat16):
            x = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(9)]
            alpha = torch.randn(2, 5, device=device, requires_grad=True)
            moments = [None if place % 4 == 2 else lt.ops.channel_moments(one) for place, one in enumerate(x)]
            candidates, moments = [*x[:4], None, *x[4:]], [*moments[:4], None, *moments[4:]]
            lt.ops.bn_mixed_sum(candidates, alpha, "softmax", moments).sum().backward()
            lt.ops.bn_mixed_sum(candidates, alpha.detach(), "sigmoid", moments, batch=False).sum().backward()


def barlow_twins_loss(device: torch.device) -> None:
    for rows, columns in [(33, 129), (64, 48)]:
        za, zb = (torch.randn(rows, columns, device=device, requires_grad=True) for _ in range(2))
        lt.ops.barlow_twins_loss(za, zb).backward()


def sep_unit(device: torch.device) -> None:
    for size, channels, stride, dilation in [((9, 35), 20, 1, 2), ((7, 5), 8, 2, 1), ((16, 16), 64, 1, 1)]:
        for dtype, products in [(torch.float32, "highest"), (torch.float32, "high"), (torch.bfloat16, "highest")]:
            torch.set_float32_matmul_precision(products)  # high: TF32
            images = torch.randn(3, channels, *size, device=device, dtype=dtype)
            x = images.contiguous(memory_format=torch.channels_last).requires_grad_()
            depthwise = torch.randn(3 * channels, 1, 5, 5, device=device, dtype=dtype, requires_grad=True)
            pointwise = torch.randn(3 * channels, channels, 1, 1, device=device, dtype=dtype, requires_grad=True)
            z, moments = lt.ops.sep_unit(x, depthwise, pointwise, stride, dilation)
            y, _ = lt.ops.sep_unit(z, depthwise, pointwise, moments=moments)
            sum(one.sum() for one in y).backward()


def depthwise_conv(device: torch.device) -> None:
    for size, channels, stride, dilation in [((9, 35), 36, 1, 2), ((7, 5), 8, 2, 1)]:
        for dtype in (torch.float32, torch.bfloat16):
            images = torch.randn(3, channels, *size, device=device, dtype=dtype)
            x = images.contiguous(memory_format=torch.channels_last).requires_grad_()
            weight = torch.randn(channels, 1, 3, 3, device=device, dtype=dtype, requires_grad=True)
            lt.ops.depthwise_conv(x, weight, stride, dilation, relu=True).sum().backward()


if __name__ == "__main__":
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    for case in (mixed_sum, bn_mixed_sum, barlow_twins_loss, sep_unit, depthwise_conv):
        case(device)
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(f"{case.__name__}: done")
