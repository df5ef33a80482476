"""Original DARTS weights load, and give the original's logits; ours load there. The original is restated here, on its
own, in plain PyTorch: the parameter names, the order of operations and the arithmetic of the published supernet."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn as tnn

from lt_nas_ext.errors import UserError
from lt_nas_ext.space import FusedCell, PerEdgeCell, Supernet


class Apply(tnn.Module):
    """A module of a function, for operations without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Op(tnn.Module):
    """A chain under the name `op`, as most operations of the original have it."""

    def __init__(self, *chain):
        super().__init__()
        self.op = tnn.Sequential(*chain)

    def forward(self, x):
        return self.op(x)


class Reduce(tnn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv_1 = tnn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.conv_2 = tnn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.bn = tnn.BatchNorm2d(c_out, affine=False)

    def forward(self, x):
        return self.bn(torch.cat((self.conv_1(x.relu()), self.conv_2(x.relu()[..., 1:, 1:])), 1))


def conv(c, k, stride=1, pad=0, dilation=1, groups=1):
    return tnn.Conv2d(c, c, k, stride, pad, dilation, groups, bias=False)


def norm(c):
    return tnn.BatchNorm2d(c, affine=False)


def eight(c, s):
    """The eight operations of an edge in their order."""

    def separable(k):
        first = (tnn.ReLU(), conv(c, k, s, k // 2, groups=c), conv(c, 1), norm(c))
        return Op(*first, tnn.ReLU(), conv(c, k, 1, k // 2, groups=c), conv(c, 1), norm(c))

    def dilated(k):
        return Op(tnn.ReLU(), conv(c, k, s, k - 1, 2, groups=c), conv(c, 1), norm(c))

    yield Apply(lambda x: 0 * x[..., ::s, ::s])
    yield tnn.Sequential(tnn.MaxPool2d(3, s, 1), norm(c))
    yield tnn.Sequential(tnn.AvgPool2d(3, s, 1, count_include_pad=False), norm(c))
    yield Reduce(c, c) if s == 2 else Apply(lambda x: x)
    yield separable(3)
    yield separable(5)
    yield dilated(3)
    yield dilated(5)


class Mixed(tnn.Module):
    def __init__(self, c, s):
        super().__init__()
        self._ops = tnn.ModuleList(eight(c, s))

    def forward(self, x, weights):
        return sum(weights[k] * op(x) for k, op in enumerate(self._ops))


class Cell(tnn.Module):
    def __init__(self, c0, c1, c, halves, halved):
        super().__init__()
        self.halves = halves
        enter = [tnn.Sequential(), tnn.Sequential()]
        for k, c_in in enumerate((c0, c1)):
            enter[k] = Op(tnn.ReLU(), tnn.Conv2d(c_in, c, 1, bias=False), norm(c))
        self.preprocess0 = Reduce(c0, c) if halved else enter[0]
        self.preprocess1 = enter[1]
        self._ops = tnn.ModuleList(Mixed(c, 2 if halves and i < 2 else 1) for n in (2, 3, 4, 5) for i in range(n))

    def forward(self, s0, s1, weights):
        states, e = [self.preprocess0(s0), self.preprocess1(s1)], 0
        while len(states) < 6:
            arriving = [self._ops[e + i](state, weights[e + i]) for i, state in enumerate(states)]
            e += len(states)
            states.append(sum(arriving))
        return torch.cat(states[2:], 1)


class Original(tnn.Module):
    """The published supernet for 3-channel images; α are plain tensors beside it, no entries of its state."""

    def __init__(self, c, classes, layers):
        super().__init__()
        self.stem = tnn.Sequential(tnn.Conv2d(3, 3 * c, 3, padding=1, bias=False), tnn.BatchNorm2d(3 * c))
        self.cells, c0, c1, halved = tnn.ModuleList(), 3 * c, 3 * c, False
        for i in range(layers):
            halves = i in (layers // 3, 2 * layers // 3)
            c *= 1 + halves
            self.cells.append(Cell(c0, c1, c, halves, halved))
            c0, c1, halved = c1, 4 * c, halves
        self.classifier = tnn.Linear(c1, classes)
        self.alphas = {halves: 1e-3 * torch.randn(14, 8, dtype=torch.float64) for halves in (False, True)}

    def forward(self, x):
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, self.alphas[cell.halves].softmax(-1))
        return self.classifier(s1.mean((2, 3)))


@pytest.fixture(scope="module")
def original():
    """With weights that a training might have left: running statistics too."""
    torch.manual_seed(0)
    net = Original(4, 7, layers=4).double()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    # Edges that leave one state have seen the same images in their pools.
    state_dict = net.state_dict()
    for name, value in state_dict.items():
        if pool := re.fullmatch(r"(cells\.\d+\._ops\.)(\d+)(\._ops\.[12]\.1\.running_.*)", name):
            before, edge, after = pool.groups()
            value.copy_(state_dict[f"{before}{FIRST_EDGE_OF_ITS_SOURCE[int(edge)]}{after}"])
    return net


FIRST_EDGE_OF_ITS_SOURCE = (0, 1, 0, 1, 4, 0, 1, 4, 8, 0, 1, 4, 8, 13)


@pytest.fixture(params=[FusedCell, PerEdgeCell])
def ours(request):
    torch.manual_seed(1)
    return Supernet(channels=4, num_classes=7, layers=4, cell=request.param).double()


def copy_alphas(source, target):
    with torch.no_grad():
        for ours, theirs in zip(target.arch_parameters(), source.alphas.values(), strict=True):
            ours.copy_(theirs)


@pytest.mark.parametrize("training", [False, True])
def test_original_weights_give_the_original_logits(original, ours, training):
    ours.load_darts_state_dict(original.state_dict())
    copy_alphas(original, ours)
    state = {name: value.clone() for name, value in original.state_dict().items()}
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    try:
        torch.testing.assert_close(ours.train(training)(x), original.train(training)(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours.darts_state_dict(), dict(original.state_dict()), rtol=1e-10, atol=1e-10)
    finally:
        original.load_state_dict(state)


def test_our_weights_load_in_the_original_and_give_our_logits(original, ours):
    state = {name: value.clone() for name, value in original.state_dict().items()}
    alphas = dict(original.alphas)
    try:
        original.load_state_dict(ours.darts_state_dict(), strict=True)
        original.alphas = dict(zip((False, True), ours.arch_parameters(), strict=True))
        x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(original.eval()(x), ours.eval()(x), rtol=1e-10, atol=1e-10)
    finally:
        original.load_state_dict(state)
        original.alphas = alphas


def test_the_round_trip_is_exact(original, ours):
    ours.load_darts_state_dict(original.state_dict())
    back = ours.darts_state_dict()
    assert back.keys() == original.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in original.state_dict().items())

    other = Supernet(channels=4, num_classes=7, layers=4, cell=type(ours.cells[0])).double()
    other.load_darts_state_dict(back)
    wanted = ours.state_dict()
    differ = {name for name, value in other.state_dict().items() if not torch.equal(value, wanted[name])}
    assert differ == {"alphas_normal", "alphas_reduce"}


def test_alphas_load_where_the_checkpoint_has_them(original, ours):
    before = [alpha.clone() for alpha in ours.arch_parameters()]
    ours.load_darts_state_dict(original.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, ours.arch_parameters(), strict=True))
    ours.load_darts_state_dict({**original.state_dict(), "alphas_reduce": original.alphas[True]})
    assert torch.equal(ours.alphas_reduce, original.alphas[True])
    assert torch.equal(ours.alphas_normal, before[0])


def test_a_checkpoint_of_early_pytorch_loads(original, ours):
    old = {name: value for name, value in original.state_dict().items() if "num_batches" not in name}
    ours.load_darts_state_dict(old)
    assert torch.equal(ours.darts_state_dict()["stem.0.weight"], old["stem.0.weight"])


def test_pools_whose_statistics_differ_load_where_every_edge_has_its_own(original, ours):
    """A network that was trained has none; one that was put together may."""
    changed = {name: value.clone() for name, value in original.state_dict().items()}
    changed["cells.1._ops.5._ops.2.1.running_var"] += 1
    if isinstance(ours.cells[0], PerEdgeCell):
        ours.load_darts_state_dict(changed)
        name = "cells.1._ops.5._ops.2.1.running_var"
        assert torch.equal(ours.darts_state_dict()[name], changed[name])
        return
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=r"edges \[0, 2, 5, 9\] .* 1.running_var of a pool differs .* cell=PerEdgeCell"):
        ours.load_darts_state_dict(changed)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_a_checkpoint_of_another_precision_loads(original, ours):
    ours.load_darts_state_dict({name: value.float() for name, value in original.state_dict().items()})
    assert ours.stem[0].weight.dtype == torch.float64


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda sd: sd.pop("cells.0._ops.3._ops.4.op.1.weight"),
            "'cells.0._ops.3._ops.4.op.1.weight' is missing; wanted",
        ),
        (
            lambda sd: sd.update({"cells.4.preprocess1.op.1.weight": torch.ones(1)}),
            "'cells.4.pre.*' is unknown here; wa",
        ),
        (
            lambda sd: sd.update({"cells.0.edges.0.candidates.4.op.1.weight": torch.ones(1)}),
            "'cells.0.edg.* is unknown",
        ),
        (lambda sd: sd.update({"classifier.bias": torch.ones(9)}), r"'classifier.bias' is \(9,\), here \(7,\); wanted"),
        (lambda sd: sd.update({"alphas_normal": torch.ones(14, 7)}), r"'alphas_normal' is \(14, 7\), here \(14, 8\)"),
        (lambda sd: sd.update({"classifier.bias": "text"}), r"'classifier.bias' is str, here \(7,\)"),
        (lambda sd: sd.clear(), r"'stem.0.weight' is missing \(and \d+ more\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named_and_nothing_is_loaded(original, ours, change, message):
    state_dict = dict(original.state_dict())
    change(state_dict)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=f"state_dict: {message}"):
        ours.load_darts_state_dict(state_dict)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
