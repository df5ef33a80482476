"""The bodies of the CUDA kernels of mixed_sum, run on the host thread by thread, against the eager twin."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import lt_nas_ext as lt
from lt_nas_ext.ops import GATES

DRIVER = Path(__file__).parent / "host_bodies" / "mixed_sum.cpp"


@pytest.fixture(scope="session")
def bodies(tmp_path_factory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not (DRIVER.parents[2] / "csrc").is_dir():
        pytest.skip("needs a C++ compiler and the source tree")
    library = tmp_path_factory.mktemp("bodies") / "mixed_sum.so"
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-std=c++17", *sanitize, DRIVER, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(
    ("n", "rows", "columns"),
    [(1, 1, 1), (5, 1, 8), (2048, 1, 3), (2049, 5, 7), (6001, 2, 8), (4096, 1, 33), (3001, 9, 8)],
)
def test_bodies_equal_the_eager_twin(bodies, n, rows, columns, aligned, dtype, gate):
    generator = torch.Generator().manual_seed(n)
    slots = [s for s in range(rows * columns) if s % 4 != 1 or rows * columns == 1]
    x = [torch.randn(n, generator=generator, dtype=dtype).requires_grad_() for _ in slots]
    alpha = torch.randn(rows, columns, generator=generator, dtype=dtype, requires_grad=True)
    grad = torch.randn(n, generator=generator, dtype=dtype)
    by_slot = dict(zip(slots, x, strict=True))
    expected = lt.ops.mixed_sum_eager([by_slot.get(s) for s in range(rows * columns)], alpha, gate)
    *expected_dx, expected_dalpha = torch.autograd.grad(expected, [*x, alpha], grad)

    poison = float("nan")
    y = torch.full((n,), poison, dtype=dtype)
    dx = [torch.full((n,), poison, dtype=dtype) if i % 3 != 2 else None for i in range(len(slots))]
    dalpha = torch.full((rows, columns), poison, dtype=torch.float64)
    name = "float" if dtype == torch.float32 else "double"
    alpha_pointer = ctypes.c_void_p(alpha.data_ptr())
    slot_array, shape = (
        (ctypes.c_int * len(slots))(*slots),
        (len(slots), alpha_pointer, rows, columns, GATES.index(gate)),
    )
    size, flag = ctypes.c_int64(n), ctypes.c_bool(aligned)
    getattr(bodies, f"forward_{name}")(pointers(x), slot_array, *shape, ctypes.c_void_p(y.data_ptr()), size, flag)
    getattr(bodies, f"backward_{name}")(
        ctypes.c_void_p(grad.data_ptr()), pointers(x), pointers(dx), slot_array, *shape,
        ctypes.c_void_p(dalpha.data_ptr()), size, flag,
    )  # fmt: skip
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(y, expected.detach(), **close)
    for got, wanted in zip(dx, expected_dx, strict=True):
        if got is not None:
            torch.testing.assert_close(got, wanted, **close)
    close = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(dalpha, expected_dalpha.double(), **close)
