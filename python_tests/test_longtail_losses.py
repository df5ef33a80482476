"""Class weights and balanced softmax against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import BalancedSoftmax, class_balanced_weights, class_counts

CIFAR10_LT = class_counts("exp", 0.01, 10, 5000)


def test_class_balanced_weights_of_cifar10_at_ratio_100():
    weights = class_balanced_weights(CIFAR10_LT, beta=0.9999)
    assert weights.dtype == torch.float32
    assert weights.sum().item() == pytest.approx(10, rel=1e-6)
    assert round(weights[0].item(), 3) == 0.051
    assert round(weights[-1].item(), 3) == 3.993


def test_class_balanced_weights_at_the_ends():
    assert class_balanced_weights(CIFAR10_LT, beta=0.0).tolist() == [1.0] * 10
    n = torch.tensor(CIFAR10_LT, dtype=torch.float64)
    inverse = (1 / n) * (10 / (1 / n).sum())
    torch.testing.assert_close(class_balanced_weights(CIFAR10_LT, 1 - 1e-13), inverse.float(), rtol=1e-3, atol=0)


def test_balanced_softmax_is_cross_entropy_with_the_prior():
    torch.manual_seed(0)
    logits = torch.randn(16, 10, dtype=torch.float32, requires_grad=True)
    targets = torch.randint(0, 10, (16,))
    loss = BalancedSoftmax(CIFAR10_LT)(logits, targets)
    n = torch.tensor(CIFAR10_LT, dtype=torch.float64)
    weighted = logits.detach().double().exp() * n
    expected = -(weighted.gather(1, targets[:, None])[:, 0] / weighted.sum(1)).log().mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_balanced_softmax_on_equal_counts_is_cross_entropy():
    logits, targets = torch.randn(8, 4), torch.randint(0, 4, (8,))
    torch.testing.assert_close(BalancedSoftmax([7] * 4)(logits, targets), F.cross_entropy(logits, targets))


def test_balanced_softmax_keeps_nothing_in_a_checkpoint_and_works_in_float32():
    loss = BalancedSoftmax(CIFAR10_LT)
    assert loss.state_dict() == {}
    assert loss(torch.zeros(2, 10, dtype=torch.bfloat16), torch.tensor([0, 9])).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_balanced_weights([5, 1], beta=1.0), "beta: got 1.0; wanted 0 ≤ β < 1"),
        (lambda: class_balanced_weights([5, 0]), "counts: no images of class 1"),
        (lambda: BalancedSoftmax([0, 3]), "counts: no images of class 0"),
        (
            lambda: BalancedSoftmax([1, 3])(torch.zeros(2, 3), torch.tensor([0, 1])),
            r"logits: got shape \(2, 3\); wanted \(N, 2\)",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
