"""sep_unit against literal values, its eager twin in float64, its laws, and bad input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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
    equal_to_the_bit,
    fuzzed,
    layout,
    needs_kernels,
)
from torch.utils._python_dispatch import TorchDispatchMode

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import sep_unit, sep_unit_eager

# Relative error of a well-scaled convolution against float64.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6}


class Case:
    """Inputs of a unit; `normed`: each edge has its own image, with a batch norm before its ReLU."""

    def __init__(self, size=(7, 9), images=2, channels=8, out=4, kernel=3, edges=3, **more):
        dtype, seed, device = more.pop("dtype", torch.float64), more.pop("seed", 0), more.pop("device", "cpu")
        self.normed, in_layout = more.pop("normed", False), more.pop("layout", "channels_last")
        self.settings = more
        generator = torch.Generator().manual_seed(seed)

        def randn(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

        count = edges if self.normed else 1
        self.x = [layout(3 * randn(images, channels, *size) + 1, in_layout).requires_grad_() for _ in range(count)]
        self.depthwise = randn(edges * channels, 1, kernel, kernel).requires_grad_()
        self.pointwise = randn(edges * out, channels, 1, 1).requires_grad_()
        self.inputs = [*self.x, self.depthwise, self.pointwise]
        stride = more.get("stride", 1)
        shape = (images, out, *(-(-extent // stride) for extent in size))
        self.grads = [layout(randn(*shape), in_layout) for _ in range(edges)]

    def z(self, *inputs, function=sep_unit):
        *x, depthwise, pointwise = inputs or self.inputs
        moments = None
        if self.normed:
            moments = torch.stack([lt.ops.channel_moments(one) for one in x], 1)
        return function(x, depthwise, pointwise, moments=moments, **self.settings)

    def value_and_gradients(self, function=sep_unit):
        z, moments = self.z(function=function)
        return [*z, moments, *torch.autograd.grad(z, self.inputs, self.grads)]

    def wide(self):
        """The same in float64."""
        other = Case.__new__(Case)
        other.normed, other.settings = self.normed, self.settings
        other.x = [one.detach().double().requires_grad_() for one in self.x]
        other.depthwise = self.depthwise.detach().double().requires_grad_()
        other.pointwise = self.pointwise.detach().double().requires_grad_()
        other.inputs = [*other.x, other.depthwise, other.pointwise]
        other.grads = [grad.double() for grad in self.grads]
        return other


def assert_equal_to_float64(case: Case, dtype: torch.dtype) -> None:
    for got, wanted in zip(case.value_and_gradients(), case.wide().value_and_gradients(sep_unit_eager), strict=True):
        assert got.shape == wanted.shape and got.dtype == dtype
        assert (got.double() - wanted).norm() <= TOLERANCE[dtype] * wanted.norm()


def assert_no_worse_than_eager(case: Case) -> None:
    ours, eagers = case.value_and_gradients(), case.value_and_gradients(sep_unit_eager)
    assert_error_is_at_most_twice_eagers(ours, eagers, case.wide().value_and_gradients(sep_unit_eager))


@contextlib.contextmanager
def float32_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# ---- literal values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [sep_unit, sep_unit_eager])
def test_literal_values(function):
    """Windows of ones over a 3 × 3 image 1 … 9 whose negatives are cut off, mixed by four simple rows."""
    image = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0], [7.0, 8.0, 9.0]])
    x = image.expand(1, 4, 3, 3)
    depthwise = torch.ones(4, 1, 3, 3)
    pointwise = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2], [1, 1, 1, 1], [0, -1, 0, 0]]).view(4, 4, 1, 1)
    (z,), moments = function(x, depthwise, pointwise)
    windows = torch.tensor([[10.0, 13.0, 8.0], [25.0, 37.0, 25.0], [24.0, 33.0, 22.0]])
    torch.testing.assert_close(z[0], torch.stack([windows, 2 * windows, 4 * windows, -windows]))
    mean, var = 197 / 9, windows.var(unbiased=False).item()
    torch.testing.assert_close(moments[0, 0], torch.tensor([mean, 2 * mean, 4 * mean, -mean]))
    torch.testing.assert_close(moments[1, 0], torch.tensor([var, 4 * var, 16 * var, var]))
    (strided,), _ = function(x, depthwise, pointwise, stride=2)
    torch.testing.assert_close(strided[0, 0], torch.tensor([[10.0, 8.0], [24.0, 22.0]]))
    (wide,), _ = function(x, depthwise, pointwise, dilation=2)
    torch.testing.assert_close(wide[0, 0], torch.tensor([[20.0, 8.0, 20.0], [4.0, 5.0, 4.0], [20.0, 8.0, 20.0]]))


# ---- against float64 ------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [4, 8, 20, 64])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("normed", [False, True])
def test_every_instruction_set_equals_float64(isa, dtype, channels, stride, normed):
    assert_equal_to_float64(Case(channels=channels, out=channels, stride=stride, normed=normed, dtype=dtype), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("normed", [False, True])
def test_every_window_equals_float64(dtype, kernel, stride, dilation, normed):
    case = Case(kernel=kernel, stride=stride, dilation=dilation, normed=normed, dtype=dtype)
    assert_equal_to_float64(case, dtype)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 17), (16, 16), (33, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_layout", LAYOUTS)
def test_sizes_and_layouts(size, stride, in_layout):
    for normed in (False, True):
        case = Case(size, images=9, kernel=5, stride=stride, dilation=2, layout=in_layout, normed=normed)
        assert_equal_to_float64(case, torch.float64)


@pytest.mark.parametrize("channels, out", [(3, 4), (4, 6), (1, 1), (5, 7)])
def test_channels_without_a_kernel_are_the_twins(channels, out):
    assert_equal_to_float64(Case(channels=channels, out=out), torch.float64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_are_the_twins(dtype):
    case = Case(dtype=dtype)
    for got, wanted in zip(case.value_and_gradients(), case.value_and_gradients(sep_unit_eager), strict=True):
        assert torch.equal(got, wanted)
    assert case.z()[1].dtype == torch.float32


@needs_kernels
@pytest.mark.parametrize("normed", [False, True])
def test_error_is_at_most_twice_eagers(normed):
    assert_no_worse_than_eager(
        Case((16, 16), images=8, channels=16, out=16, kernel=5, normed=normed, dtype=torch.float32)
    )


@needs_kernels
def test_moments_far_from_zero_lose_no_digits():
    """Σ z² − (Σ z)² / n would: z is 1000 ± 1 here."""
    torch.manual_seed(0)
    x = (1000 + torch.randn(4, 4, 9, 9)).contiguous(memory_format=torch.channels_last)
    (z,), moments = sep_unit(x, torch.ones(4, 1, 1, 1), torch.eye(4).view(4, 4, 1, 1))
    assert torch.equal(z, x)
    var = x.double().var((0, 2, 3), unbiased=False)
    assert ((moments[1, 0].double() - var).abs() < 1e-5 * var).all()


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
def test_first_and_second_derivatives(stride, dilation, normed):
    case = Case((3, 4), channels=4, edges=2, stride=stride, dilation=dilation, normed=normed)

    def function(*inputs):
        return tuple(case.z(*inputs)[0])

    assert torch.autograd.gradcheck(function, case.inputs)
    assert torch.autograd.gradgradcheck(function, case.inputs)


def test_a_graph_of_the_gradient_where_the_inputs_are_made_of_each_other():
    case = Case((3, 4), channels=4, edges=2)

    def function(x, depthwise, pointwise):
        return torch.cat(sep_unit([x, x.sin()], depthwise, pointwise * depthwise.sum())[0])

    assert_a_graph_of_the_gradient_changes_nothing(function, case.inputs)


@pytest.mark.parametrize("normed", [False, True])
def test_in_evaluation_moments_are_constants(normed):
    case = Case((3, 4), channels=4, edges=2, normed=normed)
    moments = torch.rand(2, len(case.x), 4, dtype=torch.float64) + 0.5

    def function(*inputs):
        *x, depthwise, pointwise = inputs
        return tuple(sep_unit(x, depthwise, pointwise, moments=moments, batch=False)[0])

    assert torch.autograd.gradcheck(function, case.inputs)
    assert torch.autograd.gradgradcheck(function, case.inputs)
    *x, depthwise, pointwise = case.inputs
    expected, _ = sep_unit_eager(x, depthwise, pointwise, moments=moments, batch=False)
    torch.testing.assert_close(function(*case.inputs), tuple(expected))


# ---- laws -----------------------------------------------------------------------------------------------------------


@fuzzed
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    images=st.integers(1, 3),
    channels=st.sampled_from([4, 12, 16, 24]),
    out=st.sampled_from([4, 8]),
    kernel=st.sampled_from([1, 3, 5, 7]),
    edges=st.integers(1, 4),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    layout=st.sampled_from(LAYOUTS),
    normed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_its_eager_twin(**case):
    if case["normed"]:
        case["images"] += 7  # of two values a channel a batch norm makes ±1, and a gradient that is all rounding
    assert_equal_to_float64(Case(**case), torch.float64)


@needs_kernels
def test_edges_do_not_touch_each_other():
    """What an edge yields does not depend, to the bit, on which others run with it."""
    case = Case(channels=8, edges=3, kernel=5)
    together = case.z()[0]
    taps, mixing = case.depthwise.chunk(3), case.pointwise.chunk(3)
    for edge in range(3):
        (alone,), _ = sep_unit(case.x[0], taps[edge], mixing[edge])
        assert torch.equal(alone, together[edge])


def test_what_is_asked_for_and_no_more():
    for wanted in ("x", "weights"):
        case = Case()
        for tensor in case.x if wanted == "weights" else (case.depthwise, case.pointwise):
            tensor.requires_grad_(False)
        z, moments = case.z()
        assert not moments.requires_grad
        torch.autograd.backward(z, case.grads)
        whole = Case()
        torch.autograd.backward(whole.z()[0], whole.grads)
        for got, other in zip(case.inputs, whole.inputs, strict=True):
            if got.requires_grad:
                torch.testing.assert_close(got.grad, other.grad, rtol=1e-12, atol=1e-12)
            else:
                assert got.grad is None


def test_an_edge_without_a_gradient():
    case = Case()
    z, _ = case.z()
    got = torch.autograd.grad(z[1], case.inputs, case.grads[1])
    wanted = torch.autograd.grad(case.z(function=sep_unit_eager)[0][1], case.inputs, case.grads[1])
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("edges", [1, 3])
def test_the_gradients_of_weights_lie_as_the_weights(edges):
    """PyTorch 2.13's opcheck compares strides; an optimiser would carry others on."""
    case = Case(edges=edges)
    for got, weight in zip(case.value_and_gradients()[-2:], case.inputs[-2:], strict=True):
        assert got.stride() == weight.stride()


