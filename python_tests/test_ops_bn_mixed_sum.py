"""bn_mixed_sum and channel_moments against literal values, the eager twin in float64, their laws, and bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_laws import (
    DEVICES,
    LAYOUTS,
    assert_a_graph_of_the_gradient_changes_nothing,
    assert_eight_python_threads_agree,
    assert_same_bits_on_every_thread_count,
    equal_to_the_bit,
    fuzzed,
    layout,
    needs_kernels,
)
from torch.nn import functional as F

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import GATES, bn_mixed_sum, bn_mixed_sum_eager, channel_moments

TOLERANCE = {torch.float64: 1e-11, torch.float32: 5e-6}


class Case:
    """Candidates with a mean and a spread of their own; every third of them is not normalised, where `plain`."""

    def __init__(self, shape=(3, 8, 5, 6), rows=1, columns=5, gate="softmax", **more):
        dtype, seed = more.get("dtype", torch.float64), more.get("seed", 0)
        in_layout, absent = more.get("layout", "channels_last"), more.get("absent", ())
        device = more.get("device", "cpu")
        generator = torch.Generator().manual_seed(seed)

        def randn(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.candidates = []
        for slot in range(rows * columns):
            x = (1 + slot) * randn(*shape) + randn(shape[1], 1, 1)
            x = layout(x.to(dtype), in_layout).to(device)
            self.candidates.append(None if slot in absent else x.requires_grad_())
        self.alpha = randn(*((rows, columns) if rows > 1 else (columns,)))
        self.alpha = self.alpha.to(device, torch.promote_types(dtype, torch.float32)).requires_grad_()
        self.gate = gate
        self.plain = more.get("plain", False)
        self.grad = layout(randn(*shape).to(dtype), in_layout).to(device)
        self.inputs = [self.alpha, *(x for x in self.candidates if x is not None)]

    def y(self, *inputs, function=bn_mixed_sum):
        alpha, *present = inputs or self.inputs
        rest = iter(present)
        candidates = [None if x is None else next(rest) for x in self.candidates]
        moments = None
        if self.plain:
            moments = [None if x is None or i % 3 == 1 else channel_moments(x) for i, x in enumerate(candidates)]
        return function(candidates, alpha, self.gate, moments)

    def value_and_gradients(self, function=bn_mixed_sum):
        y = self.y(function=function)
        return [y.detach(), *torch.autograd.grad(y, self.inputs, self.grad)]

    def wide(self):
        """The same in float64."""
        other = Case.__new__(Case)
        other.__dict__.update(self.__dict__)
        other.candidates = [None if x is None else x.detach().double().requires_grad_() for x in self.candidates]
        other.alpha = self.alpha.detach().double().requires_grad_()
        other.inputs = [other.alpha, *(x for x in other.candidates if x is not None)]
        other.grad = self.grad.double()
        return other


def assert_equal_to_float64(case: Case, dtype: torch.dtype) -> None:
    wide = case.wide()
    # A softmax of one candidate has no gradient: there is only rounding, of terms this large.
    floor = 1e-2 * wide.grad.norm()
    for got, wanted in zip(case.value_and_gradients(), wide.value_and_gradients(bn_mixed_sum_eager), strict=True):
        assert got.shape == wanted.shape
        assert (got.double() - wanted).norm() <= TOLERANCE[dtype] * max(wanted.norm(), floor)


# ---- literal values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [bn_mixed_sum, bn_mixed_sum_eager])
def test_literal_values(function):
    """(1, 3) becomes ∓1 and (0, 4, …) too: y = ½ (∓1) + ¼ (∓1) with gates ½ and ¼, whatever the scale was."""
    a = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 4, 1, 1)
    b = torch.tensor([4.0, 0.0]).view(2, 1, 1, 1).expand(2, 4, 1, 1)
    y = function([a, None, b], torch.tensor([0.5, 9.0, 0.25]), "identity", eps=1e-9)
    torch.testing.assert_close(y[:, 0].flatten(), torch.tensor([-0.25, 0.25]))
    plain = function([a, b], torch.tensor([0.5, 0.25]), "identity", [channel_moments(a), None], eps=1e-9)
    torch.testing.assert_close(plain[:, 3].flatten(), torch.tensor([0.5, 0.5]))
    damped = function([a, b], torch.tensor([1.0, 0.0]), "identity", eps=3.0)  # var 1 + eps 3: half
    torch.testing.assert_close(damped[:, 1].flatten(), torch.tensor([-0.5, 0.5]))


def test_moments_by_hand():
    x = torch.tensor([[0.0, 2.0], [10.0, 10.0], [-1.0, 1.0], [3.0, 7.0]]).view(1, 4, 1, 2)
    torch.testing.assert_close(channel_moments(x), torch.tensor([[1.0, 10.0, 0.0, 5.0], [1.0, 0.0, 1.0, 4.0]]))


# ---- against float64 ------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [4, 8, 20, 64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 8), (5, 7), (1, 33)])
def test_every_instruction_set_equals_float64(isa, dtype, channels, rows, columns):
    assert_equal_to_float64(Case((3, channels, 5, 6), rows, columns, plain=True, dtype=dtype), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("in_layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(9, 4, 1, 1), (2, 8, 5, 7), (4, 16, 33, 17), (2, 128, 8, 8)])
def test_sizes_and_layouts(shape, in_layout, gate, dtype):
    assert_equal_to_float64(Case(shape, 2, 3, gate, layout=in_layout, absent={1}, dtype=dtype), dtype)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_channels_without_a_kernel_are_the_twins(channels):
    assert_equal_to_float64(Case((3, channels, 5, 6), plain=True), torch.float64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_are_the_twins(dtype):
    case = Case(dtype=dtype)
    for got, wanted in zip(case.value_and_gradients(), case.value_and_gradients(bn_mixed_sum_eager), strict=True):
        assert torch.equal(got, wanted)
    assert channel_moments(case.candidates[0]).dtype == torch.float32


@needs_kernels
def test_error_is_at_most_twice_eagers():
    assert_error_at_most_twice_eagers(Case((16, 16, 16, 16), columns=8, plain=True, dtype=torch.float32))


def assert_error_at_most_twice_eagers(case: Case) -> None:
    exact = case.wide().value_and_gradients(bn_mixed_sum_eager)
    ours, theirs = case.value_and_gradients(), case.value_and_gradients(bn_mixed_sum_eager)
    for got, eager, wanted in zip(ours, theirs, exact, strict=True):
        assert got.dtype == eager.dtype
        # One unit in the last place of room: where eager happens to be exact, twice nothing is nothing.
        room = torch.finfo(got.dtype).eps * wanted.norm()
        assert (got.double() - wanted).norm() <= 2 * (eager.double() - wanted).norm() + room


def test_moments_are_those_of_batch_norm():
    torch.manual_seed(0)
    x = 1000 + torch.randn(7, 12, 9, 5)
    running_mean, running_var = torch.zeros(12), torch.zeros(12)
    F.batch_norm(x, running_mean, running_var, training=True, momentum=1.0)
    mean, var = channel_moments(x)
    count = 7 * 9 * 5
    torch.testing.assert_close(mean, running_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var * count / (count - 1), running_var, rtol=1e-4, atol=0)
    exact = x.double().var((0, 2, 3), unbiased=False)
    assert ((var.double() - exact).abs() < 1e-5 * exact).all()


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("absent", [(), (1, 4)])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_first_and_second_derivatives(device, gate, absent, plain):
    case = Case((3, 4, 2, 1), 2, 3, gate, absent=absent, plain=plain, device=device)
    assert torch.autograd.gradcheck(case.y, case.inputs)
    assert torch.autograd.gradgradcheck(case.y, case.inputs)


def test_a_graph_of_the_gradient_where_one_candidate_is_made_of_another():
    """As a pool beside the state that it is of: its own gradient must not count again as the state's."""
    case = Case((3, 4, 2, 1), columns=2)

    def function(alpha, x, y):
        return bn_mixed_sum([x, x * y, x], torch.cat([alpha, alpha[:1]]))

    assert_a_graph_of_the_gradient_changes_nothing(function, case.inputs)


