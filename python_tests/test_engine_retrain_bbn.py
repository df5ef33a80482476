"""What a BBN search found, trained as a network with two heads and as a plain one."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_runs import TINY, Silent, tiny_data

import lt_nas_ext as lt
from lt_nas_ext.engine import RetrainSettings, load_classifier, run_retrain
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import mixed_loss
from lt_nas_ext.space import DARTS_V2, BbnGenotype, BbnNetwork, Network, load_genotype

DATA = tiny_data()
FOUND = BbnGenotype(DARTS_V2, DARTS_V2.normal, DARTS_V2.normal)
SMALL = {"epochs": 2, "batch_size": 12, "channels": 2, "layers": 3, "device": "cpu"}


def retrain(out=None, what=FOUND, data=DATA, resume=False, progress=None, **overrides):
    return run_retrain(what, data, RetrainSettings(**{**SMALL, **overrides}), out, resume, progress or Silent())


def timeless(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} for row in history]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return retrain(tmp_path_factory.mktemp("bbn"), test_mixing=0.25)


def test_it_learns_from_paired_streams_at_the_schedules_ratio(trained, monkeypatch):
    assert isinstance(trained.model.network, BbnNetwork)
    assert [row["mixing_ratio"] for row in trained.history] == [1.0, 0.75]
    assert trained.history[-1]["train_accuracy"] is None and trained.history[-1]["test_top1"] is not None
    seen = []

    def watched(logits, first, second, ratio, criterion):
        seen.append((ratio, torch.bincount(first, minlength=3), torch.bincount(second, minlength=3)))
        return mixed_loss(logits, first, second, ratio, criterion)

    monkeypatch.setattr("lt_nas_ext.engine.phases.mixed_loss", watched)
    retrain(mixing="constant", mixing_constant=0.3, epochs=20)
    assert {ratio for ratio, _, _ in seen} == {0.3} and len(seen) == 80
    instance, uniform = (torch.stack([row[place] for row in seen]).sum(0) / 960 for place in (1, 2))
    assert torch.allclose(instance, torch.tensor([24, 14, 10]) / 48)
    assert torch.allclose(uniform, torch.full((3,), 1 / 3), atol=3 * (2 / 9 / 960) ** 0.5)


def test_the_run_is_used_again_with_its_heads_and_ratio(trained):
    again = load_classifier(trained.out)
    assert isinstance(again.network, BbnNetwork) and again.network.test_ratio == 0.25
    images = DATA.test.images
    with torch.no_grad():
        assert torch.equal(again(images), trained.model(images))
        branches = again.network.eval().branches(torch.randn(2, 1, 8, 8))
        assert branches.instance.shape == branches.classes.shape == (2, 3)
    assert load_genotype(trained.out / "genotype.json") == FOUND
    assert json.loads((trained.out / "config.json").read_text())["architecture"]["test_ratio"] == 0.25
    assert lt.predict(trained.out, images[:2])[0].path is None
    assert lt.evaluate(again, DATA.test).top1 == trained.metrics["top1"]


def test_resume_is_the_uninterrupted_run(trained, tmp_path):
    class Killed(Exception):
        pass

    class KilledAtOne(Silent):
        def epoch(self, row):
            raise Killed

    with pytest.raises(Killed):
        retrain(tmp_path, test_mixing=0.25, progress=KilledAtOne())
    resumed = retrain(tmp_path, test_mixing=0.25, resume=True)
    assert timeless(resumed.history) == timeless(trained.history) and len(resumed.history) == 2
    a, b = trained.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_as_a_plain_network(tmp_path):
    plain = retrain(tmp_path, derived="plain")
    assert type(plain.model.network) is Network and "mixing_ratio" not in plain.history[0]
    assert load_genotype(tmp_path / "genotype.json") == FOUND.backbone
    same = retrain(what=FOUND.backbone)
    assert plain.metrics["top1"] == same.metrics["top1"] and plain.history[-1]["train_accuracy"] is not None


def test_a_genotype_without_heads_as_a_bbn_network():
    headed, kept = retrain(what=FOUND.backbone, derived="bbn"), retrain(derived="bbn")  # what has heads keeps them
    assert isinstance(headed.model.network, BbnNetwork) and headed.model.network.genotype == FOUND
    assert [row["mixing_ratio"] for row in headed.history] == [1.0, 0.75]
    assert headed.metrics["top1"] == kept.metrics["top1"] == retrain().metrics["top1"]
    for what, came in (("resnet32", "'resnet32'"), (torch.nn.Flatten(), "Flatten")):
        with pytest.raises(UserError, match=f"derived: got 'bbn' for {came}; wanted it with a genotype"):
            retrain(what=what, derived="bbn")


@pytest.mark.filterwarnings("ignore::lt_nas_ext.space.GateTieWarning")  # r = 1 in the only epoch: one head rests
def test_from_search_to_retraining(tmp_path):
    tiny = {name: value for name, value in TINY.items() if name != "projector"} | {"epochs": 1}
    found = lt.search(DATA, method="darts+bbn", out=tmp_path, progress=Silent(), **tiny)
    model = lt.retrain(found, DATA, progress=Silent(), **SMALL)
    from_disk = lt.retrain(tmp_path, DATA, progress=Silent(), **SMALL)
    assert isinstance(model.network, BbnNetwork) and model.network.genotype == found.genotype
    assert model.metrics["top1"] == from_disk.metrics["top1"]


def test_a_pre_training_of_the_backbone(tmp_path):
    result = retrain(tmp_path, pretrain_epochs=1, projector=(8, 8))
    assert [row["phase"] for row in result.history] == ["pretrain", "train", "train"]
    assert [row.get("mixing_ratio") for row in result.history] == [None, 1.0, 0.75]


def test_any_schedule(tmp_path):
    def first(progress):
        return 0.5

    assert [row["mixing_ratio"] for row in retrain(tmp_path, mixing=first).history] == [0.5, 0.5]
    assert json.loads((tmp_path / "config.json").read_text())["mixing_ratios"] == [0.5, 0.5]

    def first(progress):
        return 0.25

    with pytest.raises(UserError, match=r"mixing_ratios \(was \[0\.5, 0\.5\], now \[0\.25, 0\.25\]\)"):
        retrain(tmp_path, mixing=first, resume=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mixing": "falling"}, "mixing: got 'falling'; wanted one of 'parabolic'"),
        ({"mixing": lambda t: 3}, "mixing: the schedule returns 3 in epoch 0 of 2"),
        ({"mixing_beta": 0.0}, "mixing_beta: got 0.0; wanted a number above 0"),
        ({"mixing_constant": -1}, "mixing_constant: got -1; wanted a mixing ratio"),
        ({"test_mixing": 1.01}, "test_mixing: got 1.01; wanted a mixing ratio"),
        ({"mixup": 0.2}, "mixup: got 0.2 for a network with two heads; wanted 0"),
        ({"auxiliary": 0.4}, "auxiliary: got 0.4 for a network with two heads; wanted 0"),
        ({"derived": "heads"}, "derived: got 'heads'; wanted one of 'found', 'plain'"),
    ],
)
def test_bad_settings(overrides, message):
    with pytest.raises(UserError, match=message):
        retrain(**overrides)


def test_a_class_without_images():
    import dataclasses

    most = DATA.train.subset((DATA.train.labels != 2).nonzero().flatten())
    with pytest.raises(UserError, match="class 'right' has no images for retrain, and the class_uniform sampler"):
        retrain(data=dataclasses.replace(DATA, train=most))
