"""mixed_sum against the same sum in pure PyTorch, as DARTS writes it and compiled: forward, backward and both.

The floor is memory traffic: K + 1 passes forward, 2K + 1 backward (K + 1 with α frozen), at the copy bandwidth that
is measured in the same run. Sizes smaller than the caches may exceed it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from harness import Harness, Run, Variant

import lt_nas_ext as lt


@dataclass(frozen=True)
class Case:
    """A node of E edges with K candidates each, every one of `shape`."""

    shape: tuple[int, ...]
    edges: int = 1
    candidates: int = 8
    layout: torch.memory_format = torch.contiguous_format
    dtype: torch.dtype = torch.float32
    frozen: bool = False

    @property
    def title(self) -> str:
        layout = "NHWC" if self.layout == torch.channels_last else "NCHW"
        frozen = ", α frozen" if self.frozen else ""
        size = "×".join(map(str, self.shape))
        return f"mixed_sum E={self.edges} K={self.candidates} {size} {layout} {str(self.dtype)[6:]}{frozen}"


LARGE, CELL, SMALL, TINY = (64, 16, 32, 32), (32, 32, 16, 16), (16, 16, 8, 8), (2, 8, 4, 4)
CASES = [
    Case(LARGE),
    Case(LARGE, layout=torch.channels_last),
    Case(LARGE, frozen=True),
    Case(LARGE, layout=torch.channels_last, frozen=True),
    Case(LARGE, candidates=2),
    Case(LARGE, dtype=torch.bfloat16),
    Case(LARGE, dtype=torch.float64),
    Case(CELL, edges=5, layout=torch.channels_last),
    Case(CELL, edges=5, candidates=7, layout=torch.channels_last),
    Case(CELL, dtype=torch.bfloat16),
    Case(SMALL),
    Case(SMALL, edges=5),
    Case(TINY),
    Case(TINY, edges=5),
    Case(TINY, frozen=True),
]
QUICK = [CASES[0], CASES[1], CASES[7], CASES[12]]

Sum = Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor]


def darts(x: list[torch.Tensor], alpha: torch.Tensor) -> torch.Tensor:
    """What the DARTS code does: softmax, then Python's sum over edges of sums over candidates."""
    weights, candidates = torch.softmax(alpha, -1), iter(x)
    return sum(sum(w.to(x[0].dtype) * next(candidates) for w in row) for row in weights)


def fused(x: list[torch.Tensor], alpha: torch.Tensor) -> torch.Tensor:
    return lt.ops.mixed_sum(x, alpha, "softmax")


def variant(name: str, function: Sum, case: Case, device: torch.device, part: str) -> Variant:
    def make() -> Run:
        count = case.edges * case.candidates
        tensors = [torch.randn(case.shape).to(device, case.dtype) for _ in range(count + 1)]
        grad, *x = [t.contiguous(memory_format=case.layout) for t in tensors]
        x = [t.requires_grad_() for t in x]
        alpha = torch.randn(case.edges, case.candidates, device=device).requires_grad_(not case.frozen)
        inputs = x if case.frozen else [*x, alpha]
        if part == "forward":
            return lambda: function(x, alpha)
        if part == "both":
            return lambda: torch.autograd.grad(function(x, alpha), inputs, grad)
        y = function(x, alpha)
        return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)

    return Variant(name, make)


def floor_bytes(case: Case) -> dict[str, float]:
    count = case.edges * case.candidates
    one = torch.Size(case.shape).numel() * case.dtype.itemsize
    forward, backward = (count + 1) * one, ((1 if case.frozen else 2) * count + 1) * one
    return {"forward": forward, "backward": backward, "both": forward + backward}


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    cases = QUICK if bench.quick else CASES
    if bench.device.type == "cuda":  # far beyond the last-level cache too: there the bandwidth is the device's
        cases = [*cases, *(replace(CASES[i], shape=(1024, 16, 32, 32)) for i in (0, 1, 2, 5))]
    torch._functorch.config.donated_buffer = False  # so that the compiled backward can be timed alone
    for case in cases:
        torch.compiler.reset()
        functions = {"fused": fused, "eager": darts, "compiled": torch.compile(darts, dynamic=False)}
        for part in ("both",) if bench.quick else ("forward", "backward", "both"):
            variants = [variant(name, function, case, bench.device, part) for name, function in functions.items()]
            bench.compare(f"{case.title}, {part}", variants, "eager", {"bytes": floor_bytes(case)[part]})
    bench.finish()


if __name__ == "__main__":
    main()
