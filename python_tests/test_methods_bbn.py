"""DARTS + BBN and HLS: losses, groups and factors as numbers; who is frozen when, to the bit; runs that show it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from torch.nn import functional as F

import lt_nas_ext as lt
from lt_nas_ext.engine import run_search
from lt_nas_ext.engine import search as lt_search
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import class_balanced_weights
from lt_nas_ext.methods import Epoch, Labelled, Paired, Problem, hls_factor, method_class
from lt_nas_ext.methods.bbn import CONTINUATIONS, TEST_RATIOS
from lt_nas_ext.space import BbnGenotype, load_genotype

DATA = tiny_data()
PROBLEM = Problem(num_classes=3, image_shape=(1, 8, 8), class_counts=(24, 14, 10))
ALPHAS = ["normal", "reduce", "instance_head", "class_head"]


def made(name: str = "paper-hls", **overrides):
    settings = tiny_settings(name, **overrides)
    method = method_class(settings.method)(settings, PROBLEM)
    torch.manual_seed(0)
    return method, method.build().train()


def pair(seed: int = 1) -> Paired:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 6, 1, 8, 8, generator=generator)
    return Paired(Labelled(images[0], torch.arange(6) % 3), Labelled(images[1], torch.arange(6).flip(0) % 3))


def search(out: Path | None = None, name: str = "paper-hls", resume: bool = False, **overrides):
    return run_search(DATA, tiny_settings(name, **overrides), out, resume, Silent())


# ---- as numbers -----------------------------------------------------------------------------------------------------


def test_hls_factor():
    expected = (1, 0.8948, 0.7165, 0.3679, 0.0498, 0.0001, 0)
    assert [hls_factor(r) for r in (1, 0.9, 0.75, 0.5, 0.25, 0.1, 0)] == pytest.approx(expected, abs=1e-3)
    assert hls_factor(0.5, k=2.0) == pytest.approx(math.exp(-2))
    assert hls_factor(1e-300) == 0.0
    assert all(hls_factor(r) <= r for r in TEST_RATIOS)  # below the ratio throughout


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_loss(index):
    method, networks = made()
    networks, batch, at = networks.double(), pair(), Epoch(index, 3)
    batch = Paired(*(Labelled(s.images.double(), s.labels) for s in (batch.first, batch.second)))
    r = 1 - (index / 3) ** 2
    loss = method.weight_loss(networks, batch, at)
    z = networks.pair(batch.first.images, batch.second.images).mixed(r)
    expected = r * F.cross_entropy(z, batch.first.labels) + (1 - r) * F.cross_entropy(z, batch.second.labels)
    assert list(loss.parts) == ["cross_entropy"] and loss.total.item() == pytest.approx(expected.item(), rel=1e-9)
    assert method.alpha_loss(networks, batch, at).total.item() == pytest.approx(expected.item(), rel=1e-9)
    assert method.shown(at) == {"mixing_ratio": pytest.approx(r)}


def test_groups_hold_every_parameter_once():
    method, networks = made()
    alphas, weights = method.alpha_groups(networks), method.weight_groups(networks)
    assert [group.name for group in alphas] == [f"alpha_{name}" for name in ALPHAS]
    assert [group.name for group in weights] == ["backbone", "instance_head", "class_head"]
    held = [id(parameter) for group in alphas + weights for parameter in group.parameters]
    assert len(held) == len(set(held)) and set(held) == {id(parameter) for parameter in networks.parameters()}
    assert list(method.alphas(networks)) == list(method.gates(networks)) == ALPHAS


def factors(method, networks, epoch: Epoch) -> dict[str, float]:
    groups = method.alpha_groups(networks) + method.weight_groups(networks)
    return {group.name: group.lr_factor(epoch) for group in groups}


G = hls_factor(0.75)  # at half of a parabolic schedule
MAIN = [  # settings, factors of (backbone's α, backbone's weights, heads) in the middle of the main schedule
    ({"hls": "none"}, (1, 1, 1)),
    ({"hls": "hls"}, (G, 1, 1)),
    ({"hls": "hls", "hls_k": 3.0}, (G**3, 1, 1)),
    ({"hls": "hls", "hls_scope": "arch+weights"}, (G, G, 1)),
    ({"hls": "constant", "hls_constant": 0.25}, (0.25, 1, 1)),
    ({"hls": "constant", "hls_constant": 0.25, "hls_scope": "arch+weights"}, (0.25, 0.25, 1)),
    ({"hls": "freeze"}, (0, 1, 1)),
    ({"hls": "hls", "mixing": "constant", "mixing_constant": 0.5}, (hls_factor(0.5), 1, 1)),
    ({"hls": "hls", "mixing": "reverse-sigmoid", "mixing_beta": 4.0}, (hls_factor(0.5), 1, 1)),
    ({"hls": "hls", "mixing": lambda progress: 1 - progress / 2}, (G, 1, 1)),
]


@pytest.mark.parametrize(("settings", "expected"), MAIN)
def test_learning_rate_factors(settings, expected):
    method, networks = made(epochs=4, **settings)
    found = factors(method, networks, Epoch(2, 4))
    arch, weights, heads = expected
    assert found["alpha_normal"] == found["alpha_reduce"] == pytest.approx(arch)
    assert found["backbone"] == pytest.approx(weights)
    assert [found[n] for n in ("alpha_instance_head", "alpha_class_head", "instance_head", "class_head")] == [heads] * 4


CONTINUED = {  # r, and the factors of backbone's α, backbone's weights, instance head, class head at a rate of .5
    "class-head": (0.0, (0.5, 0.5, 0, 0.5)),
    "half": (0.5, (0.5, 0.5, 0.5, 0.5)),
    "reverse-sigmoid": (0.5, (0.5, 0.5, 0.5, 0.5)),
    "frozen-backbone": (0.0, (0, 0, 0, 0.5)),
}


@pytest.mark.parametrize("name", CONTINUATIONS)
def test_continuous_training(name):
    method, networks = made(epochs=2, hls="none", continuous=name, continuous_epochs=4, continuous_lr=0.5)
    assert method.phases == (2, 4) and method.epochs == 6
    assert [method.at(epoch) for epoch in (1, 2, 5)] == [Epoch(1, 2), Epoch(0, 4, 1), Epoch(3, 4, 1)]
    ratio, expected = CONTINUED[name]
    assert method.ratio(Epoch(2, 4, 1)) == ratio
    found = factors(method, networks, Epoch(2, 4, 1))
    names = ("alpha_normal", "backbone", "alpha_instance_head", "alpha_class_head")
    assert tuple(found[n] for n in names) == expected
    assert found["instance_head"] == found["alpha_instance_head"] and found["class_head"] == found["alpha_class_head"]


def test_hls_in_continuous_training_follows_the_ratio():
    method, networks = made(continuous="half", continuous_lr=0.5)
    assert factors(method, networks, Epoch(0, 10, 1))["alpha_normal"] == pytest.approx(0.5 * hls_factor(0.5))
    method, networks = made(continuous="class-head")
    assert factors(method, networks, Epoch(0, 10, 1))["alpha_normal"] == 0.0


def test_one_phase_where_nothing_is_continued():
    assert made(epochs=2, continuous="none")[0].phases == (2,)


def test_reading_a_pass_at_every_ratio():
    method, networks = made()
    networks.eval()
    images = pair().first.images
    found = method.read(networks, images)
    assert found.shape == (6, 11, 3) and method.readings == ("0", *(f"0.{i}" for i in range(1, 10)), "1")
    branches = networks.branches(images)
    torch.testing.assert_close(found[:, 0], branches.classes)
    torch.testing.assert_close(found[:, 10], branches.instance)
    torch.testing.assert_close(found[:, 3], 0.3 * branches.instance + 0.7 * branches.classes)
    torch.testing.assert_close(method.logits(networks, images), branches.classes)


# ---- who moves ------------------------------------------------------------------------------------------------------


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def stepped(method, networks, *epochs: Epoch) -> Steps:
    steps = Steps(method, networks)
    for epoch in epochs:
        steps.begin(epoch)
        networks.train()
        for module in method.still(networks, epoch):
            module.eval()
        steps.arch(pair(1), pair(2))
        steps.weight(pair(2))
    return steps


def test_the_frozen_backbone_is_the_same_to_the_bit():
    """Parameters, α and running statistics, although momentum and Adam's moments are there from the main schedule."""
    method, networks = made(epochs=1, continuous="frozen-backbone", continuous_epochs=3)
    steps = stepped(method, networks, Epoch(0, 1))
    backbone, instance, classes = (state(m) for m in (networks.backbone, networks.instance_head, networks.class_head))
    for epoch in range(3):
        at = Epoch(epoch, 3, 1)
        steps.begin(at)
        networks.train()
        for module in method.still(networks, at):
            module.eval()
        steps.arch(pair(1), pair(2))
        steps.weight(pair(2))
    assert not moved(networks.backbone, backbone) and not moved(networks.instance_head, instance)
    assert {"alpha", "classifier.weight"} <= moved(networks.class_head, classes)


