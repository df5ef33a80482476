"""The bodies of the CUDA kernels of sep_unit, run on the host thread by thread, against the eager twin in float64."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from host_bodies import NAMES, address, build, pointers
from operator_laws import assert_error_is_at_most_twice_eagers, equal_to_the_bit
from torch.nn import functional as F

import lt_nas_ext as lt

# Relative to the norm of each result.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 1e-3}
TF32_TOLERANCE = 1e-3  # two factors of 10 bits
ON_TENSOR_CORES = [torch.float32, torch.bfloat16, torch.float16]


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
                 dilation=1, edges=3, normed=False, batch=True, kilobytes=96, tiles_a_block=0,
                 tensor_cores=False):  # fmt: skip
        generator = torch.Generator().manual_seed(0)

        def randn(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        def images_of(shape):
            return randn(*shape).contiguous(memory_format=torch.channels_last)

        self.bodies, self.dtype, self.batch, self.tiles_a_block = bodies, dtype, batch, tiles_a_block
        self.name = NAMES[dtype] + ("_on_tensor_cores" if tensor_cores else "")
        self.tolerance = TF32_TOLERANCE if tensor_cores and dtype == torch.float32 else TOLERANCE[dtype]
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

    def _tables(self):
        """The taps as the kernels read them: (E, taps, C)."""
        channels = self.x[0].shape[1]
        self.taps_first = self.depthwise.view(self.edges, channels, -1).transpose(1, 2).contiguous()
        return [address(t) for t in (self.mean, self.inv_std, self.taps_first, self.pointwise)]

    def forward(self):
        z = [torch.full_like(self.dz[0], float("nan")) for _ in range(self.edges)]
        total = torch.full((2, self.edges, self.shape[1]), float("nan"), dtype=self.wide)
        mean, inv_std, depthwise, pointwise = self._tables()
        getattr(self.bodies, f"forward_{self.name}")(
            ctypes.byref(self.sizes), pointers(self.x), mean, inv_std, depthwise, pointwise, pointers(z), address(total)
        )
        return [*z, total]

    def backward(self, need_x=True, need_weights=True):
        dx = [torch.full_like(one, float("nan")) for one in self.x]
        channels = self.x[0].shape[1]
        weights = torch.full((self.edges, self.taps + self.shape[1], channels), float("nan"), dtype=self.wide)
        mean, inv_std, depthwise, pointwise = self._tables()
        getattr(self.bodies, f"backward_{self.name}")(
            ctypes.byref(self.sizes), pointers(self.dz), pointers(self.x), mean, inv_std, depthwise, pointwise,
            ctypes.c_bool(self.batch), pointers(dx) if need_x else None, address(weights if need_weights else None),
            self.tiles_a_block,
        )  # fmt: skip
        of_depthwise = weights[:, : self.taps].transpose(1, 2).reshape(self.depthwise.shape)
        of_pointwise = weights[:, self.taps :].reshape(self.pointwise.shape)
        return [*(dx if need_x else []), *([of_depthwise, of_pointwise] if need_weights else [])]

    def expected(self, dtype=torch.float64):
        """z, moments; dx, both weights' gradients: the eager twin."""
        inputs = [t.to(dtype).requires_grad_() for t in (*self.x, self.depthwise, self.pointwise)]
        moments = None if self.mean is None else self.moments
        z, total = lt.ops.sep_unit_eager(inputs[:-2], *inputs[-2:], **self.settings, moments=moments, batch=self.batch)
        return [*[one.detach() for one in z], total], torch.autograd.grad(z, inputs, [d.to(dtype) for d in self.dz])

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
            assert (one.double() - other).norm() <= self.tolerance * other.norm()


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


# ---- the products on tensor cores -----------------------------------------------------------------------------------


def as_factor(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 numbers rounded as the products take them: to 10 bits, ties away from zero, in float32."""
    if dtype != torch.float32:
        return x.to(dtype).double()
    mantissa, exponent = torch.frexp(x)
    return mantissa.sign() * (mantissa.abs() * 2**11 + 0.5).floor() / 2**11 * 2.0**exponent


class RoundedUnit(Unit):
    """Its numbers up to the depthwise output are exact in every type of sums: what is rounded after can be known."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more, tensor_cores=True)
        (image,) = self.x
        self.x = [(2 * image).round().contiguous(memory_format=torch.channels_last)]
        self.depthwise = (32 * self.depthwise).round() / 32

    def rounded(self):
        """As `expected`, in float64, of rounded factors."""
        x, taps = (t.double().requires_grad_() for t in (self.x[0], self.depthwise))
        stride, dilation = self.settings["stride"], self.settings["dilation"]
        padding, channels = dilation * (taps.shape[-1] // 2), x.shape[1]
        z, du, of_pointwise, us = [], [], [], []
        for own, mixing, dz in zip(taps.chunk(self.edges), self.pointwise.chunk(self.edges), self.dz, strict=True):
            us.append(F.conv2d(x.relu(), own, None, stride, padding, dilation, channels))
            u, mixing, dz = (as_factor(t.detach().double(), self.dtype) for t in (us[-1], mixing, dz))
            z.append(F.conv2d(u, mixing))
            du.append(F.conv_transpose2d(dz, mixing))
            of_pointwise.append(torch.einsum("nohw,nchw->oc", dz, u)[..., None, None])
        moments = torch.stack([lt.ops.channel_moments(one) for one in z], 1)
        return [*z, moments], [*torch.autograd.grad(us, (x, taps), du), torch.cat(of_pointwise)]


@pytest.mark.parametrize("dtype", ON_TENSOR_CORES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1), (7, 1), (7, 2)])
def test_products_of_rounded_factors(bodies, kernel, dilation, stride, dtype):
    """Nothing is rounded but what should be: factors, and z and dx where they are stored."""
    unit = RoundedUnit(bodies, dtype, (9, 11), channels=20, out=12, kernel=kernel, dilation=dilation, stride=stride)
    (*z, moments), (dx, *gradients) = unit.rounded()
    (*own_z, own_moments), (own_dx, *own_gradients) = unit.forward(), unit.backward()
    stored = 0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
    for got, wanted in zip([*own_z, own_dx], [*z, dx], strict=True):
        assert (got.double() - wanted).norm() <= (stored + 2e-6) * wanted.norm()
    for got, wanted in zip([own_moments, *own_gradients], [moments, *gradients], strict=True):
        assert (got.double() - wanted).norm() <= 2e-6 * wanted.norm()


