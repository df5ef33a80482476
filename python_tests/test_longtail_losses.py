"""Every loss against a table worked by hand, against a second implementation in plain Python, and at its extremes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import (
    LDAM,
    LOSSES,
    BalancedSoftmax,
    ClassBalanced,
    CrossEntropy,
    DeferredReweighting,
    Focal,
    InverseFrequency,
    LogitAdjustment,
    MixedTargets,
    class_counts,
    make_loss,
)

CIFAR10_LT = class_counts("exp", 0.01, 10, 5000)
DOUBLE = {"dtype": torch.float64}

# softmax of (log 6, log 3, log 1) is (.6, .3, .1)
SIX_THREE_ONE = torch.tensor([[math.log(6), math.log(3), 0.0]], **DOUBLE)
HALF = math.exp(-0.5)
BY_HAND = [
    ("cross-entropy", CrossEntropy(), 1, -math.log(0.3)),
    (
        "smoothed",
        CrossEntropy(label_smoothing=0.3),
        0,
        -0.8 * math.log(0.6) - 0.1 * math.log(0.3) - 0.1 * math.log(0.1),
    ),
    ("focal, γ = 2", Focal(2.0), 0, -0.16 * math.log(0.6)),
    ("focal, γ = ½", Focal(0.5), 1, -math.sqrt(0.7) * math.log(0.3)),
    ("focal, γ = 0", Focal(0.0), 2, -math.log(0.1)),
    ("balanced softmax", BalancedSoftmax([100, 10, 1]), 1, -math.log(30 / 631)),  # 6·100, 3·10, 1·1
    ("logit adjustment, τ = 2", LogitAdjustment([100, 10, 1], tau=2.0), 2, -math.log(1 / 60301)),
    ("logit adjustment, τ = 0", LogitAdjustment([100, 10, 1], tau=0.0), 2, -math.log(0.1)),
    # n^(−1/4) = .1, .5, 1, so margins .05, .25, .5: 3 shrinks to 3·exp(−2·.25)
    ("LDAM, s = 2", LDAM([10000, 16, 1], max_margin=0.5, scale=2.0), 1, -math.log(3 * HALF / (7 + 3 * HALF))),
    ("LDAM without margin", LDAM([10000, 16, 1], max_margin=0.0, scale=2.0), 1, -math.log(0.3)),
]


@pytest.mark.parametrize(
    ("loss", "label", "expected"), [case[1:] for case in BY_HAND], ids=[case[0] for case in BY_HAND]
)
def test_one_image_by_hand(loss, label, expected):
    assert loss(SIX_THREE_ONE, torch.tensor([label])).item() == pytest.approx(expected, abs=1e-12)


# β = .9: effective numbers of 1, 2, 3 images are 1, 1.9, 2.71
EFFECTIVE = (1.0, 1.9, 2.71)
WEIGHTED = [
    ("class-balanced", ClassBalanced([1, 2, 3], beta=0.9), [1 / e for e in EFFECTIVE]),
    ("class-balanced, β = 0", ClassBalanced([1, 2, 3], beta=0.0), [1, 1, 1]),
    ("inverse frequency", InverseFrequency([100, 10, 1]), [1, 10, 100]),
]


@pytest.mark.parametrize(("loss", "weights"), [case[1:] for case in WEIGHTED], ids=[case[0] for case in WEIGHTED])
def test_the_weighted_mean_by_hand(loss, weights):
    """Two images, of classes 0 and 2, errors −log .6 and −log .1: Σ w·e / Σ w."""
    expected = -(weights[0] * math.log(0.6) + weights[2] * math.log(0.1)) / (weights[0] + weights[2])
    got = loss(SIX_THREE_ONE.expand(2, 3), torch.tensor([0, 2]))
    assert got.item() == pytest.approx(expected, abs=1e-12)
    assert loss.weights.sum().item() == pytest.approx(3, abs=1e-12)


# ---- a second implementation, by the formulas, in plain Python


def log_softmax(z, y):
    top = max(z)
    return z[y] - top - math.log(sum(math.exp(v - top) for v in z))


def error(name, z, y, n):
    """The error of one image with the defaults of `make_loss`."""
    if name == "focal":
        p = math.exp(log_softmax(z, y))
        return (1 - p) ** 2 * -log_softmax(z, y)
    if name == "balanced_softmax":
        z = [v + math.log(c) for v, c in zip(z, n, strict=True)]
    if name == "logit_adjustment":
        z = [v + math.log(c / sum(n)) for v, c in zip(z, n, strict=True)]
    if name == "ldam":
        margins = [0.5 * c**-0.25 / min(n) ** -0.25 for c in n]
        z = [v - 30 * margins[c] * (c == y) for c, v in enumerate(z)]
    return -log_softmax(z, y)


def class_weights(name, n):
    if name == "class_balanced":
        return [(1 - 0.9999) / (1 - 0.9999**c) for c in n]
    return [1 / c for c in n] if name == "inverse_frequency" else [1.0 for _ in n]


def mean(name, logits, parts, n, w):
    """`parts`: triples (image, label, share)."""
    total = sum(s * w[y] * error(name, logits[i], y, n) for i, y, s in parts)
    return total / sum(s * w[y] for _, y, s in parts)


def batch(name, images=24, seed=0):
    draws = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, 10, generator=draws, **DOUBLE)
    if name == "ldam":
        logits = 30 * torch.tanh(logits / 3)  # cosines times s
    labels, others = torch.randint(0, 10, (2, images), generator=draws)
    return logits, MixedTargets(labels, others, torch.rand(images, generator=draws, **DOUBLE))


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_implementation_agrees(name):
    logits, targets = batch(name)
    loss, rows = make_loss(name, CIFAR10_LT), logits.tolist()
    own = [(i, y, 1.0) for i, y in enumerate(targets.labels.tolist())]
    w = class_weights(name, CIFAR10_LT)
    assert loss(logits, targets.labels).item() == pytest.approx(mean(name, rows, own, CIFAR10_LT, w), abs=1e-10)
    both = [(i, y, s) for i, (y, s) in enumerate(zip(targets.labels.tolist(), targets.share.tolist(), strict=True))]
    both += [
        (i, y, 1 - s) for i, (y, s) in enumerate(zip(targets.others.tolist(), targets.share.tolist(), strict=True))
    ]
    assert loss(logits, targets).item() == pytest.approx(mean(name, rows, both, CIFAR10_LT, w), abs=1e-10)
    w = DeferredReweighting(CIFAR10_LT, 10).weights(9).tolist()  # as LDAM-DRW, and the same of every other
    loss.reweight(w)
    assert loss(logits, targets.labels).item() == pytest.approx(mean(name, rows, own, CIFAR10_LT, w), abs=1e-10)
    loss.reweight(None)
    ones = [1.0] * 10
    assert loss(logits, targets.labels).item() == pytest.approx(mean(name, rows, own, CIFAR10_LT, ones), abs=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_pytorch_has_too(smoothing):
    logits, targets = batch("cross_entropy")
    labels, soft = targets.labels, targets.soft(10)
    loss = CrossEntropy(label_smoothing=smoothing)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, labels), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        loss(logits, targets), F.cross_entropy(logits, soft, label_smoothing=smoothing), rtol=0, atol=1e-12
    )
    weights = torch.arange(1, 11, **DOUBLE)
    expected = F.cross_entropy(logits, labels, weights)
    torch.testing.assert_close(CrossEntropy(weights)(logits, labels), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(Focal(0.0, weights)(logits, labels), expected, rtol=0, atol=1e-12)


def test_laws():
    logits, targets = batch("cross_entropy")
    labels = targets.labels
    close = {"rtol": 0, "atol": 1e-12}
    plain = CrossEntropy()(logits, labels)
    torch.testing.assert_close(BalancedSoftmax([7] * 10)(logits, labels), plain, **close)
    torch.testing.assert_close(
        LogitAdjustment(CIFAR10_LT)(logits, labels), BalancedSoftmax(CIFAR10_LT)(logits, labels), **close
    )
    for first, second in itertools.pairwise(CIFAR10_LT):
        margins = LDAM([first, second]).margins
        assert margins[1] == 0.5 and margins[0] / margins[1] == pytest.approx((second / first) ** 0.25)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name):
    logits, targets = batch(name, images=5)
    for loss in (make_loss(name, CIFAR10_LT), make_loss(name, [10**6] + [1] * 9)):
        for given in (targets.labels, targets):
            assert torch.autograd.gradcheck(lambda z, loss=loss, given=given: loss(z, given), logits.requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
def test_gradients_of_focal(gamma):
    logits, targets = batch("focal", images=5)
    assert torch.autograd.gradcheck(lambda z: Focal(gamma)(z, targets.labels), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*LOSSES, "focal, γ = ½"])
def test_no_nan_at_the_extremes(name, dtype):
    """Certainly right, certainly wrong, all alike; classes of one image beside one of 10⁷."""
    counts = [10**7, 100, 1, 1]
    loss = Focal(0.5) if name.startswith("focal,") else make_loss(name, counts)
    size = 30.0 if name == "ldam" else 6e4 if dtype == torch.float16 else 1e30
    logits = torch.full((4, 4), -size, dtype=dtype)
    logits[0, 0] = logits[1, 3] = logits[2, 0] = size  # right, right and rare, wrong; the last row is all alike
    logits.requires_grad_()
    value = loss(logits, torch.tensor([0, 3, 3, 2]))
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert math.isfinite(value.item()) and torch.isfinite(logits.grad).all()
    assert value > 0


def test_a_checkpoint_holds_nothing_of_them_and_they_follow_the_logits():
    for name in LOSSES:
        assert make_loss(name, CIFAR10_LT).state_dict() == {}
    # after .half() of a whole model the counts are still what they were, but for rounding
    value = BalancedSoftmax(CIFAR10_LT).half()(torch.zeros(1, 10), torch.tensor([9]))
    assert value.item() == pytest.approx(math.log(12406 / 50), abs=0.01)


def test_ldam_tells_once_that_its_logits_are_no_cosines():
    loss = LDAM([5, 1])
    with pytest.raises(UserError, match=r"logits: got one of size 40; wanted 30 times cosines, at most 30: give the"):
        loss(torch.tensor([[40.0, 0.0]]), torch.tensor([0]))
    loss(torch.tensor([[30.0, -30.0]]), torch.tensor([0]))


ZEROS = torch.zeros(2, 3)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_loss("focl", [1, 2]), "loss: got 'focl'; wanted one of 'cross_entropy', 'class_balanced'"),
        (lambda: make_loss("ldam", [1, 2], 0.1), "label_smoothing: got 0.1 with 'ldam', which knows none; wanted 0"),
        (
            lambda: CrossEntropy(label_smoothing=1.0),
            r"label_smoothing: got 1.0; wanted a share in \[0, 1\), such as 0.1",
        ),
        (lambda: BalancedSoftmax([0, 3]), "counts: no images of class 0"),
        (lambda: BalancedSoftmax([math.nan, 3]), r"counts: got \[nan, 3.0\]; wanted finite numbers, the images"),
        (lambda: BalancedSoftmax("counts"), r"counts: got 'counts'; wanted \(C,\) images per class"),
        (lambda: LogitAdjustment([2, 3], tau=-1.0), "tau: got -1.0; wanted τ ≥ 0, such as 1.0"),
        (lambda: Focal(gamma=math.nan), "gamma: got nan; wanted γ ≥ 0, such as 2.0"),
        (lambda: Focal(gamma=True), "gamma: got True; wanted γ ≥ 0"),
        (lambda: LDAM([2, 3], scale=0.0), "scale: got 0.0; wanted s > 0, such as 30.0"),
        (lambda: LDAM([2, 3], max_margin=-0.5), "max_margin: got -0.5; wanted a margin ≥ 0 between cosines"),
        (lambda: LDAM([2, 3], weights=[1.0]), r"weights: got \[1.0\]; wanted 2 finite numbers above 0, one a class"),
        (lambda: CrossEntropy([1.0, 0.0]), r"weights: got \[1.0, 0.0\]; wanted 2 finite numbers above 0"),
        (
            lambda: BalancedSoftmax([1, 3])(ZEROS, LABELS),
            r"logits: got torch.float32 of shape \(2, 3\); wanted floats of shape \(N, 2\), at least one row",
        ),
        (lambda: CrossEntropy([1.0, 2.0])(ZEROS, LABELS), r"logits: got .* of shape \(2, 3\); wanted .* \(N, 2\)"),
        (lambda: Focal()(ZEROS[:0], LABELS[:0]), r"logits: got torch.float32 of shape \(0, 3\); wanted .* \(N, C\)"),
        (lambda: Focal()(ZEROS.long(), LABELS), r"logits: got torch.int64 of shape \(2, 3\); wanted floats"),
        (lambda: Focal()(ZEROS, LABELS[:1]), r"targets: got torch.int64 of shape \(1,\); wanted \(2,\) int64 labels"),
        (lambda: Focal()(ZEROS, ZEROS), r"targets: got torch.float32 of shape \(2, 3\); .* or what mixup or remix"),
        (
            lambda: Focal()(ZEROS, LABELS + 2),
            "targets: found class 2 … 3; with 3 columns of logits wanted 0 … 2",
        ),
        (lambda: Focal()(ZEROS, LABELS - 100), "targets: found class -100 … -99"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
