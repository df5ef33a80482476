"""The fused cell: few operators, its own names and back, fallbacks, and training beside the per-edge cell."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext import nn, ops
from lt_nas_ext.space import FusedCell, PerEdgeCell, Supernet

needs_kernels = pytest.mark.skipif(not ops.status().active, reason=f"eager twins serve: {ops.status().reason}")


def twins(channels=4, **arguments):
    """A per-edge cell and a fused one with its weights."""
    torch.manual_seed(0)
    settings = {"reduction": False, "reduction_prev": False, "gate": "softmax", **arguments}
    per_edge = PerEdgeCell(6, 8, channels, **settings).double()
    fused = FusedCell(6, 8, channels, **settings).double()
    fused.load_state_dict(fused.from_darts_state_dict(per_edge.darts_state_dict()))
    return per_edge, fused


@pytest.mark.parametrize("reduction, reduction_prev", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("primitives", [nn.DARTS, nn.FAIR_DARTS, ("dil_conv_5x5", "none", "avg_pool_3x3")])
@pytest.mark.parametrize("size", [(5, 5), (4, 7)])
@pytest.mark.parametrize("channels", [4, 3])
def test_equals_the_per_edge_cell(reduction, reduction_prev, primitives, size, channels):
    per_edge, fused = twins(
        channels, reduction=reduction, reduction_prev=reduction_prev, gate="sigmoid", primitives=primitives, nodes=3
    )
    s0 = torch.randn(4, 6, *(2 * extent - reduction_prev for extent in size) if reduction_prev else size)
    s1, alpha = torch.randn(4, 8, *size), torch.randn(9, len(primitives))
    outputs = []
    for cell in (per_edge, fused):
        inputs = [x.double().requires_grad_() for x in (s0, s1, alpha)]
        trained = cell(*inputs)
        gradients = torch.autograd.grad(trained.square().sum(), inputs)
        outputs.append([trained, *gradients, cell.eval()(*inputs)])
    for got, wanted in zip(*outputs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused.darts_state_dict(), per_edge.darts_state_dict(), rtol=1e-10, atol=1e-10)


def test_darts_names_there_and_back():
    per_edge, fused = twins(reduction=True, reduction_prev=True)
    named = fused.darts_state_dict()
    assert named.keys() == per_edge.darts_state_dict().keys()
    back = fused.from_darts_state_dict(named)
    assert back.keys() == fused.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in fused.state_dict().items())


def test_one_law_of_initialisation():
    """The weights of a fused unit are those of E separate convolutions: the fan-in is that of one."""
    torch.manual_seed(0)
    fused, per_edge = (
        cell(16, 16, 16, reduction=False, reduction_prev=False, gate="softmax").darts_state_dict()
        for cell in (FusedCell, PerEdgeCell)
    )
    for name, bound in [("_ops.{}._ops.4.op.1.weight", 1 / 3), ("_ops.{}._ops.5.op.6.weight", 1 / 4)]:
        for named in (fused, per_edge):
            weights = torch.cat([named[name.format(edge)].flatten() for edge in range(14)])
            assert weights.abs().max() <= bound and weights.abs().max() > 0.95 * bound
            assert abs(weights.std() - bound / 3**0.5) < 0.1 * bound


@needs_kernels
def test_one_unit_a_state_and_kind_and_one_sum_a_node(monkeypatch):
    units, sums = [], []
    sep_unit, bn_mixed_sum = ops.sep_unit, ops.bn_mixed_sum

    def unit(x, depthwise, pointwise, *more, **named):
        units.append(depthwise.shape[0] // pointwise.shape[1])
        return sep_unit(x, depthwise, pointwise, *more, **named)

    def node(candidates, *more, **named):
        sums.append(len(candidates))
        return bn_mixed_sum(candidates, *more, **named)

    monkeypatch.setattr(ops, "sep_unit", unit)
    monkeypatch.setattr(ops, "bn_mixed_sum", node)
    cell = FusedCell(4, 4, 4, reduction=False, reduction_prev=False, gate="softmax")
    cell(torch.ones(2, 4, 4, 4), torch.ones(2, 4, 4, 4), torch.zeros(14, 8))
    # Per state: two separable convolutions of two units, two dilated ones of one; 4, 4, 3, 2, 1 edges leave the states.
    assert units == [edges for edges in (4, 4, 3, 2, 1) for _ in range(6)]
    assert sums == [8 * edges for edges in (2, 3, 4, 5)]


def test_frozen_weights_cost_no_weight_gradient():
    _, fused = twins()
    for weight in fused.parameters():
        weight.requires_grad_(False)
    alpha = torch.randn(14, 8, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64), torch.randn(2, 8, 5, 5, dtype=torch.float64)
    fused(*x, alpha).sum().backward()
    assert alpha.grad is not None and all(weight.grad is None for weight in fused.parameters())


def test_moves_to_channels_last_and_copies():
    net = Supernet(4, 5, layers=2).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(copy.deepcopy(net).eval()(x), net.eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast(dtype):
    torch.manual_seed(0)
    net = Supernet(4, 5, layers=3)
    x = torch.randn(4, 3, 8, 8)
    wanted = net(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = net(x)
    got.sum().backward()
    assert (got - wanted).norm() <= (0.1 if dtype == torch.bfloat16 else 1e-6) * wanted.norm()


def losses(net, eager, layout, steps=100):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 8, 8, generator=generator)
    labels = images.mean((2, 3)).argmax(1)
    optimiser = torch.optim.SGD(net.weight_parameters(), lr=0.025, momentum=0.9)
    alphas = torch.optim.Adam(net.arch_parameters(), lr=3e-3)
    net.to(memory_format=layout)
    curve = []
    for step in range(steps):
        part = slice(step % 4 * 16, step % 4 * 16 + 16)
        for own in (alphas, optimiser):
            net.zero_grad()
            with ops.eager() if eager else contextlib.nullcontext():
                loss = F.cross_entropy(net(images[part].contiguous(memory_format=layout)), labels[part])
            loss.backward()
            own.step()
        curve.append(loss.item())
    return torch.tensor(curve)


@needs_kernels
@pytest.mark.slow
def test_a_hundred_steps_stay_as_near_as_two_layouts_of_eager():
    """float32 rounding grows along a training; ours no more than that between eager's two layouts."""
    torch.manual_seed(0)
    start = Supernet(8, 3, layers=3, cell=PerEdgeCell)
    fused = Supernet(8, 3, layers=3)
    alphas = {"alphas_normal": start.alphas_normal.detach(), "alphas_reduce": start.alphas_reduce.detach()}
    fused.load_darts_state_dict({**start.darts_state_dict(), **alphas})
    nchw = losses(copy.deepcopy(start), True, torch.contiguous_format)
    nhwc = losses(copy.deepcopy(start), True, torch.channels_last)
    ours = losses(fused, False, torch.channels_last)
    assert nchw[-10:].mean() < nchw[:10].mean()
    assert (ours - nchw).norm() <= 2 * (nhwc - nchw).norm()
