"""The adaptation: what each strategy may touch, what a cache may not change, how sub-networks are ranked."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine_search import Killed, KilledAt, timeless
from tiny_runs import TINY, Silent, tiny_data, tiny_settings

from lt_nas_ext.data import Dataset
from lt_nas_ext.engine import AdaptResult, recalibrate, run_adapt, run_retrain, run_search
from lt_nas_ext.engine.adaptation import Adaptation, draw_anew
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.engine.source import read_source
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CosineClassifier
from lt_nas_ext.methods.imb_nas import AdaptSettings
from lt_nas_ext.space import AuxiliarySkipCell, Genotype, PerEdgeCell, Supernet

DATA = tiny_data()
SMALL: dict[str, Any] = {"epochs": 3, "batch_size": 12, "subnets": 3, "calibration_images": 24, "device": "cpu"}

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny search."""
    out = tmp_path_factory.mktemp("source")
    run_search(DATA, tiny_settings("darts"), out, progress=Silent())
    return out


def adapt(
    source: Any,
    out: Path | None = None,
    resume: bool = False,
    progress: Any = None,
    data: Dataset = DATA,
    **changed: Any,
) -> AdaptResult:
    return run_adapt(source, data, AdaptSettings(**{**SMALL, **changed}), out, resume, progress or Silent())


def states(source: Path, found: AdaptResult) -> tuple[State, State]:
    return read_source(source).supernet.state_dict(), found.supernet.state_dict()


def differing(before: State, after: State) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


HEAD = {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("augment", ["default", "none"])
@pytest.mark.parametrize(
    ("backbone", "head", "changed"),
    [("frozen", "reinit", HEAD), ("frozen", "keep", HEAD), ("as_is", "reinit", HEAD), ("as_is", "keep", set())],
)
def test_a_resting_backbone_keeps_every_bit(
    source: Path, backbone: str, head: str, changed: set[str], augment: str
) -> None:
    """Parameters, running statistics, α; and the mode is evaluation."""
    found = adapt(source, backbone=backbone, head=head, augment=augment)
    assert differing(*states(source, found)) == changed
    assert not any(module.training for module in found.supernet.modules())
    assert len(found.history) == (3 if changed else 0)
    width, classes = found.supernet.feature_dim, DATA.num_classes
    assert found.metrics["trained_parameters"] == ((width + 1) * classes if changed else 0)


def test_as_is_with_a_new_head_is_frozen_with_a_new_head(source: Path) -> None:
    one, other = (adapt(source, backbone=backbone) for backbone in ("as_is", "frozen"))
    assert not differing(one.supernet.state_dict(), other.supernet.state_dict())
    assert one.ranking == other.ranking and timeless(one.history) == timeless(other.history)


def test_finetuning_trains_everything_but_alpha(source: Path) -> None:
    found = adapt(source, backbone="finetune", head="keep")
    before, after = states(source, found)
    same = before.keys() - differing(before, after)
    assert same == {"alphas_normal", "alphas_reduce"}
    rates = {row["lr_factors"]["backbone"] for row in found.history}
    assert rates == {0.25} and found.history[0]["lr"] == 0.1  # 0.025 and 0.1


def test_scratch_begins_with_weights_of_its_own(source: Path) -> None:
    tiny = {"epochs": 1, "lr": 1e-12, "backbone_lr": 1e-12}
    fine, scratch = (adapt(source, backbone=backbone, head="keep", **tiny) for backbone in ("finetune", "scratch"))
    before, finetuned = states(source, fine)
    weight = "cells.0.preprocess0.op.1.weight"
    torch.testing.assert_close(before[weight], finetuned[weight])
    anew = scratch.supernet.state_dict()
    assert (before[weight] - anew[weight]).abs().max() > 0.01
    torch.testing.assert_close(anew["classifier.weight"], before["classifier.weight"])
    assert torch.equal(anew["alphas_normal"], before["alphas_normal"])
    again = adapt(source, backbone="scratch", head="keep", seed=1, **tiny)
    assert not torch.equal(again.supernet.state_dict()[weight], anew[weight])


@pytest.mark.parametrize("cell", [PerEdgeCell, AuxiliarySkipCell])
def test_everything_is_drawn_anew(cell: Any) -> None:
    net = Supernet(channels=4, num_classes=3, layers=3, cell=cell)
    with torch.no_grad():
        for value in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            value.fill_(7.0)
    draw_anew(net)
    full = {name for name, value in net.state_dict().items() if value.is_floating_point() and (value == 7.0).all()}
    assert full == {"alphas_normal", "alphas_reduce", *HEAD}


def test_what_cannot_be_drawn_anew_is_named() -> None:
    net = Supernet(channels=2, num_classes=3, layers=1, in_channels=1)
    net.own = torch.nn.ParameterList([torch.zeros(1)])
    with pytest.raises(UserError, match=r"backbone: got 'scratch', and nothing draws own\.0 anew"):
        adapt(net, backbone="scratch")


@pytest.mark.parametrize("changed", [{}, {"sampler": "class_uniform"}, {"recalibrate": True}])
def test_kept_features_change_no_number(source: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]) -> None:
    """The same batches and the same features: what is saved is the time."""
    kept = adapt(source, augment="none", **changed)
    calls = []
    plain = Adaptation.__init__

    def without(self: Any, *arguments: Any) -> None:
        plain(self, *arguments)
        calls.append(self.cached)
        self.cached = False

    monkeypatch.setattr(Adaptation, "__init__", without)
    computed = adapt(source, augment="none", **changed)
    assert calls == [True] and kept.metrics["cached_features"] and not computed.metrics["cached_features"]
    one, other = kept.supernet.state_dict(), computed.supernet.state_dict()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)
    for row, same in zip(kept.history, computed.history, strict=True):
        assert row["train_loss"] == pytest.approx(same["train_loss"], abs=1e-6)
        assert row["train_accuracy"] == same["train_accuracy"]


