"""A supernet restricted to a genotype: the supernet under gates of one and zero, without what these leave out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lt_nas_ext import nn
from lt_nas_ext.space import (
    AuxiliarySkipCell,
    FusedCell,
    Genotype,
    PartialSupernet,
    PerEdgeCell,
    Supernet,
    param_count,
    random_genotype,
    sub_network,
)
from lt_nas_ext.space.runners_up import alpha_places


def by_gates(net: Supernet, genotype: Genotype) -> Supernet:
    """The whole supernet, every candidate computed, with gates of one and zero."""
    gated = copy.deepcopy(net)
    gated.gate = "identity"
    with torch.no_grad():
        for name, alpha in (("normal", gated.alphas_normal), ("reduce", gated.alphas_reduce)):
            alpha.zero_()
            for row, column in alpha_places(genotype.cells[name], net.primitives):
                alpha[row, column] = 1.0
    for cell in gated.cells:
        cell.gate = "identity"
    return gated


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("seed", "primitives", "cell"),
    [
        (0, nn.DARTS, FusedCell),
        (1, nn.FAIR_DARTS, FusedCell),
        (2, nn.DARTS, PerEdgeCell),
        (3, nn.FAIR_DARTS, AuxiliarySkipCell),
    ],
)
def test_it_is_the_supernet_under_gates_of_one_and_zero(
    seed: int, primitives: tuple[str, ...], cell: Any, training: bool
) -> None:
    torch.manual_seed(seed)
    net = Supernet(channels=4, num_classes=3, layers=3, in_channels=1, primitives=primitives, cell=cell)
    for _ in range(2):  # running statistics of its own
        net.train()(torch.randn(4, 1, 9, 8))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    genotype = random_genotype(seed, primitives)
    sub = sub_network(net, genotype)
    images = torch.randn(6, 1, 9, 8)
    expected = by_gates(net, genotype).train(training)(images)
    torch.testing.assert_close(sub.train(training)(images), expected, rtol=1e-4, atol=1e-5)
    assert param_count(sub) < param_count(net) / 3
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_gradients_reach_the_weights_that_are_left() -> None:
    sub = sub_network(Supernet(channels=4, layers=3, in_channels=1), random_genotype(0))
    sub(torch.randn(4, 1, 8, 8)).sum().backward()
    assert all(weight.grad is not None for weight in sub.weight_parameters())


def cell_of(text: str) -> Genotype:
    return Genotype.from_darts(f"Genotype(normal={text}, normal_concat=[2], reduce={text}, reduce_concat=[2])")


@pytest.mark.parametrize(
    ("net", "genotype", "message"),
    [
        (
            Supernet(channels=4, layers=1, primitives=("skip_connect", "max_pool_3x3")),
            random_genotype(0),
            "genotype: its normal cell has '.*'; wanted operations of the supernet: skip_connect, max_pool_3x3",
        ),
        (
            Supernet(channels=4, layers=1),
            cell_of("[('skip_connect', 0), ('skip_connect', 1)]"),
            r"genotype: its normal cell has the nodes \[2\]; wanted all 4 of the supernet, 2 … 5, each with an edge",
        ),
        (PartialSupernet(channels=4, layers=1), random_genotype(0), "supernet: got partial channels"),
    ],
)
def test_what_is_no_sub_network(net: Supernet, genotype: Genotype, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sub_network(net, genotype)
