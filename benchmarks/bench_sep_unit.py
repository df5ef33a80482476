"""sep_unit against ReLU (or batch norm and ReLU), depthwise and pointwise convolution of pure PyTorch, edge by edge.

The states are those of the supernet of DARTS (C = 16 at 32×32, 64 at 8×8; a normal cell's state feeds up to 4 edges).
Floors: E + 1 passes over a state forward and E + 2 backward (2 E and 3 E where every edge has its own), and K² + C
multiply-adds a number and edge forward, 3 K² + 2 C backward.

On CUDA in float32, in TF32 and in bfloat16, both ways alike: PyTorch's float32 convolutions would take TF32 unasked.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from harness import Harness, Run, Variant

import lt_nas_ext as lt


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int, int]
    kernel: int
    dilation: int = 1
    stride: int = 1
    edges: int = 4
    normed: bool = False  # the second half of a separable convolution: an input and a batch norm an edge
    precision: str = "float32"

    @property
    def title(self) -> str:
        size, before = "×".join(map(str, self.shape)), "BN-ReLU" if self.normed else "ReLU"
        window = f"{self.kernel}×{self.kernel} stride {self.stride} dilation {self.dilation}"
        return f"sep_unit E={self.edges} {before} {window} {size} NHWC {self.precision}"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


FIRST, LAST = (32, 16, 32, 32), (32, 64, 8, 8)
CASES = [
    *(Case(shape, k, d) for shape, (k, d) in itertools.product((FIRST, LAST), ((3, 1), (5, 1), (3, 2), (5, 2)))),
    *(Case(shape, k, normed=True) for shape, k in itertools.product((FIRST, LAST), (3, 5))),
    Case(FIRST, 5, 2, stride=2, edges=4),
    Case((2, 8, 8, 8), 3, edges=2),
]
QUICK = [CASES[0], CASES[9]]
PRECISIONS = {"cpu": ("float32",), "cuda": ("float32", "tf32", "bfloat16")}


@contextlib.contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Within this context ours and the vendor's libraries round their float32 factors to 10 bits, or neither does."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def variant(name: str, unit: Callable[..., object], case: Case, device: torch.device, part: str) -> Variant:
    def make() -> Run:
        count = case.edges if case.normed else 1
        options = {"device": device, "dtype": case.dtype}
        images = [torch.randn(case.shape).to(**options, memory_format=torch.channels_last) for _ in range(count)]
        x = [image.requires_grad_() for image in images]
        channels = case.shape[1]
        depthwise = torch.randn(case.edges * channels, 1, case.kernel, case.kernel, **options).requires_grad_()
        pointwise = torch.randn(case.edges * channels, channels, 1, 1, **options).requires_grad_()
        moments = torch.stack([lt.ops.channel_moments(one) for one in x], 1) if case.normed else None

        def forward() -> list[torch.Tensor]:
            return unit(x, depthwise, pointwise, case.stride, case.dilation, moments)[0]  # type: ignore[index]

        z = forward()
        inputs, grads = [*x, depthwise, pointwise], [torch.randn_like(one) for one in z]
        if part == "forward":
            return forward
        if part == "both":
            return lambda: torch.autograd.grad(forward(), inputs, grads)
        return lambda: torch.autograd.grad(z, inputs, grads, retain_graph=True)

    return Variant(name, make)


def floor(case: Case, part: str) -> dict[str, float]:
    images, channels, height, width = case.shape
    x = images * channels * height * width
    z = images * channels * -(-height // case.stride) * -(-width // case.stride)
    E, inputs, taps = case.edges, case.edges if case.normed else 1, case.kernel**2
    numbers = {"forward": inputs * x + E * z, "backward": 2 * inputs * x + E * z}
    products = {"forward": E * z * (taps + channels), "backward": E * z * (3 * taps + 2 * channels)}
    parts = (part,) if part != "both" else ("forward", "backward")
    return {"bytes": case.dtype.itemsize * sum(numbers[p] for p in parts), "flop": 2 * sum(products[p] for p in parts)}


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    ways = {"fused": lt.ops.sep_unit, "eager": lt.ops.sep_unit_eager}
    cases = QUICK if bench.quick else CASES
    parts = ("both",) if bench.quick else ("forward", "backward", "both")
    for precision, case, part in itertools.product(PRECISIONS[bench.device.type], cases, parts):
        case = replace(case, precision=precision)
        with float32_products(precision == "tf32"):
            variants = [variant(name, unit, case, bench.device, part) for name, unit in ways.items()]
            bench.compare(f"{case.title}, {part}", variants, "eager", floor(case, part))
    bench.finish()


if __name__ == "__main__":
    main()
