"""cRT and τ-normalisation on networks that know nothing of this package."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import (
    BalancedSoftmax,
    ImageSampler,
    cosine_classifier,
    evaluate_predictions,
    retrain_classifier,
    tau_normalized,
)

COUNTS = (200, 40, 8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


def images(per_class: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(per_class))
    return torch.eye(3, 6)[labels] * 2 + torch.randn(len(labels), 6, generator=draws), labels


def loader(**options: object) -> DataLoader:
    x, y = images(COUNTS)
    return DataLoader(TensorDataset(x, y), batch_size=31, sampler=ImageSampler(y, "class_uniform"), **options)


def trained() -> nn.Sequential:
    net, (x, y) = network(), images(COUNTS)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net


def test_crt_changes_the_last_layer_only_and_leaves_the_network_alone():
    net = trained()
    before = copy.deepcopy(net.state_dict())
    again = retrain_classifier(net, loader(), epochs=3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in again.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("5."), name
    assert net.training and not again.training
    assert all(p.requires_grad and p.grad is None for p in again.parameters())
    same = retrain_classifier(net, loader(), epochs=3)
    assert torch.equal(same[5].weight, again[5].weight)
    assert not torch.equal(retrain_classifier(net, loader(), epochs=3, seed=1)[5].weight, again[5].weight)


def test_crt_and_tau_normalisation_help_the_tail():
    net = trained().eval()
    x, y = images((300, 300, 300), seed=1)

    def macro(n: nn.Module) -> float:
        return evaluate_predictions(n(x), y, COUNTS).macro

    plain = macro(net)
    assert macro(retrain_classifier(net, loader())) > plain + 0.03
    assert max(macro(tau_normalized(net, tau)) for tau in (0.3, 0.6, 1.0)) > plain


def test_the_sampler_is_told_each_epoch():
    told, batches = [], loader()
    batches.sampler.set_epoch = told.append  # type: ignore[method-assign]
    retrain_classifier(network(), batches, epochs=3)
    assert told == [0, 1, 2]


def test_any_criterion_and_any_batches_will_do():
    x, y = images(COUNTS)
    batches = [(x, y)]
    plain = retrain_classifier(network(), batches, epochs=5)
    balanced = retrain_classifier(network(), batches, epochs=5, criterion=BalancedSoftmax(COUNTS))
    predicted = [torch.bincount(n(x).argmax(1), minlength=3)[0] for n in (plain, balanced)]
    assert predicted[1] < predicted[0]


def test_a_cosine_classifier_is_retrained_too():
    again = retrain_classifier(cosine_classifier(network()), loader(), epochs=1)
    assert again[5].weight.shape == (3, 16)


def test_tau_normalisation_by_hand():
    net = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.25]]))
        net[0].bias.copy_(torch.tensor([1.0, -1.0]))
    half = tau_normalized(net, 0.5)
    root = 5**0.5
    torch.testing.assert_close(half[0].weight.detach(), torch.tensor([[3 / root, 4 / root], [0.0, 0.5]]))
    assert half[0].bias.tolist() == [0.0, 0.0] and net[0].bias.tolist() == [1.0, -1.0]
    torch.testing.assert_close(tau_normalized(net, 1)[0].weight.norm(dim=1).detach(), torch.ones(2))
    assert torch.equal(tau_normalized(net, 0)[0].weight, net[0].weight)


class Scaled(nn.Module):
    """Its output is not that of its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.layer(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tau_normalized(network(), 1.5), r"tau: got 1.5; wanted τ in \[0, 1\], such as 0.7"),
        (lambda: tau_normalized(nn.Conv2d(1, 1, 1)), "network: Conv2d has no torch.nn.Linear"),
        (lambda: tau_normalized(cosine_classifier(network())), "network: its last layer is a CosineClassifier"),
        (
            lambda: tau_normalized(nn.utils.skip_init(nn.Linear, 2, 2).requires_grad_(False).apply(_zero)),
            "network: a class of its last layer has no weight but 0 or NaN",
        ),
        (lambda: retrain_classifier(network(), loader(), epochs=0), "epochs: got 0; wanted a whole number"),
        (lambda: retrain_classifier(network(), loader(), lr=0.0), "lr: got 0.0; wanted a learning rate above 0"),
        (lambda: retrain_classifier(network(), []), "batches: epoch 0 had none; wanted something to go through again"),
        (
            lambda: retrain_classifier(network(), [(torch.rand(2, 6), torch.tensor([0, 3]))]),
            "batches: found class 3; the network's last layer has 3: 0 … 2",
        ),
        (
            lambda: retrain_classifier(Scaled(), [(torch.rand(2, 6), torch.tensor([0, 1]))]),
            r"network: the output of Scaled is not that of its layer Linear\(in_features=6",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()
