"""The primitives against the formulas of DARTS, at sizes the original takes and at sizes it does not."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext import nn
from lt_nas_ext.errors import UserError


def test_candidates_are_in_the_order_of_the_paper():
    assert nn.DARTS == (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )
    assert set(nn.DARTS) - set(nn.FAIR_DARTS) == {"none"} and len(nn.FAIR_DARTS) == 7


@pytest.mark.parametrize("name", nn.FAIR_DARTS)
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("height, width", [(8, 8), (7, 9), (8, 5), (2, 1), (1, 1)])
def test_every_size_works_at_every_stride(name, channels, height, width):
    for stride in (1, 2):
        primitive = nn.make_primitive(name, channels, stride, affine=False, pool_bn=True)
        y = primitive(torch.randn(3, channels, height, width))
        assert y.shape == (3, channels, -(-height // stride), -(-width // stride))


KEYS = {
    ("skip_connect", 1): {},
    ("skip_connect", 2): {"conv_1.weight": (2, 4, 1, 1), "conv_2.weight": (2, 4, 1, 1)},
    ("sep_conv_3x3", 2): {
        "op.1.weight": (4, 1, 3, 3),
        "op.2.weight": (4, 4, 1, 1),
        "op.5.weight": (4, 1, 3, 3),
        "op.6.weight": (4, 4, 1, 1),
    },
    ("dil_conv_5x5", 1): {"op.1.weight": (4, 1, 5, 5), "op.2.weight": (4, 4, 1, 1)},
    ("max_pool_3x3", 1): {},
    ("avg_pool_3x3", 2): {},
}
BATCH_NORMS = {"skip_connect": ["bn"], "sep_conv_3x3": ["op.3", "op.7"], "dil_conv_5x5": ["op.3"]}


@pytest.mark.parametrize("name, stride", KEYS)
def test_parameters_have_the_names_of_the_original(name, stride):
    search = nn.make_primitive(name, 4, stride, affine=False, pool_bn=True)
    assert {key: tuple(value.shape) for key, value in search.named_parameters()} == KEYS[name, stride]

    found = nn.make_primitive(name, 4, stride)
    norms = [] if (name, stride) == ("skip_connect", 1) else BATCH_NORMS.get(name, [])
    affine = {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}
    assert {key for key, _ in found.named_parameters()} == affine | set(KEYS[name, stride])


def test_preprocessing_has_the_names_of_the_original():
    assert [key for key, _ in nn.ReLUConvBN(3, 4).named_parameters()] == ["op.1.weight", "op.2.weight", "op.2.bias"]


@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_a_pool_has_a_batch_norm_in_the_supernet_only(name):
    search = nn.make_primitive(name, 4, 1, affine=False, pool_bn=True)
    assert set(search.state_dict()) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert not nn.make_primitive(name, 4, 1).state_dict()


def test_batch_norms_are_those_of_the_paper():
    for name in nn.FAIR_DARTS:
        for affine in (True, False):
            primitive = nn.make_primitive(name, 4, 2, affine=affine)
            for norm in (m for m in primitive.modules() if isinstance(m, torch.nn.BatchNorm2d)):
                assert (norm.eps, norm.momentum, norm.affine) == (1e-5, 0.1, affine)


def test_average_pool_averages_over_the_pixels_that_exist():
    pool = nn.make_primitive("avg_pool_3x3", 1, 1)
    assert torch.equal(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))
    corner = pool(torch.arange(4.0).view(1, 1, 2, 2))
    assert torch.equal(corner, torch.full((1, 1, 2, 2), 1.5))


def depthwise_separable(x, depthwise, pointwise, stride=1, dilation=1):
    """A unit of sep_conv or dil_conv before its batch norm, from the definition."""
    kernel = depthwise.shape[-1]
    x = F.conv2d(
        x.relu(), depthwise, stride=stride, padding=dilation * (kernel // 2), dilation=dilation, groups=x.shape[1]
    )
    return F.conv2d(x, pointwise)


def normalise(x):
    return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_their_definition(kernel, stride):
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    sep = nn.SepConv(4, 6, kernel, stride, affine=False).double()
    w = dict(sep.named_parameters())
    y = normalise(depthwise_separable(x, w["op.1.weight"], w["op.2.weight"], stride))
    y = normalise(depthwise_separable(y, w["op.5.weight"], w["op.6.weight"]))
    torch.testing.assert_close(sep(x), y, rtol=1e-10, atol=1e-10)

    dil = nn.DilConv(4, 6, kernel, stride, affine=False).double()
    w = dict(dil.named_parameters())
    y = normalise(depthwise_separable(x, w["op.1.weight"], w["op.2.weight"], stride, dilation=2))
    torch.testing.assert_close(dil(x), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("height, width", [(6, 8), (5, 8), (6, 7), (5, 7), (1, 1)])
def test_factorized_reduce_takes_every_second_pixel_and_the_one_beside_it(height, width):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    reduce = nn.FactorizedReduce(3, 4).double()
    padded = F.pad(x, (0, width % 2, 0, height % 2)).relu()
    even, odd = padded[:, :, ::2, ::2], padded[:, :, 1::2, 1::2]
    y = torch.cat([F.conv2d(even, reduce.conv_1.weight), F.conv2d(odd, reduce.conv_2.weight)], dim=1)
    torch.testing.assert_close(reduce(x), normalise(y), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height, width", [(6, 8), (5, 8), (6, 7), (1, 1)])
def test_diagonal_pixels_are_those_of_the_slices_with_their_gradients(height, width, layout):
    x = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    padded = F.pad(x.relu(), (0, width % 2, 0, height % 2))
    sliced = padded[:, :, ::2, ::2], padded[:, :, 1::2, 1::2]
    ours = nn.diagonal_pixels(x)
    dy = [torch.randn_like(y) for y in sliced]
    (dx,), (expected,) = torch.autograd.grad(ours, x, dy), torch.autograd.grad(sliced, x, dy)
    for got, wanted in zip((*ours, dx), (*sliced, expected), strict=True):
        assert torch.equal(got, wanted)
    for got in (*ours, dx):
        assert got.is_contiguous(memory_format=layout)
    assert torch.autograd.gradcheck(nn.diagonal_pixels, x)
    assert torch.autograd.gradgradcheck(nn.diagonal_pixels, x)


def test_diagonal_pixels_pass_on_what_is_no_number():
    x = torch.full((1, 1, 2, 2), float("nan"), requires_grad=True)
    upper, lower = nn.diagonal_pixels(x)
    (upper.sum() + lower.sum()).backward()
    assert upper.isnan().all() and lower.isnan().all()
    assert x.grad is not None and x.grad.flatten().tolist() == [1.0, 0.0, 0.0, 1.0]


def test_factorized_reduce_has_the_gradients_of_the_originals_strided_convolutions():
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    reduce = nn.FactorizedReduce(3, 4).double()
    parameters = [reduce.conv_1.weight, reduce.conv_2.weight]
    one, two = (F.conv2d(at.relu(), w, stride=2) for at, w in zip((x, x[:, :, 1:, 1:]), parameters, strict=True))
    y = normalise(torch.cat([one, two], dim=1))
    dy = torch.randn_like(y)
    for ours, original in zip(
        torch.autograd.grad(reduce(x), parameters, dy), torch.autograd.grad(y, parameters, dy), strict=True
    ):
        torch.testing.assert_close(ours, original, rtol=1e-10, atol=1e-10)


TRAIN_NARROW_REDUCTIONS = """
import torch
from lt_nas_ext import nn