def test_in_evaluation_moments_are_constants():
    case = Case((3, 4, 2, 1), columns=3)
    moments = [torch.rand(2, 4, dtype=torch.float64) + 0.5 for _ in range(3)]

    def function(alpha, *x):
        return bn_mixed_sum(x, alpha, moments=moments, batch=False)

    assert torch.autograd.gradcheck(function, case.inputs)
    assert torch.autograd.gradgradcheck(function, case.inputs)
    terms = [F.batch_norm(x, *own, training=False) for x, own in zip(case.candidates, moments, strict=True)]
    torch.testing.assert_close(function(*case.inputs), lt.ops.mixed_sum(terms, case.alpha))


# ---- laws -----------------------------------------------------------------------------------------------------------


@fuzzed
@given(
    shape=st.tuples(st.integers(2, 4), st.sampled_from([3, 4, 12, 16, 40]), st.integers(2, 9), st.integers(2, 9)),
    rows=st.integers(1, 3),
    columns=st.integers(1, 9),
    gate=st.sampled_from(GATES),
    layout=st.sampled_from(LAYOUTS),
    plain=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_equals_its_eager_twin(rows, columns, data, **case):
    absent = data.draw(st.sets(st.integers(0, rows * columns - 1), max_size=rows * columns - 1))
    assert_equal_to_float64(Case(rows=rows, columns=columns, absent=absent, **case), torch.float64)


@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_scale_and_shift_of_a_candidate_change_nothing(scale, shift):
    """Batch norm forgets them; so does the sum, up to eps."""
    case = Case(columns=3)
    alpha, first, *others = (x.detach() for x in case.inputs)
    other = bn_mixed_sum([scale * first + shift, *others], alpha, eps=1e-15)
    torch.testing.assert_close(other, bn_mixed_sum([first, *others], alpha, eps=1e-15), rtol=1e-7, atol=1e-7)


def test_a_frozen_alpha_and_what_is_asked_for():
    whole = dict(zip("axyz", Case(columns=3).value_and_gradients()[1:], strict=True))
    for wanted in ("a", "xyz", "y"):
        case = Case(columns=3)
        inputs = dict(zip("axyz", case.inputs, strict=True))
        for name, tensor in inputs.items():
            tensor.requires_grad_(name in wanted)
        case.y().backward(case.grad)
        for name, tensor in inputs.items():
            if name in wanted:
                torch.testing.assert_close(tensor.grad, whole[name], rtol=1e-12, atol=1e-12)
            else:
                assert tensor.grad is None


def test_one_tensor_in_two_places():
    case = Case(columns=2)
    x = case.candidates[0]
    y = bn_mixed_sum([x, x], case.alpha, moments=[channel_moments(x), None])
    wanted = bn_mixed_sum_eager([x, x], case.alpha, moments=[channel_moments(x), None])
    for a, b in zip(torch.autograd.grad(y, [x], case.grad), torch.autograd.grad(wanted, [x], case.grad), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_channel(bad):
    case = Case(dtype=torch.float32)
    with torch.no_grad():
        case.candidates[1][1, 2, 3, 4] = bad
    y = case.y()
    assert y[:, 2].isnan().all() and y[:, [0, 1, 3, 4, 5, 6, 7]].isfinite().all()


@needs_kernels
def test_same_bits_on_every_run_and_thread_count(isa):
    case = Case((8, 16, 33, 31), 2, 5, absent={3}, plain=True, dtype=torch.float32)
    assert_same_bits_on_every_thread_count(lambda: [*case.value_and_gradients(), channel_moments(case.candidates[0])])


@needs_kernels
def test_eight_python_threads_at_once():
    case = Case((4, 16, 17, 9), 2, 5, dtype=torch.float32)
    expected = case.value_and_gradients()
    assert_eight_python_threads_agree(lambda: case.value_and_gradients(), expected)


# ---- beside PyTorch's machinery -------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device, gate):
    case = Case((3, 4, 5, 2), columns=3, gate=gate, dtype=torch.float32, device=device)
    mean = torch.stack([x.detach().mean((0, 2, 3)) for x in case.candidates])
    inv_std = torch.stack([x.detach().var((0, 2, 3), unbiased=False).rsqrt() for x in case.candidates])
    rest = (case.alpha, [0, 1, 2], gate, mean, inv_std, [True, False, True])
    torch.library.opcheck(torch.ops.lt_nas_ext.bn_mixed_sum, (case.candidates, *rest))
    x, rest = [x.detach() for x in case.candidates], (case.alpha.detach(), *rest[1:])
    for need_x, need_alpha in [([True, False, True], True), ([True] * 3, False), ([False] * 3, True)]:
        arguments = (case.grad, x, *rest, need_x, need_alpha)
        torch.library.opcheck(torch.ops.lt_nas_ext.bn_mixed_sum_backward, arguments)
    torch.library.opcheck(torch.ops.lt_nas_ext.channel_moments, (x[0],))


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_compiles_into_one_graph(device):
    case = Case(columns=4, absent={2}, plain=True, dtype=torch.float32, device=device)
    torch.compiler.reset()
    function = torch.compile(lambda *inputs: case.y(*inputs), fullgraph=True, backend="aot_eager")
    y = function(*case.inputs)
    grads = torch.autograd.grad(y, case.inputs, case.grad)
    for a, b in zip([y, *grads], case.value_and_gradients(), strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_on_a_cpu_is_the_twins():
    case = Case(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(case.y(), case.y(function=bn_mixed_sum_eager))


# ---- on CUDA --------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("in_layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((9, 4, 1, 1), 1, 1),
        ((3, 12, 5, 7), 2, 3),
        ((2, 72, 9, 5), 1, 8),
        ((4, 16, 33, 17), 5, 7),
        ((2, 8, 3, 5), 2, 67),
    ],
)
def test_cuda_equals_float64(shape, rows, columns, in_layout, gate, dtype):
    case = Case(shape, rows, columns, gate, layout=in_layout, plain=True, dtype=dtype, device="cuda")
    assert_equal_to_float64(case, dtype)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [16, 20])
def test_cuda_error_is_at_most_twice_eagers(channels, dtype):
    case = Case((16, channels, 16, 16), columns=8, absent={5}, plain=True, dtype=dtype, device="cuda")
    assert_error_at_most_twice_eagers(case)
    moments = channel_moments(case.candidates[0])
    assert moments.dtype == torch.float32
    torch.testing.assert_close(moments.double(), channel_moments(case.wide().candidates[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("wanted", ["a", "xyz", "y"])
def test_cuda_makes_what_is_asked_for(wanted):
    case = Case(columns=3, device="cuda")
    whole, inputs = (dict(zip("axyz", some, strict=True)) for some in (case.value_and_gradients()[1:], case.inputs))
    for name, tensor in inputs.items():
        tensor.requires_grad_(name in wanted)
    case.y().backward(case.grad)
    for name, tensor in inputs.items():
        assert torch.equal(tensor.grad, whole[name]) if name in wanted else tensor.grad is None


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_takes_storage_that_begins_anywhere(dtype):
    case = Case(dtype=dtype, device="cuda")
    expected = case.value_and_gradients()
    shifted = []
    for x in case.candidates:
        memory = x.new_empty(x.numel() + 1)[1:].view(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        shifted.append(memory.copy_(x.detach()).requires_grad_())
    case.candidates, case.inputs = shifted, [case.alpha, *shifted]
    assert equal_to_the_bit(case.value_and_gradients(), expected)


@pytest.mark.cuda
def test_cuda_sums_in_the_widest_type_under_autocast():
    case = Case(columns=3, dtype=torch.float32, device="cuda")
    first, *others = (x.detach() for x in case.candidates)
    expected = bn_mixed_sum([first.bfloat16().float(), *others], case.alpha)
    with torch.autocast("cuda", torch.bfloat16):
        y = bn_mixed_sum([first.bfloat16(), *others], case.alpha)
    assert y.dtype == torch.float32 and torch.equal(y, expected)


@pytest.mark.cuda
def test_cuda_gradients_with_a_graph_of_their_own_in_bfloat16():
    case = Case(dtype=torch.bfloat16, plain=True, device="cuda")
    expected = case.value_and_gradients()[1:]
    with_graph = torch.autograd.grad(case.y(), case.inputs, case.grad, create_graph=True)
    for got, wanted in zip(with_graph, expected, strict=True):
        assert got.requires_grad and got.dtype == wanted.dtype
        assert (got - wanted).norm() <= 1e-2 * wanted.norm()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_same_bits_on_every_run_and_stream_and_in_a_captured_graph(dtype):
    case = Case((4, 16, 32, 32), 2, 5, absent={3}, plain=True, dtype=dtype, device="cuda")
    expected = case.value_and_gradients()
    assert all(equal_to_the_bit(case.value_and_gradients(), expected) for _ in range(3))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = case.value_and_gradients()
    stream.synchronize()
    assert equal_to_the_bit(elsewhere, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = case.value_and_gradients()
    with torch.no_grad():
        case.candidates[0].mul_(case.candidates[1])
    graph.replay()
    assert equal_to_the_bit(replayed, case.value_and_gradients())
    assert not torch.equal(replayed[0], expected[0])


# ---- bad input ------------------------------------------------------------------------------------------------------

X, ALPHA, OWN = torch.ones(2, 4, 3, 3), torch.zeros(2), torch.ones(2, 4)
BAD = [
    (([X, X, X], ALPHA), r"candidates: got 3 for alpha of shape \(2,\)"),
    (([None, None], ALPHA), "candidates: all are None; wanted at least one"),
    (([X, X[:1]], ALPHA), r"candidates\[1\]: got"),
    (([X[0], X[0]], ALPHA), r"candidates: got shape \(4, 3, 3\); wanted images \(N, C, H, W\)"),
    (([X, X], ALPHA, "hard"), "gate: got 'hard'"),
    (([X, X], ALPHA, "softmax", None, True, 0.0), "eps: got 0.0; wanted a number > 0"),
    (([X, X], ALPHA, "softmax", [OWN]), "moments: got 1; wanted one .* for each of the 2 candidates"),
    (([X, X], ALPHA, "softmax", [OWN, OWN[0]]), r"moments\[1\]: got shape \(4,\); wanted \(2, 4\), mean and variance"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
@pytest.mark.parametrize("function", [bn_mixed_sum, bn_mixed_sum_eager])
def test_bad_input(function, arguments, message):
    with pytest.raises(UserError, match=message):
        function(*arguments)


@pytest.mark.parametrize("x", [torch.ones(4, 3, 3), torch.ones(1, 4, 3, 3, dtype=torch.int64)])
def test_bad_images_of_moments(x):
    with pytest.raises(UserError, match=r"x: got torch\..* wanted floating-point images \(N, C, H, W\)"):
        channel_moments(x)


@needs_kernels
@pytest.mark.parametrize(
    "arguments",
    [
        ([X[:, :3]] * 2, ALPHA, [0, 1], "softmax", OWN[:, :3], OWN[:, :3], [True, True]),
        ([X, X], ALPHA, [0, 2], "softmax", OWN, OWN, [True, True]),
        ([X, X], ALPHA, [0, 1], "hard", OWN, OWN, [True, True]),
        ([X, X], ALPHA, [0, 1], "softmax", OWN[:1], OWN, [True, True]),
        ([X, X], ALPHA, [0, 1], "softmax", OWN, OWN.double(), [True, True]),
        ([X, X], ALPHA, [0, 1], "softmax", OWN, OWN, [True]),
        ([X.half()] * 2, ALPHA, [0, 1], "softmax", OWN.half(), OWN.half(), [True, True]),
        ([X.half()] * 2, ALPHA, [0, 1], "softmax", OWN, OWN, [True, True]),
        ([X[:, :0]] * 2, ALPHA, [0, 1], "softmax", OWN[:, :0], OWN[:, :0], [True, True]),
        ([], ALPHA, [], "softmax", OWN[:0], OWN[:0], []),
    ],
)
def test_the_bare_operator_never_trusts_its_arguments(arguments):
    with pytest.raises((ValueError, TypeError, NotImplementedError)):
        torch.ops.lt_nas_ext.bn_mixed_sum(*arguments)
