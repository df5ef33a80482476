"""depthwise_conv against literal values, its eager twin in float64, its laws, and bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_laws import (
    LAYOUTS,
    assert_a_graph_of_the_gradient_changes_nothing,
    assert_eight_python_threads_agree,
    assert_error_is_at_most_twice_eagers,
    assert_same_bits_on_another_stream_and_in_a_graph,
    assert_same_bits_on_every_thread_count,
    fuzzed,
    layout,
    needs_kernels,
)

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import depthwise_conv, depthwise_conv_eager

# Relative error of a well-scaled convolution against float64.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6}


def make(shape=(2, 8, 7, 9), kernel=3, multiplier=1, dtype=torch.float64, in_layout="channels_last", seed=0, stride=1,
         device="cpu"):  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    images, channels, height, width = shape
    x = layout(randn(*shape), in_layout).requires_grad_()
    weight = randn(channels * multiplier, 1, kernel, kernel).requires_grad_()
    grad = randn(images, channels * multiplier, -(-height // stride), -(-width // stride))
    return x, weight, layout(grad, in_layout)


def value_and_gradients(function, x, weight, grad, *settings):
    y = function(x, weight, *settings)
    return [y, *torch.autograd.grad(y, [x, weight], grad)]


def assert_equal_to_float64(x, weight, grad, *settings):
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    exact = value_and_gradients(depthwise_conv_eager, *wide, grad.double(), *settings)
    for got, wanted in zip(value_and_gradients(depthwise_conv, x, weight, grad, *settings), exact, strict=True):
        assert got.shape == wanted.shape and got.dtype == x.dtype
        assert (got.double() - wanted).norm() <= TOLERANCE[x.dtype] * wanted.norm()


# ---- literal values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [depthwise_conv, depthwise_conv_eager])
def test_literal_values(function):
    image = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0], [7.0, 8.0, 9.0]])
    x, ones = image.expand(1, 4, 3, 3), torch.ones(4, 1, 3, 3)
    plain = torch.tensor([[8.0, 5.0, 0.0], [23.0, 29.0, 17.0], [24.0, 27.0, 16.0]])
    rectified = torch.tensor([[10.0, 13.0, 8.0], [25.0, 37.0, 25.0], [24.0, 33.0, 22.0]])
    torch.testing.assert_close(function(x, ones)[0, 2], plain)
    torch.testing.assert_close(function(x, ones, relu=True)[0, 1], rectified)
    torch.testing.assert_close(function(x, ones, stride=2, relu=True)[0, 0], rectified[::2, ::2])
    wide = torch.tensor([[20.0, 6.0, 20.0], [-2.0, 5.0, -2.0], [20.0, 6.0, 20.0]])
    torch.testing.assert_close(function(x, ones, dilation=2)[0, 3], wide)
    shift = torch.zeros(4, 1, 3, 3)
    shift[:, 0, 1, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # the pixel to the right
    torch.testing.assert_close(function(x, shift)[0, 3], 4 * torch.tensor([[-2.0, 3, 0], [5, -6, 0], [8, 9, 0]]))


# ---- against float64 ------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [4, 8, 20, 64])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_instruction_set_equals_float64(isa, dtype, channels, stride):
    assert_equal_to_float64(*make((2, channels, 7, 9), dtype=dtype, stride=stride), stride, 1, True)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("relu", [False, True])
def test_every_window_equals_float64(dtype, kernel, stride, dilation, relu):
    assert_equal_to_float64(*make(kernel=kernel, dtype=dtype, stride=stride), stride, dilation, relu)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 17), (16, 16), (33, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_layout", LAYOUTS)
def test_sizes_and_layouts(size, stride, in_layout):
    assert_equal_to_float64(*make((3, 4, *size), 5, in_layout=in_layout, stride=stride), stride, 2, True)
    x, weight, _ = make((3, 4, *size), 5, in_layout=in_layout)
    y = depthwise_conv(x, weight)
    assert y.is_contiguous(memory_format=torch.channels_last) or in_layout != "channels_last"
    assert y.is_contiguous() or in_layout != "contiguous"


@pytest.mark.parametrize("channels, multiplier", [(3, 1), (6, 2), (4, 3), (1, 4)])
def test_channels_without_a_kernel_are_the_twins(channels, multiplier):
    assert_equal_to_float64(*make((2, channels, 5, 5), multiplier=multiplier), 1, 1, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_are_the_twins(dtype):
    case = make(dtype=dtype)
    ours, twins = (value_and_gradients(function, *case) for function in (depthwise_conv, depthwise_conv_eager))
    assert all(torch.equal(a, b) for a, b in zip(ours, twins, strict=True))


@needs_kernels
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
def test_error_is_at_most_twice_eagers(stride, dilation):
    x, weight, grad = make((32, 16, 16, 16), 5, dtype=torch.float32, stride=stride)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    settings = (stride, dilation, True)
    exact = value_and_gradients(depthwise_conv_eager, *wide, grad.double(), *settings)
    ours = value_and_gradients(depthwise_conv, x, weight, grad, *settings)
    theirs = value_and_gradients(depthwise_conv_eager, x, weight, grad, *settings)
    for got, eager, wanted in zip(ours, theirs, exact, strict=True):
        # One unit in the last place of room: where eager happens to be exact, twice nothing is nothing.
        room = torch.finfo(torch.float32).eps * wanted.norm()
        assert (got.double() - wanted).norm() <= 2 * (eager.double() - wanted).norm() + room


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
def test_first_and_second_derivatives(stride, dilation, relu):
    x, weight, _ = make((2, 4, 3, 4))

    def function(x, weight):
        return depthwise_conv(x, weight, stride, dilation, relu)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))
    for frozen in (0, 1):
        inputs = [t.detach().requires_grad_(i != frozen) for i, t in enumerate((x, weight))]
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_a_graph_of_the_gradient_where_the_weight_is_made_of_the_images():
    x, weight, _ = make((2, 4, 3, 4))
    assert_a_graph_of_the_gradient_changes_nothing(
        lambda x, weight: depthwise_conv(x, weight * x.mean(), dilation=2), (x, weight)
    )


# ---- laws -----------------------------------------------------------------------------------------------------------


@fuzzed
@given(
    shape=st.tuples(st.integers(1, 3), st.sampled_from([3, 4, 12, 16, 24]), st.integers(1, 12), st.integers(1, 12)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    multiplier=st.integers(1, 2),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    relu=st.booleans(),
    in_layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
)
def test_equals_its_eager_twin(stride, dilation, relu, **case):
    assert_equal_to_float64(*make(stride=stride, **case), stride, dilation, relu)


@given(shift=st.integers(0, 3), seed=st.integers(0, 99))
def test_moving_an_image_moves_its_output(shift, seed):
    x, weight, _ = make((1, 4, 6, 6), seed=seed)
    wide = torch.nn.functional.pad(x.detach(), (3, 3, 3, 3))
    moved = wide.roll((shift, shift), (2, 3))
    y = depthwise_conv(wide, weight).roll((shift, shift), (2, 3))
    inside = slice(1 + shift, -1)
    torch.testing.assert_close(depthwise_conv(moved, weight)[..., inside, inside], y[..., inside, inside])


def test_the_gradient_of_a_weight_lies_as_the_weight():
    """PyTorch 2.13's opcheck compares strides; an optimiser would carry others on."""
    x, weight, grad = make()
    assert torch.autograd.grad(depthwise_conv(x, weight), weight, grad)[0].stride() == weight.stride()


