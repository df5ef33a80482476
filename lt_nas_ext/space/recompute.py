"""A cell that keeps nothing for backward but what it was given: the rest is computed again."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import torch
from torch import nn as tnn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


@torch.compiler.disable  # a compiler weighs for itself what to keep; it cannot look into the second run
def recomputed(cell: tnn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """`cell(*inputs)`, whose backward runs the cell a second time, with the same gradients to the bit.

    The second run takes the weights that the first took, also where `torch.func.functional_call` lent them; it draws
    the same random numbers, computes with the same operators (`ops.eager`), types (autocast) and precision of float32
    products, and counts nothing: buffers, such as running statistics, are those after the first run.

    >>> cell = tnn.BatchNorm2d(1)
    >>> recomputed(cell, torch.ones(2, 1, 3, 3)).sum().backward()
    >>> cell.num_batches_tracked, cell.weight.grad
    (tensor(1), tensor([0.]))
    """
    # Backward may come outside of the caller's context, and on a GPU it comes on another thread.
    context, precision = contextvars.copy_context(), torch.backends.cuda.matmul.fp32_precision
    weights, buffers = dict(cell.named_parameters()), dict(cell.named_buffers())
    again = False

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        nonlocal again
        if not again:
            again = True
            return cell(*inputs)
        lent = {**weights, **{name: buffer.clone() for name, buffer in buffers.items()}}
        with _float32_products(precision):
            return context.copy().run(functional_call, cell, lent, inputs)

    return checkpoint(run, *inputs, use_reentrant=False)


@contextlib.contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    """Within this context CUDA takes them as it did where `torch.backends.cuda.matmul` said `precision`."""
    if torch.backends.cuda.matmul.fp32_precision == precision:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
