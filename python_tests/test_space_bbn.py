"""A backbone and two heads: gradients in proportion to the mixing ratio, one pass for all ratios, genotypes, errors."""

from __future__ import annotations

import json

import pytest
import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.space import (
    DARTS_V2,
    BbnGenotype,
    BbnNetwork,
    BbnSupernet,
    CellGenotype,
    Edge,
    Genotype,
    Network,
    Supernet,
    SupernetHead,
    TwoHeads,
    derive,
    genotype_from_json,
    load_genotype,
)
from lt_nas_ext.space.layout import CellPlace

HEAD = CellGenotype((Edge("sep_conv_3x3", 0, 2), Edge("skip_connect", 1, 2), Edge("max_pool_3x3", 2, 3)), (2, 3))
FOUND = BbnGenotype(DARTS_V2, HEAD, DARTS_V2.normal)


def supernet(seed: int = 0, layers: int = 2, **arguments) -> BbnSupernet:
    torch.manual_seed(seed)
    backbone = Supernet(channels=2, num_classes=None, layers=layers, in_channels=1, nodes=2, **arguments)
    return BbnSupernet.of(backbone, num_classes=3).double()


def images(seed: int = 1, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64)


def gradients(net: BbnSupernet, ratio: float) -> dict[str, torch.Tensor]:
    """Of z · v, so that ∂L/∂z = v whatever z is."""
    net.zero_grad()
    z = net.pair(images(1), images(2)).mixed(ratio)
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (z * v).sum().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.2])
def test_head_gradients_are_proportional_to_their_share(ratio):
    """Eqs. 14, 15 of the paper: ∂L/∂z fixed, the instance head's gradient is r times, the class head's 1 − r times."""
    net = supernet()
    instance, classes, mixed = gradients(net, 1.0), gradients(net, 0.0), gradients(net, ratio)
    for name, gradient in mixed.items():
        if name.startswith("instance_head"):
            torch.testing.assert_close(gradient, ratio * instance[name], rtol=1e-12, atol=1e-15)
        elif name.startswith("class_head"):
            torch.testing.assert_close(gradient, (1 - ratio) * classes[name], rtol=1e-12, atol=1e-15)
    assert "instance_head.alpha" in mixed and mixed["class_head.alpha"].any()


@pytest.mark.parametrize(("ratio", "silent", "heard"), [(0.0, "instance_head", "class_head"),
                                                         (1.0, "class_head", "instance_head")])  # fmt: skip
def test_a_head_without_a_share_has_no_gradient(ratio, silent, heard):
    found = gradients(supernet(), ratio)
    assert all(not gradient.any() for name, gradient in found.items() if name.startswith(silent))
    assert f"{silent}.alpha" in found and found[f"{heard}.alpha"].any() and found["backbone.stem.0.weight"].any()


def test_the_pair_goes_through_the_backbone_as_one_batch():
    net = supernet().train()
    pair = net.pair(images(1), images(2))
    assert net.backbone.stem[1].num_batches_tracked == 1
    twin = supernet().train()
    s0, s1 = twin.backbone.states(torch.cat([images(1), images(2)]))
    torch.testing.assert_close(pair.instance, twin.instance_head(s0[:4], s1[:4]))
    torch.testing.assert_close(pair.classes, twin.class_head(s0[4:], s1[4:]))


def test_every_ratio_from_one_pass():
    net, passes = supernet().eval(), []
    states = net.backbone.states
    net.backbone.states = lambda x: passes.append(1) or states(x)
    branches = net.branches(images())
    assert len(passes) == 1
    for ratio in (0.0, 0.3, 1.0):
        net.test_ratio = ratio
        torch.testing.assert_close(branches.mixed(ratio), net(images()))
        torch.testing.assert_close(branches.mixed(ratio), ratio * branches.instance + (1 - ratio) * branches.classes)


@pytest.mark.parametrize("layers", [1, 2, 3, 8])
def test_heads_fit_backbones_of_any_depth(layers):
    """Behind a reduction cell the older state is still twice as large."""
    assert supernet(layers=layers)(images()).shape == (4, 3)
    assert BbnNetwork(FOUND, 2, 3, layers, 1).double()(images()).shape == (4, 3)


def test_a_head_equals_the_cell_that_would_come_next():
    """The place of a head is that of one more normal cell."""
    net = Supernet(channels=4, num_classes=None, layers=8)
    longer = Supernet(channels=4, num_classes=10, layers=8)
    assert (
        net.head_place == CellPlace(64, 64, 16, False, False) and net.state_dict().keys() < longer.state_dict().keys()
    )
    assert SupernetHead(net.head_place, 10).classifier.in_features == net.feature_dim


def test_a_backbone_has_no_logits():
    for net in (Supernet(channels=2, num_classes=None, layers=1), Network(DARTS_V2, 2, None, 1)):
        assert not any("classifier" in name for name in net.state_dict())
        assert net.features(torch.ones(2, 3, 8, 8)).shape == (2, net.feature_dim)
        with pytest.raises(UserError, match="num_classes: got None, so there is no classifier"):
            net(torch.ones(2, 3, 8, 8))


def test_four_architectures():
    net = supernet()
    assert {name: tuple(alpha.shape) for name, alpha in net.alphas().items()} == dict.fromkeys(
        ("normal", "reduce", "instance_head", "class_head"), (5, 8)
    )
    assert all(torch.allclose(gate.sum(1), torch.ones(5).double()) for gate in net.gates().values())
    assert len({id(alpha) for alpha in net.arch_parameters()}) == 4


