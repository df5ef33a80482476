"""What a call costs when the tensors are tiny: our C++ autograd functions, torch.library.register_autograd, eager.

All variants run the same kernel (eager: the same mathematics) on 16 elements, so the time is that of the call: Python,
dispatcher, graph and backward. The cheaper registration is the one the library uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from harness import Harness, Run, Variant

import lt_nas_ext as lt


@torch.library.custom_op("lt_nas_ext_bench::mixed_sum", mutates_args=())
def registered(candidates: Sequence[torch.Tensor], alpha: torch.Tensor) -> torch.Tensor:
    return torch.ops.lt_nas_ext.mixed_sum(candidates, alpha, list(range(len(candidates))), "softmax")


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    candidates, alpha = inputs
    ctx.save_for_backward(alpha, *candidates)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    alpha, *candidates = ctx.saved_tensors
    slots = list(range(len(candidates)))
    dx, dalpha = torch.ops.lt_nas_ext.mixed_sum_backward(
        grad, candidates, alpha, slots, "softmax", [True] * len(slots), True
    )
    return dx, dalpha


registered.register_autograd(_backward, setup_context=_setup)


def bare(x: list[torch.Tensor], alpha: torch.Tensor) -> torch.Tensor:
    """The operator without the checks of lt.ops.mixed_sum: what they cost is the difference."""
    return torch.ops.lt_nas_ext.mixed_sum(x, alpha, list(range(len(x))), "softmax")


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    functions = {
        "lt.ops.mixed_sum": lambda x, alpha: lt.ops.mixed_sum(x, alpha),
        "C++ Function, bare": bare,
        "register_autograd": registered,
        "eager twin": lambda x, alpha: lt.ops.mixed_sum_eager(x, alpha),
    }
    for count in (2, 8, 32):
        for part in ("forward", "both"):

            def variant(name: str, count: int = count, part: str = part) -> Variant:
                def make() -> Run:
                    x = [torch.randn(4, 4, device=bench.device, requires_grad=True) for _ in range(count)]
                    alpha = torch.zeros(count, device=bench.device, requires_grad=True)
                    grad = torch.ones(4, 4, device=bench.device)
                    function = functions[name]
                    if part == "forward":
                        return lambda: function(x, alpha)
                    return lambda: torch.autograd.grad(function(x, alpha), [*x, alpha], grad)

                return Variant(name, make, threads=(1,))

            bench.compare(f"call of mixed_sum, K={count}, {part}", [variant(name) for name in functions], "eager twin")
    bench.finish()


if __name__ == "__main__":
    main()