def test_no_gradient_wanted_no_graph():
    x, weight, _ = make()
    with torch.no_grad():
        assert not depthwise_conv(x, weight).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("relu", [False, True])
def test_non_finite_values_pass_through(bad, relu):
    x, weight, _ = make(dtype=torch.float32)
    with torch.no_grad():
        x[1, 2, 3, 3] = bad
    got, wanted = (f(x, weight, relu=relu).isfinite() for f in (depthwise_conv, depthwise_conv_eager))
    assert torch.equal(got, wanted) and not got.all()


@needs_kernels
def test_same_bits_on_every_run_and_thread_count(isa):
    x, weight, grad = make((19, 16, 17, 16), 5, dtype=torch.float32, stride=2)
    assert_same_bits_on_every_thread_count(lambda: value_and_gradients(depthwise_conv, x, weight, grad, 2, 2, True))


@needs_kernels
def test_eight_python_threads_at_once():
    case = make((4, 16, 9, 9), dtype=torch.float32)
    expected = value_and_gradients(depthwise_conv, *case)
    assert_eight_python_threads_agree(lambda: value_and_gradients(depthwise_conv, *case), expected)


# ---- beside PyTorch's machinery -------------------------------------------------------------------------------------


@needs_kernels
def test_opcheck():
    x, weight, grad = make(dtype=torch.float32)
    torch.library.opcheck(torch.ops.lt_nas_ext.depthwise_conv, (x, weight, 1, 2, True))
    for wanted in [(True, True), (False, True), (True, False)]:
        arguments = (grad, x.detach(), weight.detach(), 1, 2, True, *wanted)
        torch.library.opcheck(torch.ops.lt_nas_ext.depthwise_conv_backward, arguments)


