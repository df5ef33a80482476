"""A program for the Python of any environment that lt_nas_ext was installed into: do operators and modules work?

Needs nothing but PyTorch and the package, and prints what test_install_matrix.py asks for, as JSON.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import lt_nas_ext as lt
    from lt_nas_ext import ops  # the package imports its rooms on first use, and this one says what serves

import torch


def check_twin(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
    """Value and gradients, as they are served, against those of the eager twin."""
    inputs = [x.detach().requires_grad_() for x in inputs]

    def value_and_gradients() -> list[torch.Tensor]:
        value = function(*inputs)
        return [value, *torch.autograd.grad(value.square().sum(), inputs)]

    served = value_and_gradients()
    with ops.eager():
        torch.testing.assert_close(served, value_and_gradients(), rtol=1e-3, atol=1e-3)


def check(device: str) -> None:
    torch.manual_seed(0)
    x, alpha = torch.randn(3, 4, 5, 7, 7, device=device), torch.randn(4, device=device)
    # Written out too: where the twins serve, they are compared with themselves.
    expected = (torch.softmax(alpha, 0)[:3].view(3, 1, 1, 1, 1) * x).sum(0)
    torch.testing.assert_close(ops.mixed_sum([*x, None], alpha), expected)
    check_twin(lambda a, *x: ops.mixed_sum([*x, None], a, "softmax"), alpha, *x)
    check_twin(ops.barlow_twins_loss, *torch.randn(2, 16, 24, device=device))
    op = lt.nn.MixedOp(4, stride=1).to(device)
    check_twin(op, torch.randn(6, 4, 8, 8, device=device), torch.randn(len(lt.nn.DARTS), device=device))


if __name__ == "__main__":
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        check(device)
    status = ops.status()
    found = {
        "file": lt.__file__,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "active": status.active,
        "reason": status.reason,
        "cuda_kernels": bool(status.build.get("cuda_kernels")),
        "warnings": [str(warning.message) for warning in caught],
    }
    print(json.dumps(found))