@pytest.mark.parametrize("dtype", ON_TENSOR_CORES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": channels, "out": out, "size": size, "kernel": kernel, "stride": 1 + out // 16 % 2}
        for channels, size in {4: (1, 1), 12: (13, 41), 16: (9, 8), 36: (5, 7), 64: (4, 10)}.items()
        for out, kernel in {4: 3, 20: 5, 64: 7}.items()
    ],
)
def test_every_size_on_tensor_cores(bodies, sizes, normed, dtype):
    Unit(bodies, dtype, images=9, edges=2, normed=normed, tensor_cores=True, **sizes).check()


@pytest.mark.parametrize("dtype", ON_TENSOR_CORES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kilobytes", [20, 30, 48])
def test_little_shared_memory_on_tensor_cores(bodies, kilobytes, normed, dtype):
    sizes = {"size": (20, 36), "channels": 36, "out": 36, "kernel": 5, "edges": 2, "kilobytes": kilobytes}
    Unit(bodies, dtype, images=1, normed=normed, tensor_cores=True, **sizes).check()


@pytest.mark.parametrize("dtype", ON_TENSOR_CORES)
def test_more_than_a_warp_takes_at_once(bodies, dtype):
    """More channels out than threads, several tiles a block, and only what is needed."""
    wide = {"size": (4, 4), "channels": 4, "out": 264, "edges": 1}
    Unit(bodies, dtype, tensor_cores=True, **wide).check()
    many = {"size": (17, 40), "images": 3, "tiles_a_block": 4, "dilation": 2}
    Unit(bodies, dtype, tensor_cores=True, **many).check()
    Unit(bodies, dtype, tensor_cores=True, **many).check(need_weights=False)
    Unit(bodies, dtype, tensor_cores=True, **many).check(need_x=False)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_error_is_at_most_twice_eagers_on_tensor_cores(bodies, dtype, normed):
    unit = Unit(bodies, dtype, (16, 16), channels=36, out=20, kernel=5, normed=normed, tensor_cores=True)
    forward, backward = unit.expected()
    eager, eager_backward = unit.expected(dtype)
    ours = [one.to(other.dtype) for one, other in zip(unit.backward(), eager_backward, strict=True)]
    assert_error_is_at_most_twice_eagers(unit.forward(), eager, forward)
    assert_error_is_at_most_twice_eagers(ours, eager_backward, backward)


@pytest.mark.parametrize("dtype", ON_TENSOR_CORES)
def test_edges_do_not_touch_each_other_on_tensor_cores(bodies, dtype):
    """What an edge yields does not depend, to the bit, on which others run with it, nor on what memory held before."""
    unit = Unit(bodies, dtype, (9, 11), images=1, channels=12, out=20, edges=3, tensor_cores=True)
    together, gradients = unit.forward(), unit.backward()[1:]
    taps, mixing, dz = unit.depthwise, unit.pointwise, unit.dz
    for edge in range(3):
        alone = Unit(bodies, dtype, (9, 11), images=1, channels=12, out=20, edges=1, tensor_cores=True)
        alone.depthwise, alone.pointwise, alone.dz = taps.chunk(3)[edge], mixing.chunk(3)[edge], [dz[edge]]
        z, moments = alone.forward()
        assert equal_to_the_bit([z, moments], [together[edge], together[-1][:, edge : edge + 1]])
        assert equal_to_the_bit(alone.backward()[1:], [one.chunk(3)[edge] for one in gradients])


@pytest.mark.parametrize("dtype", ON_TENSOR_CORES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_what_it_should(bodies, bad, dtype):
    """In an image whose last tile is cut: what fragments read beyond it, or beyond the channels, makes nothing NaN."""

    def unit():
        one = Unit(bodies, dtype, (13, 41), images=1, channels=12, out=20, edges=1, tensor_cores=True)
        one.depthwise, one.pointwise = one.depthwise.abs(), one.pointwise.abs()
        one.dz = [dz.abs().contiguous(memory_format=torch.channels_last) for dz in one.dz]
        return one

    image, weight = unit(), unit()
    image.x[0][0, 11, 12, 40] = bad
    weight.pointwise[19, 11] = bad
    for one in (image, weight):
        (wanted_z, _), (wanted_dx, _, wanted_pointwise) = one.expected()
        (z, _), (dx, _, of_pointwise) = one.forward(), one.backward()
        for got, wanted in [(z, wanted_z), (dx, wanted_dx), (of_pointwise, wanted_pointwise)]:
            assert torch.equal(got.isfinite(), wanted.isfinite()) and torch.equal(got.isnan(), wanted.isnan())
    assert not wanted_dx.isfinite().all()
