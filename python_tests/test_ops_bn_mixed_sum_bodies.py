"""The bodies of the CUDA kernels of bn_mixed_sum, run on the host thread by thread, against float64."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lt_nas_ext.ops import GATES, gate_weights

DRIVER = Path(__file__).parent / "host_bodies" / "bn_mixed_sum.cpp"
NAMES = {torch.float64: "double", torch.float32: "float", torch.bfloat16: "bfloat16", torch.float16: "half"}
# One rounding to the type at the end, on top of float32 inside.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 4e-4}
EPS = 1e-5


@pytest.fixture(scope="session")
def bodies(tmp_path_factory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not (DRIVER.parents[2] / "csrc").is_dir():
        pytest.skip("needs a C++ compiler and the source tree")
    library = tmp_path_factory.mktemp("bodies") / "bn_mixed_sum.so"
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-std=c++17", *sanitize, DRIVER, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def body(bodies: ctypes.CDLL, name: str, dtype: torch.dtype, channels: int):
    """The instance for a type and a number of channels: 16 bytes a load, 8 where a pixel is no multiple of 16."""
    pack = 16 // dtype.itemsize
    return getattr(bodies, f"{name}_{NAMES[dtype]}_{pack if channels % pack == 0 else 4}")


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])


def sums_type(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class Case:
    """Images as (pixels, channels). Kinds of slots: 0, 3 the batch's own statistics, 1 constants, 2 none, 4 absent."""

    def __init__(self, pixels, channels, dtype, rows=1, columns=1, gate="softmax", kinds=(0, 1, 2, 3, 4)):
        generator = torch.Generator().manual_seed(pixels + channels)

        def randn(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        kind = {slot: kinds[slot % len(kinds)] for slot in range(rows * columns)}
        self.slots = [slot for slot in kind if kind[slot] != 4]
        self.batch = [kind[slot] in (0, 3) for slot in self.slots]
        self.gate, self.dtype, self.pixels, self.channels = gate, dtype, pixels, channels
        self.x = [((1 + slot % 5) * randn(pixels, channels) + randn(channels)).to(dtype) for slot in self.slots]
        self.alpha = randn(rows, columns).to(sums_type(dtype))
        self.grad = (randn(pixels, channels) + randn(channels)).to(dtype)
        own = [torch.stack([x.double().mean(0), self._inv_std(x.double())]) for x in self.x]
        plain = torch.stack([torch.zeros(channels), torch.ones(channels)])
        constants = torch.stack([randn(channels), randn(channels) ** 2 + 0.5])
        given = [(one, constants, plain, one)[kind[slot]] for slot, one in zip(self.slots, own, strict=True)]
        self.mean, self.inv_std = torch.stack(given, 1).to(sums_type(dtype)).contiguous()

    @staticmethod
    def _inv_std(x: torch.Tensor) -> torch.Tensor:
        return (x.var(0, unbiased=False) + EPS).rsqrt()

    def expected(self) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """y, every dx and dα of the definition, in float64."""
        alpha = self.alpha.double().requires_grad_()
        x = [one.double().requires_grad_() for one in self.x]
        weights = gate_weights(alpha, self.gate).flatten()
        y = torch.zeros(self.pixels, self.channels, dtype=torch.float64)
        for place, (slot, one) in enumerate(zip(self.slots, x, strict=True)):
            mean, inv_std = self.mean[place].double(), self.inv_std[place].double()
            if self.batch[place]:
                mean, inv_std = one.mean(0), self._inv_std(one)
            y = y + weights[slot] * (one - mean) * inv_std
        *dx, dalpha = torch.autograd.grad(y, [*x, alpha], self.grad.double())
        return y.detach(), dx, dalpha

    def arguments(self):
        count, (rows, columns) = len(self.slots), self.alpha.shape
        slots, batch = (ctypes.c_int * count)(*self.slots), (ctypes.c_bool * count)(*self.batch)
        gate = (pointer(self.alpha), rows, columns, GATES.index(self.gate))
        size = (ctypes.c_int64(self.pixels), ctypes.c_int64(self.channels))
        return (pointers(self.x), slots, batch, count, *gate, pointer(self.mean), pointer(self.inv_std), *size)

    def poison(self) -> torch.Tensor:
        """Images to write to, between two pixels that nobody may write to."""
        return torch.full((self.pixels + 2, self.channels), torch.nan, dtype=self.dtype)[1:-1]

    def assert_close(self, got: torch.Tensor, wanted: torch.Tensor, terms: torch.Tensor) -> None:
        """`terms`: what `wanted` is a sum of; they may cancel, their rounding does not."""
        assert got._base[0].isnan().all() and got._base[-1].isnan().all()
        error = (got.double() - wanted).norm()
        assert error <= TOLERANCE[self.dtype] * max(wanted.norm(), terms.norm())

    def assert_dx_close(self, dx: Sequence[torch.Tensor | None], wanted: Sequence[torch.Tensor]) -> None:
        weights = gate_weights(self.alpha.double(), self.gate).flatten()
        for place, (slot, got) in enumerate(zip(self.slots, dx, strict=True)):
            if got is not None:
                self.assert_close(got, wanted[place], weights[slot] * self.inv_std[place] * self.grad)


# Pixels and channels: one tile and less, tails, several tiles, several blocks of channels with a short last one, and
# more tiles than lanes sum over.
SIZES = [(2, 4), (37, 8), (1031, 12), (2500, 20), (300, 64), (333, 72), (70, 260), (131, 136), (9001, 64)]


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize(("pixels", "channels"), SIZES)
def test_bodies_equal_float64_on_every_size(bodies, pixels, channels, dtype):
    assert_bodies_equal_float64(bodies, Case(pixels, channels, dtype, 1, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 8), (2, 67), (1, 200)])