def test_without_a_share_a_head_rests_though_it_would_decay():
    """r = 0: no gradient, so neither weight decay nor momentum may move the instance head; r = 1: the class head."""
    method, networks = made(epochs=2, continuous="class-head", continuous_epochs=2, w_weight_decay=0.5)
    steps = stepped(method, networks, Epoch(1, 2))
    before = {name: p.detach().clone() for name, p in networks.named_parameters()}
    steps.begin(Epoch(0, 2, 1))
    steps.arch(pair(1), pair(2))
    steps.weight(pair(2))
    changed = {name for name, p in networks.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith("instance_head") for name in changed)
    assert {"class_head.alpha", "class_head.classifier.weight", "backbone.stem.0.weight"} <= changed
    first, networks = made(w_weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in networks.named_parameters()}
    stepped(first, networks, Epoch(0, 3))
    changed = {name for name, p in networks.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith("class_head") for name in changed) and "instance_head.alpha" in changed


def test_hls_acts_on_the_learning_rate_for_scaling_the_gradient_would_do_nothing():
    """Three Adam steps: the backbone's α go g times as far; with gradients scaled by g they go (almost) as far."""
    distances = {}
    ratio = {"mixing": "constant", "mixing_constant": 0.25, "alpha_weight_decay": 0.0}
    for way in ("plain", "hls", "scaled"):
        method, networks = made(hls="hls" if way == "hls" else "none", **ratio)
        alpha, head = networks.backbone.alphas_normal, networks.instance_head.alpha
        if way == "scaled":
            alpha.register_hook(lambda gradient: hls_factor(0.25) * gradient)
        before = alpha.detach().clone(), head.detach().clone()
        steps = Steps(method, networks)
        steps.begin(Epoch(0, 3))
        steps.arch(pair(1), pair(2))
        distances[way] = [(p - b).abs().mean().item() for p, b in zip((alpha, head), before, strict=True)]
    assert distances["hls"][0] == pytest.approx(hls_factor(0.25) * distances["plain"][0], rel=1e-3)
    assert distances["scaled"][0] > 0.9 * distances["plain"][0]
    assert distances["hls"][1] == distances["plain"][1]  # the heads keep their rate


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_search_shows_ratio_factors_and_readings(tmp_path):
    result = search(tmp_path, epochs=2, continuous="half", continuous_epochs=2, continuous_lr=0.5)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["mixing_ratio"] for row in rows] == [1.0, 0.75, 0.5, 0.5]
    assert [row["lr_factors"]["alpha_normal"] for row in rows] == pytest.approx(
        [1.0, hls_factor(0.75), 0.5 * hls_factor(0.5), 0.5 * hls_factor(0.5)]
    )
    assert [row["lr_factors"]["class_head"] for row in rows] == [0.0, 1.0, 0.5, 0.5]
    assert [round(row["w_lr"], 6) for row in rows] == [0.02, 0.01, 0.02, 0.01]  # a cosine for each phase
    assert list(rows[0]["alpha"]) == list(rows[0]["gates"]) == ALPHAS
    readings = rows[-1]["val_readings"]
    macro = rows[-1]["val_macro_readings"]
    assert list(readings) == list(macro) == [f"{r:g}" for r in TEST_RATIOS]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert macro[metrics["reading"]] == max(macro.values()) and metrics["epochs"] == 4
    assert readings[metrics["reading"]] == metrics["val_accuracy"] == rows[-1]["val_accuracy"]
    assert isinstance(result.genotype, BbnGenotype) and load_genotype(tmp_path / "genotype.json") == result.genotype
    assert list(rows[-1]["genotype"]) == ["rule", *ALPHAS] and 0 <= result.health["genotype_agreement"] <= 1
    assert result.health["alpha_travel"] == pytest.approx(0.3 * 3 * (1 + 1 + 0.5 + 0.5))


