"""What a retraining does about a long tail: each setting against what it stands for, on and off."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from test_engine_retrain import retrain, timeless
from tiny_runs import COUNTS, tiny_data

from lt_nas_ext.data import normalize
from lt_nas_ext.engine import load_classifier
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import LOSSES, SAMPLERS, CosineClassifier, cosine_classifier, make_loss
from lt_nas_ext.space import SmallConvNet

DATA = tiny_data()
ONE_BATCH = {"epochs": 1, "batch_size": 48, "augment": "none"}
"""All images in one step, as they are: its loss can be worked out beside it, whatever their order."""


def network(loss: str = "cross_entropy") -> SmallConvNet:
    torch.manual_seed(0)
    plain = SmallConvNet(num_classes=3, in_channels=1, channels=4)
    return cosine_classifier(plain) if loss == "ldam" else plain


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_that_is_named(name):
    net = network(name)
    logits = copy.deepcopy(net).train()(normalize(DATA.train.images, DATA.mean, DATA.std))
    expected = make_loss(name, COUNTS)(logits, DATA.train.labels).item()
    assert retrain(net, loss=name, **ONE_BATCH).history[0]["train_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("what", ["small-conv-net", "darts-v2"])
def test_ldam_brings_its_classifier_and_keeps_it(tmp_path, what):
    trained = retrain(what, tmp_path, loss="ldam", epochs=1)
    assert isinstance(trained.model.network.classifier, CosineClassifier)
    again = load_classifier(tmp_path)
    assert torch.equal(again(DATA.test.images), trained.model(DATA.test.images))
    with pytest.raises(
        UserError, match="loss: got 'ldam' for SmallConvNet, whose last layer is a Linear; wanted a Cos"
    ):
        retrain(network(), loss="ldam")


def test_deferred_weights_begin_with_the_last_fifth():
    plain, deferred = (timeless(retrain("small-conv-net", epochs=5, drw=drw).history) for drw in (False, True))
    losses = [[row["train_loss"] for row in history] for history in (plain, deferred)]
    assert losses[0][:4] == pytest.approx(losses[1][:4], rel=1e-5)
    assert abs(losses[0][4] - losses[1][4]) > 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_sampler_that_is_named(sampler):
    class Steps:
        def start(self, total_steps, description, done=0):
            self.total = total_steps

        def step(self, figures):
            pass

        def epoch(self, row):
            pass

        def close(self):
            pass

    steps = Steps()
    trained = retrain("small-conv-net", epochs=1, batch_size=10, sampler=sampler, progress=steps)
    assert steps.total == (3 if sampler == "under_sampling" else 4)  # 10 images of each class, of 48
    other = retrain("small-conv-net", epochs=1, batch_size=10)
    same = trained.history[0]["train_loss"] == other.history[0]["train_loss"]
    assert same == (sampler == "instance")


@pytest.mark.parametrize("options", [{"mixup": 1.0, "remix": True}, {"tail_augment": True}])
def test_options_that_change_a_training(options):
    rare = replace(DATA, train=DATA.train.subset(list(range(42))))  # 24, 14, 4: rare enough for Remix
    base = {"mixup": options.get("mixup", 0.0), "epochs": 1, "batch_size": 21, "data": rare}
    plain, changed, again = (retrain("small-conv-net", **{**base, **more}) for more in ({}, options, options))
    assert changed.history[0]["train_loss"] == again.history[0]["train_loss"] != plain.history[0]["train_loss"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ldam", "label_smoothing": 0.1}, "label_smoothing: got 0.1 with 'ldam', which knows none; wanted 0"),
        ({"loss": "ldam", "auxiliary": 0.4}, "auxiliary: got 0.4 with loss 'ldam'"),
        ({"loss": "class_balanced", "drw": True}, "drw: got True with loss 'class_balanced', which weighs classes"),
        ({"remix": True}, "remix: got True with mixup=0, which mixes nothing; wanted mixup above 0, such as 1.0"),
        ({"sampler": "uniform"}, "sampler: got 'uniform'; wanted one of 'instance', 'class_uniform'"),
        ({"tail_augment": 1}, "tail_augment: got 1; wanted True or False"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(UserError, match=message):
        retrain("small-conv-net", **settings)
