"""The bodies of the CUDA kernels of sep_unit, run on the host thread by thread, against the eager twin in float64."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from host_bodies import NAMES, address, build, pointers

import lt_nas_ext as lt

# Relative to the norm of each result.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 1e-3}


class Sizes(ctypes.Structure):
    _fields_ = [
        *[(n, ctypes.c_int64) for n in ("images", "channels", "out_channels", "edges", "height", "width")],
        *[(n, ctypes.c_int) for n in ("kernel", "stride", "dilation")],
        ("shared", ctypes.c_bool),
        ("shared_bytes", ctypes.c_int64),
    ]


@pytest.fixture(scope="session")
def bodies(tmp_path_factory) -> ctypes.CDLL:
    return build(Path(__file__).parent / "host_bodies" / "sep_unit.cpp", tmp_path_factory)


class Unit:
    """Inputs of a unit, and what the bodies make of them."""

    def __init__(self, bodies, dtype=torch.float64, size=(7, 9), images=2, channels=8, out=4, kernel=3, stride=1,
                 dilation=1, edges=3, normed=False, batch=True, kilobytes=96, tiles_a_block=0):  # fmt: skip
        generator = torch.Generator().manual_seed(0)

        def randn(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        def images_of(shape):
            return randn(*shape).contiguous(memory_format=torch.channels_last)

        self.bodies, self.dtype, self.batch, self.tiles_a_block = bodies, dtype, batch, tiles_a_block
        self.x = [images_of((images, channels, *size)) for _ in range(edges if normed else 1)]
        self.depthwise, self.pointwise = randn(edges * channels, 1, kernel, kernel), randn(edges * out, channels, 1, 1)
        self.settings = {"stride": stride, "dilation": dilation}
        self.shape = (images, out, *(-(-extent // stride) for extent in size))
        self.dz = [images_of(self.shape) for _ in range(edges)]
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.mean = self.inv_std = None
        if normed:
            moments = torch.stack([lt.ops.channel_moments(one.double()) for one in self.x], 1)
            if not batch:
                moments = moments + 0.25
            self.moments = moments
            self.mean, self.inv_std = moments[0].to(self.wide), (moments[1] + 1e-5).rsqrt().to(self.wide)
        self.edges, self.taps = edges, kernel * kernel
        self.sizes = Sizes(images, channels, out, edges, *size, kernel, stride, dilation, not normed, kilobytes * 1024)
        # (E, taps, C), as the kernels read it
        self.taps_first = self.depthwise.view(edges, channels, -1).transpose(1, 2).contiguous()

    def _tables(self):
        return [address(t) for t in (self.mean, self.inv_std, self.taps_first, self.pointwise)]

    def forward(self):
        z = [torch.full_like(self.dz[0], float("nan")) for _ in range(self.edges)]
        total = torch.full((2, self.edges, self.shape[1]), float("nan"), dtype=self.wide)
        mean, inv_std, depthwise, pointwise = self._tables()
        getattr(self.bodies, f"forward_{NAMES[self.dtype]}")(
            ctypes.byref(self.sizes), pointers(self.x), mean, inv_std, depthwise, pointwise, pointers(z), address(total)
        )
        return [*z, total]

    def backward(self, need_x=True, need_weights=True):
        dx = [torch.full_like(one, float("nan")) for one in self.x]
        channels = self.x[0].shape[1]
        weights = torch.full((self.edges, self.taps + self.shape[1], channels), float("nan"), dtype=self.wide)
        mean, inv_std, depthwise, pointwise = self._tables()
        getattr(self.bodies, f"backward_{NAMES[self.dtype]}")(
            ctypes.byref(self.sizes), pointers(self.dz), pointers(self.x), mean, inv_std, depthwise, pointwise,
            ctypes.c_bool(self.batch), pointers(dx) if need_x else None, address(weights if need_weights else None),
            self.tiles_a_block,
        )  # fmt: skip
        of_depthwise = weights[:, : self.taps].transpose(1, 2).reshape(self.depthwise.shape)
        of_pointwise = weights[:, self.taps :].reshape(self.pointwise.shape)
        return [*(dx if need_x else []), *([of_depthwise, of_pointwise] if need_weights else [])]

    def expected(self):
        """z, moments; dx, both weights' gradients: the eager twin in float64."""
        inputs = [t.double().requires_grad_() for t in (*self.x, self.depthwise, self.pointwise)]
        moments = None if self.mean is None else self.moments
        z, total = lt.ops.sep_unit_eager(inputs[:-2], *inputs[-2:], **self.settings, moments=moments, batch=self.batch)
        return [*[one.detach() for one in z], total], torch.autograd.grad(z, inputs, [d.double() for d in self.dz])

    def check(self, **needs):
        forward, backward = self.expected()
        self.assert_close(self.forward(), forward)
        inputs = len(self.x)
        wanted = [*(backward[:inputs] if needs.get("need_x", True) else [])]
        wanted += backward[inputs:] if needs.get("need_weights", True) else []
        self.assert_close(self.backward(**needs), wanted)

    def assert_close(self, got, wanted):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert one.shape == other.shape
            assert (one.double() - other).norm() <= TOLERANCE[self.dtype] * other.norm()


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1), (7, 1), (7, 2)])
def test_bodies_equal_the_eager_twin(bodies, kernel, dilation, stride, normed, dtype):
    Unit(bodies, dtype, kernel=kernel, dilation=dilation, stride=stride, normed=normed).check()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"size": (1, 1), "images": 5},
        {"size": (13, 41)},  # tiles of 32 columns, the second one cut
        {"size": (40, 5), "images": 1},
        {"size": (8, 8), "images": 5, "channels": 20, "out": 12},  # two chunks, the second one of four channels
        {"size": (9, 10), "channels": 4, "out": 72, "edges": 2},
        {"size": (4, 4), "channels": 4, "out": 264, "edges": 1},  # more channels than threads
        {"size": (4, 9), "edges": 13, "channels": 4},
    ],
)
def test_every_size(bodies, sizes, normed, stride):
    Unit(bodies, normed=normed, stride=stride, kernel=5, dilation=2, **sizes).check()


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kilobytes", [20, 30, 48])
def test_little_shared_memory(bodies, kilobytes, normed):
    """Small tiles, and in the forward pass a chunk of the channels at a time."""
    Unit(bodies, torch.float32, size=(20, 36), channels=36, kernel=5, kilobytes=kilobytes, normed=normed).check()


