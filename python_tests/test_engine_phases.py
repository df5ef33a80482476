"""What a training step of the retraining does: each of its options against what it stands for, on and off."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from test_engine_retrain import GENOTYPE, retrain, timeless
from tiny_runs import COUNTS, tiny_data
from torch import nn
from torch.nn import functional as F

from lt_nas_ext.data import normalize
from lt_nas_ext.engine import load_classifier
from lt_nas_ext.space import Network

DATA = tiny_data()
ONE_BATCH = {"epochs": 1, "batch_size": 48, "augment": "none", "drop_path": 0.0}
"""All images in one step, as they are: its loss can be worked out beside it, whatever their order."""


def tiny_network(auxiliary: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(GENOTYPE, channels=4, num_classes=3, layers=3, in_channels=1, auxiliary=auxiliary)


def pixels() -> torch.Tensor:
    return normalize(DATA.train.images, DATA.mean, DATA.std)


def weights(result) -> dict[str, torch.Tensor]:
    return result.model.state_dict()


def same(first, second) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_auxiliary_loss_is_added_with_its_weight():
    network = tiny_network(auxiliary=True)
    logits, auxiliary = copy.deepcopy(network).train().forward_auxiliary(pixels())
    expected = F.cross_entropy(logits, DATA.train.labels) + 0.4 * F.cross_entropy(auxiliary, DATA.train.labels)
    assert retrain(network, auxiliary=0.4, **ONE_BATCH).history[0]["train_loss"] == pytest.approx(expected.item())


def test_the_auxiliary_classifier_serves_the_training_alone(tmp_path):
    plain, helped = (retrain(auxiliary=weight, out=tmp_path / str(weight)) for weight in (0.0, 0.4))
    assert weights(plain).keys() == weights(helped).keys() and not same(plain, helped)
    assert plain.metrics["parameters"] == helped.metrics["parameters"]
    images = DATA.test.images
    assert torch.equal(load_classifier(tmp_path / "0.4")(images), helped.model(images))
    assert same(retrain(auxiliary=0.4, out=tmp_path / "0.4", resume=True), helped)  # after its end, too


def test_networks_without_an_auxiliary_classifier_do_without():
    assert same(*(retrain("small-conv-net", epochs=1, auxiliary=weight) for weight in (0.0, 0.4)))


@pytest.mark.parametrize("loss", ["cross_entropy", "balanced_softmax"])
def test_label_smoothing(loss):
    network = tiny_network()
    logits = copy.deepcopy(network).train()(pixels())
    if loss == "balanced_softmax":
        logits = logits + torch.tensor(COUNTS).log()
    targets = 0.8 * F.one_hot(DATA.train.labels, 3) + 0.2 / 3
    expected = -(targets * logits.log_softmax(1)).sum(1).mean().item()
    result = retrain(network, loss=loss, label_smoothing=0.2, **ONE_BATCH)
    assert result.history[0]["train_loss"] == pytest.approx(expected)


def test_drop_path_on_nodes_is_another_training():
    operations, nodes = (retrain(drop_path=0.5, drop_path_on=on).history for on in ("operations", "nodes"))
    assert timeless(operations)[0] == timeless(nodes)[0]  # nothing is dropped in the first epoch
    assert timeless(operations)[1] != timeless(nodes)[1]


def test_cutout_cuts_large_images_only():
    """The tiny images have 8 pixels: too few to cut. With 16 they lose a square of 8, which becomes the mean."""
    assert same(*(retrain("small-conv-net", epochs=1, cutout=cut) for cut in (False, True)))
    large = tiny_data(side=16)
    seen = []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(256, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(x)
            return self.classifier(x.flatten(1))

    for cut in (False, True):
        retrain(Looks(), data=large, epochs=1, augment="none", cutout=cut)
    whole, cut = (torch.cat(part) for part in (seen[:3], seen[3:]))
    removed = cut != whole
    assert (cut[removed].abs() < 1e-6).all()
    share = removed.float().mean((1, 2, 3))
    assert share.min() > 0.05 and share.max() <= 0.25 and share.max() > 0.2


def test_options_are_written_down(tmp_path):
    retrain(out=tmp_path, epochs=1, auxiliary=0.4, cutout=True, label_smoothing=0.1, drop_path_on="nodes")
    settings = json.loads((tmp_path / "config.json").read_text())["settings"]
    assert [settings[name] for name in ("auxiliary", "cutout", "label_smoothing", "drop_path_on")] == [
        0.4, True, 0.1, "nodes",
    ]  # fmt: skip
