"""Mixing ratios as the tables of the literature, and the mixed loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import MIXINGS, mixed_loss, mixing_ratios, schedule
from lt_nas_ext.longtail.mixing import reverse_sigmoid

PROGRESS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
TABLE = {
    "parabolic": (1, 0.99, 0.9375, 0.75, 0.4375, 0.19, 0),
    "reverse-sigmoid": (0.9933, 0.982, 0.9241, 0.5, 0.0759, 0.018, 0.0067),
    "constant": (0.5,) * 7,
}


@pytest.mark.parametrize("name", MIXINGS)
def test_schedules(name):
    assert [schedule(name)(t) for t in PROGRESS] == pytest.approx(TABLE[name], abs=1e-3)


def test_parameters_of_the_schedules():
    assert schedule("constant", value=0.25)(0.7) == 0.25
    assert schedule("reverse-sigmoid", beta=2.0)(0.0) == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert all(0.0 <= reverse_sigmoid(t, 1e4) <= 1.0 for t in PROGRESS)
    for t in PROGRESS:  # centrally symmetric about one half
        assert reverse_sigmoid(t) + reverse_sigmoid(1 - t) == pytest.approx(1.0)


def test_epochs_count_from_zero_and_any_function_serves():
    assert mixing_ratios(schedule("parabolic"), 4) == (1.0, 0.9375, 0.75, 0.4375)
    assert mixing_ratios(schedule(lambda t: 1 - t), 4) == (1.0, 0.75, 0.5, 0.25)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: 1.5, r"returns 1\.5 in epoch 0 of 4; wanted r in \[0, 1\]"),
        (lambda t: -t, r"returns -0\.25 in epoch 1 of 4"),
        (lambda t: math.nan if t > 0.5 else 1.0, "returns nan in epoch 3 of 4"),
        (lambda t: "half", "returns 'half' in epoch 0"),
        (lambda t: None, "returns None in epoch 0"),
    ],
)
def test_a_schedule_that_leaves_the_interval_is_told(function, message):
    with pytest.raises(UserError, match=f"mixing: the schedule {message}"):
        mixing_ratios(function, 4)


@pytest.mark.parametrize("name", ["linear", None, 0.5])
def test_no_schedule(name):
    with pytest.raises(UserError, match=r"mixing: got .*; wanted one of 'parabolic', 'reverse-sigmoid'"):
        schedule(name)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_mixed_loss(ratio):
    torch.manual_seed(0)
    z, a, b = torch.randn(5, 3), torch.randint(3, (5,)), torch.randint(3, (5,))
    expected = ratio * F.cross_entropy(z, a) + (1 - ratio) * F.cross_entropy(z, b)
    assert mixed_loss(z, a, b, ratio).item() == pytest.approx(expected.item(), rel=1e-6)
    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.5)
    assert mixed_loss(z, a, a, ratio, smooth).item() == pytest.approx(smooth(z, a).item(), rel=1e-6)
