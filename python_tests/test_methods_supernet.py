"""DARTS, FairDARTS, SSF-NAS: their losses, groups and gates, as numbers."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import tiny_settings

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import (
    Epoch,
    Labelled,
    Problem,
    TwoViews,
    UnreachableGateWarning,
    method_class,
    preset,
    zero_one_loss,
)
from lt_nas_ext.methods.settings import overridden

PROBLEM = Problem(num_classes=3, image_shape=(1, 8, 8), class_counts=(24, 14, 10))
AT = Epoch(0, 1)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


ZERO_ONE = [  # sigma(alpha) of two matrices, kind, loss by hand
    ([[0.5, 0.5]], "l1", 0.0),
    ([[0.5, 0.5]], "l2", 0.0),
    ([[0.9, 0.3]], "l1", -(0.4 + 0.2) / 2),
    ([[0.9, 0.3]], "l2", -(0.16 + 0.04) / 2),
    ([[0.75, 0.25], [0.5, 0.5]], "l1", -0.125),
    ([[0.75, 0.25], [0.5, 0.5]], "l2", -0.03125),
    ([[1 - 1e-12, 1e-12]], "l1", -0.5),
    ([[1 - 1e-12, 1e-12]], "l2", -0.25),
]


@pytest.mark.parametrize(("gates", "kind", "value"), ZERO_ONE)
def test_zero_one_literals(gates, kind, value):
    alpha = torch.tensor([[logit(p) for p in row] for row in gates], dtype=torch.float64)
    assert zero_one_loss([alpha], kind).item() == pytest.approx(value, abs=1e-9)
    # The mean is over all gates of both cell types, not per matrix or edge.
    assert zero_one_loss([alpha, torch.zeros(3, 2, dtype=torch.float64)], kind).item() == pytest.approx(
        value * alpha.numel() / (alpha.numel() + 6), abs=1e-9
    )


def test_zero_one_gradients():
    alpha = torch.zeros(14, 7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(zero_one_loss([alpha], "l2"), alpha)
    assert torch.equal(gradient, torch.zeros_like(gradient))  # exactly: the task must break the tie
    alpha = torch.randn(14, 7, dtype=torch.float64, requires_grad=True)
    for kind in ("l1", "l2"):
        assert torch.autograd.gradcheck(lambda a, kind=kind: zero_one_loss([a, 2 * a], kind), alpha)


def test_zero_one_leaves_columns_out():
    alpha = torch.randn(5, 8, requires_grad=True)
    skipped = zero_one_loss([alpha], "l2", skip=(0,))
    assert torch.equal(skipped, zero_one_loss([alpha[:, 1:]], "l2"))
    skipped.backward()
    assert not alpha.grad[:, 0].any() and alpha.grad[:, 1:].all()


def test_zero_one_unknown_kind():
    with pytest.raises(UserError, match="zero_one: got 'huber'"):
        zero_one_loss([torch.zeros(1, 1)], "huber")


def labelled() -> Labelled:
    generator = torch.Generator().manual_seed(1)
    return Labelled(torch.randn(6, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2]))


def views() -> TwoViews:
    generator = torch.Generator().manual_seed(2)
    return TwoViews(*torch.randn(2, 6, 1, 8, 8, generator=generator))


def built(name: str, **overrides):
    torch.manual_seed(0)
    settings = tiny_settings(name, **overrides)
    method = method_class(settings.method)(settings, PROBLEM)
    return method, method.build()


def test_darts_loss_is_cross_entropy_in_both_steps():
    method, networks = built("darts")
    batch = labelled()
    loss = method.weight_loss(networks, batch, AT)
    assert list(loss.parts) == ["cross_entropy"] and loss.total is loss.task
    expected = torch.nn.functional.cross_entropy(loss.logits, batch.labels)
    assert loss.total.item() == pytest.approx(expected.item())
    assert list(method.alpha_loss(networks, batch, AT).parts) == ["cross_entropy"]
    assert not method.label_free and not loss.logits.requires_grad


def test_fair_darts_adds_the_zero_one_loss_for_alpha_only():
    method, networks = built("authors-fairdarts", lambda_01=10.0)
    assert list(method.weight_loss(networks, labelled(), AT).parts) == ["cross_entropy"]
    with torch.no_grad():
        networks.alphas_normal.fill_(logit(0.9))
    loss = method.alpha_loss(networks, labelled(), AT)
    assert list(loss.parts) == ["cross_entropy", "zero_one"]
    # half of the gates (the normal cells') are .4 away from one half
    assert loss.terms["zero_one"].item() == pytest.approx(-10 * 0.16 / 2, rel=1e-5)
    assert loss.total.item() == pytest.approx(sum(term.item() for term in loss.terms.values()), rel=1e-6)


def test_ssf_nas_is_barlow_twins_without_labels():
    method, networks = built("paper-ssf", bt_scale="dim")
    assert method.label_free
    batch = views()
    networks.train()
    loss = method.weight_loss(networks, batch, AT)
    assert list(loss.parts) == ["barlow_twins"] and loss.logits is None and not loss.features.requires_grad
    assert list(method.alpha_loss(networks, batch, AT).parts) == ["barlow_twins", "zero_one"]


def test_ssf_nas_matches_the_formula():
    """Eqs. 8, 9 over the projected embeddings of two separate passes, divided by the width where asked."""
    method, networks = built("paper-ssf", bt_scale="dim", lambda_bt=0.01)
    networks = networks.double().train()
    a, b = (view.double() for view in (views().first, views().second))
    loss = method.weight_loss(networks, TwoViews(a, b), AT).total
    za, zb = (networks.criterion.projector(networks.supernet.features(view)) for view in (a, b))
    za, zb = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (za, zb))
    c = za.T @ zb / len(za)
    diagonal = c.diagonal()
    expected = (1 - diagonal).square().sum() + 0.01 * (c.square().sum() - diagonal.square().sum())
    assert loss.item() == pytest.approx(expected.item() / 8, rel=1e-9)


def test_the_two_views_have_batch_statistics_of_their_own():
    method, networks = built("paper-ssf")
    before = networks.supernet.stem[1].num_batches_tracked.item()
    method.weight_loss(networks.train(), views(), AT)
    assert networks.supernet.stem[1].num_batches_tracked.item() == before + 2


@pytest.mark.parametrize("name", ["darts", "authors-fairdarts", "paper-ssf"])
def test_groups_hold_every_parameter_once(name):
    method, networks = built(name)
    groups = method.weight_groups(networks) + method.alpha_groups(networks)
    held = [id(parameter) for group in groups for parameter in group.parameters]
    assert len(held) == len(set(held)) and set(held) == {id(parameter) for parameter in networks.parameters()}
    assert all(group.lr_factor(AT) == 1.0 for group in groups)


def test_none_is_selectable_and_does_not_count():
    method, networks = built("paper-fairdarts")
    assert method.primitives[0] == "none" and method.undecayed == (0,)
    assert method.alpha_groups(networks)[0].undecayed == (0,)
    rows, columns = networks.alphas_normal.shape
    assert method.deciding_gates(networks).numel() == 2 * rows * (columns - 1)
    assert method.gates(networks)["normal"].shape == (rows, columns)
    loss = method.alpha_loss(networks, labelled(), AT)
    loss.total.backward()
    assert not networks.alphas_normal.grad[:, 0].any()  # no task gradient under a sigmoid, none from L01
    assert built("authors-fairdarts")[0].undecayed == ()


def reach(name: str, alpha_steps: int, **overrides) -> float:
    settings = overridden(preset(name), overrides)
    return method_class(settings.method)(settings, PROBLEM).reachable_gate(alpha_steps * settings.alpha_lr)


def test_reachable_gate_table():
    """40 epochs at 3e-4, batch 64, half the images: CIFAR-10 at mu .1 and .01, digits at mu .1."""
    steps = {images: 40 * (images // 2 // 64) for images in (20431, 12406, 527)}
    assert [round(reach("paper-ssf", steps[n]), 2) for n in (20431, 12406, 527)] == [0.87, 0.76, 0.51]


def test_reachable_gate_of_a_softmax():
    """One candidate up by t, seven down by t."""
    assert reach("darts", 0) == pytest.approx(1 / 8)
    t = 1000 * 3e-4
    assert reach("darts", 1000) == pytest.approx(math.exp(t) / (math.exp(t) + 7 * math.exp(-t)))


WARNED = [  # preset, overrides, alpha steps, warns
    ("paper-ssf", {"rule": "threshold_sparse"}, 40 * 159, False),
    ("paper-ssf", {"rule": "threshold_sparse"}, 40 * 96, True),
    ("paper-ssf", {}, 40 * 4, True),
    ("paper-ssf", {}, 40 * 96, False),
    ("authors-fairdarts", {}, 577, True),
    ("authors-fairdarts", {}, 579, False),
    ("darts", {}, 50 * 390, False),
    ("darts", {}, 50 * 4, True),
    ("darts", {"rule": "threshold_sparse"}, 50 * 100, True),
    ("darts", {"rule": "threshold_sparse"}, 50 * 390, False),
]


@pytest.mark.parametrize(("name", "overrides", "steps", "warns"), WARNED)
def test_unreachable_gates_are_told_before(name, overrides, steps, warns):
    settings = overridden(preset(name), overrides)
    method = method_class(settings.method)(settings, PROBLEM)
    said = method.warnings(steps * settings.alpha_lr, steps)
    assert [type(warning) for warning in said] == ([UnreachableGateWarning] if warns else [])


def test_the_advice_of_the_warning_is_enough():
    settings = preset("paper-ssf")
    method = method_class("ssf-nas")(settings, PROBLEM)
    text = str(method.warnings(160 * 3e-4, 160)[0])
    assert "160 steps at 0.0003 bring a gate to 0.51 at most" in text
    lr = float(text.split("Set alpha_lr to ")[1].split(" ")[0])
    epochs = int(text.split("epochs=")[1].split(",")[0])
    assert not method.warnings(160 * lr, 160)
    assert not method.warnings(epochs * 4 * 3e-4, epochs * 4)
