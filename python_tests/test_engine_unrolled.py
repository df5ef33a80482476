"""Second order: the gradient of α through a step of w, beside a numerical derivative; and nothing else moves."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from torch import nn

from lt_nas_ext.engine import run_search, unrolled
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.methods import Epoch, Labelled, ParameterGroup, Problem, TwoViews, method_class
from lt_nas_ext.methods.darts import Darts
from lt_nas_ext.space import FusedCell, PerEdgeCell, Supernet

AT = Epoch(0, 1)
PROBLEM = Problem(3, (1, 8, 8), (24, 14, 10))
ETA = 0.1
"""Large enough that the second term is a tenth of the gradient and more: an error in it cannot hide."""


def made(name: str, order: str, kind=None, steps_of_w: int = 2, **overrides) -> Steps:
    """float64 networks after some steps of w, so that the momentum buffer is not empty."""
    numbers = {"channels": 4, "layers": 3, "w_lr": ETA, "w_weight_decay": 0.01, "grad_clip": 1e9, "alpha_init": "noise"}
    settings = tiny_settings(name, order=order, **{**numbers, **overrides})
    method = (kind or method_class(settings.method))(settings, PROBLEM)
    torch.manual_seed(0)
    networks = method.build().double().train()
    with torch.no_grad():
        for alpha in method.alpha_groups(networks)[0].parameters:
            alpha.copy_(torch.randn(alpha.shape))
    steps = Steps(method, networks)
    steps.begin(AT)
    for turn in range(steps_of_w):
        steps.weight(batch(method, 10 + turn))
    return steps


def batch(method, seed: int):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 8, 1, 8, 8, generator=generator).double()
    return TwoViews(*images) if method.label_free else Labelled(images[0], torch.arange(8) % 3)


def gradient(steps: Steps) -> list[torch.Tensor]:
    """What `Steps.arch` hands to Adam."""
    method, alphas = steps.method, steps.alphas.active
    steps._unrolled.backward(alphas, batch(method, 1), batch(method, 2), AT, None)
    return [alpha.grad for alpha in alphas]


def validation_after_a_step(steps: Steps) -> float:
    """L_val(w'(α), α), with the step of w taken by the optimiser itself, on a copy."""
    twin = copy.deepcopy(steps)
    twin.weight(batch(twin.method, 2))
    with torch.no_grad():
        return twin.method.alpha_loss(twin.networks, batch(twin.method, 1), AT).total.item()


def directions(shapes: list[torch.Size]) -> list[list[torch.Tensor]]:
    """Eight directions in which α may go."""
    generator = torch.Generator().manual_seed(5)
    return [[torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(8)]


@functools.cache
def numerical(name: str, **overrides) -> torch.Tensor:
    """Its derivative in each direction, as a central difference."""
    # narrow: between two sides of a ReLU there is no derivative
    steps, eps = made(name, "first", **overrides), 1e-6
    alphas = steps.alphas.active
    start, found = [alpha.detach().clone() for alpha in alphas], []
    for direction in directions([alpha.shape for alpha in alphas]):
        sides = []
        for sign in (1, -1):
            for alpha, value, way in zip(alphas, start, direction, strict=True):
                alpha.detach().copy_(value + sign * eps * way)
            sides.append(validation_after_a_step(steps))
        found.append((sides[0] - sides[1]) / (2 * eps))
    return torch.tensor(found, dtype=torch.float64)


def along(gradients: list[torch.Tensor]) -> torch.Tensor:
    """The derivatives in each direction that a gradient stands for."""
    ways = directions([gradient.shape for gradient in gradients])
    return torch.stack([sum((g * d).sum() for g, d in zip(gradients, way, strict=True)) for way in ways])


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


METHODS = ["darts", "authors-fairdarts", "paper-ssf"]


@pytest.mark.parametrize("name", METHODS)
def test_the_exact_gradient_is_the_numerical_one(name):
    """On fused cells: a normal one and two that reduce."""
    steps = made(name, "exact")
    assert {type(cell) for cell in steps.method.supernet(steps.networks).cells} == {FusedCell}
    assert error(along(gradient(steps)), numerical(name)) < 1e-4


REACHES = [("darts", 1, 1e-2), ("authors-fairdarts", 1, 1e-2), *((name, 3, 1e-5) for name in METHODS)]
"""The paper's reach where no ReLU changes sign between w + R·v and w − R·v (there no difference is a derivative)."""


@pytest.mark.parametrize(("name", "layers", "reach"), REACHES)
def test_the_second_order_gradient_is_the_numerical_one(monkeypatch, name, layers, reach):
    assert unrolled.REACH == 1e-2
    monkeypatch.setattr(unrolled, "REACH", reach)
    assert error(along(gradient(made(name, "second", layers=layers))), numerical(name, layers=layers)) < 1e-3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_order_is_another_gradient(name, layers):
    """So the tolerances above tell them apart: a term multiplied by R, and not divided, would be next to nothing."""
    steps = made(name, "first", layers=layers)
    alphas = steps.alphas.active
    steps.method.alpha_loss(steps.networks, batch(steps.method, 1), AT).total.backward()
    gradients = [torch.zeros_like(alpha) if alpha.grad is None else alpha.grad for alpha in alphas]
    assert error(along(gradients), numerical(name, layers=layers)) > 0.02


def test_the_two_forms_agree_as_the_difference_narrows(monkeypatch):
    exact, errors = along(gradient(made("darts", "exact", layers=1))), []
    for reach in (1e-2, 1e-3, 1e-4):
        monkeypatch.setattr(unrolled, "REACH", reach)
        errors.append(error(along(gradient(made("darts", "second", layers=1))), exact))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4


def state(networks: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in networks.state_dict().items()}


class PerEdgeDarts(Darts):
    """DARTS on the reference cells, whose running statistics are those of nn.BatchNorm2d."""

    def build(self):
        return Supernet(4, 3, 3, in_channels=1, nodes=1, cell=PerEdgeCell)


@pytest.mark.parametrize("order", ["second", "exact"])
@pytest.mark.parametrize(("name", "kind"), [("darts", None), ("darts", PerEdgeDarts), ("paper-ssf", None)])
def test_weights_and_running_statistics_are_what_they_were_to_the_bit(name, kind, order):
    steps = made(name, order, kind)
    before = state(steps.networks)
    one, other = (batch(steps.method, seed) for seed in (1, 2))
    loss = steps.arch(one, other)
    after = state(steps.networks)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("alphas_" in name for name in moved)
    assert not any(parameter.grad is not None for parameter in steps.networks.parameters())
    assert all(parameter.requires_grad for parameter in steps.networks.parameters()) and loss.total.isfinite()
    steps.weight(other)  # what a real step moves: the statistics are watched where they are
    assert sum("running" in name or "moments" in name for name in before) > 10
    last = state(steps.networks)
    watched = [name for name in before if "running" in name or "moments" in name]
    assert not any(torch.equal(before[name], last[name]) for name in watched)


@pytest.mark.parametrize("order", ["second", "exact"])
def test_recomputation_changes_nothing(order):
    kept, run_twice = (gradient(made("darts", order, recompute=recompute)) for recompute in (False, True))
    assert all(torch.equal(*pair) for pair in zip(kept, run_twice, strict=True))


def test_everything_is_put_back_after_an_error():
    steps = made("darts", "second")
    before = state(steps.networks)
    with pytest.raises(AssertionError):
        steps.arch(None, batch(steps.method, 2))
    after = state(steps.networks)
    assert all(torch.equal(before[name], after[name]) for name in before)


class TwoRates(Darts):
    """The stem learns at a quarter of the rate; the classifier is frozen."""

    def weight_groups(self, networks):
        (everything,) = super().weight_groups(networks)
        stem, classifier = list(networks.stem.parameters()), list(networks.classifier.parameters())
        apart = {id(parameter) for parameter in (*stem, *classifier)}
        rest = tuple(parameter for parameter in everything.parameters if id(parameter) not in apart)
        return [
            ParameterGroup("rest", rest),
            ParameterGroup("stem", tuple(stem), lambda epoch: 0.25),
            ParameterGroup("classifier", tuple(classifier), lambda epoch: 0.0),
        ]


@pytest.mark.parametrize("order", ["second", "exact"])
def test_groups_of_weights_move_at_their_own_rates(order):
    found = along(gradient(made("darts", order, TwoRates, layers=1)))
    assert error(found, numerical("darts", kind=TwoRates, layers=1)) < 1e-3
    assert error(along(gradient(made("darts", order, layers=1))), found) > 1e-2


def test_measuring_changes_nothing():
    measured, results = {}, []
    for measure in (None, measured.update):
        steps = made("authors-fairdarts", "second")
        steps.arch(batch(steps.method, 1), batch(steps.method, 2), measure)
        results.append(steps.networks.alphas_normal.detach())
    assert torch.equal(*results) and set(measured) == {"cross_entropy", "zero_one"}


def test_a_search_of_second_order_resumes_to_the_bit(tmp_path):
    def search(out=None, progress=None, **overrides):
        settings = tiny_settings("darts", epochs=2, **overrides)
        return run_search(tiny_data(), settings, out, out is not None, progress or Silent()).history

    whole = search(order="second")
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, Broken(), order="second")
    again = search(tmp_path, order="second")
    assert [row["alpha"] for row in again] == [row["alpha"] for row in whole]
    assert search()[0]["alpha"] != whole[0]["alpha"]


class Broken(Silent):
    """A crash after the first epoch."""

    def epoch(self, row):
        raise KeyboardInterrupt
