"""The bodies of the CUDA kernels of barlow_twins_loss, run on the host thread by thread, against the eager twin."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import lt_nas_ext as lt

DRIVER = Path(__file__).parent / "host_bodies" / "barlow_twins_loss.cpp"
NAMES = {torch.float64: "double", torch.float32: "float", torch.bfloat16: "bfloat16", torch.float16: "half"}
# One rounding to the type at the end, on top of float32 inside.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 4e-4}
LAMBD, SCALE, EPS = 0.02, 1.5, 1e-5


@pytest.fixture(scope="session")
def bodies(tmp_path_factory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not (DRIVER.parents[2] / "csrc").is_dir():
        pytest.skip("needs a C++ compiler and the source tree")
    library = tmp_path_factory.mktemp("bodies") / "barlow_twins_loss.so"
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-std=c++17", *sanitize, DRIVER, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def call(function, *arguments):
    kinds = {int: ctypes.c_int64, float: ctypes.c_double}
    function(*(ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else kinds[type(a)](a) for a in arguments))


def loss_and_gradients(bodies, za, zb, gram, grad):
    """The operator as barlow_twins_loss_forms.cpp puts it together, on host runs of the CUDA bodies."""
    (n, d), dtype = za.shape, za.dtype
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    a, b = torch.full((2, n, d), torch.nan, dtype=computed)
    inv_std, diagonal = torch.full((2, d), torch.nan, dtype=computed), torch.full((d,), torch.nan, dtype=computed)
    loss, grad = torch.full((), torch.nan, dtype=computed), torch.tensor(grad, dtype=computed)
    call(
        getattr(bodies, f"standardize_{NAMES[dtype]}"),
        za,
        zb,
        za.stride(0),
        zb.stride(0),
        a,
        b,
        d,
        inv_std,
        diagonal,
        n,
        d,
        EPS,
    )
    if gram:
        x, y, of_diagonal = a @ a.T, b @ b.T, LAMBD
        pa, pb = y @ a, x @ b
    else:
        x = y = (a.T @ b).fill_diagonal_(0)
        of_diagonal = 0.0
        pa, pb = b @ x.T, a @ x
    partial = torch.full((-(-x.numel() // 4096),), torch.nan, dtype=torch.float64)
    call(
        getattr(bodies, f"loss_{NAMES[computed]}"),
        x,
        y,
        x.numel(),
        partial,
        diagonal,
        d,
        SCALE,
        LAMBD,
        of_diagonal,
        float(n),
        loss,
    )
    dza, dzb = torch.full((2, n, d), torch.nan, dtype=dtype)
    weights = 2 * SCALE * LAMBD / n**2, -2 * SCALE / n, of_diagonal
    call(
        getattr(bodies, f"combine_{NAMES[dtype]}"),
        pa,
        pb,
        a,
        b,
        d,
        inv_std,
        diagonal,
        grad,
        dza,
        dzb,
        d,
        n,
        d,
        *weights,
    )
    return loss, dza, dzb


@pytest.mark.parametrize("form", ["gram", "cross"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 5), (33, 16), (31, 129), (70, 151)])
def test_bodies_equal_the_eager_twin(bodies, n, d, dtype, form):
    generator = torch.Generator().manual_seed(n * d)
    shared = torch.randn(n, d, generator=generator)
    za, zb = ((shared + torch.randn(n, d + 3, generator=generator)[:, 2 : d + 2] + 3).to(dtype) for _ in range(2))
    zb = torch.cat([zb, zb], dim=1)[:, :d]  # rows further apart than they are long
    wide = [z.double().requires_grad_() for z in (za, zb)]
    expected = lt.ops.barlow_twins_loss_eager(*wide, lambd=LAMBD, scale=SCALE, form="cross")
    gradients = torch.autograd.grad(expected, wide, torch.tensor(0.75, dtype=torch.float64))
    got = loss_and_gradients(bodies, za, zb, form == "gram", 0.75)
    for result, reference in zip(got, (expected.detach(), *gradients), strict=True):
        tolerance = TOLERANCE[dtype] * (1000 if n <= 3 else 1)  # few rows: gradients are what cancellation leaves
        assert float((result.double() - reference).norm()) <= tolerance * float(reference.norm()) + 1e-6 * (n <= 3)
