"""What `recommended` and `ssnas` are made of: labels beside Barlow Twins, ramp, one level, fitted numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from tiny_runs import COUNTS, Silent, tiny_data, tiny_settings
from torch.nn import functional as F

from lt_nas_ext.engine import run_search
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.longtail import BalancedSoftmax
from lt_nas_ext.methods import Epoch, LabelledViews, Problem, Stream, TwoViews, method_class, preset
from lt_nas_ext.methods.fit import fitted
from lt_nas_ext.space import Genotype

PROBLEM = Problem(3, (1, 8, 8), COUNTS)
AT = Epoch(0, 1)
DATA = tiny_data()


def made(name: str, **overrides):
    torch.manual_seed(0)
    settings = tiny_settings(name, **overrides)
    method = method_class(settings.method)(settings, PROBLEM)
    return method, method.build().double().train()


def views() -> LabelledViews:
    first, second = torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    return LabelledViews(first, second, torch.tensor([0, 1, 2, 0, 1, 2]))


# ---- labels beside Barlow Twins


def test_labelled_views_are_the_views_with_their_labels():
    feeds = [
        Feed(Stream(kind), DATA.train, torch.device("cpu"), DATA, 8, 3, "weights")
        for kind in ("two_views", "labelled_views")
    ]
    for plain, labelled in zip(*(feed.epoch(1) for feed in feeds), strict=True):
        assert isinstance(labelled.batch, LabelledViews) and not isinstance(plain.batch, LabelledViews)
        assert torch.equal(plain.batch.first, labelled.batch.first)
        assert torch.equal(plain.batch.second, labelled.batch.second)
        assert torch.equal(labelled.batch.labels, plain.labels)


def test_balanced_softmax_of_both_views_joins_both_losses():
    method, networks = made("paper-ssf", label_free=False, bt_scale="dim")
    assert not method.label_free and method.weight_stream == method.alpha_stream == Stream("labelled_views")
    batch = views()
    loss = method.weight_loss(networks, batch, AT)
    alone, _ = made("paper-ssf", bt_scale="dim")
    twins = alone.weight_loss(networks, TwoViews(batch.first, batch.second), AT)
    assert list(loss.parts) == ["barlow_twins", "balanced_softmax"] and list(twins.parts) == ["barlow_twins"]
    assert loss.task.item() == pytest.approx(twins.task.item())
    logits = [networks.supernet(view) for view in (batch.first, batch.second)]
    wanted = sum(BalancedSoftmax(COUNTS)(one, batch.labels).item() for one in logits) / 2
    assert loss.terms["balanced_softmax"].item() == pytest.approx(wanted, rel=1e-5)
    assert wanted != pytest.approx(sum(F.cross_entropy(one, batch.labels).item() for one in logits) / 2, rel=1e-3)
    assert list(method.alpha_loss(networks, batch, AT).parts) == ["barlow_twins", "balanced_softmax", "zero_one"]
    torch.testing.assert_close(loss.logits, logits[0].detach())


# ---- the ramp


@pytest.mark.parametrize("name", ["authors-fairdarts", "paper-ssf"])
def test_lambda_01_ramps_from_nothing_to_its_value(name):
    method, networks = made(name, lambda_01_ramp=True, lambda_01=10.0)
    with torch.no_grad():
        for alpha in method.matrices(networks):
            alpha.fill_(1.0)
    losses = [method.zero_one(networks, Epoch(index, 5)).item() for index in range(5)]
    whole = made(name, lambda_01=10.0)[0].zero_one(networks, Epoch(0, 5)).item()
    assert losses == pytest.approx([whole * share for share in (0, 0.25, 0.5, 0.75, 1)]) and whole < 0
    assert method.lambda_01(Epoch(0, 1)) == 0.0


# ---- fitted numbers

LONG = (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500)
DIGITS = (130, 100, 77, 60, 46, 36, 28, 21, 16, 13)
FITTED = [  # counts, batch, epochs, projector, one level
    (LONG, 256, 50, 2048, False),  # 16 345 images, 63 steps an epoch
    (DIGITS, 32, 154, 256, False),  # 422 images, 13 steps
    ((500,) * 9 + (9,), 256, 118, 2048, True),  # 4509 images, 17 steps
    ((10,) * 3, 16, 2000, 128, False),  # 24 images, one step
    ((40,) * 2, 16, 500, 128, False),  # 64 images, 4 steps
]


@pytest.mark.parametrize(("counts", "batch", "epochs", "width", "one_level"), FITTED)
def test_recommended_fits_the_images(counts, batch, epochs, width, one_level):
    found = fitted(preset("recommended"), counts)
    assert (found.batch_size, found.epochs, found.projector) == (batch, epochs, (width,) * 3)
    assert (found.one_level, found.candidates) == (one_level, 0 if one_level else 4)
    steps = (epochs - epochs // 4) * max(sum(counts) * (1 if one_level else 0.8) // batch, 1)
    assert found.alpha_lr == pytest.approx(max(3e-3, 8 / steps), rel=0.01)
    method = method_class("ssf-nas")(found, Problem(len(counts), (3, 32, 32), counts))
    assert method.warnings(steps * found.alpha_lr, int(steps)) == []


def test_without_fit_nothing_changes():
    for name in ("darts", "paper-ssf", "demo-ssf"):
        assert fitted(preset(name), DIGITS) is preset(name)
    longer = fitted(replace(preset("darts"), min_steps=1000), DIGITS)
    assert longer == replace(preset("darts"), min_steps=1000, epochs=250)  # 263 images, 4 steps


def test_recommended_from_end_to_end(tmp_path):
    """Fitted, with labels and a ramp, then a contest; config.json has the numbers that were used."""
    numbers = {"min_steps": 6, "epochs": 1, "candidates": 2, "candidate_epochs": 1, "fit": True, "batch_size": 64}
    settings = tiny_settings("recommended", **numbers)
    found = run_search(DATA, settings, tmp_path, False, Silent())
    config = json.loads((tmp_path / "config.json").read_text())["settings"]
    assert config["batch_size"] == found.settings.batch_size == 16 and config["epochs"] == len(found.history) == 3
    assert found.settings.alpha_lr == pytest.approx(8 / 6)
    assert "val_accuracy" in found.history[0] and found.history[0]["train_accuracy"] is not None
    assert found.history[0]["losses"]["alpha/zero_one"] == 0 > found.history[2]["losses"]["alpha/zero_one"]
    assert len(found.metrics["ranking"]["candidates"]) == 2
    again = run_search(DATA, settings, tmp_path, True, Silent())
    assert again.genotype == found.genotype == Genotype.load(tmp_path / "genotype.json")


# ---- one level


def test_one_level_trains_both_on_all_images(tmp_path):
    found = run_search(DATA, tiny_settings("darts", one_level=True, epochs=2), tmp_path, False, Silent())
    assert found.health["alpha_steps"] == 2 * (sum(COUNTS) // 12)
    with open(tmp_path / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows].count("train") == sum(COUNTS) and len(rows) == sum(COUNTS) + 30


# ---- SSNAS


def test_ssnas_sends_both_views_through_in_one_pass():
    method, networks = made("ssnas", projector=(8, 4))
    assert method.label_free and method.gate == "softmax"
    batch = TwoViews(views().first, views().second)
    before = networks.supernet.stem[1].num_batches_tracked.item()
    loss = method.weight_loss(networks, batch, AT).total
    assert networks.supernet.stem[1].num_batches_tracked.item() == before + 1
    joined = torch.cat([batch.first, batch.second])
    a, b = networks.criterion.projector(networks.supernet.features(joined)).chunk(2)
    za, zb = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (a, b))
    c = za.T @ zb / len(za)
    wanted = (1 - c.diagonal()).square().sum() + 5e-3 * (c.square().sum() - c.diagonal().square().sum())
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-8)
    assert [type(layer).__name__ for layer in networks.criterion.projector] == ["Linear", "ReLU", "Linear"]
    assert list(method.alpha_loss(networks, batch, AT).parts) == ["barlow_twins"]


def test_ssnas_searches():
    found = run_search(DATA, tiny_settings("ssnas", epochs=2, views="digits"), None, False, Silent())
    assert "probe_accuracy" in found.history[0] and found.genotype.rule == "top2"