def test_the_ratio_is_chosen_by_the_mean_over_classes(monkeypatch):
    """At ratio 0 the largest class alone is right, at ratio 1 the two others: as many images, and more classes."""

    def logits(self, images):
        answers = torch.zeros(len(images), len(TEST_RATIOS), dtype=torch.long)
        answers[:, -1] = images.labels.clamp(min=1)
        return F.one_hot(answers, 3).float()

    monkeypatch.setattr(lt_search._Search, "_logits", logits)
    found = search(epochs=1)
    row = found.history[-1]
    assert row["val_readings"]["0"] >= row["val_readings"]["1"] == row["val_accuracy"]
    assert found.metrics["reading"] == "1" and row["val_macro_readings"]["1"] == pytest.approx(2 / 3)


def test_frozen_backbone_over_a_whole_search(tmp_path):
    search(tmp_path, epochs=2, continuous="frozen-backbone", continuous_epochs=1)
    before, after = (
        torch.load(tmp_path / f"checkpoint{which}.pt", weights_only=True)["trainer"]["networks"]
        for which in (".previous", "")
    )
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("class_head.") for name in changed)


def test_any_function_is_a_schedule_and_a_run_knows_it_again(tmp_path):
    def falling(progress: float) -> float:
        return 1 - progress

    run = {"data": DATA, "preset": "paper-hls", "progress": Silent(), "out": tmp_path}
    tiny = {"epochs": 2, "batch_size": 12, "channels": 2, "layers": 3, "nodes": 1, "alpha_lr": 0.3, "device": "cpu"}
    found = lt.search(**run, **tiny, mixing=falling)
    assert [row["mixing_ratio"] for row in found.history] == [1.0, 0.5]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"]["mixing"].endswith("falling") and config["mixing_ratios"] == [1.0, 0.5]
    assert lt.search(**run, **tiny, mixing=falling, resume=True).history == found.history

    def falling(progress: float) -> float:  # another function of the same name
        return 1 - progress / 2

    with pytest.raises(UserError, match=r"mixing_ratios \(was \[1\.0, 0\.5\], now \[1\.0, 0\.75\]\)"):
        lt.search(**run, **tiny, mixing=falling, resume=True)


