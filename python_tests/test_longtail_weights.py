"""Class weights against their formulas and the published range, and the schedule of LDAM-DRW."""

from __future__ import annotations

import pytest
import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import (
    DeferredReweighting,
    class_balanced_weights,
    class_counts,
    inverse_frequency_weights,
)

CIFAR10_LT = class_counts("exp", 0.01, 10, 5000)


def test_class_balanced_weights_of_cifar10_at_ratio_100():
    weights = class_balanced_weights(CIFAR10_LT, beta=0.9999)
    assert weights.dtype == torch.float32
    assert weights.sum().item() == pytest.approx(10, rel=1e-6)
    assert [round(w, 3) for w in weights[[0, -1]].tolist()] == [0.051, 3.993]
    formula = [(1 - 0.9999) / (1 - 0.9999**n) for n in CIFAR10_LT]
    expected = torch.tensor([10 * w / sum(formula) for w in formula], dtype=torch.float64)
    exact = class_balanced_weights(CIFAR10_LT, dtype=torch.float64)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-10)


def test_class_balanced_weights_at_the_ends():
    assert class_balanced_weights(CIFAR10_LT, beta=0.0).tolist() == [1.0] * 10
    near_one = class_balanced_weights(CIFAR10_LT, 1 - 1e-13)
    torch.testing.assert_close(near_one, inverse_frequency_weights(CIFAR10_LT), rtol=1e-3, atol=0)


def test_inverse_frequency_weights():
    weights = inverse_frequency_weights(CIFAR10_LT, torch.float64)
    shares = weights * torch.tensor(CIFAR10_LT)
    torch.testing.assert_close(shares, shares[:1].expand(10))  # every class weighs the same in the whole
    assert weights.sum().item() == pytest.approx(10)


def test_the_published_schedule():
    """200 epochs: re-weighting and ×.01 from epoch 160 (from 0) on, ×.01 again from 180 on, 5 epochs of warm-up."""
    drw = DeferredReweighting(CIFAR10_LT, epochs=200)
    factors = [drw.lr_factor(epoch) for epoch in range(200)]
    assert factors[:6] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert factors[5:160] == [1.0] * 155 and factors[160:180] == [0.01] * 20 and factors[180:] == [1e-4] * 20
    assert torch.equal(drw.weights(159), torch.ones(10))
    assert torch.equal(drw.weights(160), class_balanced_weights(CIFAR10_LT))


@pytest.mark.parametrize(("epochs", "begins"), [(1, 1), (10, 8), (33, 26), (100, 80)])
def test_other_lengths_keep_the_share(epochs, begins):
    drw = DeferredReweighting((30, 10), epochs)
    assert drw.begins() == begins
    assert torch.equal(drw.weights(begins - 1), torch.ones(2)) and drw.weights(begins)[1] > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_balanced_weights([5, 1], beta=1.0), "beta: got 1.0; wanted 0 ≤ β < 1"),
        (lambda: class_balanced_weights([5, 1], beta="0.9"), "beta: got '0.9'; wanted 0 ≤ β < 1"),
        (lambda: class_balanced_weights([5, 0]), "counts: no images of class 1"),
        (lambda: inverse_frequency_weights([]), r"counts: got shape \(0,\)"),
        (lambda: DeferredReweighting((5, 0), 10), "counts: no images of class 1"),
        (lambda: DeferredReweighting((5, 1), 0), "epochs: got 0; wanted a whole number, at least 1"),
        (
            lambda: DeferredReweighting((5, 1), 10, start=160),
            r"start: got 160; wanted a share of the epochs in \[0, 1\]",
        ),
        (lambda: DeferredReweighting((5, 1), 10, beta=1), "beta: got 1; wanted"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
