"""The per-edge cell: which states feed which node, at which stride, and custom candidates."""

from __future__ import annotations

import pytest
import torch

from lt_nas_ext import nn, ops
from lt_nas_ext.space import PerEdgeCell


@pytest.mark.parametrize("reduction, reduction_prev", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
@pytest.mark.parametrize("primitives", [nn.DARTS, nn.FAIR_DARTS])
def test_a_node_sums_all_earlier_states(reduction, reduction_prev, gate, primitives):
    torch.manual_seed(0)
    cell = PerEdgeCell(
        6, 8, 4, reduction=reduction, reduction_prev=reduction_prev, gate=gate, primitives=primitives, nodes=3
    ).double()
    s0 = torch.randn(2, 6, *(2 * (9,) if reduction_prev else (5, 5)), dtype=torch.float64)
    s1 = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    alpha = torch.randn(9, len(primitives), dtype=torch.float64)
    weights = ops.gate_weights(alpha, gate)

    states, edge = [cell.preprocess0(s0), cell.preprocess1(s1)], 0
    for _ in range(3):
        node = 0
        for source, state in enumerate(states):
            assert all(m.stride in (1, (1, 1), 2, (2, 2)) for m in cell.edges[edge].modules() if hasattr(m, "stride"))
            outputs = [c(state) for c in cell.edges[edge].candidates if c is not None]
            shares = weights[edge, len(primitives) - len(outputs) :]
            node = node + sum(w * y for w, y in zip(shares, outputs, strict=True))
            halved = reduction and source < 2
            assert outputs[0].shape[-1] == (-(-state.shape[-1] // 2) if halved else state.shape[-1])
            edge += 1
        states.append(node)
    got = cell(s0, s1, alpha)
    torch.testing.assert_close(got, torch.cat(states[2:], 1), rtol=1e-10, atol=1e-10)
    assert got.shape == (2, 12, *(2 * (3,) if reduction else (5, 5)))


def test_one_mixed_sum_a_node(monkeypatch):
    calls = []
    fused = ops.mixed_sum

    def count(candidates, alpha, gate):
        calls.append((len(candidates), sum(x is None for x in candidates), tuple(alpha.shape), gate))
        return fused(candidates, alpha, gate)

    monkeypatch.setattr(ops, "mixed_sum", count)
    cell = PerEdgeCell(4, 4, 4, reduction=False, reduction_prev=False, gate="softmax")
    cell(torch.ones(2, 4, 4, 4), torch.ones(2, 4, 4, 4), torch.zeros(14, 8))
    assert calls == [(8 * e, e, (e, 8), "softmax") for e in (2, 3, 4, 5)]


def test_custom_candidates():
    cell = PerEdgeCell(4, 4, 4, reduction=False, reduction_prev=False, gate="softmax", nodes=1).eval()
    mine = torch.nn.Conv2d(4, 4, 1)
    for edge in range(2):
        cell.edges[edge] = nn.MixedOp(candidates=[mine, None])
    s0, s1 = torch.randn(2, 2, 4, 3, 3)
    got = cell(s0, s1, torch.zeros(2, 2))
    torch.testing.assert_close(got, (mine(cell.preprocess0(s0)) + mine(cell.preprocess1(s1))) / 2)
    assert "_ops.1._ops.0.weight" in cell.darts_state_dict()


def test_the_darts_names_are_a_renaming():
    cell = PerEdgeCell(6, 8, 4, reduction=True, reduction_prev=True, gate="softmax")
    named = cell.darts_state_dict()
    assert {"preprocess0.conv_1.weight", "preprocess1.op.1.weight", "_ops.13._ops.7.op.2.weight"} <= set(named)
    assert cell.from_darts_state_dict(named).keys() == cell.state_dict().keys()
    assert len(named) == len(cell.state_dict())
