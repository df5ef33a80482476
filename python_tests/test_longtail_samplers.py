"""The re-sampling rules: probabilities as a table, drawn shares within three standard deviations, partitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import SAMPLERS, ImageSampler, class_probabilities, epoch_order

COUNTS = (400, 100, 25)
LABELS = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
PROBABILITIES = {
    "instance": (400 / 525, 100 / 525, 25 / 525),
    "class_uniform": (1 / 3, 1 / 3, 1 / 3),
    "reverse": (1 / 21, 4 / 21, 16 / 21),
    "sqrt": (20 / 35, 10 / 35, 5 / 35),
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_probabilities(kind):
    expected = torch.tensor(PROBABILITIES[kind], dtype=torch.float64)
    torch.testing.assert_close(class_probabilities(COUNTS, kind), expected)


@pytest.mark.parametrize("kind", ["class_uniform", "reverse", "sqrt"])
def test_drawn_shares(kind):
    total = 60000
    drawn = epoch_order(LABELS, kind, seed=3, num_samples=total)
    shares = torch.bincount(LABELS[drawn], minlength=3) / total
    for share, p in zip(shares.tolist(), PROBABILITIES[kind], strict=True):
        assert abs(share - p) < 3 * math.sqrt(p * (1 - p) / total)
    # within a class every image is as likely as any other
    head = torch.bincount(drawn[LABELS[drawn] == 0], minlength=400)[:400].double()
    expected = head.sum() / 400
    chi2 = float(((head - expected) ** 2 / expected).sum())
    assert abs(chi2 - 399) < 3 * math.sqrt(2 * 399)


def test_instance_sees_every_image_once():
    order = epoch_order(LABELS, "instance", seed=0)
    assert sorted(order.tolist()) == list(range(525))
    assert sorted(epoch_order(LABELS, "instance", num_samples=1050).tolist()) == sorted([*range(525), *range(525)])


@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.sampled_from(SAMPLERS))
def test_an_epoch_is_a_function_of_seed_and_epoch(seed, epoch, kind):
    first = epoch_order(LABELS, kind, seed, epoch)
    torch.rand(3)  # the global generator has no part in it
    assert torch.equal(first, epoch_order(LABELS, kind, seed, epoch))
    assert not torch.equal(first, epoch_order(LABELS, kind, seed, epoch + 1))
    assert not torch.equal(first, epoch_order(LABELS, kind, seed + 1, epoch))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_replicas_share_one_order_without_overlap(replicas):
    parts = []
    for rank in range(replicas):
        sampler = ImageSampler(LABELS, "instance", seed=1, num_replicas=replicas, rank=rank)
        sampler.set_epoch(2)
        parts.append(list(sampler))
    assert {len(p) for p in parts} == {525 // replicas}
    seen = [i for p in parts for i in p]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(epoch_order(LABELS, "instance", 1, 2).tolist())


def test_with_any_data_loader():
    sampler = ImageSampler(LABELS.tolist(), "class_uniform", num_samples=300, seed=0)
    loader = DataLoader(TensorDataset(LABELS), batch_size=100, sampler=sampler)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(torch.cat([y for (y,) in loader]))
    assert len(epochs[0]) == len(sampler) == 300
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_probabilities([1, 2], "balanced"), "sampler: got 'balanced'; wanted one of 'instance'"),
        (lambda: class_probabilities([1, 0, 0], "sqrt"), "counts: no images of class 1, 2"),
        (lambda: class_probabilities([], "sqrt"), r"counts: got shape \(0,\); wanted \(C,\)"),
        (lambda: epoch_order(torch.tensor([]), "instance"), r"labels: got shape \(0,\); wanted \(N,\)"),
        (lambda: epoch_order(torch.tensor([0, 2]), "class_uniform"), "counts: no images of class 1"),
        (lambda: epoch_order(LABELS, "instance", seed=-1), "num_samples, seed, epoch: got None, -1, 0"),
        (lambda: ImageSampler(LABELS, "instance", num_samples=0), "num_samples, seed, epoch: got 0"),
        (lambda: ImageSampler(LABELS, "uniform"), "sampler: got 'uniform'"),
        (lambda: ImageSampler(LABELS, num_replicas=2, rank=2), "rank: got 2 of num_replicas=2"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
