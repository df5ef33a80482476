"""What networks cost, against the numbers that their authors publish."""

from __future__ import annotations

import pytest
import torch
from test_space_network import PUBLISHED
from torch import nn

from lt_nas_ext.space import (
    DARTS_V2,
    Genotype,
    Network,
    ResNet32,
    genotype_param_count,
    multiply_adds,
    param_count,
    random_genotype,
    random_genotype_of_size,
)

CIFAR = (3, 32, 32)


def test_darts_v2_costs_what_is_published():
    """3.3 million parameters, 528 million multiply-adds at 36 channels and 20 layers; the second classifier is free."""
    plain, auxiliary = (Network(DARTS_V2, channels=36, layers=20, auxiliary=x) for x in (False, True))
    assert param_count(plain) == param_count(auxiliary) == 3_349_342
    assert multiply_adds(plain, CIFAR) == multiply_adds(auxiliary, CIFAR) == 528_359_040


@pytest.mark.parametrize(("name", "millions"), [("a", 373), ("b", 536), ("c", 400), ("e", 414)])
def test_networks_of_fair_darts_cost_what_is_published(name, millions):
    net = Network(Genotype.from_darts(PUBLISHED[name][2]), channels=36, layers=20)
    assert multiply_adds(net, CIFAR) / 1e6 == pytest.approx(millions, abs=2)


def test_resnet_32_costs_its_69_million():
    assert multiply_adds(ResNet32(), CIFAR) == pytest.approx(69e6, rel=0.01)


def test_an_operation_is_counted_by_hand_and_nothing_is_left_behind():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), nn.Flatten())
    net.append(nn.Linear(4 * 4 * 5, 7))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert net.training and multiply_adds(net, (2, 7, 9)) == 4 * 5 * 4 * 9 + 80 * 7 and net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    multiply_adds(net, (2, 7, 9))
    assert not net.training


@pytest.mark.parametrize("seed", range(6))
def test_parameters_are_worked_out_without_building_the_network(seed):
    odd = {"channels": 5, "layers": seed + 1, "num_classes": 7, "in_channels": 1}
    for genotype in (random_genotype(seed), random_genotype(seed, nodes=2)):
        assert genotype_param_count(genotype, **odd) == param_count(Network(genotype, **odd))


@pytest.mark.parametrize("name", PUBLISHED)
def test_of_vanished_nodes_too(name):
    genotype = Genotype.from_darts(PUBLISHED[name][2])
    assert genotype_param_count(genotype, 4, 6) == param_count(Network(genotype, 4, layers=6))


def test_random_genotypes_of_a_size():
    found = [random_genotype_of_size(seed, 250_000, channels=16, layers=8) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    for genotype in found:
        assert param_count(Network(genotype, channels=16, layers=8)) == pytest.approx(250_000, rel=0.01)
    anything = genotype_param_count(random_genotype(7), 16, 8)
    assert random_genotype_of_size(7, anything, 16, 8) == random_genotype(7)


def test_half_the_image_costs_a_quarter():
    net = Network(DARTS_V2, 4, layers=3)
    head = net.feature_dim * 10
    assert multiply_adds(net, (3, 32, 32)) - head == 4 * (multiply_adds(net, (3, 16, 16)) - head)
