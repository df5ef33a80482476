"""The supernet: layout, parameters, any image; and the fused operators against their eager twins."""

from __future__ import annotations

import contextlib
import copy
import functools
import statistics

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.space import FusedCell, GateTieWarning, PerEdgeCell, Supernet

CELLS = (FusedCell, PerEdgeCell)


def test_layout_of_the_paper():
    net = Supernet()
    assert [cell.reduction for cell in net.cells] == [False, False, True, False, False, True, False, False]
    kinds = [type(cell.preprocess0).__name__ for cell in net.cells]
    assert [i for i, kind in enumerate(kinds) if kind == "FactorizedReduce"] == [3, 6]
    assert net.feature_dim == net.classifier.in_features == 4 * 64
    assert net.stem[0].weight.shape == (48, 3, 3, 3)
    assert len(Supernet(4, layers=1, cell=PerEdgeCell).cells[0].edges) == 14
    with_weights = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d) and m.affine]
    assert with_weights == [net.stem[1]]


@pytest.mark.parametrize("cell", CELLS)
def test_the_supernet_of_the_paper_has_its_parameters(cell):
    """1 930 618 weights (published as 1.93 MB), and 2 · 14 · 8 architecture parameters."""
    net = Supernet(cell=cell)
    assert sum(parameter.numel() for parameter in net.weight_parameters()) == 1_930_618
    assert sum(alpha.numel() for alpha in net.arch_parameters()) == 2 * 14 * 8


def test_parameters_are_split_without_rest():
    net = Supernet(channels=4, layers=2)
    ours = [*net.arch_parameters(), *net.weight_parameters()]
    assert {id(p) for p in ours} == {id(p) for p in net.parameters()}
    assert len(ours) == len(list(net.parameters()))
    assert net.arch_parameters()[0] is net.alphas_normal and net.arch_parameters()[1] is net.alphas_reduce