@needs_kernels
@pytest.mark.parametrize("in_layout", LAYOUTS)
def test_compiles_into_one_graph(in_layout):
    x, weight, grad = make(dtype=torch.float32, in_layout=in_layout)
    torch.compiler.reset()
    function = torch.compile(lambda x, w: depthwise_conv(x, w, relu=True), fullgraph=True, backend="aot_eager")
    got = value_and_gradients(function, x, weight, grad)
    for a, b in zip(got, value_and_gradients(depthwise_conv, x, weight, grad, 1, 1, True), strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_is_the_twins():
    x, weight, _ = make(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(depthwise_conv(x, weight), depthwise_conv_eager(x, weight))


# ---- on CUDA ---------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("relu", [False, True])
def test_every_window_on_cuda(dtype, kernel, stride, dilation, relu):
    x, weight, grad = make((3, 36, 17, 41), kernel, dtype=dtype, stride=stride, device="cuda")
    settings = (stride, dilation, relu)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    with torch.backends.cudnn.flags(allow_tf32=False):
        exact = value_and_gradients(depthwise_conv_eager, *wide, grad.double(), *settings)
        ours, eagers = (
            value_and_gradients(function, x, weight, grad, *settings)
            for function in (depthwise_conv, depthwise_conv_eager)
        )
    assert_error_is_at_most_twice_eagers(ours, eagers, exact)


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (64, 16, 32, 32), (3, 256, 9, 7), (2, 8, 300, 3)])
@pytest.mark.parametrize("in_layout", LAYOUTS)
def test_every_size_on_cuda(shape, in_layout):
    case = make(shape, 5, dtype=torch.float64, in_layout=in_layout, device="cuda")
    assert_equal_to_float64(*case, 1, 2, True)


@pytest.mark.cuda
def test_same_bits_on_every_stream_of_a_device():
    case = make((19, 16, 17, 16), 5, dtype=torch.float32, device="cuda")
    assert_same_bits_on_another_stream_and_in_a_graph(lambda: value_and_gradients(depthwise_conv, *case, 1, 1, True))


# ---- bad input ------------------------------------------------------------------------------------------------------

X, WEIGHT = torch.ones(2, 4, 5, 5), torch.ones(4, 1, 3, 3)
BAD = [
    ((X[0], WEIGHT), r"x: got torch.float32 of shape \(4, 5, 5\); wanted floating-point images \(N, C, H, W\)"),
    ((X.long(), WEIGHT), r"x: got torch.int64"),
    ((3, WEIGHT), r"x: got <class 'int'>"),
    ((X, WEIGHT[0]), r"weight: got torch.float32 of shape \(1, 3, 3\)"),
    ((X, WEIGHT[:3]), r"weight: got shape \(3, 1, 3, 3\); wanted \(4 · M, 1, K, K\)"),
    ((X, torch.ones(4, 1, 3, 5)), r"weight: got shape \(4, 1, 3, 5\)"),
    ((X, torch.ones(4, 1, 4, 4)), r"weight: .* K one of 1, 3, 5, 7"),
    ((X, torch.ones(4, 2, 3, 3)), r"weight: got shape \(4, 2, 3, 3\)"),
    ((X, WEIGHT.to("meta")), "weight: got device meta; wanted cpu"),
    ((X, WEIGHT, 3), "stride: got 3; wanted 1 or 2"),
    ((X, WEIGHT, 1, 0), "dilation: got 0; wanted 1 or 2"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
@pytest.mark.parametrize("function", [depthwise_conv, depthwise_conv_eager])
def test_bad_input(function, arguments, message):
    with pytest.raises(UserError, match=message):
        function(*arguments)


@needs_kernels
@pytest.mark.parametrize(
    "arguments",
    [
        (X[:, :3], WEIGHT[:3], 1, 1, False),
        (X, WEIGHT[:3], 1, 1, False),
        (X, WEIGHT.double(), 1, 1, False),
        (X, WEIGHT, 3, 1, False),
        (X, WEIGHT, 1, 3, False),
        (X.half().contiguous(memory_format=torch.channels_last), WEIGHT.half(), 1, 1, False),
        (X[:0], WEIGHT, 1, 1, False),
    ],
)
def test_the_bare_operator_never_trusts_its_arguments(arguments):
    with pytest.raises((ValueError, TypeError, NotImplementedError)):
        torch.ops.lt_nas_ext.depthwise_conv(*arguments)