def test_genotype_reads_every_cell():
    net = supernet()
    with torch.no_grad():
        for place, alpha in enumerate(net.arch_parameters()):
            alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(place)))
    found = net.genotype()
    alphas = net.alphas()
    backbone = derive(alphas["normal"], alphas["reduce"])
    heads = derive(alphas["instance_head"], alphas["class_head"])
    assert found == BbnGenotype(backbone, heads.normal, heads.reduce) and found.rule == "top2"


def test_genotype_writes_and_reads(tmp_path):
    FOUND.save(tmp_path / "genotype.json")
    assert load_genotype(tmp_path / "genotype.json") == FOUND == genotype_from_json(FOUND.to_json())
    content = json.loads(FOUND.to_json())
    assert list(content) == ["rule", "normal", "reduce", "instance_head", "class_head"] == ["rule", *FOUND.cells]
    assert Genotype.load(tmp_path / "genotype.json") == FOUND.backbone
    DARTS_V2.save(tmp_path / "plain.json")
    assert load_genotype(tmp_path / "plain.json") == DARTS_V2
    (tmp_path / "darts.txt").write_text(str(DARTS_V2))
    assert load_genotype(tmp_path / "darts.txt") == Genotype.from_darts(str(DARTS_V2))
    assert "instance_head=[('sep_conv_3x3', 0, 2)" in str(FOUND)


def test_bad_genotypes(tmp_path):
    content = json.loads(FOUND.to_json())
    del content["class_head"]
    with pytest.raises(UserError, match="class_head: got None; wanted an object with 'edges'"):
        genotype_from_json(json.dumps(content))
    (tmp_path / "half.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"half\.json: class_head: got None"):
        load_genotype(tmp_path / "half.json")
    with pytest.raises(UserError, match=r"backbone: got CellGenotype; wanted a space\.Genotype"):
        BbnGenotype(HEAD, HEAD, HEAD)
    with pytest.raises(UserError, match=r"class_head: got Genotype; wanted a space\.CellGenotype"):
        BbnGenotype(DARTS_V2, HEAD, DARTS_V2)
    with pytest.raises(UserError, match=r"genotype: got Genotype; wanted a space\.BbnGenotype"):
        BbnNetwork(DARTS_V2)


def wrong_head(**changes) -> SupernetHead:
    place = supernet().backbone.head_place
    fields = {"num_classes": 3, "nodes": 2, "gate": "softmax"}
    fields |= {name: changes.pop(name) for name in list(changes) if name in fields}
    return SupernetHead(place._replace(**changes), **fields)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda: wrong_head(channels_prev=5), "channels_prev is 5, and the backbone's last two cells want 16"),
        (lambda: wrong_head(channels_prev_prev=3), "channels_prev_prev is 3, and the backbone's last two cells want"),
        (lambda: wrong_head(reduction_prev=False), "reduction_prev is False, and the backbone's last two cells want"),
        (lambda: wrong_head(gate="sigmoid"), "gate is 'sigmoid', and the backbone's 'softmax'; wanted the same"),
        (lambda: torch.nn.Linear(2, 3), "got Linear; wanted a head of one cell with a classifier"),
    ],
)
def test_heads_that_do_not_fit_the_backbone(head, message):
    net = supernet()
    with pytest.raises(UserError, match=f"instance_head: {message}"):
        BbnSupernet(net.backbone, head(), net.class_head)
    with pytest.raises(UserError, match=f"class_head: {message}"):
        BbnSupernet(net.backbone, net.instance_head, head())


def test_other_misfits():
    net = supernet()
    with pytest.raises(UserError, match="class_head: has 4 classes, and instance_head 3; wanted as many"):
        BbnSupernet(net.backbone, net.instance_head, wrong_head(num_classes=4))
    with pytest.raises(UserError, match="backbone: Linear has no 'states'; wanted a Supernet or a Network"):
        TwoHeads(torch.nn.Linear(2, 2), net.instance_head, net.class_head)
    with pytest.raises(UserError, match="second: got 3 images beside 4; wanted as many"):
        net.pair(images(), images(count=3))
    for ratio in (1.1, -0.1, float("nan"), "0", True):
        with pytest.raises(UserError, match=r"test_ratio: got .*; wanted a mixing ratio"):
            net.test_ratio = ratio


def test_the_derived_network():
    torch.manual_seed(0)
    net = BbnNetwork(FOUND, channels=2, num_classes=3, layers=3, in_channels=1, drop_path=0.3)
    assert (
        net.genotype == FOUND and net.test_ratio == 0.5 and net.features(images().float()).shape == (4, net.feature_dim)
    )
    assert (net.drop_path, net.backbone.drop_path, net.class_head.drop_path) == (0.3, 0.3, 0.3)
    net.drop_path_on = "nodes"
    assert {part.drop_path_on for part in (net, net.backbone, net.instance_head, net.class_head)} == {"nodes"}
    net.eval()
    x = images().float()
    torch.testing.assert_close(net(x), net.branches(x).mixed(0.5))
    net.drop_path = 0.0
    net.train()
    pair = net.pair(x, x)
    assert pair.mixed(0.25).shape == (4, 3)
    plain = Network(FOUND.backbone, channels=2, num_classes=3, layers=3, in_channels=1)
    shared = {name.removeprefix("backbone.") for name in net.state_dict() if name.startswith("backbone.")}
    assert shared == {name for name in plain.state_dict() if not name.startswith("classifier")}
