"""Mixup and Remix: the rule of Remix as a table, and the mixtures they are of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CrossEntropy, MixedTargets, mixup, remix

COUNTS = [900, 300, 100, 1]


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10**6), st.floats(0.05, 5.0))
def test_images_and_targets_are_mixed_alike(seed, alpha):
    """One-hot images are their own targets, so mixture and soft target must be the same."""
    labels = torch.arange(12) % 4
    images = torch.eye(4, dtype=torch.float64)[labels]
    mixed, targets = mixup(images, labels, alpha, draws(seed))
    torch.testing.assert_close(mixed, targets.soft(4).double(), rtol=0, atol=1e-6)
    assert torch.equal(targets.labels, labels) and (targets.share >= 0.5).all()
    again, same = mixup(images, labels, alpha, draws(seed))
    assert torch.equal(mixed, again) and torch.equal(targets.others, same.others)
    assert torch.equal(remix(images, labels, COUNTS, alpha, generator=draws(seed))[0], mixed)


def test_a_small_alpha_mixes_little_and_a_large_one_by_halves():
    images, labels = torch.eye(4), torch.arange(4)
    shares = {a: [mixup(images, labels, a, draws(s))[1].share[0].item() for s in range(200)] for a in (0.05, 1.0, 50.0)}
    means = {a: sum(values) / 200 for a, values in shares.items()}
    assert means[0.05] > 0.95 and abs(means[1.0] - 0.75) < 0.03 and means[50.0] < 0.56


def share_by_the_paper(count, other, share, kappa, tau):
    if count / other >= kappa and share < tau:
        return 0.0
    if count / other <= 1 / kappa and 1 - share < tau:
        return 1.0
    return share


@pytest.mark.parametrize(("kappa", "tau"), [(3.0, 0.5), (3.0, 0.9), (1.0, 0.7), (10.0, 0.5), (3.0, 0.0), (3.0, 1.0)])
def test_the_rule_of_remix(kappa, tau):
    labels = torch.arange(400) % 4
    images = torch.eye(4)[labels]
    for seed in range(8):
        _, plain = mixup(images, labels, 1.0, draws(seed))
        _, targets = remix(images, labels, COUNTS, 1.0, kappa, tau, draws(seed))
        assert torch.equal(plain.others, targets.others)
        expected = [
            share_by_the_paper(COUNTS[y], COUNTS[o], s, kappa, tau)
            for y, o, s in zip(labels.tolist(), plain.others.tolist(), plain.share.tolist(), strict=True)
        ]
        assert targets.share.tolist() == expected


def test_soft_targets_are_what_pytorchs_own_loss_takes():
    torch.manual_seed(0)
    images, labels = torch.rand(6, 3), torch.tensor([0, 1, 2, 3, 3, 0])
    mixed, targets = remix(images, labels, COUNTS, generator=draws(1))
    logits = nn.Linear(3, 4)(mixed)
    torch.testing.assert_close(nn.CrossEntropyLoss()(logits, targets.soft(4)), CrossEntropy()(logits, targets))


def test_the_memory_format_is_kept_and_the_global_generator_serves():
    images = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(5)
    mixed, targets = mixup(images, torch.arange(4))
    assert mixed.is_contiguous(memory_format=torch.channels_last) and isinstance(targets, MixedTargets)
    torch.manual_seed(5)
    assert torch.equal(mixup(images, torch.arange(4))[0], mixed)


IMAGES, LABELS = torch.rand(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixup(IMAGES, LABELS, 0.0), r"alpha: got 0.0; wanted α > 0 of Beta\(α, α\), such as 1.0"),
        (lambda: mixup((255 * IMAGES).byte(), LABELS), "images: got torch.uint8; wanted floats, such as images / 255"),
        (lambda: mixup(IMAGES, LABELS[:1]), r"labels: got torch.int64 of shape \(1,\) for 2 images; .* \(2,\)"),
        (lambda: mixup(IMAGES, LABELS.float()), "labels: got torch.float32"),
        (lambda: remix(IMAGES, LABELS, [5]), "labels: found 0 … 1; with 1 counts wanted 0 … 0"),
        (lambda: remix(IMAGES, LABELS, [5, 0]), "counts: no images of class 1"),
        (lambda: remix(IMAGES, LABELS, [5, 1], kappa=0.5), "kappa: got 0.5; wanted κ ≥ 1, such as 3"),
        (lambda: remix(IMAGES, LABELS, [5, 1], tau=2), r"tau: got 2; wanted τ in \[0, 1\], such as 0.5"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