def test_features_are_kept_where_nothing_changes_them(source: Path) -> None:
    assert not adapt(source).metrics["cached_features"]  # augmented
    assert not adapt(source, augment="none", backbone="finetune").metrics["cached_features"]
    assert adapt(source, data=replace(DATA, augment="none")).metrics["cached_features"]


@pytest.mark.parametrize(
    "changed", [{}, {"backbone": "finetune", "head": "keep"}, {"augment": "none", "recalibrate": True}]
)
def test_resume_is_the_uninterrupted_run_to_the_bit(source: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    """Killed between epochs, within one, and among the sub-networks."""
    whole = adapt(source, tmp_path / "whole", **changed)
    broken = tmp_path / "broken"
    for killed in ({"epochs": 1}, {"steps": 2}, {"epochs": 3}):
        with pytest.raises(Killed):
            adapt(source, broken, resume=broken.exists(), progress=KilledAt(**killed), **changed)
    assert not (broken / "genotype.json").exists() and (broken / "ranking" / "history.jsonl").exists()
    resumed = adapt(source, broken, resume=True, **changed)
    assert timeless(resumed.history) == timeless(whole.history)
    assert not differing(whole.supernet.state_dict(), resumed.supernet.state_dict())
    assert resumed.ranking == whole.ranking and resumed.genotype == whole.genotype
    assert (broken / "ranking.csv").read_bytes() == (tmp_path / "whole" / "ranking.csv").read_bytes()


def test_a_run_of_another_source_is_not_continued(source: Path, tmp_path: Path) -> None:
    adapt(source, tmp_path / "run")
    other = tmp_path / "other"
    run_search(DATA, tiny_settings("darts", seed=1), other, progress=Silent())
    with pytest.raises(UserError, match="holds a run with other settings: digest"):
        adapt(other, tmp_path / "run", resume=True)


def test_what_is_left(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = adapt(source, out)
    rows = list(csv.DictReader((out / "ranking.csv").read_text().splitlines()))
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4] and [row["origin"] for row in rows].count("searched") == 1
    macros = [float(row["val_macro"]) for row in rows]
    assert macros == sorted(macros, reverse=True) == [one.val_macro for one in found.ranking]
    assert str(Genotype.load(out / "genotype.json")) == rows[0]["genotype"] == str(found.genotype)

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == found.metrics and metrics["strategy"] == "frozen, reinit, class_balanced"
    assert metrics["seconds"] == pytest.approx(metrics["adapt_seconds"] + metrics["ranking_seconds"], abs=0.011)
    assert metrics["val_macro"] == found.history[-1]["val_macro"] and metrics["subnets"] == 4
    config = json.loads((out / "config.json").read_text())
    assert config["kind"] == "adapt" and config["source"]["run"] == str(source)
    splits = [row["split"] for row in csv.DictReader((out / "manifest.csv").read_text().splitlines())]
    assert {name: splits.count(name) for name in set(splits)} == {"train": 38, "validation": 10, "test": 30}

    training = RetrainSettings(epochs=1, channels=2, layers=3, device="cpu")
    assert run_retrain(found.genotype, DATA, training, out / "retrain", progress=Silent()).metrics["macro"] > 0


def test_a_supernet_from_memory_is_left_as_it_is() -> None:
    net = Supernet(channels=2, num_classes=3, layers=3, in_channels=1, nodes=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = adapt(net, backbone="finetune", head="keep")
    assert not differing(before, net.state_dict()) and net.training
    assert [one.origin for one in found.ranking] == ["drawn"] * 3  # no search, so nothing that it found


def test_a_search_result_is_a_source_too(source: Path, tmp_path: Path) -> None:
    found = run_search(DATA, tiny_settings("darts"), tmp_path, progress=Silent())
    assert adapt(found).ranking == adapt(source).ranking


@pytest.mark.parametrize("name", ["demo-ssf", "ssnas", "authors-fairdarts"])
def test_supernets_of_other_methods(tmp_path: Path, name: str) -> None:
    """Label-free searches have a supernet too, and a head that nothing trained."""
    run_search(DATA, tiny_settings(name, rule="top2", epochs=1), tmp_path, progress=Silent())
    found = adapt(tmp_path)
    assert differing(*states(tmp_path, found)) == HEAD
    if name != "authors-fairdarts":
        with pytest.raises(UserError, match="searched without labels"):
            adapt(tmp_path, head="keep")


def test_the_auxiliary_skips_stay_as_weak_as_the_search_left_them(tmp_path: Path) -> None:
    run_search(DATA, tiny_settings("darts", auxiliary_skip=True), tmp_path, progress=Silent())
    strengths = [cell.strength for cell in read_source(tmp_path).supernet.cells]
    assert strengths == pytest.approx([1 / 3] * 3)  # after 3 epochs


def test_losses_and_heads(source: Path) -> None:
    found = adapt(source, loss="ldam")
    assert isinstance(found.supernet.classifier, CosineClassifier)
    plain, deferred = (adapt(source, loss="cross_entropy", drw=drw, epochs=5) for drw in (False, True))
    assert plain.history[3]["train_loss"] == deferred.history[3]["train_loss"]  # four fifths without weights
    assert plain.history[4]["train_loss"] != deferred.history[4]["train_loss"]


@pytest.mark.parametrize("changed", [{"loss": "focal"}, {"sampler": "reverse"}, {"seed": 1}, {"val_fraction": 0.3}])
def test_every_setting_counts(source: Path, changed: dict[str, Any]) -> None:
    assert timeless(adapt(source, epochs=1, **changed).history) != timeless(adapt(source, epochs=1).history)


@pytest.mark.parametrize("backbone", ["frozen", "finetune"])
def test_recalibration_moves_statistics_and_nothing_else(source: Path, backbone: str) -> None:
    plain, moved = (adapt(source, backbone=backbone, head="keep", recalibrate=on) for on in (False, True))
    names = differing(plain.supernet.state_dict(), moved.supernet.state_dict())
    statistics = {
        name
        for name in names
        if name.rpartition(".")[2] in ("moments", "running_mean", "running_var", "batches", "num_batches_tracked")
    }
    assert statistics and names - statistics == (HEAD if backbone == "frozen" else set())


def test_sub_networks_are_judged_by_their_own_statistics_unless_told(source: Path) -> None:
    own, shared = (adapt(source, recalibrate_subnets=on) for on in (True, False))
    assert not differing(own.supernet.state_dict(), shared.supernet.state_dict())
    assert [one.val_macro for one in own.ranking] != [one.val_macro for one in shared.ranking]


def test_recalibration_is_the_mean_over_batches() -> None:
    net = Supernet(channels=4, num_classes=3, layers=3, in_channels=1)
    batches = [torch.randn(5, 1, 8, 8) + k for k in range(3)]
    before = {name: value.clone() for name, value in net.named_parameters()}
    recalibrate(net.eval(), batches)
    assert not net.training and all(torch.equal(before[name], value) for name, value in net.named_parameters())
    made = [net.stem[0](images) for images in batches]
    torch.testing.assert_close(net.stem[1].running_mean, torch.stack([y.mean((0, 2, 3)) for y in made]).mean(0))
    torch.testing.assert_close(net.stem[1].running_var, torch.stack([y.var((0, 2, 3)) for y in made]).mean(0))
    first = net.cells[0].preprocess1(net.stem(batches[0]))
    assert first.shape[1] == 4
    moments = net.cells[0].sources[0].kinds["max_pool_3x3"].norm
    assert int(moments.batches) == 3 and moments.momentum == 0.1 and (moments.moments[1] != 1).all()
    with pytest.raises(UserError, match="batches: got none"):
        recalibrate(net, [])


def test_three_channels_of_calibration_are_enough_for_one_batch(source: Path) -> None:
    """Fewer images than a batch are one batch."""
    assert len(adapt(source, calibration_images=2).ranking) == 4


def test_tiny_is_what_the_searches_are() -> None:
    assert TINY["nodes"] == 1  # 7² · 7² genotypes: more than any test draws