@pytest.mark.parametrize(("mixing", "came"), [(lambda t: 2.0, "2.0"), (lambda t: math.nan, "nan")])
def test_a_schedule_out_of_range_is_told_before_anything_is_built(tmp_path, mixing, came):
    with pytest.raises(UserError, match=f"mixing: the schedule returns {came} in epoch 0 of 3"):
        search(tmp_path / "run", mixing=mixing)
    assert not (tmp_path / "run").exists()


def test_seeds_agree_on_the_cells_of_heads_too():
    method, networks = made(alpha_init="noise")
    with torch.no_grad():
        for place, alpha in enumerate(networks.arch_parameters()):
            alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(place)))
    assert method.derive_gates(method.gates(networks)) == method.derive(networks)
    assert method.agrees


# ---- the two plain remedies -----------------------------------------------------------------------------------------


def test_resampling_is_darts_on_class_uniform_streams():
    method, networks = made("paper-hls-resampling")
    assert method.weight_stream.samplers == method.alpha_stream.samplers == ("class_uniform",)
    batch = pair().first
    loss = method.weight_loss(networks, batch, Epoch(0, 1))
    assert loss.total.item() == pytest.approx(F.cross_entropy(loss.logits, batch.labels).item())
    assert len(search(None, "paper-hls-resampling", epochs=1).history) == 1


def test_reweighting_weighs_by_effective_numbers():
    method, networks = made("paper-hls-reweighting", split=0.5)
    batch = pair().first
    weight = class_balanced_weights((12, 7, 5), 0.9999)
    for loss in (method.weight_loss, method.alpha_loss):
        found = loss(networks, batch, Epoch(0, 1))
        assert found.total.item() == pytest.approx(F.cross_entropy(found.logits, batch.labels, weight).item())
    assert len(search(None, "paper-hls-reweighting", epochs=1).history) == 1
    with pytest.raises(UserError, match=r"loss: got 'cross_entropy' for darts\+reweighting, and it weighs all classes"):
        made("paper-hls-reweighting", loss="cross_entropy")
