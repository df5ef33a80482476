"""bn_mixed_sum against batch norms and the gated sum of pure PyTorch: forward (moments taken too), backward, both.

A node of the supernet of DARTS: E edges of 7 candidates each, of which the skip connection is not normalised. Floors:
2 P + 1 passes over a candidate forward, 3 P + 2 backward, at the copy bandwidth that is measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Harness, Run, Variant

import lt_nas_ext as lt

SKIP = 2  # place of the skip connection among an edge's candidates


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int, int]
    edges: int
    candidates: int = 7

    @property
    def title(self) -> str:
        size = "×".join(map(str, self.shape))
        return f"bn_mixed_sum E={self.edges} K={self.candidates} {size} NHWC"


CASES = [
    Case((32, 16, 32, 32), 2),
    Case((32, 16, 32, 32), 5),
    Case((32, 32, 16, 16), 5),
    Case((32, 64, 8, 8), 5),
    Case((64, 16, 32, 32), 1, 8),
    Case((2, 8, 4, 4), 2),
]
QUICK = [CASES[2]]


def variant(name: str, function: Callable[..., torch.Tensor], case: Case, device: torch.device, part: str) -> Variant:
    def make() -> Run:
        count = case.edges * case.candidates
        tensors = [torch.randn(case.shape).to(device, memory_format=torch.channels_last) for _ in range(count + 1)]
        grad, *images = tensors
        x = [image.requires_grad_() for image in images]
        alpha = torch.randn(case.edges, case.candidates, device=device).requires_grad_()
        normed = [place % case.candidates != SKIP for place in range(count)]

        def forward() -> torch.Tensor:
            return function(x, alpha, normed)

        y, inputs = forward(), [*x, alpha]
        if part == "forward":
            return forward
        if part == "both":
            return lambda: torch.autograd.grad(forward(), inputs, grad)
        return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)

    return Variant(name, make)


def fused(x: list[torch.Tensor], alpha: torch.Tensor, normed: list[bool]) -> torch.Tensor:
    moments = [lt.ops.channel_moments(one) if norm else None for one, norm in zip(x, normed, strict=True)]
    return lt.ops.bn_mixed_sum(x, alpha, "softmax", moments)


def pure(x: list[torch.Tensor], alpha: torch.Tensor, normed: list[bool]) -> torch.Tensor:
    """As DARTS writes it: a batch norm a candidate, then the weighted sum."""
    weights = torch.softmax(alpha, -1).flatten()
    norm = torch.nn.functional.batch_norm
    terms = (norm(one, None, None, training=True) if own else one for one, own in zip(x, normed, strict=True))
    return sum(w * term for w, term in zip(weights, terms, strict=True))  # type: ignore[return-value]


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    for case in QUICK if bench.quick else CASES:
        one = 4 * torch.Size(case.shape).numel()
        count = case.edges * case.candidates
        floor = {"forward": (2 * count + 1) * one, "backward": (3 * count + 2) * one}
        floor["both"] = floor["forward"] + floor["backward"]
        for part in ("both",) if bench.quick else ("forward", "backward", "both"):
            variants = [
                variant("fused", fused, case, bench.device, part),
                variant("eager", pure, case, bench.device, part),
            ]
            bench.compare(f"{case.title}, {part}", variants, "eager", {"bytes": floor[part]})
    bench.finish()


if __name__ == "__main__":
    main()
