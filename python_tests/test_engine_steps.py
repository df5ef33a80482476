"""The two steps: who moves, who does not, and with which learning rate."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from torch import nn

from lt_nas_ext.engine import run_search
from lt_nas_ext.engine.gradients import gradient_norms, gradients_for
from lt_nas_ext.engine.optimisers import AlphaOptimiser, GroupedOptimiser, alpha_travel, cosine
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Epoch, Labelled, Loss, ParameterGroup, Problem, TwoViews, method_class

AT = Epoch(0, 2)


def made(name: str, **overrides) -> Steps:
    settings = tiny_settings(name, **overrides)
    method = method_class(settings.method)(settings, Problem(3, (1, 8, 8), (24, 14, 10)))
    torch.manual_seed(0)
    steps = Steps(method, method.build().train())
    steps.begin(AT)
    return steps


def batch(method):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 8, 1, 8, 8, generator=generator)
    return TwoViews(*images) if method.label_free else Labelled(images[0], torch.arange(8) % 3)


def snapshot(networks):
    return {name: parameter.detach().clone() for name, parameter in networks.named_parameters()}


@pytest.mark.parametrize("name", ["darts", "authors-fairdarts", "paper-fairdarts", "paper-ssf"])
def test_each_step_moves_its_own_parameters_only(name):
    steps = made(name)
    method, networks = steps.method, steps.networks
    is_alpha = {f: "alphas_" in f for f in snapshot(networks)}

    before = snapshot(networks)
    steps.arch(batch(method), batch(method))
    after = snapshot(networks)
    assert all(torch.equal(before[f], after[f]) for f in before if not is_alpha[f])
    assert all(not torch.equal(before[f], after[f]) for f in before if is_alpha[f])

    steps.weight(batch(method))
    last = snapshot(networks)
    assert all(torch.equal(after[f], last[f]) for f in last if is_alpha[f])
    moved = [f for f in last if not is_alpha[f] and not torch.equal(after[f], last[f])]
    assert len(moved) > 10
    assert all(parameter.requires_grad and parameter.grad is None for parameter in networks.parameters())


def test_the_steps_ask_for_no_other_gradients():
    steps = made("darts")
    method, networks, everything = steps.method, steps.networks, list(steps.networks.parameters())
    weights = steps.weights.active
    with gradients_for(steps.alphas.active, everything):
        assert not any(weight.requires_grad for weight in weights)
        loss = method.alpha_loss(networks, batch(method), AT).total
        assert not networks.stem(batch(method).images).requires_grad  # nothing is kept for w's backward
        loss.backward()
    with gradients_for(weights, everything):
        method.weight_loss(networks, batch(method), AT).total.backward()
    assert all(weight.requires_grad for weight in weights)


def test_requires_grad_is_restored_after_an_error():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), gradients_for([module.bias], list(module.parameters())):
        assert module.bias.requires_grad and not module.weight.requires_grad
        _ = 1 / 0
    assert module.weight.requires_grad and not module.bias.requires_grad


def test_the_gradient_of_w_is_clipped_as_a_whole():
    steps = made("darts", w_momentum=0.0, w_weight_decay=0.0, grad_clip=1e-3)
    before = snapshot(steps.networks)
    steps.weight(batch(steps.method))
    after = snapshot(steps.networks)
    moved = torch.cat([(after[f] - before[f]).flatten() for f in before]).norm().item()
    assert moved == pytest.approx(1e-3 * 0.025, rel=1e-2)


def test_alpha_decay_is_adams_own():
    """Without columns left out, the same bits as torch.optim.Adam with weight_decay."""
    settings = tiny_settings("darts", alpha_weight_decay=0.1)
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(5, 8)), None
    theirs = nn.Parameter(ours.detach().clone())
    optimiser = AlphaOptimiser([ParameterGroup("alpha", (ours,))], settings)
    optimiser.begin(AT)
    adam = torch.optim.Adam([theirs], lr=settings.alpha_lr, betas=settings.alpha_betas, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(5, 8)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimiser.step()
        adam.step()
        assert torch.equal(ours, theirs)


def test_none_under_a_sigmoid_never_moves():
    steps = made("paper-fairdarts", alpha_init="noise", alpha_weight_decay=0.5)
    networks = steps.networks
    before = networks.alphas_normal.detach().clone()
    for _ in range(3):
        steps.arch(batch(steps.method), batch(steps.method))
    assert torch.equal(networks.alphas_normal[:, 0], before[:, 0])
    assert not torch.equal(networks.alphas_normal[:, 1:], before[:, 1:])


def test_gradient_norms_by_part():
    x = nn.Parameter(torch.tensor([3.0, 4.0]))
    unused = nn.Parameter(torch.ones(1))
    loss = Loss({"task": (x * x).sum() / 2, "zero_one": 0.1 * x.sum(), "constant": torch.ones((), requires_grad=True)})
    norms = {name: norm.item() for name, norm in gradient_norms(loss, [x, unused]).items()}
    assert norms == pytest.approx({"task": 5.0, "zero_one": 0.1 * math.sqrt(2), "constant": 0.0})
    assert loss.total.item() == pytest.approx(12.5 + 0.7 + 1.0)


def test_measuring_does_not_change_the_step():
    results = []
    for measured in ({}, None):
        steps = made("authors-fairdarts")
        one = batch(steps.method)
        steps.arch(one, one, None if measured is None else measured.update)
        results.append(steps.networks.alphas_normal.detach())
        if measured is not None:
            assert set(measured) == {"cross_entropy", "zero_one"}
    assert torch.equal(*results)


def test_cosine_literals():
    """DARTS' .025 -> .001 over 50 epochs."""
    values = [cosine(0.025, 0.001, Epoch(e, 50)) for e in (0, 25, 49)]
    assert values == pytest.approx([0.025, 0.013, 0.0010237], abs=1e-6)


