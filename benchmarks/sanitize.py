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


def barlow_twins_loss(device: torch.device) -> None:
    for rows, columns in [(33, 129), (64, 48)]:
        za, zb = (torch.randn(rows, columns, device=device, requires_grad=True) for _ in range(2))
        lt.ops.barlow_twins_loss(za, zb).backward()


if __name__ == "__main__":
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    for case in (mixed_sum, barlow_twins_loss):
        case(device)
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(f"{case.__name__}: done")
