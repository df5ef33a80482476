"""Retraining: any network by one loop, to the bit on resume, evaluated once, loaded again by anyone."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import pytest
import torch
from tiny_runs import COUNTS, Silent, tiny_data
from torch import nn

from lt_nas_ext.data import from_manifest, load
from lt_nas_ext.engine import (
    RETRAIN_PRESETS,
    Classifier,
    RetrainSettings,
    evaluate,
    load_classifier,
    predict,
    retrain_preset,
    run_retrain,
)
from lt_nas_ext.engine.architecture import build_network, describe
from lt_nas_ext.engine.evaluate import predict_logits
from lt_nas_ext.engine.retrain_settings import SIZES
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import calibrate, evaluate_predictions
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.space import DARTS_V2, CellGenotype, Edge, Genotype, Network, SmallConvNet, random_genotype

DATA = tiny_data()
CELL = CellGenotype((Edge("sep_conv_3x3", 0, 2), Edge("max_pool_3x3", 1, 2)), concat=(2,))
GENOTYPE = Genotype(CELL, CELL, rule="top2")
TINY = {"epochs": 3, "batch_size": 16, "channels": 4, "layers": 3, "device": "cpu", "projector": (8, 8)}


def retrain(what=GENOTYPE, out=None, resume=False, progress=None, data=DATA, **overrides):
    settings = overridden(RetrainSettings(), {**TINY, **overrides})
    return run_retrain(what, data, settings, out, resume, progress or Silent())


def timeless(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} for row in history]


class Killed(Exception):
    pass


class KilledAt(Silent):
    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.limit = epochs

    def epoch(self, row):
        super().epoch(row)
        if self.epochs == self.limit:
            raise Killed


OPTIONS = {
    "auxiliary": 0.4,
    "ema_decay": 0.9,
    "mixup": 0.4,
    "label_smoothing": 0.1,
    "drop_path_on": "nodes",
    "precision": "bf16",
    "val_fraction": 0.2,
    "loss": "balanced_softmax",
    "drw": True,
    "sampler": "class_uniform",
    "remix": True,
    "tail_augment": True,
}


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all options"])
@pytest.mark.parametrize("killed", [1, 2, 3])
def test_resume_is_the_uninterrupted_run_to_the_bit(tmp_path, killed, options):
    """Killed in the pre-training, between the two phases, and in the supervised epochs; with drop-path."""
    overrides = {"pretrain_epochs": 2, "drop_path": 0.5, **options}
    whole = retrain(out=tmp_path / "whole", **overrides)
    with pytest.raises(Killed):
        retrain(out=tmp_path / "broken", progress=KilledAt(killed), **overrides)
    resumed = retrain(out=tmp_path / "broken", resume=True, **overrides)
    assert timeless(resumed.history) == timeless(whole.history)
    expected, got = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert {**resumed.metrics, "seconds": 0} == {**whole.metrics, "seconds": 0}


def test_history_rows_of_both_phases():
    history = retrain(pretrain_epochs=1, pretrain_lr=0.5, finetune_lr=0.01, lr=0.1).history
    assert [row["phase"] for row in history] == ["pretrain", "train", "train", "train"]
    assert [round(row["lr"], 6) for row in history] == [0.5, 0.01, 0.0075, 0.0025]
    assert history[0]["test_top1"] is None and history[0]["train_accuracy"] is None and history[0]["train_loss"] > 0
    assert set(history[1]) == {
        "epoch", "seconds", "phase", "lr", "train_loss", "train_accuracy", "test_top1", "test_macro", "peak_memory_mb",
        "device",
    }  # fmt: skip
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert retrain(epochs=1, lr=0.1, finetune_lr=0.01).history[0]["lr"] == 0.1  # nothing to fine-tune


def test_pre_training_leaves_the_classifier_alone():
    network = SmallConvNet(num_classes=3, in_channels=1, channels=4)
    start = {name: value.clone() for name, value in network.state_dict().items()}

    class Looks(Silent):
        def epoch(self, row):
            if row["phase"] == "pretrain":
                assert torch.equal(network.classifier.weight, start["classifier.weight"])
                assert not torch.equal(network.layers[0].weight, start["layers.0.weight"])

    retrain(network, pretrain_epochs=1, epochs=1, progress=Looks())
    assert not torch.equal(network.classifier.weight, start["classifier.weight"])


def test_test_every():
    history = retrain("small-conv-net", epochs=5, test_every=2).history
    assert [row["test_top1"] is not None for row in history] == [False, True, False, True, True]


def test_the_last_weights_are_reported(tmp_path):
    result = retrain("small-conv-net", tmp_path)
    assert result.history[-1]["test_top1"] == result.metrics["top1"] == evaluate(result.model, DATA.test).top1
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(result.metrics)) == result.model.metrics
    per_class = metrics["per_class"]
    expected = sum(n * a for n, a in zip(COUNTS, per_class, strict=True)) / sum(COUNTS)
    assert metrics["longtailed_top1"] == pytest.approx(expected)
    assert metrics["parameters"] == sum(p.numel() for p in result.model.parameters())
    assert metrics["multiply_adds"] == 9 * (4 * 64 + 4 * 8 * 16 + 8 * 16 * 4) + 16 * 3
    assert metrics["pretrain_epochs"] == 0 and metrics["architecture"] == "small-conv-net"


def test_drop_path_grows_linearly():
    network = Network(GENOTYPE, channels=4, num_classes=3, layers=3, in_channels=1)
    seen = []

    class Looks(Silent):
        def epoch(self, row):
            seen.append(network.drop_path)

    retrain(network, epochs=4, drop_path=0.4, progress=Looks())
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_balanced_softmax_helps_the_tail_and_changes_only_the_loss():
    plain, balanced = (retrain("small-conv-net", loss=name, epochs=1) for name in ("cross_entropy", "balanced_softmax"))
    assert plain.history[0]["train_loss"] != balanced.history[0]["train_loss"]


def test_a_run_is_loaded_without_the_library_knowing_it(tmp_path):
    for what in (GENOTYPE, "small-conv-net", "random"):
        out = tmp_path / str(what)[:12]
        result = retrain(what, out, epochs=1)
        loaded = load_classifier(out)
        assert loaded.class_names == ("left", "middle", "right") and loaded.train_counts == COUNTS
        assert loaded.mean == DATA.mean and not loaded.training
        pixels = DATA.test.images
        assert torch.equal(loaded(pixels), result.model(pixels.float() / 255))
        assert torch.equal(load_classifier(out / "model.pt")(pixels), loaded(pixels))
    assert Genotype.load(tmp_path / str(GENOTYPE)[:12] / "genotype.json") == GENOTYPE


def test_a_module_of_ones_own(tmp_path):
    def own():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    result = retrain(own(), tmp_path, epochs=2)
    with pytest.raises(UserError, match="trained a module of its own \\(Sequential\\); pass it as network="):
        load_classifier(tmp_path)
    again = load_classifier(tmp_path, network=own())
    assert torch.equal(again(DATA.test.images), result.model(DATA.test.images))
    with pytest.raises(UserError, match=r"run: the weights in .*model\.pt do not fit"):
        load_classifier(tmp_path, network=nn.Linear(64, 3))
    with pytest.raises(UserError, match="pretrain_epochs: got 1, but Sequential has no features"):
        retrain(own(), pretrain_epochs=1)


def test_no_model_to_load(tmp_path):
    with pytest.raises(UserError, match=r"run: .* holds no run \(no config\.json\)"):
        load_classifier(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read as a trained model"):
        load_classifier(tmp_path)
    torch.save({"weights": 1}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="no model of this library"):
        load_classifier(tmp_path)


def test_baselines_by_name():
    sizes = {"size": (16, 8)}["size"]
    assert describe("resnet32", None, None, sizes, 0) == {"name": "resnet32"}
    assert describe("small-conv-net", None, None, sizes, 0)["channels"] == 32
    described = describe("random", None, 5, sizes, 7)
    assert (described["channels"], described["layers"]) == (16, 5)
    network = build_network(described, 3, 1)
    assert isinstance(network, Network) and network.genotype == random_genotype(7)
    assert build_network(describe("darts-v2", 4, 3, sizes, 0), 3, 1).genotype.normal == DARTS_V2.normal
    with pytest.raises(UserError, match=re.escape("genotype: got 'resnet23'") + ".*did you mean 'resnet32'"):
        describe("resnet23", None, None, sizes, 0)


def test_a_random_genotype_of_the_size_of_another(tmp_path):
    wanted = retrain("random", epochs=1, seed=5).metrics["parameters"]
    settings = {"epochs": 1, "random_parameters": wanted, "seed": 3}
    result = retrain("random", tmp_path, **settings)
    assert result.metrics["parameters"] == pytest.approx(wanted, rel=0.05)
    assert retrain("random", tmp_path, resume=True, **settings).metrics == result.metrics
    assert Genotype.load(tmp_path / "genotype.json") != random_genotype(3)


def test_presets_are_the_papers_numbers():
    darts = RETRAIN_PRESETS["darts"]
    assert SIZES[darts.size] == (36, 20) and (darts.epochs, darts.batch_size) == (600, 96)
    assert (darts.auxiliary, darts.cutout, darts.drop_path, darts.drop_path_on) == (0.4, True, 0.2, "operations")
    assert (darts.lr, darts.lr_min, darts.momentum, darts.weight_decay, darts.grad_clip) == (0.025, 0, 0.9, 3e-4, 5)
    fair, ssf = RETRAIN_PRESETS["authors-fairdarts"], RETRAIN_PRESETS["paper-ssf"]
    assert fair == replace(darts, preset="authors-fairdarts", drop_path_on="nodes")
    assert ssf.epochs == 150 and ssf.pretrain_epochs > 0
    for name, settings in RETRAIN_PRESETS.items():
        assert settings.preset == name and retrain_preset(name) is settings
        if name != "recommended":
            assert (settings.val_fraction, settings.ema_decay, settings.mixup, settings.label_smoothing) == (0, 0, 0, 0)
    assert RETRAIN_PRESETS["default"] == RetrainSettings()
    recommended = RETRAIN_PRESETS["recommended"]
    assert (
        recommended.loss == "balanced_softmax" and recommended.val_fraction == 0.1 and recommended.pretrain_epochs == 0
    )
    assert recommended.ema_decay > 0 and recommended.mixup > 0
    with pytest.raises(UserError, match="preset: got 'drats'; did you mean 'darts'"):
        retrain_preset("drats")


@pytest.mark.parametrize("name", RETRAIN_PRESETS)
def test_every_preset_trains_on_images_of_16_pixels(name):
    small = {"epochs": 2, "batch_size": 16, "channels": 2, "layers": 3, "projector": (8, 8), "device": "cpu"}
    overrides = {**small, "pretrain_epochs": min(1, RETRAIN_PRESETS[name].pretrain_epochs)}
    settings = overridden(RETRAIN_PRESETS[name], overrides)
    history = run_retrain(GENOTYPE, tiny_data(side=16), settings, progress=Silent()).history
    assert all(row["train_loss"] is not None for row in history)


def test_sizes():
    settings = RetrainSettings(size="paper", epochs=1)
    assert (settings.channels, settings.layers) == (None, None)
    assert SIZES == {"small": (16, 8), "paper": (36, 20)}
    assert describe(GENOTYPE, None, None, SIZES["paper"], 0)["layers"] == 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs: got 0"),
        ({"channels": 0}, "channels: got 0"),
        ({"layers": 1.5}, "layers: got 1.5"),
        ({"finetune_lr": 0.0}, "finetune_lr: got 0.0"),
        ({"drop_path": 1.0}, "drop_path: got 1.0"),
        ({"pretrain_epochs": -1}, "pretrain_epochs: got -1"),
        ({"loss": "focl"}, "loss: got 'focl'; wanted one of 'cross_entropy', 'class_balanced'"),
        ({"size": "huge"}, "size: got 'huge'"),
        ({"test_every": 0}, "test_every: got 0"),
        ({"projector": (0,)}, "projector: got (0,)"),
        ({"ema_decay": 1.0}, "ema_decay: got 1.0; wanted a number at least 0 and below 1"),
        ({"mixup": -1}, "mixup: got -1; wanted a number at least 0"),
        ({"precision": "fp16"}, "precision: got 'fp16'; wanted one of 'float32', 'tf32', 'bf16'"),
        ({"val_fraction": 1.0}, "val_fraction: got 1.0; wanted a number at least 0 and below 1"),
        ({"random_parameters": 0}, "random_parameters: got 0; wanted a whole number, at least 1"),
        ({"auxiliary": -0.4}, "auxiliary: got -0.4; wanted a number at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing: got 1.0; wanted a number at least 0 and below 1"),
        ({"cutout": 16}, "cutout: got 16; wanted True or False"),
        ({"drop_path_on": "edges"}, "drop_path_on: got 'edges'; wanted one of 'operations', 'nodes'"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        RetrainSettings(**fields)


def test_a_plain_module_needs_training_counts():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train()
    with pytest.raises(UserError, match="train_counts: a plain module"):
        evaluate(model, DATA.test)
    metrics = evaluate(model, DATA.test, train_counts=COUNTS)
    assert metrics.images == 30 and model.training
    assert evaluate(Classifier.of(model, DATA), DATA.test).images == 30
    with pytest.raises(UserError, match="images: the set is empty"):
        evaluate(model, DATA.test.subset([]), train_counts=COUNTS)


def test_validation_images_are_held_out_and_only_they_are_fitted_on(tmp_path):
    held_out = retrain("small-conv-net", tmp_path / "a", val_fraction=0.25, lr=0.1)
    model, posthoc = held_out.model, held_out.metrics["posthoc"]
    rows = from_manifest(tmp_path / "a" / "manifest.csv", DATA)
    assert {name: len(images) for name, images in rows.items()} == {"train": 37, "test": 30, "validation": 11}
    assert rows["train"].counts(3) == model.train_counts == (18, 11, 8)
    trained_on = replace(DATA, train=rows["train"])
    assert (model.mean, model.std) == (trained_on.mean, trained_on.std) != (DATA.mean, DATA.std)
    alone = retrain("small-conv-net", data=trained_on, lr=0.1)
    assert torch.equal(alone.model(DATA.test.images), model(DATA.test.images))

    logits = predict_logits(model, rows["validation"].images)
    assert model.calibration == calibrate(logits, rows["validation"].labels, model.train_counts)
    assert asdict(model.calibration).items() <= posthoc.items() and posthoc["images"] == 11
    assert load_classifier(tmp_path / "a").calibration == model.calibration

    other = replace(DATA, test=DATA.test.subset(list(range(12))))  # other test images choose nothing else
    assert retrain("small-conv-net", data=other, val_fraction=0.25, lr=0.1).model.calibration == model.calibration


def test_adjusted_figures_stand_beside_the_others(tmp_path):
    result = retrain("small-conv-net", tmp_path, val_fraction=0.25, lr=0.1)
    model, metrics, calibration = result.model, result.metrics, result.model.calibration
    logits = predict_logits(model, DATA.test.images)
    prior = torch.tensor(model.train_counts) / sum(model.train_counts)
    moved = (logits - calibration.tau * prior.log()) / calibration.tau_temperature
    expected = evaluate_predictions(moved, DATA.test.labels, model.train_counts)
    assert evaluate(model, DATA.test, adjusted=True) == expected
    assert (
        metrics["posthoc"]["adjusted"]["macro"] == expected.macro
        and metrics["macro"] == evaluate(model, DATA.test).macro
    )
    cooled = evaluate_predictions(logits / calibration.temperature, DATA.test.labels, model.train_counts)
    assert metrics["posthoc"]["ece"] == cooled.ece != metrics["ece"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    (found,) = predict(tmp_path, DATA.test.images[:1])
    probabilities = (logits[0] / calibration.temperature).softmax(0).sort(descending=True).values
    assert found.probabilities == pytest.approx(probabilities.tolist())


def test_without_validation_images_nothing_is_fitted():
    result = retrain("small-conv-net", epochs=1)
    assert "posthoc" not in result.metrics and result.model.calibration is None
    with pytest.raises(UserError, match="adjusted: got True for a model without calibration"):
        evaluate(result.model, DATA.test, adjusted=True)


def test_a_class_of_one_image_cannot_be_held_out():
    lonely = replace(DATA, train=DATA.train.subset([*range(38), 40]))
    with pytest.raises(
        UserError, match=re.escape("val_fraction: class 'right' has 1 training image(s); wanted at least 2")
    ):
        retrain("small-conv-net", data=lonely, val_fraction=0.5)


def test_digits_are_learnt():
    """Long-tailed digits, mu = .1: over 80 % on the balanced test set within seconds."""
    digits = load("digits", imbalance="exp", factor=0.1)
    hand = retrain("small-conv-net", data=digits, epochs=12, channels=16, batch_size=32, lr=0.1)
    assert hand.metrics["top1"] > 0.8 and hand.history[0]["train_loss"] > 2 * hand.history[-1]["train_loss"]
    assert hand.metrics["macro"] == pytest.approx(hand.metrics["top1"])  # the test set is balanced