def test_bodies_equal_float64_for_every_gate_and_many_candidates(bodies, rows, columns, gate, dtype):
    assert_bodies_equal_float64(bodies, Case(75, 12, dtype, rows, columns, gate))


def assert_bodies_equal_float64(bodies: ctypes.CDLL, case: Case) -> None:
    y, dx = case.poison(), [case.poison() if place % 4 != 2 else None for place in range(len(case.x))]
    dalpha = torch.full(case.alpha.shape, torch.nan, dtype=torch.float64)
    body(bodies, "forward", case.dtype, case.channels)(*case.arguments(), pointer(y))
    backward = body(bodies, "backward", case.dtype, case.channels)
    backward(*case.arguments(), pointer(case.grad), ctypes.c_bool(True), pointers(dx), pointer(dalpha))
    expected_y, expected_dx, expected_dalpha = case.expected()
    # A chain of launches rounds y to the type after each.
    launches = -(-len(case.x) // 64)
    case.assert_close(y, expected_y, 2 * (launches - 1) * expected_y)
    case.assert_dx_close(dx, expected_dx)
    # Sums in which positive and negative terms, of one rounding of the weights each, nearly cancel.
    largest = case.grad.double().norm() * max(one.double().norm() for one in case.x)
    exact = {torch.float64: 1e-13}.get(case.dtype, 1e-6)
    assert (dalpha - expected_dalpha).abs().max() <= exact * largest


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_that_need_no_sums(bodies, dtype):
    case = Case(333, 72, dtype, 2, 5, kinds=(1, 2, 4))
    dx, dalpha = [case.poison() for _ in case.x], torch.full((2, 5), torch.nan, dtype=torch.float64)
    backward = body(bodies, "backward", dtype, 72)
    backward(*case.arguments(), pointer(case.grad), ctypes.c_bool(False), pointers(dx), pointer(dalpha))
    case.assert_dx_close(dx, case.expected()[1])
    assert dalpha.isnan().all()


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("mean", [0.0, 50.0])
@pytest.mark.parametrize(("pixels", "channels"), [(1, 4), *SIZES])
def test_moments_equal_float64(bodies, pixels, channels, mean, dtype):
    x = (mean + torch.randn(pixels, channels, generator=torch.Generator().manual_seed(pixels))).to(dtype)
    x[:, 1] = x[0, 1]
    moments = torch.full((2, channels), torch.nan, dtype=sums_type(dtype))
    size = (ctypes.c_int64(pixels), ctypes.c_int64(channels))
    body(bodies, "moments", dtype, channels)(pointer(x), *size, pointer(moments))
    wide = x.double()
    exact = {torch.float64: 1e-12}.get(dtype, 1e-6)
    torch.testing.assert_close(moments[0].double(), wide.mean(0), rtol=exact, atol=exact)
    torch.testing.assert_close(moments[1].double(), wide.var(0, unbiased=False), rtol=exact, atol=0)
    assert moments[1, 1] == 0