def halving(epoch: Epoch) -> float:
    return 1.0 if epoch.index == 0 else 0.0


def test_groups_follow_their_factor_and_zero_freezes():
    settings = tiny_settings("darts", alpha_lr=0.1, alpha_weight_decay=0.5, epochs=2)
    backbone, head = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = [ParameterGroup("backbone", (backbone,), halving), ParameterGroup("head", (head,))]
    optimiser = AlphaOptimiser(groups, settings)
    optimiser.begin(Epoch(0, 2))
    assert optimiser.factors == {"backbone": 1.0, "head": 1.0} and len(optimiser.active) == 2
    for parameter in (backbone, head):
        parameter.grad = torch.ones(2, 2)
    optimiser.step()
    frozen, moments = backbone.detach().clone(), str(optimiser.state_dict()["state"][0])
    optimiser.begin(Epoch(1, 2))
    assert optimiser.factors == {"backbone": 0.0, "head": 1.0} and optimiser.active[0] is head
    head.grad = torch.ones(2, 2)
    optimiser.step()
    assert torch.equal(backbone, frozen) and str(optimiser.state_dict()["state"][0]) == moments
    assert alpha_travel(groups, 0.1, [Epoch(0, 2), Epoch(1, 2)], steps_an_epoch=5) == pytest.approx(0.1 * 5 * 2)
    assert alpha_travel(groups[:1], 0.1, [Epoch(0, 2), Epoch(1, 2)], steps_an_epoch=5) == pytest.approx(0.1 * 5)


def test_a_factor_acts_on_the_learning_rate_and_scaling_the_gradient_would_not():
    """Adam is nearly blind to the scale of a gradient: why HLS must act on the learning rate."""
    moves = []
    for factor, scale in ((1.0, 1.0), (0.25, 1.0), (1.0, 0.25)):
        parameter = nn.Parameter(torch.zeros(3))
        group = ParameterGroup("alpha", (parameter,), lambda epoch, factor=factor: factor)
        optimiser = AlphaOptimiser([group], tiny_settings("darts", alpha_lr=0.1))
        optimiser.begin(AT)
        parameter.grad = scale * torch.tensor([1.0, -2.0, 3.0])
        optimiser.step()
        moves.append(parameter.abs().mean().item())
    assert moves == pytest.approx([0.1, 0.025, 0.1], rel=1e-4)


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_a_factor_out_of_range_is_named(value):
    parameter = nn.Parameter(torch.zeros(1))
    group = ParameterGroup("backbone", (parameter,), lambda epoch: value)
    optimiser = GroupedOptimiser(torch.optim.SGD([parameter], lr=1.0), [group], lambda epoch: 1.0)
    with pytest.raises(UserError, match="lr_factor of 'backbone'"):
        optimiser.begin(AT)


def test_a_search_in_bf16_moves_the_same_parameters_in_float32():
    losses = {}
    for precision in ("float32", "tf32", "bf16"):
        steps = made("paper-ssf", precision=precision)
        arch = steps.arch(batch(steps.method), batch(steps.method)).task
        losses[precision] = float(arch), float(steps.weight(batch(steps.method)).task)
        assert all(parameter.dtype == torch.float32 for parameter in steps.networks.parameters())
    assert losses["tf32"] == losses["float32"] != losses["bf16"]  # a CPU does not know tf32
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)


def test_deterministic_mode_lasts_as_long_as_the_run():
    seen = []

    class Follower(Silent):
        def step(self, figures):
            seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    found = [
        run_search(tiny_data(), tiny_settings("darts", rule="top2", deterministic=wanted), progress=Follower())
        for wanted in (True, False)
    ]
    assert seen == [(True, False)] * (len(seen) // 2) + [before] * (len(seen) // 2)
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    figures = [[row["train_loss"] for row in result.history] for result in found]
    assert figures[0] == figures[1]  # a CPU is so anyway
