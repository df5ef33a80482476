"""The networks that no search found: their published sizes and layouts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.space import (
    DARTS_V2,
    FAIR_DARTS_A,
    Network,
    ResNet32,
    SmallConvNet,
    genotype_param_count,
    multiply_adds,
    param_count,
)


def test_darts_v2_is_the_published_genotype():
    normal = [(edge.op, edge.source) for edge in DARTS_V2.normal.edges]
    reduce = [(edge.op, edge.source) for edge in DARTS_V2.reduce.edges]
    assert normal == [
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("skip_connect", 0),
        ("dil_conv_3x3", 2),
    ]
    assert reduce == [
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
    ]
    assert DARTS_V2.normal.concat == DARTS_V2.reduce.concat == (2, 3, 4, 5)
    assert [edge.target for edge in DARTS_V2.normal.edges] == [2, 2, 3, 3, 4, 4, 5, 5]


def test_fair_darts_a_has_the_size_that_its_authors_state():
    """2.83 M parameters, 373 M multiply-adds without batch norm (README of github.com/xiaomi-automl/FairDARTS).

    Their parameters count the auxiliary classifier, as those of their FairDARTS-b do: 3.88 M, and 3.41 M without.
    """
    assert FAIR_DARTS_A.normal.concat == (2, 4, 5)  # nothing arrives at node 3
    assert [edge.target for edge in FAIR_DARTS_A.reduce.edges] == [2, 2, 3, 3, 4, 4, 5, 5]
    net = Network(FAIR_DARTS_A, channels=36, layers=20, auxiliary=True)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2_837_208
    assert param_count(net) == genotype_param_count(FAIR_DARTS_A, channels=36, layers=20) == 2_360_782
    assert multiply_adds(net, (3, 32, 32)) / 1e6 == pytest.approx(373, rel=0.005)


def test_resnet_32_has_its_published_size_and_depth():
    """0.46 million parameters (arXiv:1512.03385, table 6), in 31 convolutions and a linear layer."""
    net = ResNet32(num_classes=10)
    assert param_count(net) == 464_154
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 32


def test_resnet_shortcuts_have_no_parameters():
    net = ResNet32().eval()
    block = net.blocks[5]
    x = torch.randn(2, 16, 7, 8)
    residual = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    shortcut = torch.zeros(2, 32, 4, 4)
    shortcut[:, 8:24] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), F.relu(residual + shortcut))


def test_small_conv_net_is_three_layers():
    net = SmallConvNet(num_classes=10, in_channels=1, channels=16)
    widths = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [16, 32, 64]
    assert net.layers(torch.ones(2, 1, 8, 8)).shape == (2, 64, 2, 2)
    assert param_count(net) == 9 * (16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + 65 * 10


@pytest.mark.parametrize("make", [ResNet32, SmallConvNet])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1)])
def test_features_then_classifier(make, size):
    net = make(num_classes=7, in_channels=1).eval()
    x = torch.randn(3, 1, *size)
    features = net.features(x)
    assert features.shape == (3, net.feature_dim)
    torch.testing.assert_close(net(x), net.classifier(features))


@pytest.mark.parametrize("make", [ResNet32, SmallConvNet])
def test_bad_arguments_are_named(make):
    with pytest.raises(UserError, match="num_classes: got 0"):
        make(num_classes=0)
    with pytest.raises(UserError, match=r"x: got torch.float32 of shape \(2, 1, 8, 8\); wanted .* \(N, 3, H, W\)"):
        make()(torch.ones(2, 1, 8, 8))