@pytest.mark.parametrize("primitives, gate", [(nn.DARTS, "softmax"), (nn.FAIR_DARTS, "sigmoid"), (nn.DARTS, "sigmoid")])
@pytest.mark.parametrize("size", [(8, 8), (7, 11), (1, 3)])
@pytest.mark.parametrize("cell", CELLS)
def test_small_grey_and_odd_images(cell, primitives, gate, size):
    net = Supernet(4, 5, layers=3, in_channels=1, nodes=2, gate=gate, primitives=primitives, cell=cell)
    x = torch.randn(2, 1, *size)
    assert net.features(x).shape == (2, net.feature_dim) == (2, 32)
    assert net(x).shape == (2, 5)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_any_depth_and_number_of_nodes(cell, layers, nodes):
    net = Supernet(4, 5, layers, nodes=nodes, cell=cell)
    assert net(torch.randn(2, 3, 6, 6)).shape == (2, 5)
    assert net.alphas_normal.shape == (nodes * (nodes + 3) // 2, 8)


def test_features_are_the_mean_of_the_last_cell():
    net = Supernet(4, 5, layers=2, nodes=1).eval()
    outputs = []
    net.cells[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    x = torch.randn(2, 3, 8, 8)
    features = net.features(x)
    torch.testing.assert_close(features, outputs[0].mean((2, 3)))
    torch.testing.assert_close(net(x), F.linear(features, net.classifier.weight, net.classifier.bias))


def test_alphas_start_as_stated():
    torch.manual_seed(0)
    noise = torch.cat([alpha.detach() for alpha in Supernet(4, layers=1).arch_parameters()])
    assert 0.8e-3 < noise.std() < 1.2e-3
    zeros = Supernet(4, layers=1, alpha_init="zeros")
    assert all(torch.equal(alpha, torch.zeros(14, 8)) for alpha in zeros.arch_parameters())


def test_gates_are_differentiable_weights():
    net = Supernet(4, layers=1, gate="softmax")
    gates = net.gates()
    torch.testing.assert_close(gates["normal"].sum(-1), torch.ones(14))
    gates["reduce"][3, 2].backward()
    assert net.alphas_reduce.grad[3].abs().sum() > 0 and net.alphas_normal.grad is None


def test_the_genotype_is_read_from_alpha():
    net = Supernet(4, layers=1, gate="sigmoid", alpha_init="zeros", nodes=1)
    with torch.no_grad():
        net.alphas_normal[0, 4] = 3.0
        net.alphas_reduce[1, 2] = 3.0
    found = net.genotype()
    assert found.normal.edges == (("sep_conv_3x3", 0, 2), ("max_pool_3x3", 1, 2))
    assert found.rule == "top2"
    assert net.genotype("threshold_sparse", threshold=0.9).reduce.edges == (("avg_pool_3x3", 1, 2),)
    with pytest.raises(UserError, match="per_edge"):
        net.genotype("per_edge")
    with pytest.warns(GateTieWarning):
        Supernet(4, layers=1).genotype()


def test_another_cell_takes_the_place_of_the_fused_one():
    made = []

    def make(**arguments):
        made.append(arguments)
        return PerEdgeCell(**arguments)

    Supernet(4, layers=3, nodes=2, gate="sigmoid", primitives=("skip_connect",), cell=make)
    assert made[2] == {
        "channels_prev_prev": 8,
        "channels_prev": 16,
        "channels": 16,
        "reduction": True,
        "reduction_prev": True,
        "gate": "sigmoid",
        "primitives": ("skip_connect",),
        "nodes": 2,
    }


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_takes_gradients_that_was_frozen(cell):
    net = Supernet(4, layers=3, nodes=2, cell=cell)
    for weight in net.weight_parameters():
        weight.requires_grad_(False)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(weight.grad is None for weight in net.weight_parameters())
    assert all(alpha.grad is not None for alpha in net.arch_parameters())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"channels": 0}, "channels: got 0; wanted an integer, at least 1"),
        ({"layers": 2.5}, "layers: got 2.5"),
        ({"nodes": 0}, "nodes: got 0"),
        ({"stem_multiplier": 0}, "stem_multiplier: got 0"),
        ({"in_channels": -1}, "in_channels: got -1"),
        ({"num_classes": 0}, "num_classes: got 0"),
        ({"gate": "hard"}, "gate: got 'hard'"),
        ({"primitives": ("conv",)}, "primitives: got 'conv'"),
        ({"alpha_init": "ones"}, "alpha_init: got 'ones'; wanted one of 'noise', 'zeros'"),
        ({"recompute": "yes"}, "recompute: got 'yes'; wanted True or False"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Supernet(**arguments)


@pytest.mark.parametrize("x", [torch.ones(2, 1, 8, 8), torch.ones(3, 8, 8), torch.ones(2, 3, 8, 8, dtype=torch.uint8)])
def test_images_of_another_form_are_named(x):
    with pytest.raises(UserError, match=r"x: got torch\..* of shape .*; wanted floating-point images \(N, 3, H, W\)"):
        Supernet(4, layers=1, nodes=1)(x)


# The fused cell, and the per-edge cell with fused operators, against the per-edge cell with eager twins ---------------

needs_kernels = pytest.mark.skipif(not ops.status().active, reason=f"eager twins serve: {ops.status().reason}")
METHODS = {"darts": ("softmax", nn.DARTS, 4), "fair-darts": ("sigmoid", nn.FAIR_DARTS, 3)}  # gate, candidates, nodes
NCHW, NHWC = torch.contiguous_format, torch.channels_last


def batch(seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 9, 8, generator=generator), torch.randint(5, (size,), generator=generator)


@functools.cache
def supernet(method):
    """In float32, with gates that differ and running statistics of its own signals."""
    torch.manual_seed(0)
    gate, primitives, nodes = METHODS[method]
    net = Supernet(4, 5, layers=3, gate=gate, primitives=primitives, nodes=nodes, cell=PerEdgeCell)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for alpha in net.arch_parameters():
            alpha.normal_()
        for norm in norms:
            norm.momentum = None  # the plain mean of what it sees
        net(batch(1000, size=32)[0])
        for norm in norms:
            norm.momentum = 0.1
    return net


def distance_to_a_kink(net, x):
    """How near any ReLU comes to its corner, or max-pool to another maximum; exact ties do not depend on rounding."""
    distances = []

    def relu(module, inputs):
        distances.append(inputs[0].abs())

    def pool(module, inputs):
        windows = F.unfold(F.pad(inputs[0], (1, 1, 1, 1), value=-1e9), 3).unflatten(1, (-1, 9))
        first, second = windows.topk(2, dim=2).values.unbind(2)
        distances.append(first - second)

    watch = {torch.nn.ReLU: relu, torch.nn.MaxPool2d: pool}
    hooks = [m.register_forward_pre_hook(watch[type(m)]) for m in net.modules() if type(m) in watch]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return min(distance[distance > 0].min().item() for distance in distances)


@functools.cache
def smooth_batch(method, training):
    """Images at which float32 rounding takes no other branch than float64: what is compared is rounding alone."""
    net = copy.deepcopy(supernet(method)).double().train(training)
    return next(seed for seed in range(50) if distance_to_a_kink(net, batch(seed)[0].double()) > 1e-5)


def with_cells(method, cell):
    """The supernet of the method, with the same weights in other cells."""
    net = copy.deepcopy(supernet(method))
    if cell is PerEdgeCell:
        return net
    gate, primitives, nodes = METHODS[method]
    other = Supernet(4, 5, layers=3, gate=gate, primitives=primitives, nodes=nodes, cell=cell)
    other.load_darts_state_dict({**net.darts_state_dict(), **alphas_of(net)})
    return other


def alphas_of(net):
    return {"alphas_normal": net.alphas_normal.detach(), "alphas_reduce": net.alphas_reduce.detach()}


def one_step(net, x, y, eager, layout):
    """Logits, all gradients, and running statistics of the net after one forward and backward, under DARTS' names."""
    net = net.to(memory_format=layout)
    with ops.eager() if eager else contextlib.nullcontext():
        logits = net(x.contiguous(memory_format=layout))
        F.cross_entropy(logits, y).backward()
    state = net.darts_state_dict()
    statistics = {name: value.clone() for name, value in state.items() if "running" in name or "tracked" in name}
    alphas = {name: alpha.grad for name, alpha in net.named_parameters() if name.startswith("alphas")}
    weights = copy.deepcopy(net)
    with torch.no_grad():
        for own, parameter in zip(weights.parameters(), net.parameters(), strict=True):
            own.copy_(torch.zeros_like(own) if parameter.grad is None else parameter.grad)
    gradients = {name: value for name, value in weights.darts_state_dict().items() if name not in statistics}
    return logits.detach(), {**alphas, **gradients}, statistics


@functools.cache
def step(method, training, dtype, layout, eager, alphas=True, device="cpu", cell=PerEdgeCell):
    net = with_cells(method, cell).to(device, dtype).train(training)
    for alpha in net.arch_parameters():
        alpha.requires_grad_(alphas)
    x, y = batch(smooth_batch(method, training))
    return one_step(net, x.to(device, dtype), y.to(device), eager, layout)


def error(a, b):
    """‖a − b‖ / ‖b‖ in float64."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm()).item() if b.any() else a.abs().max().item()


def errors(ours, theirs):
    assert ours.keys() == theirs.keys()
    return {name: error(ours[name], theirs[name]) for name in ours}


@needs_kernels
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [NCHW, NHWC])
@pytest.mark.parametrize("cell", CELLS)
def test_fused_equals_eager_in_float64(method, training, layout, cell):
    eager = step(method, training, torch.float64, NCHW, eager=True)
    fused = step(method, training, torch.float64, layout, eager=False, cell=cell)
    assert error(fused[0], eager[0]) < 1e-10
    for ours, theirs in zip(fused[1:], eager[1:], strict=True):
        assert {name: e for name, e in errors(ours, theirs).items() if not e < 1e-10} == {}


@needs_kernels
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [NCHW, NHWC])
@pytest.mark.parametrize("cell", CELLS)
def test_fused_is_as_exact_as_eager_in_float32(method, training, layout, cell):
    """Each gradient's error is at most twice eager's own, the larger of its two layouts; all gradients together too.

    Both are a few units of rounding here, and that of a tensor of 16 numbers is a draw of luck: of several hundred a
    few (at most 1 %) exceed twice a lucky one, none three times. On average the fused ones are no less exact.
    """
    exact = step(method, training, torch.float64, NCHW, eager=True)
    fused = step(method, training, torch.float32, layout, eager=False, cell=cell)
    twins = [step(method, training, torch.float32, each, eager=True) for each in (NCHW, NHWC)]
    assert error(fused[0], exact[0]) < 1e-5

    ours = errors(fused[1], exact[1])
    theirs = [errors(twin[1], exact[1]) for twin in twins]
    own = {name: max(each[name] for each in theirs) for name in ours}
    assert 0 < max(own.values()) < 1e-4
    ratios = {name: e / own[name] for name, e in ours.items() if own[name] > 0}
    assert {name: ratio for name, ratio in ratios.items() if ratio > 3} == {}
    assert sum(ratio > 2 for ratio in ratios.values()) <= 0.01 * len(ratios)
    assert statistics.geometric_mean(max(ratio, 1e-3) for ratio in ratios.values()) < 1.2

    def together(gradients):
        return torch.cat([gradients[name].double().flatten() for name in sorted(gradients)])

    whole = [error(together(one[1]), together(exact[1])) for one in (fused, *twins)]
    assert whole[0] <= 2 * max(whole[1:])


@needs_kernels
@pytest.mark.parametrize("cell", CELLS)
def test_frozen_alphas_change_no_gradient(cell):
    free = step("darts", True, torch.float64, NCHW, eager=False, cell=cell)
    frozen = step("darts", True, torch.float64, NCHW, eager=False, alphas=False, cell=cell)
    for name, gradient in frozen[1].items():
        assert gradient is None if name.startswith("alphas") else torch.equal(gradient, free[1][name])


@pytest.mark.cuda
@needs_kernels
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", [NCHW, NHWC])
@pytest.mark.parametrize("cell", CELLS)
def test_fused_equals_eager_in_float64_on_cuda(method, layout, cell):
    if not ops.status().build.get("cuda_kernels"):
        pytest.skip("built without CUDA kernels")
    eager = step(method, True, torch.float64, NCHW, eager=True)
    fused = step(method, True, torch.float64, layout, eager=False, device="cuda", cell=cell)
    assert error(fused[0].cpu(), eager[0]) < 1e-10
    for ours, theirs in zip(fused[1:], eager[1:], strict=True):
        ours = {name: value.cpu() for name, value in ours.items()}
        assert {name: e for name, e in errors(ours, theirs).items() if not e < 1e-10} == {}