def test_no_gradient_wanted_no_graph():
    case = Case()
    with torch.no_grad():
        z, moments = case.z()
    assert not any(one.requires_grad for one in (*z, moments))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_values_pass_through(bad):
    case = Case((5, 5), images=2, dtype=torch.float32)
    with torch.no_grad():
        case.x[0][1, 2, 2, 2] = bad
    z = case.z()[0]
    twin = case.z(function=sep_unit_eager)[0]
    for got, wanted in zip(z, twin, strict=True):
        assert torch.equal(got.isfinite(), wanted.isfinite()) and not got.isfinite().all()


@needs_kernels
@pytest.mark.parametrize("normed", [False, True])
def test_same_bits_on_every_run_and_thread_count(isa, normed):
    case = Case((17, 16), images=19, channels=16, out=16, stride=2, normed=normed, dtype=torch.float32)
    assert_same_bits_on_every_thread_count(lambda: case.value_and_gradients())


@needs_kernels
def test_eight_python_threads_at_once():
    case = Case((9, 9), channels=16, dtype=torch.float32, normed=True)
    expected = case.value_and_gradients()
    assert_eight_python_threads_agree(lambda: case.value_and_gradients(), expected)


# ---- beside PyTorch's machinery -------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("normed", [False, True])
def test_opcheck(normed):
    case = Case((4, 5), channels=4, edges=2, stride=2, normed=normed, dtype=torch.float32)
    statistics = (None, None)
    if normed:
        own = torch.stack([lt.ops.channel_moments(one) for one in case.x], 1)
        statistics = own[0], (own[1] + 1e-5).rsqrt()
    arguments = (case.x, case.depthwise, case.pointwise, 2, 1, *statistics, True, False)
    torch.library.opcheck(torch.ops.lt_nas_ext.sep_unit, arguments)
    for need_x, need_weights in [(True, True), (False, True), (True, False)]:
        backward = (case.grads, *[[t.detach() for t in a] if isinstance(a, list) else a for a in arguments])
        backward = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in backward)
        torch.library.opcheck(torch.ops.lt_nas_ext.sep_unit_backward, (*backward, need_x, need_weights))


