"""Stronger augmentation of rare classes: how often it strikes whom, and what it hands on."""

from __future__ import annotations

import pytest
import torch

from lt_nas_ext.data import PhotoView, augment
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import TailAugment

COUNTS = (400, 100, 4)


def marked(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    return images + 1


def plain(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    return images.clone()


def test_shares_by_class():
    tail = TailAugment(plain, marked, COUNTS)
    labels = torch.arange(3).repeat(4000)
    out = tail(torch.zeros(12000, 1, 1, 1), labels, torch.Generator().manual_seed(0)).flatten()
    shares = [out[labels == c].mean().item() for c in range(3)]
    for share, p in zip(shares, (0.0, 0.75, 0.99), strict=True):
        assert abs(share - p) <= 3 * (p * (1 - p) / 4000) ** 0.5
    assert set(out.tolist()) == {0.0, 1.0}  # one of the two, never both


def test_equal_counts_leave_the_weak_one_alone():
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(3).repeat(2)
    draws = torch.Generator()
    out = TailAugment(augment("cifar"), marked, (5, 5, 5))(images, labels, draws.manual_seed(3))
    torch.rand(6, generator=draws.manual_seed(3), dtype=torch.float64)
    assert torch.equal(out, augment("cifar")(images, draws))


def test_our_transforms_a_seed_and_no_generator():
    images, labels = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8), torch.arange(64) % 3
    tail = TailAugment(augment("cifar"), PhotoView(), COUNTS)
    outs = [tail(images, labels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert outs[0].shape == images.shape and outs[0].dtype == torch.float32
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    torch.manual_seed(0)
    first = TailAugment(lambda x: x, lambda x: 0 * x, COUNTS)(images, labels)  # a transform that takes images alone
    assert torch.equal(first[labels == 0], images[labels == 0]) and (first[labels == 2] == 0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TailAugment(plain, "strong", COUNTS), "strong: got str; wanted a transform of a batch of images"),
        (lambda: TailAugment(plain, marked, (4, 0)), "counts: no images of class 1"),
        (
            lambda: TailAugment(plain, marked, COUNTS)(torch.rand(2, 1, 2, 2), torch.tensor([0, 3])),
            "labels: found 0 … 3; with 3 counts wanted 0 … 2",
        ),
        (
            lambda: TailAugment(plain, marked, COUNTS)(torch.rand(2, 1, 2, 2), torch.tensor([0])),
            r"labels: got torch.int64 of shape \(1,\) for 2 images; wanted one class an image",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
