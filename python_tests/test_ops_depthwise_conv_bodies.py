"""The bodies of the CUDA kernels of depthwise_conv, run on the host thread by thread, against PyTorch in float64."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from host_bodies import NAMES, address, build

import lt_nas_ext as lt

# Relative to the norm of each result.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 4e-3, torch.float16: 5e-4}


class Sizes(ctypes.Structure):
    _fields_ = [
        *[(n, ctypes.c_int64) for n in ("images", "channels", "height", "width")],
        *[(n, ctypes.c_int) for n in ("kernel", "stride", "dilation")],
        ("relu", ctypes.c_bool),
        ("shared_bytes", ctypes.c_int64),
    ]


@pytest.fixture(scope="session")
def bodies(tmp_path_factory) -> ctypes.CDLL:
    return build(Path(__file__).parent / "host_bodies" / "depthwise_conv.cpp", tmp_path_factory)


def check(bodies, dtype=torch.float64, size=(7, 9), images=2, channels=8, kernel=3, stride=1, dilation=1, relu=True,
          kilobytes=96, tiles_a_block=0, need=("x", "weight")):  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return numbers.contiguous(memory_format=torch.channels_last)

    x, weight = randn(images, channels, *size), randn(channels, 1, kernel, kernel).contiguous()
    inputs = [x.double().requires_grad_(), weight.double().requires_grad_()]
    y = lt.ops.depthwise_conv_eager(*inputs, stride, dilation, relu)
    dy = randn(*y.shape)
    expected = torch.autograd.grad(y, inputs, dy.double())

    taps_first = weight.view(channels, -1).t().contiguous()
    sizes = Sizes(images, channels, *size, kernel, stride, dilation, relu, kilobytes * 1024)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    got_y, got_dx = torch.full_like(dy, float("nan")), torch.full_like(x, float("nan"))
    got_dweight = torch.full((kernel * kernel, channels), float("nan"), dtype=wide)
    common = (address(x), address(taps_first))
    getattr(bodies, f"forward_{NAMES[dtype]}")(ctypes.byref(sizes), *common, address(got_y))
    getattr(bodies, f"backward_{NAMES[dtype]}")(
        ctypes.byref(sizes), address(dy), *common, address(got_dx if "x" in need else None),
        address(got_dweight if "weight" in need else None), tiles_a_block,
    )  # fmt: skip
    pairs = [(got_y, y.detach())]
    pairs += [(got_dx, expected[0])] if "x" in need else []
    pairs += [(got_dweight.t().reshape(weight.shape), expected[1])] if "weight" in need else []
    for got, wanted in pairs:
        assert (got.double() - wanted).norm() <= TOLERANCE[dtype] * wanted.norm()


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1), (7, 1), (7, 2)])
def test_bodies_equal_pytorch(bodies, kernel, dilation, stride, relu, dtype):
    check(bodies, dtype, kernel=kernel, dilation=dilation, stride=stride, relu=relu)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "sizes",
    [
        {"size": (1, 1), "images": 1},
        {"size": (13, 41)},
        {"size": (40, 5), "images": 1},
        {"size": (8, 8), "images": 5, "channels": 36},  # two chunks, the second one of four channels
        {"size": (20, 36), "channels": 36, "kilobytes": 24},
        {"size": (17, 40), "images": 3, "tiles_a_block": 4},
    ],
)
def test_every_size(bodies, sizes, stride):
    check(bodies, torch.float32, stride=stride, kernel=5, dilation=2, **sizes)


@pytest.mark.parametrize("need", ["x", "weight"])
def test_only_what_is_needed(bodies, need):
    check(bodies, need=(need,))
