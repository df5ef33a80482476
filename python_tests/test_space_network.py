"""The derived network: published sizes, vanished nodes, drop-path, the auxiliary classifier."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext import nn
from lt_nas_ext.errors import UserError
from lt_nas_ext.space import DARTS_V2, CellGenotype, Edge, Genotype, Network, param_count, random_genotype
from lt_nas_ext.space.layout import CellPlace
from lt_nas_ext.space.network import AuxiliaryHead, DerivedCell

# Genotypes that FairDARTS' authors published, with millions of parameters as they count them: at 36 channels and 20
# layers, some with the auxiliary classifier and some without. Node 3 of a, c and e vanished.
PUBLISHED = {
    "a": (
        2.83,
        True,
        "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), "
        "('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1), "
        "('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), "
        "('skip_connect', 5, 0), ('skip_connect', 5, 1)], reduce_concat=range(2, 6))",
    ),
    "b": (
        3.88,
        True,
        "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('sep_conv_3x3', 3, 1), "
        "('dil_conv_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6), "
        "reduce=[('skip_connect', 2, 0), ('dil_conv_3x3', 2, 1), ('skip_connect', 3, 0), ('dil_conv_3x3', 3, 1), "
        "('max_pool_3x3', 4, 0), ('sep_conv_3x3', 4, 1), ('skip_connect', 5, 2), ('max_pool_3x3', 5, 0)], "
        "reduce_concat=range(2, 6))",
    ),
    "c": (
        2.59,
        False,
        "Genotype(normal=[('max_pool_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('dil_conv_3x3', 4, 0), "
        "('dil_conv_5x5', 4, 2), ('skip_connect', 5, 3), ('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), "
        "reduce=[('dil_conv_3x3', 2, 1), ('dil_conv_5x5', 2, 0), ('dil_conv_3x3', 3, 0), ('sep_conv_3x3', 3, 1), "
        "('sep_conv_5x5', 4, 0), ('sep_conv_5x5', 4, 3), ('sep_conv_5x5', 5, 0), ('skip_connect', 5, 1)], "
        "reduce_concat=range(2, 6))",
    ),
    "e": (
        3.12,
        True,
        "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('dil_conv_3x3', 4, 1), "
        "('dil_conv_3x3', 4, 2), ('dil_conv_3x3', 5, 0), ('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6), "
        "reduce=[('max_pool_3x3', 2, 1), ('max_pool_3x3', 2, 0), ('max_pool_3x3', 3, 1), ('max_pool_3x3', 3, 0), "
        "('sep_conv_5x5', 4, 1), ('max_pool_3x3', 4, 0), ('avg_pool_3x3', 5, 0), ('dil_conv_5x5', 5, 1)], "
        "reduce_concat=range(2, 6))",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_of_fair_darts_have_their_published_size(name):
    millions, auxiliary, text = PUBLISHED[name]
    net = Network(Genotype.from_darts(text), channels=36, num_classes=10, layers=20, auxiliary=auxiliary)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_network_of_darts_has_its_published_size():
    net = Network(DARTS_V2, channels=36, num_classes=10, layers=20, auxiliary=True)
    assert param_count(net) == 3_349_342
    # 1x1 convolution to 128 and its norm, 2x2 to 768 and its norm, linear
    assert sum(p.numel() for p in net.parameters()) - param_count(net) == 576 * 128 + 256 + 4 * 128 * 768 + 1536 + 7690


def test_a_cell_is_its_definition():
    edges = [("sep_conv_3x3", 0, 2), ("skip_connect", 0, 2), ("max_pool_3x3", 2, 4), ("skip_connect", 1, 4)]
    genotype = CellGenotype(tuple(Edge(*edge) for edge in edges), (4,))
    for reduction in (False, True):
        cell = DerivedCell(genotype, CellPlace(3, 5, 4, reduction, reduction_prev=True)).double().eval()
        s0, s1 = torch.randn(2, 3, 9, 9).double(), torch.randn(2, 5, 5, 5).double()
        a, b = cell.preprocess0(s0), cell.preprocess1(s1)
        sep, skip, pool, straight = cell.operations
        two = sep(a) + skip(a)
        torch.testing.assert_close(cell(s0, s1), pool(two) + straight(b), rtol=1e-12, atol=1e-12)
        assert isinstance(pool, torch.nn.MaxPool2d) and pool.stride == 1
        assert isinstance(skip, nn.FactorizedReduce) is reduction


def test_batch_norms_have_weights_and_pools_have_no_batch_norm():
    net = Network(DARTS_V2, 4, layers=3)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(norm.affine for norm in norms)
    kinds = [type(operation).__name__ for operation in net.cells[1].operations]
    assert kinds == [
        "MaxPool2d",
        "MaxPool2d",
        "Identity",
        "MaxPool2d",
        "MaxPool2d",
        "Identity",
        "Identity",
        "MaxPool2d",
    ]


@pytest.mark.parametrize("size", [(8, 8), (7, 11), (1, 2)])
@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_small_grey_and_odd_images(size, layers):
    net = Network(random_genotype(layers), 4, 6, layers, in_channels=1, auxiliary=True)
    x = torch.randn(3, 1, *size).contiguous(memory_format=torch.channels_last)
    assert net.features(x).shape == (3, net.feature_dim)
    assert [logits.shape for logits in net.forward_auxiliary(x)] == [(3, 6), (3, 6)]


def test_narrow_cells_may_differ_in_width():
    one = CellGenotype((Edge("skip_connect", 0, 2),), (2,))
    three = CellGenotype(tuple(Edge("max_pool_3x3", 1, node) for node in (2, 3, 5)), (2, 3, 5))
    for normal, reduce in ((one, three), (three, one)):
        net = Network(Genotype(normal, reduce), 4, layers=4, auxiliary=True)
        assert net.feature_dim == 16 * len(normal.concat)
        assert net.forward_auxiliary(torch.randn(2, 3, 8, 8))[1].shape == (2, 10)


def test_the_auxiliary_classifier_reads_the_second_reduction_cell():
    net = Network(DARTS_V2, 4, layers=6, auxiliary=True).eval()
    outputs = {}
    for place, cell in enumerate(net.cells):
        cell.register_forward_hook(lambda module, inputs, output, place=place: outputs.update({place: output}))
    x = torch.randn(2, 3, 16, 16)
    logits, auxiliary = net.forward_auxiliary(x)
    torch.testing.assert_close(logits, net(x))
    torch.testing.assert_close(auxiliary, net.auxiliary_head(outputs[4]))


def test_the_auxiliary_head_at_8x8_is_the_paper_s():
    head = AuxiliaryHead(6, 10).eval()
    x = torch.randn(2, 6, 8, 8)
    pooled = F.avg_pool2d(x.relu(), 5, stride=3)
    y = F.relu(head.reduce(head.project(pooled)))
    torch.testing.assert_close(head(x), head.classifier(y.flatten(1)))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (3, 5), (4, 4), (7, 7), (8, 9), (16, 16)])
def test_the_auxiliary_head_adapts_to_any_size(size):
    assert AuxiliaryHead(6, 10)(torch.randn(2, 6, *size)).shape == (2, 10)


@pytest.mark.parametrize("side", range(1, 12))
def test_the_auxiliary_head_sees_both_borders(side):
    x = torch.ones(1, 2, side, side, requires_grad=True)
    AuxiliaryHead(2, 3).eval()(x).square().sum().backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert seen[0, 0] and seen[-1, -1] and seen[0, -1] and seen[-1, 0]


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    genotype = CellGenotype((Edge("max_pool_3x3", 0, 2),), (2,))
    cell = DerivedCell(genotype, CellPlace(4, 4, 4, reduction=False, reduction_prev=False)).eval()
    s0 = torch.randn(4000, 4, 2, 2)
    torch.manual_seed(0)
    kept, full = cell(s0, s0, drop_path=0.25), cell(s0, s0)
    dropped = (kept == 0).flatten(1).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(kept[~dropped], full[~dropped] / 0.75)


@pytest.mark.parametrize("reduction, exempt", [(False, True), (True, False)])
def test_only_the_identity_is_exempt_from_drop_path(reduction, exempt):
    genotype = CellGenotype((Edge("skip_connect", 0, 2),), (2,))
    cell = DerivedCell(genotype, CellPlace(4, 4, 4, reduction=reduction, reduction_prev=False)).eval()
    s0 = torch.randn(64, 4, 4, 4)
    torch.manual_seed(0)
    assert torch.equal(cell(s0, s0, drop_path=0.5), cell(s0, s0)) is exempt


def test_each_operation_drops_its_own_images():
    edges = (Edge("max_pool_3x3", 0, 2), Edge("max_pool_3x3", 1, 3))
    cell = DerivedCell(CellGenotype(edges, (2, 3)), CellPlace(4, 4, 4, reduction=False, reduction_prev=False)).eval()
    torch.manual_seed(0)
    y = cell(torch.randn(200, 4, 2, 2), torch.randn(200, 4, 2, 2), drop_path=0.5)
    first, second = (y[:, part].flatten(1).abs().sum(1) == 0 for part in (slice(0, 4), slice(4, 8)))
    assert 0.35 < (first == second).float().mean() < 0.65


def test_drop_path_on_nodes_drops_whole_sums():
    edges = (Edge("skip_connect", 0, 2), Edge("max_pool_3x3", 1, 2), Edge("avg_pool_3x3", 0, 3))
    cell = DerivedCell(CellGenotype(edges, (2, 3)), CellPlace(4, 4, 4, reduction=False, reduction_prev=False)).eval()
    s0, s1 = torch.randn(2, 4000, 4, 2, 2)
    torch.manual_seed(0)
    kept, full = cell(s0, s1, 0.25, "nodes"), cell(s0, s1)
    lost = []
    for part in (slice(0, 4), slice(4, 8)):
        dropped = (kept[:, part] == 0).flatten(1).all(1)  # the identity's share goes too
        assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
        torch.testing.assert_close(kept[~dropped, part], full[~dropped, part] / 0.75)
        lost.append(dropped)
    assert 0.5 < (lost[0] == lost[1]).float().mean() < 0.75  # each node draws its own: 0.625 agree by chance


def test_a_dropped_node_is_missing_in_the_nodes_after_it():
    edges = (Edge("max_pool_3x3", 0, 2), Edge("skip_connect", 2, 3))
    cell = DerivedCell(CellGenotype(edges, (2, 3)), CellPlace(4, 4, 4, reduction=False, reduction_prev=False)).eval()
    torch.manual_seed(0)
    first, second = cell(torch.randn(400, 4, 2, 2), torch.randn(400, 4, 2, 2), 0.5, "nodes").split(4, dim=1)
    assert (second[(first == 0).flatten(1).all(1)] == 0).all()


def test_a_network_passes_on_what_is_dropped():
    net = Network(random_genotype(0), 4, layers=2, drop_path=0.5)
    x, seen = torch.randn(4, 3, 8, 8), []
    for net.drop_path_on in ("operations", "nodes"):
        torch.manual_seed(0)
        seen.append(net(x))
    assert not torch.equal(*seen)


def test_drop_path_is_for_training_and_may_be_set_at_any_time():
    net = Network(random_genotype(0), 4, layers=2, drop_path=0.5)
    x = torch.randn(4, 3, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.drop_path = 0.0
    assert torch.equal(net(x), net(x))
    net.drop_path = 0.9
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"genotype": "genotype.json"},
            r"genotype: got str; wanted a space.Genotype, for a file Genotype.load\(path\)",
        ),
        ({"channels": 0}, "channels: got 0"),
        ({"layers": 0}, "layers: got 0"),
        ({"drop_path": 1.0}, "drop_path: got 1.0; wanted a probability, at least 0 and below 1"),
        ({"drop_path": -0.1}, "drop_path: got -0.1"),
        ({"drop_path_on": "edges"}, "drop_path_on: got 'edges'; wanted 'operations' or 'nodes'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Network(**({"genotype": DARTS_V2, "channels": 4, "layers": 2} | arguments))


def test_bad_uses_are_named():
    net = Network(DARTS_V2, 4, layers=2)
    with pytest.raises(
        UserError, match="auxiliary: the network has no auxiliary classifier; make it with auxiliary=True"
    ):
        net.forward_auxiliary(torch.ones(2, 3, 8, 8))
    with pytest.raises(UserError, match="drop_path: got 2"):
        net.drop_path = 2
    with pytest.raises(UserError, match=r"x: got torch.float32 of shape \(2, 1, 8, 8\); wanted .* \(N, 3, H, W\)"):
        net(torch.ones(2, 1, 8, 8))
