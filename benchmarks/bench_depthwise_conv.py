"""depthwise_conv, ReLU on load, against ReLU and convolution of pure PyTorch: forward, backward (dx and dweight), both.

The floors are traffic (read x and write y; backward read x and dy and write dx) and 2 K² (backward 4 K²) operations a
number of y. The table of what is served (ops/depthwise_conv.py) is made of these figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Harness, Run, Variant

import lt_nas_ext as lt


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int, int]
    kernel: int
    stride: int
    dilation: int
    layout: torch.memory_format = torch.channels_last

    @property
    def title(self) -> str:
        layout = "NHWC" if self.layout == torch.channels_last else "NCHW"
        size = "×".join(map(str, self.shape))
        return (
            f"depthwise_conv {self.kernel}×{self.kernel} stride {self.stride} dilation {self.dilation} {size} {layout}"
        )

    @property
    def outputs(self) -> int:
        images, channels, height, width = self.shape
        return images * channels * -(-height // self.stride) * -(-width // self.stride)


FIRST, LAST = (32, 16, 32, 32), (32, 64, 8, 8)  # the first and last cells of the supernet of DARTS
LAYOUTS = (torch.channels_last, torch.contiguous_format)
CASES = [
    *(Case(FIRST, k, s, d, m) for m in LAYOUTS for k, s, d in itertools.product((3, 5), (1, 2), (1, 2))),
    *(Case(LAST, k, 1, d, m) for m in LAYOUTS for k, d in itertools.product((3, 5), (1, 2))),
    Case(FIRST, 7, 1, 1),
    Case((2, 8, 8, 8), 3, 1, 1),
]
QUICK = [Case(FIRST, 5, 1, 2), Case(FIRST, 3, 1, 1, torch.contiguous_format)]

Convolution = Callable[..., torch.Tensor]


def variant(name: str, function: Convolution, case: Case, device: torch.device, part: str) -> Variant:
    def make() -> Run:
        x = torch.randn(case.shape).to(device).contiguous(memory_format=case.layout).requires_grad_()
        weight = torch.randn(case.shape[1], 1, case.kernel, case.kernel, device=device).requires_grad_()

        def forward() -> torch.Tensor:
            return function(x, weight, case.stride, case.dilation, True)

        y = forward()
        grad = torch.randn_like(y)
        if part == "forward":
            return forward
        if part == "both":
            return lambda: torch.autograd.grad(forward(), [x, weight], grad)
        return lambda: torch.autograd.grad(y, [x, weight], grad, retain_graph=True)

    return Variant(name, make)


def floor(case: Case, part: str) -> dict[str, float]:
    x, y = torch.Size(case.shape).numel(), case.outputs
    shares = {"forward": (x + y, 2), "backward": (2 * x + y, 4), "both": (3 * x + 2 * y, 6)}
    numbers, operations = shares[part]
    return {"bytes": 4 * numbers, "flop": operations * case.kernel**2 * y}


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    ways = {"fused": lt.ops.depthwise_conv, "eager": lt.ops.depthwise_conv_eager}
    for case in QUICK if bench.quick else CASES:
        for part in ("both",) if bench.quick else ("forward", "backward", "both"):
            variants = [variant(name, function, case, bench.device, part) for name, function in ways.items()]
            bench.compare(f"{case.title}, {part}", variants, "eager", floor(case, part))
    bench.finish()


if __name__ == "__main__":
    main()