@needs_kernels
def test_compiles_into_one_graph():
    case = Case(dtype=torch.float32)
    torch.compiler.reset()
    function = torch.compile(lambda *inputs: case.z(*inputs)[0], fullgraph=True, backend="aot_eager")
    z = function(*case.inputs)
    grads = torch.autograd.grad(z, case.inputs, case.grads)
    expected = case.value_and_gradients()
    for a, b in zip([*z, *grads], [*expected[:3], *expected[4:]], strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_is_the_twins():
    case = Case(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = case.z()[0], case.z(function=sep_unit_eager)[0]
    assert all(torch.equal(a, b) and a.dtype == torch.bfloat16 for a, b in zip(got, wanted, strict=True))


@needs_kernels
@pytest.mark.parametrize(("precision", "other"), [("high", "highest"), ("highest", "high")])
def test_backward_takes_the_precision_of_its_forward_pass(precision, other):
    """The engine's context of a precision ends before backward begins."""
    seen = {}

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if function.namespace == "lt_nas_ext":
                names = [argument.name for argument in function._schema.arguments]
                seen[function._schema.name] = arguments[names.index("tf32")]
            return function(*arguments, **keywords or {})

    case = Case(dtype=torch.float32)
    with Seen():
        with float32_precision(precision):
            z, _ = case.z()
        with float32_precision(other):
            torch.autograd.backward(z, case.grads)
    chosen = precision == "high"
    assert seen == {"lt_nas_ext::sep_unit": chosen, "lt_nas_ext::sep_unit_backward": chosen}


# ---- on CUDA ---------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("normed", [False, True])
def test_every_window_on_cuda(dtype, kernel, stride, dilation, normed):
    case = {"kernel": kernel, "stride": stride, "dilation": dilation, "normed": normed, "dtype": dtype}
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert_no_worse_than_eager(Case((17, 41), channels=20, out=12, device="cuda", **case))


@pytest.mark.cuda
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        {"size": (1, 1), "images": 5},
        {"size": (32, 32), "images": 64, "channels": 16, "out": 16, "edges": 4},
        {"size": (8, 8), "images": 64, "channels": 64, "out": 64},
        {"size": (9, 7), "channels": 256, "out": 264, "edges": 1},
        {"size": (6, 6), "images": 3, "channels": 4, "edges": 40},
        {"size": (5, 5), "channels": 4, "edges": 70},  # more edges than the kernel takes: the twin's
    ],
)
def test_every_size_on_cuda(case, normed):
    case = Case(**case, kernel=5, dilation=2, normed=normed, dtype=torch.float64, device="cuda")
    assert_equal_to_float64(case, torch.float64)


