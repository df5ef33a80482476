"""The cosine classifier, and finding the last layer of other people's networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CosineClassifier, cosine_classifier, last_linear


def test_cosines():
    layer = CosineClassifier(2, 3, scale=10.0).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.1], [3.0, 4.0]]))
    expected = torch.tensor([[6.0, 8.0, 10.0]], dtype=torch.float64)  # (3, 4) has length 5
    torch.testing.assert_close(layer(torch.tensor([[30.0, 40.0]], dtype=torch.float64)), expected)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_features_of_zero_give_no_nan():
    layer = CosineClassifier(2, 3)
    x = torch.zeros(1, 2, requires_grad=True)
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(layer.weight.grad).all()


def test_under_autocast_it_stays_in_float32():
    layer = CosineClassifier(64, 10)
    x = torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(x.bfloat16())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, layer(x.bfloat16().float()))


def test_directions_are_drawn_evenly_and_from_the_seed():
    torch.manual_seed(0)
    layer = CosineClassifier(3, 2000)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(2000))
    assert layer.weight.mean(0).norm() < 0.06
    torch.manual_seed(0)
    assert torch.equal(CosineClassifier(3, 2000).weight, layer.weight)


NETWORKS = {
    "SmallConvNet": lambda: lt.space.SmallConvNet(num_classes=5, in_channels=1, channels=4),
    "ResNet32": lambda: lt.space.ResNet32(num_classes=5, in_channels=1),
    "Network": lambda: lt.space.Network(lt.space.DARTS_V2, channels=4, num_classes=5, layers=3, in_channels=1),
    "Supernet": lambda: lt.space.Supernet(channels=4, num_classes=5, layers=3, in_channels=1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks_take_it(name):
    network = cosine_classifier(NETWORKS[name](), scale=20.0)
    where, layer = last_linear(network)
    assert where == "classifier" and isinstance(layer, CosineClassifier)
    logits = network(torch.rand(3, 1, 8, 8))
    assert logits.shape == (3, 5) and logits.abs().max() <= 20.001


def test_the_named_layer_is_the_one():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.auxiliary = nn.Linear(4, 3), nn.Linear(4, 3)

    network = TwoHeads()
    assert last_linear(network)[0] == "auxiliary" and last_linear(network, "main")[1] is network.main
    assert isinstance(cosine_classifier(network, layer="main").main, CosineClassifier)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CosineClassifier(0, 3), "in_features: got 0; wanted a whole number, at least 1"),
        (lambda: CosineClassifier(4, 2.5), "num_classes: got 2.5; wanted a whole number"),
        (lambda: CosineClassifier(4, 3, scale=-1.0), "scale: got -1.0; wanted s > 0, such as 30.0"),
        (lambda: last_linear("resnet"), "network: got str; wanted a torch.nn.Module"),
        (lambda: last_linear(nn.Conv2d(1, 1, 1)), "network: Conv2d has no torch.nn.Linear; wanted one as its last"),
        (lambda: last_linear(nn.Sequential(nn.Linear(1, 1)), "fc"), "layer: got 'fc'; .*: 0$"),
        (lambda: cosine_classifier(nn.Linear(2, 2)), "network: got a lone Linear"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