@pytest.mark.parametrize("normed", [False, True])
def test_several_tiles_a_block(bodies, normed):
    Unit(bodies, size=(17, 40), images=3, tiles_a_block=4, normed=normed).check()


def test_moments_of_a_channel_far_from_zero(bodies):
    """The squares of z would lose all digits of its variance."""
    unit = Unit(bodies, torch.float32, size=(16, 16), channels=4, out=4, kernel=1, edges=1)
    unit.x = [(unit.x[0] * 1e-3 + 100).contiguous(memory_format=torch.channels_last)]
    unit.depthwise = unit.depthwise.abs()
    unit.taps_first = unit.depthwise.view(1, 4, -1).transpose(1, 2).contiguous()
    forward, _ = unit.expected()
    torch.testing.assert_close(unit.forward()[-1][1].double(), forward[-1][1], rtol=2e-2, atol=0)


def test_statistics_that_are_constants(bodies):
    Unit(bodies, normed=True, batch=False).check()


@pytest.mark.parametrize("normed", [False, True])
def test_only_what_is_needed(bodies, normed):
    Unit(bodies, normed=normed, kernel=5).check(need_weights=False)
    Unit(bodies, normed=normed, kernel=5).check(need_x=False)


def test_a_nan_stays(bodies):
    unit = Unit(bodies)
    unit.x[0][0, 3, 2, 4] = float("nan")
    assert unit.forward()[0].isnan().any()