@pytest.mark.cuda
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("channels", [4, 12, 16, 36, 64])
@pytest.mark.parametrize("out", [4, 20, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_of_every_size_on_cuda(dtype, out, channels, normed):
    sizes = {"size": (13, 41), "channels": channels, "out": out, "stride": 1 + out // 16 % 2}
    assert_no_worse_than_eager(Case(**sizes, kernel=5, normed=normed, dtype=dtype, device="cuda"))


@pytest.mark.cuda
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("channels", [4, 12, 16, 36, 64])
@pytest.mark.parametrize("out", [4, 20, 64])
@pytest.mark.parametrize("stride", [1, 2])
def test_tf32_on_cuda(stride, out, channels, normed):
    """Factors have 10 bits, which is seen; backward takes them so outside of the context too."""
    case = Case((13, 41), channels=channels, out=out, stride=stride, normed=normed, dtype=torch.float32, device="cuda")
    exact = case.wide().value_and_gradients(sep_unit_eager)
    with float32_precision("high"):
        z, moments = case.z()
    rounded = [*z, moments, *torch.autograd.grad(z, case.inputs, case.grads)]
    for got, wanted in zip(rounded, exact, strict=True):
        assert (got.double() - wanted).norm() <= 1e-3 * wanted.norm()
    for got, wanted in zip([rounded[0], rounded[-1]], [exact[0], exact[-1]], strict=True):
        assert (got.double() - wanted).norm() > 10 * TOLERANCE[torch.float32] * wanted.norm()
    with float32_precision("high"):
        assert equal_to_the_bit(rounded, case.value_and_gradients())


@pytest.mark.cuda
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_every_stream_of_a_device(dtype, precision, normed):
    case = Case((17, 16), images=19, channels=16, out=16, normed=normed, dtype=dtype, device="cuda")
    with float32_precision(precision):
        assert_same_bits_on_another_stream_and_in_a_graph(case.value_and_gradients)


@pytest.mark.cuda
def test_autocast_on_cuda_takes_the_kernel():
    case = Case((16, 16), channels=16, out=16, dtype=torch.float32, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        z, moments = case.z()
    low = Case((16, 16), channels=16, out=16, dtype=torch.bfloat16, device="cuda")
    assert all(torch.equal(a, b) for a, b in zip([*z, moments], [*low.z()[0], low.z()[1]], strict=True))
    grads = torch.autograd.grad(z, case.inputs, low.grads)
    assert all(grad.dtype == torch.float32 for grad in grads)


# ---- bad input ------------------------------------------------------------------------------------------------------

X, DEPTHWISE, POINTWISE = torch.ones(2, 4, 5, 5), torch.ones(8, 1, 3, 3), torch.ones(8, 4, 1, 1)
BAD = [
    (
        {"x": torch.ones(4, 5, 5)},
        r"x: got torch.float32 of shape \(4, 5, 5\); wanted floating-point images \(N, C, H, W\)",
    ),
    ({"x": X.long()}, r"x: got torch.int64 of shape"),
    ({"x": []}, r"x: got .* wanted floating-point images"),
    ({"x": [X, X, X]}, "x: got 3 tensors; wanted one, or one for each of the 2 edges"),
    ({"x": [X, X[:1]]}, r"x\[1\]: got torch.float32 of shape \(1, 4, 5, 5\) on cpu; wanted .* as x\[0\]"),
    ({"x": [X, X.double()]}, r"x\[1\]: got torch.float64"),
    ({"depthwise": torch.ones(8, 1, 3, 5)}, r"depthwise: got shape \(8, 1, 3, 5\); wanted \(E · 4, 1, K, K\)"),
    ({"depthwise": torch.ones(8, 1, 9, 9)}, r"depthwise: .*K one of 1, 3, 5, 7"),
    ({"depthwise": torch.ones(6, 1, 3, 3)}, r"depthwise: got shape \(6, 1, 3, 3\)"),
    ({"depthwise": torch.ones(8, 1, 3)}, r"depthwise: got shape \(8, 1, 3\)"),
    ({"pointwise": torch.ones(7, 4, 1, 1)}, r"pointwise: got shape \(7, 4, 1, 1\); wanted \(2 · C', 4, 1, 1\)"),
    ({"pointwise": torch.ones(8, 4)}, r"pointwise: got shape \(8, 4\)"),
    ({"stride": 3}, "stride: got 3; wanted 1 or 2"),
    ({"eps": -1.0}, "eps: got -1.0; wanted a number > 0"),
    ({"dilation": 0}, "dilation: got 0; wanted 1 or 2"),
    ({"moments": torch.ones(2, 2, 4)}, r"moments: got shape \(2, 2, 4\); wanted \(2, 1, 4\)"),
    ({"depthwise": DEPTHWISE.to("meta")}, "depthwise: got device meta; wanted cpu, that of x"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
@pytest.mark.parametrize("function", [sep_unit, sep_unit_eager])
def test_bad_input(function, arguments, message):
    with pytest.raises(UserError, match=message):
        function(**{"x": X, "depthwise": DEPTHWISE, "pointwise": POINTWISE, **arguments})


@needs_kernels
@pytest.mark.parametrize(
    "arguments",
    [
        ([X[:, :3]], DEPTHWISE, POINTWISE, 1, 1, None, None, True),
        ([X], DEPTHWISE[:6], POINTWISE, 1, 1, None, None, True),
        ([X], DEPTHWISE, POINTWISE[:7], 1, 1, None, None, True),
        ([X], DEPTHWISE.double(), POINTWISE, 1, 1, None, None, True),
        ([X], DEPTHWISE, POINTWISE, 3, 1, None, None, True),
        ([X], DEPTHWISE, POINTWISE, 1, 3, None, None, True),
        ([X], DEPTHWISE, POINTWISE, 1, 1, torch.ones(1, 4), None, True),
        ([X], DEPTHWISE, POINTWISE, 1, 1, torch.ones(1, 3), torch.ones(1, 3), True),
        ([X.half()], DEPTHWISE.half(), POINTWISE.half(), 1, 1, None, None, True),
        ([], DEPTHWISE, POINTWISE, 1, 1, None, None, True),
    ],
)
def test_the_bare_operator_never_trusts_its_arguments(arguments):
    with pytest.raises((ValueError, TypeError, NotImplementedError)):
        torch.ops.lt_nas_ext.sep_unit(*arguments, False)
