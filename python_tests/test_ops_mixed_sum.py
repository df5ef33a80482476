"""mixed_sum against literal values, float64 references, its laws, and bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_laws import (
    DEVICES,
    LAYOUTS,
    assert_eight_python_threads_agree,
    assert_same_bits_on_every_thread_count,
    fuzzed,
    layout,
    needs_kernels,
)

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import GATES, mixed_sum, mixed_sum_eager

# Relative error of a well-scaled sum against float64: a few units in the last place of each type.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def relative_error(result: torch.Tensor, reference: torch.Tensor) -> float:
    result, reference = result.detach().double(), reference.detach().double()
    return float((result - reference).norm() / reference.norm().clamp_min(1e-30))


def value_and_gradients(candidates, alpha, gate, grad):
    inputs = [x for x in candidates if x is not None] + [alpha]
    y = mixed_sum(candidates, alpha, gate)
    return [y, *torch.autograd.grad(y, inputs, grad)]


def double_reference(candidates, alpha, gate, grad):
    wide = [None if x is None else x.detach().double().requires_grad_() for x in candidates]
    with lt.ops.eager():
        return value_and_gradients(wide, alpha.detach().double().requires_grad_(), gate, grad.double())


def make(shape, rows, columns, dtype, layout_name="contiguous", absent=(), device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    candidates = [
        None
        if slot in absent
        else layout(torch.randn(shape, generator=generator).to(device, dtype), layout_name).requires_grad_()
        for slot in range(rows * columns)
    ]
    alpha = torch.randn((rows, columns) if rows > 1 else (columns,), generator=generator).to(device)
    alpha = alpha.to(torch.float64 if dtype == torch.float64 else torch.float32).requires_grad_()
    return candidates, alpha, layout(torch.randn(shape, generator=generator).to(device, dtype), layout_name)


# ---- literal values -------------------------------------------------------------------------------------------------

X = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
TABLE = [
    # gate, alpha, y, dalpha for dy = [1, 1] (dots 3, 7, 11)
    ("identity", [2.0, 0.5, -1.0], [-1.5, 0.0], [3.0, 7.0, 11.0]),
    ("softmax", [0.0, 0.0, 0.0], [3.0, 4.0], [-4 / 3, 0.0, 4 / 3]),
    ("sigmoid", [0.0, 0.0, 0.0], [4.5, 6.0], [0.75, 1.75, 2.75]),
    ("softmax", [1000.0, 0.0, -1000.0], [1.0, 2.0], [0.0, 0.0, 0.0]),
    ("sigmoid", [1000.0, -1000.0, 0.0], [3.5, 5.0], [0.0, 0.0, 2.75]),
]


@pytest.mark.parametrize(("gate", "alpha", "y", "dalpha"), TABLE)
@pytest.mark.parametrize("function", [mixed_sum, mixed_sum_eager])
def test_literal_values(function, gate, alpha, y, dalpha):
    x = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in X]
    alpha = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    result = function(x, alpha, gate)
    torch.testing.assert_close(result, torch.tensor(y, dtype=torch.float64))
    grads = torch.autograd.grad(result, [alpha, *x], torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(grads[0], torch.tensor(dalpha, dtype=torch.float64))
    for grad, weight in zip(grads[1:], lt.ops.gate_weights(alpha, gate), strict=True):
        torch.testing.assert_close(grad, weight.expand(2))


def test_none_keeps_its_share_of_the_softmax_and_its_gradient():
    x, alpha = torch.full((3,), 8.0), torch.zeros(4, requires_grad=True)
    y = mixed_sum([x, None, None, None], alpha)
    torch.testing.assert_close(y, torch.full((3,), 2.0))
    y.sum().backward()
    torch.testing.assert_close(alpha.grad, torch.tensor([4.5, -1.5, -1.5, -1.5]))  # w_k (d_k − Σ w d), d = 24, 0, 0, 0


# ---- against float64, everywhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 8), (5, 7), (1, 33), (9, 8)])
def test_every_instruction_set_equals_float64(isa, dtype, rows, columns, gate):
    candidates, alpha, grad = make((3, 5, 7, 11), rows, columns, dtype, absent=range(3, rows * columns, 5))
    results = value_and_gradients(candidates, alpha, gate, grad)
    for result, reference in zip(results, double_reference(candidates, alpha, gate, grad), strict=True):
        assert relative_error(result, reference) < TOLERANCE[dtype] * 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout_name", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (4, 16, 33, 17), (2, 8, 64, 64), (3, 129, 1, 1)])
def test_layouts_and_sizes(device, shape, dtype, layout_name):
    candidates, alpha, grad = make(shape, 2, 3, dtype, layout_name, absent={1}, device=device)
    results = value_and_gradients(candidates, alpha, "softmax", grad)
    assert results[0].stride() == torch.empty_like(candidates[0]).stride()
    for result, reference in zip(results, double_reference(candidates, alpha, "softmax", grad), strict=True):
        assert relative_error(result, reference) < TOLERANCE[dtype] * 4


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_error_is_at_most_twice_eagers(dtype):
    candidates, alpha, grad = make((8, 16, 16, 16), 1, 8, dtype)
    reference = double_reference(candidates, alpha, "softmax", grad)
    fused = value_and_gradients(candidates, alpha, "softmax", grad)
    with lt.ops.eager():
        eager = value_and_gradients(candidates, alpha, "softmax", grad)
    for ours, theirs, exact in zip(fused, eager, reference, strict=True):
        # One unit in the last place of room: where eager happens to be exact, twice nothing is nothing.
        assert relative_error(ours, exact) <= 2 * relative_error(theirs, exact) + torch.finfo(dtype).eps / 8


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("absent", [(), (1, 4)])
def test_first_and_second_derivatives(device, gate, absent):
    candidates, alpha, _ = make((2, 3, 1, 1), 2, 3, torch.float64, absent=absent, device=device)
    present = [x for x in candidates if x is not None]

    def function(alpha, *present):
        rest = iter(present)
        return mixed_sum([None if x is None else next(rest) for x in candidates], alpha, gate)

    assert torch.autograd.gradcheck(function, (alpha, *present))
    assert torch.autograd.gradgradcheck(function, (alpha, *present))
    frozen = alpha.detach()
    assert torch.autograd.gradcheck(lambda *x: function(frozen, *x), present)
    assert torch.autograd.gradgradcheck(lambda *x: function(frozen, *x), present)


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gate", GATES)
def test_opcheck(device, gate):
    candidates, alpha, grad = make((2, 3, 5, 7), 1, 3, torch.float32, device=device)
    torch.library.opcheck(torch.ops.lt_nas_ext.mixed_sum, (candidates, alpha, [0, 1, 2], gate))
    torch.library.opcheck(
        torch.ops.lt_nas_ext.mixed_sum_backward, (grad, candidates, alpha, [0, 1, 2], gate, [True, False, True], True)
    )
    torch.library.opcheck(
        torch.ops.lt_nas_ext.mixed_sum_backward, (grad, [], alpha.detach(), [0, 2], gate, [True, True], False)
    )


# ---- laws -----------------------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(0, 9), min_size=0, max_size=5).map(tuple)


@fuzzed
@given(
    shape=shapes,
    rows=st.integers(1, 4),
    columns=st.integers(1, 9),
    gate=st.sampled_from(GATES),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_equals_its_eager_twin(shape, rows, columns, gate, dtype, seed, data):
    generator = torch.Generator().manual_seed(seed)
    slots = rows * columns
    absent = data.draw(st.sets(st.integers(0, slots - 1), max_size=slots - 1))
    order = data.draw(st.permutations(range(len(shape))))
    step = data.draw(st.integers(1, 2))  # 2: not dense

    def tensor():
        stored = torch.randn([shape[d] for d in order] + [step], generator=generator).to(dtype)[..., 0]
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return stored.permute(inverse).requires_grad_()

    candidates = [None if slot in absent else tensor() for slot in range(slots)]
    alpha = torch.randn(rows, columns, generator=generator).to(torch.promote_types(dtype, torch.float32))
    grad = torch.randn(shape, generator=generator).to(dtype)
    results = value_and_gradients(candidates, alpha.requires_grad_(), gate, grad)
    for result, reference in zip(results, double_reference(candidates, alpha, gate, grad), strict=True):
        assert result.shape == reference.shape
        torch.testing.assert_close(result.double(), reference, rtol=TOLERANCE[dtype] * 8, atol=TOLERANCE[dtype] * 64)


@given(order=st.permutations(range(6)), gate=st.sampled_from(GATES))
def test_permuting_candidates_permutes_gradients(order, gate):
    candidates, alpha, grad = make((4, 9, 1, 1), 1, 6, torch.float64)
    plain = value_and_gradients(candidates, alpha, gate, grad)
    permuted = value_and_gradients([candidates[i] for i in order], alpha[order], gate, grad)
    torch.testing.assert_close(permuted[0], plain[0])
    for new, old in enumerate(order):
        torch.testing.assert_close(permuted[1 + new], plain[1 + old])


def test_a_softmax_of_equal_candidates_is_that_candidate():
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(mixed_sum([x] * 8, torch.randn(8, dtype=torch.float64)), x)


def test_layouts_are_converted_never_reinterpreted():
    x = torch.randn(2, 3, 4, 5)
    y = mixed_sum([x, x.contiguous(memory_format=torch.channels_last)], torch.zeros(2))
    torch.testing.assert_close(y, x)


def test_empty_tensors():
    x = [torch.zeros(0, 3, requires_grad=True)] * 2
    alpha = torch.zeros(2, requires_grad=True)
    y = mixed_sum(x, alpha)
    assert y.shape == (0, 3)
    y.sum().backward()
    assert torch.equal(alpha.grad, torch.zeros(2)) and x[0].grad.shape == (0, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_values_pass_through(bad):
    x = [torch.zeros(100), torch.full((100,), bad)]
    assert not mixed_sum(x, torch.zeros(2)).isfinite().any()


# ---- what is computed and what is kept ------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_alpha_keeps_no_candidate_for_backward(frozen):
    alpha = torch.zeros(2, requires_grad=not frozen)
    leaf = torch.randn(1000, requires_grad=True)
    candidate = leaf * 2
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = mixed_sum([candidate, candidate.detach()], alpha)
    assert (candidate.data_ptr() in kept) == (not frozen)
    y.sum().backward()
    torch.testing.assert_close(leaf.grad, torch.ones(1000))


@pytest.mark.parametrize("alpha_grad", [True, False])
def test_only_the_wanted_gradients(alpha_grad):
    x = [torch.randn(7, requires_grad=k != 1) for k in range(3)]
    alpha = torch.randn(3, requires_grad=alpha_grad)
    mixed_sum(x, alpha).sum().backward()
    weights = torch.softmax(alpha, 0)
    assert x[1].grad is None and (alpha.grad is not None) == alpha_grad
    for k in (0, 2):
        torch.testing.assert_close(x[k].grad, weights[k].detach().expand(7))


def test_no_gradient_wanted_no_graph():
    assert mixed_sum([torch.ones(3)], torch.zeros(1)).grad_fn is None


def test_one_tensor_in_two_places():
    x, alpha = torch.randn(9, dtype=torch.float64, requires_grad=True), torch.randn(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mixed_sum([x, x], alpha, "identity"), (x,))


# ---- to the bit -----------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_every_run_and_thread_count(isa, dtype):
    candidates, alpha, grad = make((8, 16, 33, 31), 2, 5, dtype, absent={3})
    assert_same_bits_on_every_thread_count(lambda: value_and_gradients(candidates, alpha, "softmax", grad))


@needs_kernels
def test_eight_python_threads_at_once():
    candidates, alpha, grad = make((4, 16, 33, 17), 2, 5, torch.float32)
    expected = value_and_gradients(candidates, alpha, "sigmoid", grad)
    assert_eight_python_threads_agree(lambda: value_and_gradients(candidates, alpha, "sigmoid", grad), expected)


# ---- beside PyTorch's machinery -------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_compiles_into_one_graph(device):
    candidates, alpha, grad = make((2, 3, 5, 7), 1, 4, torch.float32, absent={2}, device=device)
    torch.compiler.reset()
    function = torch.compile(
        lambda a, *x: mixed_sum([x[0], x[1], None, x[2]], a).relu(), fullgraph=True, backend="aot_eager"
    )
    present = [x for x in candidates if x is not None]
    y = function(alpha, *present)
    grads = torch.autograd.grad(y, [*present, alpha], grad)
    expected = mixed_sum(candidates, alpha).relu()
    torch.testing.assert_close(y, expected)
    for a, b in zip(grads, torch.autograd.grad(expected, [*present, alpha], grad), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_sums_in_the_widest_type(device):
    x = [torch.randn(4, 4, device=device, dtype=t) for t in (torch.bfloat16, torch.float32)]
    alpha = torch.zeros(2, device=device, requires_grad=True)
    with torch.autocast(device, dtype=torch.bfloat16):
        y = mixed_sum(x, alpha)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, (x[0].float() + x[1]) / 2)
    y.sum().backward()
    assert alpha.grad.dtype == torch.float32


@pytest.mark.cuda
def test_another_stream_and_a_captured_graph():
    candidates, alpha, _ = make((4, 16, 32, 32), 2, 5, torch.float32, device="cuda")
    with torch.no_grad():
        expected = mixed_sum(candidates, alpha)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            assert torch.equal(mixed_sum(candidates, alpha), expected)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = mixed_sum(candidates, alpha)
        candidates[0].mul_(2)
        graph.replay()
        assert torch.equal(y, mixed_sum(candidates, alpha))


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    n = 2**31 + 5
    x = torch.zeros(n, dtype=torch.bfloat16)
    x[-1], x[2**31] = 3.0, 5.0
    y = mixed_sum([x], torch.tensor([2.0]), "identity")
    assert y[-1] == 6.0 and y[2**31] == 10.0 and y[: 2**10].sum() == 0


# ---- bad input ------------------------------------------------------------------------------------------------------

ONE, TWO = torch.ones(2), torch.ones(2)
BAD = [
    (([ONE, TWO], torch.zeros(2), "tanh"), "gate: got 'tanh'; wanted one of 'softmax'"),
    (([ONE, TWO], torch.zeros(3), "softmax"), "candidates: got 2 for alpha of shape (3,); wanted 3"),
    (([ONE, TWO], torch.zeros(1, 1, 2), "softmax"), "alpha: got shape (1, 1, 2); wanted (K,) or (E, K)"),
    (([ONE, TWO], torch.zeros(2, dtype=torch.long), "softmax"), "alpha: got torch.int64; wanted a floating-point"),
    (([ONE, TWO], [0.0, 0.0], "softmax"), "alpha: got list; wanted a floating-point tensor"),
    (([None, None], torch.zeros(2), "softmax"), "candidates: all are None; wanted at least one tensor"),
    (([], torch.zeros(0), "softmax"), "candidates: all are None; wanted at least one tensor"),
    (([ONE, torch.ones(3)], torch.zeros(2), "softmax"), "candidates[1]: got shape (3,); wanted (2,), as the first"),
    (([None, ONE, torch.ones(2, 1)], torch.zeros(3), "softmax"), "candidates[2]: got shape (2, 1); wanted (2,)"),
    (([ONE, TWO.double()], torch.zeros(2), "softmax"), "candidates[1]: got torch.float64; wanted torch.float32"),
    (([ONE, TWO.long()], torch.zeros(2), "softmax"), "candidates[1]: got torch.int64; wanted a floating-point"),
    (([ONE, 1.0], torch.zeros(2), "softmax"), "candidates[1]: got float; wanted a floating-point tensor or None"),
    ((torch.ones(2, 2), torch.zeros(2), "softmax"), "candidates: got one tensor; wanted a list or tuple"),
    (([ONE, TWO.to("meta")], torch.zeros(2), "softmax"), "candidates[1]: got device meta; wanted cpu"),
    (([ONE, TWO], torch.zeros(2, device="meta"), "softmax"), "alpha: got device meta; wanted cpu"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
@pytest.mark.parametrize("function", [mixed_sum, mixed_sum_eager])
def test_bad_input(function, arguments, message):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert message in str(error.value)


@needs_kernels
@pytest.mark.parametrize(
    "arguments",
    [
        ([ONE, torch.ones(3)], torch.zeros(2), [0, 1], "softmax"),
        ([ONE, TWO], torch.zeros(2), [0, 2], "softmax"),
        ([ONE, TWO], torch.zeros(2), [0], "softmax"),
        ([ONE, TWO], torch.zeros(2), [0, -1], "softmax"),
        ([ONE, TWO.double()], torch.zeros(2), [0, 1], "softmax"),
        ([ONE, TWO], torch.zeros(2), [0, 1], "relu"),
        ([], torch.zeros(2), [], "softmax"),
        ([ONE.long(), TWO.long()], torch.zeros(2), [0, 1], "softmax"),
    ],
)
def test_the_bare_operator_never_trusts_its_arguments(arguments):
    with pytest.raises((ValueError, TypeError)):
        torch.ops.lt_nas_ext.mixed_sum(*arguments)
