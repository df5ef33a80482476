"""The options that other systems made standard, each against its paper's formula and turned both ways."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings

from lt_nas_ext.engine import run_search
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Epoch, Labelled, Problem, method_class
from lt_nas_ext.methods.beta_decay import beta_decay
from lt_nas_ext.space import AuxiliarySkipCell, FusedCell, PartialSupernet, Supernet, derive
from lt_nas_ext.space.partial import PartialCell, edge_shares

PROBLEM = Problem(3, (1, 8, 8), (24, 14, 10))
SKIPS = "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)], normal_concat=[2], reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2])"  # noqa: E501


def made(name: str = "darts", **overrides):
    settings = tiny_settings(name, **overrides)
    return method_class(settings.method)(settings, PROBLEM)


def search(name: str = "darts", out=None, **overrides):
    return run_search(tiny_data(), tiny_settings(name, **overrides), out, out is not None, Silent())


def labelled() -> Labelled:
    return Labelled(torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3)


# ---- beta-DARTS


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.5), (1, 0.5), (30, 0.5), (4, 2.0)])
def test_beta_decay_by_hand(epoch, rate):
    alphas = [torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[-1.0, 3.0]])]
    by_hand = [math.log(2), math.log(math.e + math.e**2), math.log(math.exp(-1) + math.exp(3))]
    assert beta_decay(alphas, rate, epoch).item() == pytest.approx(rate * epoch * sum(by_hand) / 3, rel=1e-6)


def test_beta_decay_is_a_part_of_alphas_loss_only():
    method = made(beta_decay=0.5)
    networks = method.build()
    loss = method.alpha_loss(networks, labelled(), Epoch(2, 4))
    assert list(loss.parts) == ["cross_entropy", "beta_decay"] and loss.logits is not None
    assert loss.terms["beta_decay"].item() == pytest.approx(math.log(8), rel=1e-3)  # ½ · 2 · log 8, α near 0
    assert list(method.weight_loss(networks, labelled(), Epoch(2, 4)).parts) == ["cross_entropy"]
    assert list(made().alpha_loss(networks, labelled(), Epoch(2, 4)).parts) == ["cross_entropy"]


@pytest.mark.parametrize("name", ["authors-fairdarts", "paper-ssf"])
def test_beta_decay_is_for_softmax_gates(name):
    with pytest.raises(UserError, match=r"beta_decay: got 0.5 for .*, whose gates are not a softmax; wanted 0"):
        made(name, beta_decay=0.5)


# ---- DARTS−


def test_auxiliary_skips_fade_linearly():
    method = made(auxiliary_skip=True)
    networks = method.build()
    assert {type(cell) for cell in networks.cells} == {AuxiliarySkipCell}
    for index in range(4):
        method.begin(networks, Epoch(index, 4))
        assert {cell.strength for cell in networks.cells} == {1 - index / 4}
    assert {type(cell) for cell in made().build().cells} == {FusedCell}


@pytest.mark.parametrize("reduction", [False, True])
def test_a_node_gains_the_skips_of_all_its_edges(reduction):
    torch.manual_seed(0)
    arguments = {"reduction": reduction, "reduction_prev": False, "gate": "softmax", "nodes": 2}
    cell = AuxiliarySkipCell(4, 4, 4, **arguments).double().eval()
    plain = FusedCell(4, 4, 4, **arguments).double().eval()
    plain.load_state_dict({k: v for k, v in cell.state_dict().items() if not k.startswith("auxiliary.")})
    s0, s1 = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    alpha = torch.randn(5, 8, dtype=torch.float64)
    cell.strength = 0.25
    states = [cell.preprocess0(s0), cell.preprocess1(s1)]
    skips = [module(state) for module, state in zip(cell.auxiliary, states, strict=False)] if reduction else states
    first = cell(s0, s1, alpha)[:, :4]
    torch.testing.assert_close(first, plain(s0, s1, alpha)[:, :4] + 0.25 * (skips[0] + skips[1]))
    assert len(cell.auxiliary) == (4 if reduction else 0)
    if not reduction:  # the second node sees the first one, the skips in it too
        alpha[2:] = -1e9 * torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1])  # none wins: what is left are the skips
        node = cell(s0, s1, alpha)
        torch.testing.assert_close(node[:, 4:], 0.25 * (states[0] + states[1] + node[:, :4]))


# ---- PC-DARTS


def test_partial_channels_by_hand():
    """One node whose edges only skip: a quarter is halved by its gate, the rest passes, channels are shuffled."""
    cell = PartialCell(8, 8, 8, share=4, reduction=False, reduction_prev=False, gate="softmax", nodes=1,
                       primitives=("none", "skip_connect"))  # fmt: skip
    s0, s1 = torch.randn(2, 3, 8, 4, 4)
    beta = torch.tensor([0.0, math.log(3.0)])
    got = cell.eval()(s0, s1, torch.zeros(2, 2), beta)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # 4 groups of 2 channels, read across
    wanted = 0
    for share, state in ((0.25, cell.preprocess0(s0)), (0.75, cell.preprocess1(s1))):
        edge = torch.cat([state[:, :2] / 2, state[:, 2:]], 1)
        wanted = wanted + share * edge[:, order]
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("size", [(8, 8), (5, 7)])
@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_partial_supernet_trains_on_any_image(size, gate):
    net = PartialSupernet(share=2, channels=4, num_classes=3, layers=3, in_channels=1, nodes=2, gate=gate)
    net(torch.randn(2, 1, *size)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.arch_parameters())
    whole = Supernet(channels=4, num_classes=3, layers=3, in_channels=1, nodes=2)
    assert sum(w.numel() for w in net.weight_parameters()) < sum(w.numel() for w in whole.weight_parameters())
    assert len(net.weight_parameters()) + 4 == len(list(net.parameters()))


def test_gates_of_partial_channels_count_the_edges_share():
    net = PartialSupernet(share=2, channels=4, layers=1, nodes=2)
    with torch.no_grad():
        for alpha in net.arch_parameters()[:2]:
            alpha.copy_(torch.randn(alpha.shape))
        net.betas_normal.copy_(torch.tensor([0.0, 0.0, 9.0, -9.0, 8.0]))
    gates = net.gates()["normal"]
    torch.testing.assert_close(gates, torch.softmax(net.alphas_normal, 1) * edge_shares(net.betas_normal)[:, None])
    assert [edge.source for edge in net.genotype().normal.edges if edge.target == 3] == [0, 2]
    assert net.genotype() == derive(gates, net.gates()["reduce"], gate="identity")


def test_partial_channels_in_a_search():
    found = search(partial_channels=2, alpha_frozen=0.34, epochs=3, stop_at_skips=0)
    rows = found.history
    assert [row["lr_factors"]["alpha"] for row in rows] == [0.0, 1.0, 1.0] == [r["lr_factors"]["edges"] for r in rows]
    assert max(map(abs, rows[0]["alpha"]["normal_edges"])) < 0.01 < max(map(abs, rows[-1]["alpha"]["normal_edges"]))
    assert found.health["gates"] == 2 * 2 * 8 and found.health["highest_gate"] > 0.2
    assert "normal_edges" not in search(epochs=1, alpha_lr=1.0).history[0]["alpha"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"partial_channels": 4}, "partial_channels: got 4 for 2 channels of a node; wanted a divisor of them"),
        ({"partial_channels": 2, "rule": "per_edge"}, "rule: got 'per_edge' with partial_channels=2; wanted 'top2'"),
        ({"partial_channels": 2, "auxiliary_skip": True}, "auxiliary_skip: got True with partial_channels above 1"),
    ],
)
def test_what_does_not_go_together(overrides, message):
    with pytest.raises(UserError, match=message):
        made(**overrides).build()


# ---- alpha frozen at first


@pytest.mark.parametrize(
    ("share", "epochs", "frozen"), [(0.3, 50, 15), (0.25, 40, 10), (0.3, 10, 3), (0.25, 7, 1), (0.9, 1, 0), (0.0, 5, 0)]
)
def test_epochs_with_frozen_alpha(share, epochs, frozen):
    (group,) = made(alpha_frozen=share).alpha_groups(made().build())
    assert [group.lr_factor(Epoch(e, epochs)) for e in range(epochs)] == [0.0] * frozen + [1.0] * (epochs - frozen)


# ---- DARTS+


def test_the_search_stops_at_skip_connections(tmp_path, monkeypatch):
    """With nothing but skips to choose from, after the first epoch in which α moves; and it stays stopped."""
    skips = ("skip_connect",)
    monkeypatch.setattr("lt_nas_ext.methods.supernet_method.SupernetMethod.primitives", skips)
    with pytest.warns(UserWarning, match="lie within"):
        found = search(out=tmp_path, stop_at_skips=2, alpha_frozen=0.5, epochs=4)
        assert search(out=tmp_path, stop_at_skips=2, alpha_frozen=0.5, epochs=4).history == found.history
    reason = "2 skip connections in the normal cell (stop_at_skips=2)"
    assert [row.get("stopped") for row in found.history] == [None, None, reason]
    assert found.metrics["stopped"] == reason and found.metrics["epochs"] == 3
    assert found.health["alpha_steps"] == 3 * 2 and found.health["alpha_travel"] == pytest.approx(0.3 * 2)
    assert str(found.genotype) == SKIPS
    with pytest.warns(UserWarning, match="lie within"):
        going = search(stop_at_skips=3, epochs=2)
    assert len(going.history) == 2 and "stopped" not in going.metrics


def test_options_off_are_the_plain_search():
    off = {"beta_decay": 0.0, "auxiliary_skip": False, "partial_channels": 1, "alpha_frozen": 0.0, "stop_at_skips": 0}
    plain = search(epochs=1, alpha_lr=1.0).history[0]["alpha"]
    assert search(epochs=1, alpha_lr=1.0, **off).history[0]["alpha"] == plain
    for on in ({"beta_decay": 5.0, "epochs": 2}, {"auxiliary_skip": True}, {"partial_channels": 2}):
        assert search(**{"epochs": 1, "alpha_lr": 1.0, **on}).history[-1]["alpha"] != plain
