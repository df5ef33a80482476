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
from lt_nas_ext.engine import evaluate, load_classifier
from lt_nas_ext.space import Network, SmallConvNet

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


def test_the_average_is_what_is_tested_reported_and_kept(tmp_path):
    """Worked out beside the run: d = min(decay, (1 + t) / (10 + t)), from the initial weights."""

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.classifier = nn.Linear(64, 3)
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.seen.append(self.classifier.weight.detach().clone())  # before the step
            return self.classifier(x.flatten(1))

    plain, averaged = Looks(), Looks()
    first = retrain(plain, lr=0.5)
    second = retrain(averaged, tmp_path, lr=0.5, ema_decay=0.3)
    assert all(torch.equal(a, b) for a, b in zip(plain.seen, averaged.seen, strict=True)) and len(plain.seen) == 9
    expected = plain.seen[0]
    for t, weight in enumerate([*plain.seen[1:], plain.classifier.weight.detach()], start=1):
        decay = min(0.3, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged.classifier.weight.detach(), expected)
    assert torch.equal(load_classifier(tmp_path, Looks()).network.classifier.weight, averaged.classifier.weight)
    assert [row["train_loss"] for row in first.history] == [row["train_loss"] for row in second.history]
    assert second.history[-1]["test_top1"] == second.metrics["top1"]
    assert evaluate(second.model, DATA.test).ece == second.metrics["ece"] != first.metrics["ece"]


def test_the_average_begins_with_the_supervised_epochs():
    """After a pre-training its first value is not that of the initial weights: one step of decay 2 / 11 is left."""
    networks = [tiny_network() for _ in range(2)]
    for network, decay in zip(networks, (0.0, 0.999), strict=True):
        retrain(network, pretrain_epochs=2, pretrain_lr=0.5, lr=1e-9, ema_decay=decay, **ONE_BATCH)
    plain, averaged = (network.stem[0].weight for network in networks)
    torch.testing.assert_close(plain, averaged, rtol=0, atol=1e-6)


def test_mixup_blends_images_and_losses_but_in_the_last_tenth():
    epochs, mixed = 10, []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                known = {image.numpy().tobytes() for image in pixels()}
                mixed.append(any(image.numpy().tobytes() not in known for image in x))
            return self.classifier(x.flatten(1))

    retrain(Looks(), **{**ONE_BATCH, "epochs": epochs}, mixup=1.0)
    assert mixed == [True] * 9 + [False]


def test_the_loss_of_mixup_is_that_of_both_labels():
    """A network that sees nothing has the same logits b for all: its loss is linear in the labels' shares."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.tensor([2.0, 0.0, -1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b.expand(len(x), 3)

    expected = F.cross_entropy(torch.tensor([2.0, 0.0, -1.0]).expand(48, 3), DATA.train.labels).item()
    # All images are in the batch, so the others' labels are as many of each class as its own.
    result = retrain(Blind(), mixup=1.0, **{**ONE_BATCH, "epochs": 2})
    assert result.history[0]["train_loss"] == pytest.approx(expected)


class Types(nn.Module):
    """Notes what it is fed and computes in, with whether it was in training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.classifier, self.feature_dim = nn.Conv2d(1, 8, 3), nn.Linear(8, 3), 8
        self.seen: set[tuple[bool, torch.dtype, torch.dtype]] = set()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x)
        self.seen.add((self.training, x.dtype, y.dtype))
        return y.relu().mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_training_and_no_weight_changes_its_type(precision, dtype):
    network = Types()
    result = retrain(network, epochs=2, pretrain_epochs=1, lr=0.5, precision=precision)
    assert network.seen == {(True, torch.float32, dtype), (False, torch.float32, torch.float32)}
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert all(row["train_loss"] is not None for row in result.history)


def test_weights_and_activations_are_channels_last():
    network, seen = SmallConvNet(num_classes=3, in_channels=1, channels=4), []
    network.layers[3].register_forward_hook(lambda module, inputs, output: seen.extend((*inputs, output)))
    retrain(network, epochs=1)
    tensors = [*seen, network.layers[3].weight]  # of a second convolution: one channel lies either way
    assert seen and all(x.is_contiguous(memory_format=torch.channels_last) for x in tensors)
    assert not any(x.is_contiguous() for x in tensors)


def test_bf16_trains_a_genotype_about_as_well():
    """With the auxiliary classifier and all that is drawn, on the CPU: three classes told apart in either precision."""
    options = {"epochs": 12, "lr": 0.1, "auxiliary": 0.4, "drop_path": 0.1, "ema_decay": 0.9, "augment": "none"}
    single, half = (retrain(**options, precision=precision) for precision in ("float32", "bf16"))
    assert single.metrics["top1"] > 0.9 and half.metrics["top1"] > 0.9
    first = [result.history[0]["train_loss"] for result in (single, half)]
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.05)


def test_options_are_written_down(tmp_path):
    retrain(out=tmp_path, epochs=1, auxiliary=0.4, cutout=True, label_smoothing=0.1, drop_path_on="nodes")
    settings = json.loads((tmp_path / "config.json").read_text())["settings"]
    assert [settings[name] for name in ("auxiliary", "cutout", "label_smoothing", "drop_path_on")] == [
        0.4, True, 0.1, "nodes",
    ]  # fmt: skip
