"""MixedOp against the sum it stands for, and as a drop-in for the original's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError

F64 = {"rtol": 1e-10, "atol": 1e-10}


def weighted_sum(op, x, weights):
    """The original's `sum(w * op(x) for …)`, with zeros for `none`."""
    outputs = [None if candidate is None else candidate(x) for candidate in op.candidates]
    shape = next(y for y in outputs if y is not None)
    return sum(w * (torch.zeros_like(shape) if y is None else y) for w, y in zip(weights, outputs, strict=True))


@pytest.mark.parametrize("primitives", [nn.DARTS, nn.FAIR_DARTS, ("skip_connect", "none", "max_pool_3x3")])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_ready_weights_as_in_the_original(primitives, stride, training):
    torch.manual_seed(0)
    op = nn.MixedOp(4, stride, primitives).double().train(training)
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(primitives), dtype=torch.float64).softmax(0).requires_grad_()
    wanted, got = weighted_sum(op, x, weights), op(x, weights)
    torch.testing.assert_close(got, wanted, **F64)

    dy = torch.randn_like(got)
    inputs = [x, weights, *op.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, dy, allow_unused=True),
        torch.autograd.grad(wanted, inputs, dy, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **F64)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_raw_alpha_goes_through_the_gate(gate):
    torch.manual_seed(0)
    raw = nn.MixedOp(4, gate=gate).double().eval()
    ready = nn.MixedOp(4).double().eval()
    ready.load_state_dict(raw.state_dict())
    x, alpha = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(raw(x, alpha), ready(x, ops.gate_weights(alpha, gate)), **F64)


@given(st.permutations(range(8)))
def test_the_order_of_candidates_does_not_matter(order):
    torch.manual_seed(0)
    op = nn.MixedOp(2).double().eval()
    permuted = nn.MixedOp(candidates=[op.candidates[k] for k in order]).eval()
    x, weights = torch.randn(1, 2, 4, 4, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    torch.testing.assert_close(permuted(x, weights[list(order)]), op(x, weights), **F64)


def test_anyones_modules_are_candidates():
    mine = [torch.nn.Conv2d(3, 5, 3, padding=1), None, torch.nn.Conv2d(3, 5, 1)]
    op = nn.MixedOp(candidates=mine)
    x, weights = torch.randn(2, 3, 6, 6), torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(op(x, weights), 0.5 * mine[0](x) + 0.2 * mine[2](x))
    assert set(op.state_dict()) == {
        "candidates.0.weight",
        "candidates.0.bias",
        "candidates.2.weight",
        "candidates.2.bias",
    }
    assert [y is None for y in op.outputs(x)] == [False, True, False]


def test_none_keeps_its_share_of_the_softmax():
    op = nn.MixedOp(4, primitives=("none", "skip_connect"), gate="softmax")
    x = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(op(x, torch.zeros(2)), x / 2)


def test_candidates_have_the_places_of_a_darts_checkpoint():
    keys = set(nn.MixedOp(4, stride=2).state_dict())
    assert {"candidates.1.1.running_mean", "candidates.3.conv_1.weight", "candidates.7.op.1.weight"} <= keys
    assert not any(key.startswith("candidates.0.") for key in keys)


def test_it_can_be_printed_moved_and_copied():
    op = nn.MixedOp(4).to(torch.float64).train().requires_grad_(False)
    assert "gate='identity'" in repr(op)
    assert all(parameter.dtype == torch.float64 for parameter in op.parameters())


ONE = torch.nn.Identity()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "channels: got None; wanted the channels of the input"),
        ({"channels": 0}, "channels: got 0"),
        ({"channels": 4, "stride": 3}, "stride: got 3; wanted 1 or 2"),
        ({"channels": 4, "gate": "hard"}, "gate: got 'hard'; wanted one of 'softmax', 'sigmoid', 'identity'"),
        ({"channels": 4, "primitives": ("conv",)}, "primitives: got 'conv'; wanted names out of none"),
        ({"channels": 4, "primitives": ("none",)}, "primitives: .* at least one candidate that is not 'none'"),
        ({"channels": 4, "primitives": ()}, "primitives: "),
        ({"channels": 4, "primitives": ("skip_connect",) * 2}, "primitives: .* every name once"),
        ({"candidates": [ONE, torch.relu]}, r"candidates\[1\]: got builtin_function_or_method; wanted a torch.nn.Mod"),
        ({"candidates": [None, None]}, "candidates: got 2, all None"),
        ({"candidates": []}, "candidates: got 0, all None"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        nn.MixedOp(**arguments)


@pytest.mark.parametrize(
    "weights, message",
    [
        ([0.5, 0.5], r"weights: got list; wanted a tensor with one entry for each of the 2 candidates, shape \(2,\)"),
        (torch.ones(3), r"weights: got shape \(3,\); wanted one entry for each of the 2"),
        (torch.ones(1, 2), r"weights: got shape \(1, 2\)"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(UserError, match=message):
        nn.MixedOp(candidates=[ONE, ONE])(torch.ones(1, 2, 3, 3), weights)


def test_candidates_that_disagree_are_named():
    op = nn.MixedOp(candidates=[ONE, torch.nn.MaxPool2d(2)])
    with pytest.raises(UserError, match=r"candidates\[1\]: got shape \(1, 2, 2, 2\); wanted \(1, 2, 4, 4\)"):
        op(torch.ones(1, 2, 4, 4), torch.ones(2))
