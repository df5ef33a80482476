"""`loss`: the long-tail losses in the searches that read labels."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from torch import nn
from torch.nn import functional as F

from lt_nas_ext.engine import run_search
from lt_nas_ext.longtail import LOSSES, CosineClassifier, make_loss
from lt_nas_ext.methods import Epoch, Labelled, Problem, method_class

COUNTS = (24, 14, 10)
PROBLEM = Problem(num_classes=3, image_shape=(1, 8, 8), class_counts=COUNTS)
AT = Epoch(0, 1)
BATCH = Labelled(torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 1, 2]))


def made(preset_name: str, **settings: object):
    chosen = tiny_settings(preset_name, **settings)
    method = method_class(chosen.method)(chosen, PROBLEM)
    torch.manual_seed(0)
    return method, method.build()


@pytest.mark.parametrize("preset_name", ["demo-darts", "authors-fairdarts"])
@pytest.mark.parametrize("name", LOSSES)
def test_either_half_has_the_loss_that_is_named(preset_name, name):
    method, networks = made(preset_name, loss=name, split=0.75)
    logits = networks(BATCH.images)
    for loss, share in ((method.weight_loss, 0.75), (method.alpha_loss, 0.25)):
        got = loss(networks, BATCH, AT)
        expected = make_loss(name, [share * n for n in COUNTS])(logits, BATCH.labels)
        torch.testing.assert_close(got.parts[name], expected)
        torch.testing.assert_close(got.logits, logits.detach())
    assert isinstance(networks.classifier, CosineClassifier if name == "ldam" else nn.Linear)


def test_cross_entropy_is_the_default_and_pytorchs_own():
    method, networks = made("demo-darts")
    parts = method.weight_loss(networks, BATCH, AT).parts
    assert torch.equal(parts["cross_entropy"], F.cross_entropy(networks(BATCH.images), BATCH.labels))


def test_partial_channels_take_the_cosine_classifier_too():
    _, networks = made("demo-darts", loss="ldam", partial_channels=2, channels=4)
    assert isinstance(networks.classifier, CosineClassifier)


@pytest.mark.parametrize(("name", "order"), [("ldam", "first"), ("balanced_softmax", "second"), ("focal", "exact")])
def test_a_search_runs_with_it_and_repeats(name, order):
    settings = tiny_settings("demo-darts", loss=name, order=order, epochs=2)
    first, again = (run_search(tiny_data(), settings, progress=Silent()) for _ in range(2))
    assert first.genotype == again.genotype
    losses = [row["losses"] for row in first.history]
    assert losses == [row["losses"] for row in again.history]
    assert all({*row} == {f"alpha/{name}", f"weights/{name}"} for row in losses)
    assert all(math.isfinite(value) for row in losses for value in row.values())