for c_in in (1, 2, 4, 6, 12):
    reduce = nn.FactorizedReduce(c_in, 4).to(memory_format=torch.channels_last)
    x = torch.randn(16, c_in, 8, 8).to(memory_format=torch.channels_last)
    for _ in range(40):
        reduce(x).sum().backward()
        churn = [torch.empty(size) for size in range(1, 40)]
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not ctypes.util.find_library("c_malloc_debug"),
    reason="glibc's checking allocator is not here",
)
def test_narrow_reductions_leave_the_heap_whole(tmp_path):
    """A stride of 2 in the convolution itself fails here: uxlfoundation/oneDNN#6035."""
    checking = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    command = [sys.executable, "-c", TRAIN_NARROW_REDUCTIONS]
    done = subprocess.run(
        command, env={**os.environ, **checking}, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", nn.FAIR_DARTS)
def test_the_shared_input_is_left_as_it_was(name):
    x = torch.randn(2, 4, 6, 6)
    before = x.clone()
    for stride in (1, 2):
        nn.make_primitive(name, 4, stride)(x)
    assert torch.equal(x, before)


def test_weights_start_as_pytorch_starts_them():
    """Uniform within 1/√fan_in, the law of the original, which sets none of its own."""
    for name, fan_in in (("sep_conv_3x3", 9), ("sep_conv_5x5", 25)):
        torch.manual_seed(0)
        depthwise = nn.make_primitive(name, 256, 1).op[1].weight.detach()
        assert depthwise.abs().max() <= fan_in**-0.5
        assert depthwise.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)


def test_none_is_nothing():
    assert nn.make_primitive("none", 4, 2) is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("sep_conv_7x7", 4, 1), "name: got 'sep_conv_7x7'; wanted one of none, max_pool_3x3"),
        (("skip_connect", 4, 3), "stride: got 3; wanted 1 or 2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        nn.make_primitive(*arguments)
