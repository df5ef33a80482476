"""barlow_twins_loss against literal values, float64 references, its laws, two processes, and bad input."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_laws import (
    DEVICES,
    assert_eight_python_threads_agree,
    assert_same_bits_on_every_thread_count,
    fuzzed,
    needs_kernels,
)

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import barlow_twins_loss, barlow_twins_loss_eager

FORMS = ["gram", "cross"]
# Relative error against float64 of a loss and of its gradients: everything is float32 inside, gradients are rounded to
# the type of the embeddings.
LOSS = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}
GRADIENT = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def views(n, d, dtype=torch.float32, device="cpu", offset=0.0, seed=0):
    """Two views of the same things, as different as a half-trained network leaves them."""
    generator = torch.Generator().manual_seed(seed)
    shared, *own = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    return tuple((0.7 * shared + 0.7 * z + offset).to(device, dtype).requires_grad_() for z in own)


def loss_and_gradients(za, zb, function=barlow_twins_loss, **settings):
    loss = function(za, zb, **settings)
    return [
        loss.detach(),
        *torch.autograd.grad(loss, (za, zb), torch.tensor(0.75, device=loss.device, dtype=loss.dtype)),
    ]


def reference(za, zb, **settings):
    """The published form in float64."""
    wide = [z.detach().double().requires_grad_() for z in (za, zb)]
    return loss_and_gradients(*wide, function=barlow_twins_loss_eager, **{**settings, "form": "cross"})


def relative_error(result, exact):
    return float((result.double() - exact).norm() / exact.norm())


def assert_accurate(za, zb, slack=1.0, **settings):
    results, exact = loss_and_gradients(za, zb, **settings), reference(za, zb, **settings)
    assert relative_error(results[0], exact[0]) <= LOSS[za.dtype] * slack
    for result, gradient in zip(results[1:], exact[1:], strict=True):
        assert result.dtype == za.dtype and relative_error(result, gradient) <= GRADIENT[za.dtype] * slack


# ---- literal values -------------------------------------------------------------------------------------------------

Z = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)  # normalised, uncorrelated
TABLE = [
    # zb for za = Z, loss with λ = .25
    (Z, 0.0),
    (-Z, 8.0),  # C = −1: 2 · (1 + 1)²
    (Z.flip(1), 2.5),  # C = [[0, 1], [1, 0]]: 2 + 2 λ
    (Z[:, :1].expand(4, 2), 1.25),  # C = [[1, 1], [0, 0]]: 1 + λ
    (torch.full((4, 2), 7.0, dtype=torch.float64), 2.0),  # constant: C = 0
    (5 * Z + 3, 0.0),  # shift and scale are normalised away
]


@pytest.mark.parametrize("form", ["auto", *FORMS])
@pytest.mark.parametrize("function", [barlow_twins_loss, barlow_twins_loss_eager])
@pytest.mark.parametrize(("zb", "loss"), TABLE)
def test_literal_values(function, form, zb, loss):
    value = function(Z, zb, lambd=0.25, eps=1e-14, form=form)
    torch.testing.assert_close(value, torch.tensor(loss, dtype=torch.float64), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(function(Z, zb, lambd=0.25, eps=1e-14, form=form, scale=-3.0), -3 * value)


# ---- against float64, everywhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", LOSS)
@pytest.mark.parametrize(("n", "d"), [(5, 3), (31, 64), (64, 151), (129, 512), (151, 129), (40, 1134)])
def test_every_instruction_set_equals_float64(isa, n, d, dtype, form):
    assert_accurate(*views(n, d, dtype), lambd=0.02, scale=0.3, form=form)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", LOSS)
@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 7), (3, 200)])
def test_few_rows(device, n, d, dtype, form):
    # Of two rows only the signs are left, and the gradient is what eps leaves of it: a wide eps conditions the problem.
    assert_accurate(*views(n, d, dtype, device), slack=4, eps=0.1, form=form)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_more_than_one_block_of_columns_and_rows(device, form):
    assert_accurate(*views(300, 2100, device=device), form=form)


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2, 5, 64])
@pytest.mark.parametrize(("n", "d"), [(110, 1100), (300, 700)])
def test_threads_with_blocks_of_their_own(n, d, threads):
    z = views(n, d)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_accurate(*z, form="gram")
        runs = [loss_and_gradients(*z, form="gram") for _ in range(3)]
        with torch.inference_mode():
            assert torch.equal(barlow_twins_loss(*z, form="gram"), runs[0][0])
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "d"), [(64, 512), (256, 300)])
def test_error_is_at_most_twice_eagers(n, d, dtype, form):
    z = views(n, d, dtype)
    eager = partial(barlow_twins_loss_eager, form="cross")
    exact = reference(*z)
    for ours, theirs, wanted in zip(
        loss_and_gradients(*z, form=form), loss_and_gradients(*z, function=eager), exact, strict=True
    ):
        room = torch.finfo(ours.dtype).eps / 2  # where eager happens to be exact, twice nothing is nothing
        assert relative_error(ours, wanted) <= 2 * relative_error(theirs, wanted) + room


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offset", [1e3, -1e5])
def test_a_large_common_offset_costs_no_digits(device, offset, form):
    assert_accurate(*views(64, 200, offset=offset, device=device), form=form)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 0.1, -12345.678])
def test_constant_columns(device, form, value):
    za, zb = views(50, 70, device=device)
    with torch.no_grad():
        za[:, ::3] = value
        zb[:, ::2] = value
    loss, *gradients = loss_and_gradients(za, zb, form=form)
    exact = reference(za, zb)
    assert relative_error(loss, exact[0]) < 1e-6
    for gradient, wanted, constant in zip(gradients, exact[1:], (slice(0, None, 3), slice(0, None, 2)), strict=True):
        assert gradient.isfinite().all()
        # √(1/eps) = 316 times larger than the others, and a rounding of the mean away from any value at all.
        varied = torch.ones(70, dtype=torch.bool).index_fill_(0, torch.arange(70)[constant], False).to(device)
        assert relative_error(gradient[:, varied], wanted[:, varied]) < 2e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_first_and_second_derivatives(device, form):
    za, zb = views(5, 7, torch.float64, device)
    for inputs in ((za, zb), (za, zb.detach()), (za.detach(), zb)):
        function = partial(barlow_twins_loss, lambd=0.3, scale=0.7, eps=0.05, form=form)
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)
    z = za  # one tensor as both views
    assert torch.autograd.gradcheck(lambda z: barlow_twins_loss(z, z.roll(1, 0), form=form), (z,))


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_third_derivatives(form):
    def written_out(za, zb, lambd, form):  # the third derivative of PyTorch's own batch_norm is wrong (2.11)
        a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (za, zb))
        c = a.T @ b / len(a)
        on, off = (1 - c.diagonal()).square().sum(), c.square().sum() - c.diagonal().square().sum()
        return on + lambd * off

    def third(function):
        z = views(4, 6, torch.float64)
        value = function(*z, lambd=0.3, form=form)
        for _ in range(3):
            value = torch.autograd.grad(value, z[0], create_graph=True)[0].square().sum()
        return value.detach()

    torch.testing.assert_close(third(barlow_twins_loss), third(written_out), rtol=1e-10, atol=0)


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gram", [True, False])
def test_opcheck(device, gram):
    za, zb = views(6, 9, device=device)
    numbers = (5e-3, 0.5, 1e-5, gram)
    torch.library.opcheck(torch.ops.lt_nas_ext.barlow_twins_loss, (za, zb, *numbers))
    with torch.no_grad():
        loss, products = torch.ops.lt_nas_ext.barlow_twins_loss(za, zb, *numbers)
    arguments = (torch.ones_like(loss), za.detach(), zb.detach(), products, *numbers)
    torch.library.opcheck(torch.ops.lt_nas_ext.barlow_twins_loss_backward, arguments)


# ---- laws -----------------------------------------------------------------------------------------------------------


@fuzzed
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 150),
    form=st.sampled_from(["auto", *FORMS]),
    dtype=st.sampled_from(list(LOSS)),
    lambd=st.floats(0, 1),
    layout=st.sampled_from(["dense", "transposed", "sliced", "every second row", "expanded"]),
    seed=st.integers(0, 2**16),
)
def test_equals_its_eager_twin(n, d, form, dtype, lambd, layout, seed):
    generator = torch.Generator().manual_seed(seed)

    def embeddings():
        def stored(*shape):
            return torch.randn(*shape, generator=generator).to(dtype)

        return {
            "dense": lambda: stored(n, d),
            "transposed": lambda: stored(d, n).T,
            "sliced": lambda: stored(n, d + 5)[:, 3 : d + 3],
            "every second row": lambda: stored(2 * n, d)[::2],
            "expanded": lambda: stored(n, 1).expand(n, d),
        }[layout]().requires_grad_()

    assert_accurate(embeddings(), embeddings(), slack=100, lambd=lambd, eps=0.1, form=form)  # two rows: cancellation


def test_the_loss_is_symmetric_and_knows_no_order():
    za, zb = views(20, 30, torch.float64)
    loss, dza, dzb = loss_and_gradients(za, zb)
    swapped = loss_and_gradients(zb, za)
    rows, columns = torch.randperm(20), torch.randperm(30)
    permuted = loss_and_gradients(za[rows][:, columns], zb[rows][:, columns])
    for result, wanted in zip(swapped, (loss, dzb, dza), strict=True):
        torch.testing.assert_close(result, wanted)
    for result, wanted in zip(permuted, (loss, dza[rows][:, columns], dzb[rows][:, columns]), strict=True):
        torch.testing.assert_close(result, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_a_column_sum_to_zero_and_are_orthogonal_to_it(form):
    za, zb = views(20, 30, torch.float64)
    _, dza, _ = loss_and_gradients(za, zb, form=form, eps=1e-14)
    assert dza.sum(0).abs().max() < 1e-13  # a shift of a column changes nothing
    assert (dza * za).sum(0).abs().max() < 1e-12  # nor does its scale


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", FORMS)
def test_non_finite_values_are_not_hidden(bad, form):
    za, zb = views(20, 30)
    with torch.no_grad():
        za[3, 4] = bad
    assert not barlow_twins_loss(za, zb, form=form).isfinite()


# ---- what is computed and what is kept ------------------------------------------------------------------------------


@needs_kernels
def test_the_gram_form_allocates_no_matrix_of_d_by_d_and_keeps_two_of_n_by_n():
    n, d = 16, 2000
    za, zb = views(n, d)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        loss = barlow_twins_loss(za, zb)
    assert sorted(kept) == sorted([n * d, n * d, 2 * n * n])
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        barlow_twins_loss(za, zb).backward()
    allocated = [event.self_cpu_memory_usage for event in profile.events()]
    assert 0 < max(allocated) <= 4 * 2 * n * d  # bytes: at most the normalised embeddings at once
    assert loss.item() == barlow_twins_loss(za, zb, form="gram").item()


def test_auto_takes_the_cheaper_form():
    from lt_nas_ext.ops.barlow_twins_loss import _arguments

    def gram(n, d, form="auto"):
        z = torch.empty(n, d, device="meta")
        return _arguments(z, z, 5e-3, 1.0, 1e-5, form, None)[2]

    assert gram(256, 8192) and gram(95, 128) and not gram(96, 128) and not gram(512, 128)
    assert gram(512, 128, "gram") and not gram(256, 8192, "cross")


def test_only_the_wanted_gradient():
    za, zb = views(6, 5)
    barlow_twins_loss(za, zb.detach()).backward()
    assert za.grad is not None and zb.grad is None
    assert barlow_twins_loss(za.detach(), zb.detach()).grad_fn is None


# ---- to the bit -----------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_same_bits_on_every_run(isa, form):
    z = views(67, 700)
    first = loss_and_gradients(*z, form=form)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(loss_and_gradients(*z, form=form), first, strict=True))


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_same_bits_on_every_thread_count_where_no_product_of_the_library_counts(isa, form):
    z = views(67, 700)
    assert_same_bits_on_every_thread_count(lambda: loss_and_gradients(*z, form=form, lambd=0.0))


@needs_kernels
def test_eight_python_threads_at_once():
    z = views(67, 700)
    assert_eight_python_threads_agree(lambda: loss_and_gradients(*z))


# ---- beside PyTorch's machinery -------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(device, dynamic):
    torch.compiler.reset()
    compiled = torch.compile(
        lambda a, b: barlow_twins_loss(a * 2, b) + 1, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    for n in (6, 12):
        za, zb = views(n, 9, device=device)
        loss = compiled(za, zb)
        expected = barlow_twins_loss(za * 2, zb) + 1
        torch.testing.assert_close(loss, expected)
        for a, b in zip(*(torch.autograd.grad(value, (za, zb)) for value in (loss, expected)), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_autocast_computes_in_float32(device, form):
    za, zb = views(32, 40, device=device)
    with torch.no_grad():
        zb = zb.bfloat16()
    expected = loss_and_gradients(za, zb.float().requires_grad_(), form=form)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = barlow_twins_loss(za, zb.requires_grad_(), form=form)
        gradients = torch.autograd.grad(loss * 0.75, (za, zb))
        with lt.ops.eager():
            eager = barlow_twins_loss(za, zb, form=form)
    assert loss.dtype == eager.dtype == torch.float32 and gradients[1].dtype == torch.bfloat16
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(eager, expected[0])
    torch.testing.assert_close(gradients[0], expected[1])
    torch.testing.assert_close(gradients[1].float(), expected[2], rtol=1e-2, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS)
def test_another_stream_and_a_captured_graph(form):
    za, zb = views(64, 300, device="cuda")
    with torch.no_grad():
        expected = barlow_twins_loss(za, zb, form=form)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            assert torch.equal(barlow_twins_loss(za, zb, form=form), expected)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = barlow_twins_loss(za, zb, form=form)
        za.mul_(torch.rand_like(za))
        graph.replay()
        assert torch.equal(loss, barlow_twins_loss(za, zb, form=form))


# ---- bad input ------------------------------------------------------------------------------------------------------

OK = torch.ones(4, 3)
BAD = [
    ((1.0, OK), {}, "za: got float; wanted a floating-point tensor of shape (N, D)"),
    ((OK, OK.long()), {}, "zb: got torch.int64; wanted a floating-point tensor of shape (N, D)"),
    ((OK[0], OK[0]), {}, "za: got shape (3,); wanted (N, D), a row an image"),
    ((torch.ones(4, 3, 1, 1), OK), {}, "za: got shape (4, 3, 1, 1); wanted (N, D)"),
    ((torch.ones(4, 0), torch.ones(4, 0)), {}, "za: got shape (4, 0); wanted (N, D)"),
    ((OK, torch.ones(5, 3)), {}, "zb: got shape (5, 3); wanted (4, 3), as za"),
    ((OK, OK.double()), {}, "zb: got torch.float64; wanted torch.float32, as za (or use autocast)"),
    ((OK, OK.to("meta")), {}, "zb: got device meta; wanted cpu, as za"),
    ((OK[:1], OK[:1]), {}, "za: got N = 1; wanted at least 2 rows"),
    ((OK[:0], OK[:0]), {}, "za: got N = 0; wanted at least 2 rows"),
    ((OK, OK), {"lambd": -1.0}, "lambd: got -1.0; wanted a finite number ≥ 0"),
    ((OK, OK), {"lambd": float("nan")}, "lambd: got nan; wanted a finite number ≥ 0"),
    ((OK, OK), {"scale": float("inf")}, "scale: got inf; wanted a finite number"),
    ((OK, OK), {"eps": 0.0}, "eps: got 0.0; wanted a finite number > 0"),
    ((OK, OK), {"form": "dxd"}, "form: got 'dxd'; wanted one of 'auto', 'gram', 'cross'"),
]


@pytest.mark.parametrize(("arguments", "settings", "message"), BAD)
@pytest.mark.parametrize("function", [barlow_twins_loss, barlow_twins_loss_eager])
def test_bad_input(function, arguments, settings, message):
    with pytest.raises(UserError) as error:
        function(*arguments, **settings)
    assert message in str(error.value)


@needs_kernels
def test_the_operators_themselves_refuse_what_would_crash_them():
    op, backward = torch.ops.lt_nas_ext.barlow_twins_loss, torch.ops.lt_nas_ext.barlow_twins_loss_backward
    numbers = (5e-3, 1.0, 1e-5, True)
    for za, zb in ((OK, OK[:2]), (OK[:1], OK[:1]), (OK, OK.double()), (OK[0], OK[0])):
        with pytest.raises((ValueError, TypeError), match=r"z[ab]: got .*; wanted"):
            op(za, zb, *numbers)
    with pytest.raises(ValueError, match="products: got"):
        backward(torch.ones(()), OK, OK, torch.ones(4, 4), *numbers)
    with pytest.raises(ValueError, match="grad: got"):
        backward(torch.ones(2), OK, OK, torch.ones(2, 4, 4), *numbers)
