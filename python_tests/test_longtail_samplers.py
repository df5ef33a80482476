"""The re-sampling rules: probabilities as a table, drawn shares within three standard deviations, partitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import SAMPLERS, ImageSampler, class_counts, class_probabilities, epoch_length, epoch_order

COUNTS = (400, 100, 25)
LABELS = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
PROBABILITIES = {
    "instance": (400 / 525, 100 / 525, 25 / 525),
    "class_uniform": (1 / 3, 1 / 3, 1 / 3),
    "reverse": (1 / 21, 4 / 21, 16 / 21),
    "sqrt": (20 / 35, 10 / 35, 5 / 35),
    "under_sampling": (1 / 3, 1 / 3, 1 / 3),
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


@pytest.mark.parametrize("kind", SAMPLERS)
def test_shares_at_an_imbalance_ratio_of_100(kind):
    """CIFAR-10, exponential, μ = .01: 5000 … 50 images."""
    counts = class_counts("exp", 0.01, 10, 5000)
    labels = torch.arange(10).repeat_interleave(torch.tensor(counts))
    total = 200_000
    shares = torch.bincount(labels[epoch_order(labels, kind, seed=1, num_samples=total)], minlength=10) / total
    for share, p in zip(shares.tolist(), class_probabilities(counts, kind).tolist(), strict=True):
        assert abs(share - p) < 3 * math.sqrt(p * (1 - p) / total)


def test_instance_sees_every_image_once():
    order = epoch_order(LABELS, "instance", seed=0)
    assert sorted(order.tolist()) == list(range(525))
    assert sorted(epoch_order(LABELS, "instance", num_samples=1050).tolist()) == sorted([*range(525), *range(525)])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_under_sampling_takes_as_many_of_each_class_once(counts, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    order = epoch_order(labels, "under_sampling", seed)
    assert len(order) == epoch_length(labels, "under_sampling") == len(counts) * min(counts)
    assert len(set(order.tolist())) == len(order)
    assert torch.bincount(labels[order]).tolist() == [min(counts)] * len(counts)


def test_under_sampling_is_fair_and_takes_others_in_every_epoch():
    orders = [epoch_order(LABELS, "under_sampling", seed=1, epoch=epoch) for epoch in range(320)]
    times = torch.bincount(torch.cat(orders), minlength=525)
    assert (times[500:] == 320).all()  # the rarest class whole in every epoch
    assert abs(float(((times[:400] - 20.0) ** 2 / 20.0).sum()) / 400 - 15 / 16) < 0.25  # binomial: 320 times 1/16
    twice = epoch_order(LABELS, "under_sampling", num_samples=150)
    assert torch.bincount(LABELS[twice[:75]]).tolist() == [25] * 3 == torch.bincount(LABELS[twice[75:]]).tolist()


@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.sampled_from(SAMPLERS))
def test_an_epoch_is_a_function_of_seed_and_epoch(seed, epoch, kind):
    first = epoch_order(LABELS, kind, seed, epoch)
    torch.rand(3)  # the global generator has no part in it
    assert torch.equal(first, epoch_order(LABELS, kind, seed, epoch))
    assert not torch.equal(first, epoch_order(LABELS, kind, seed, epoch + 1))
    assert not torch.equal(first, epoch_order(LABELS, kind, seed + 1, epoch))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_replicas_share_one_order_without_overlap(replicas, kind):
    parts = []
    for rank in range(replicas):
        sampler = ImageSampler(LABELS, kind, seed=1, num_replicas=replicas, rank=rank)
        sampler.set_epoch(2)
        parts.append(list(sampler))
        assert len(sampler) == len(parts[-1]) == epoch_length(LABELS, kind) // replicas
    together = [i for places in zip(*parts, strict=True) for i in places]
    assert together == epoch_order(LABELS, kind, 1, 2)[: len(together)].tolist()
    if kind in ("instance", "under_sampling"):
        assert len(set(together)) == len(together)


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
        (lambda: ImageSampler(LABELS, num_replicas=2), "rank: got None of num_replicas=2; wanted both, or neither"),
        (
            lambda: ImageSampler([0, 1], num_replicas=3, rank=0),
            "num_samples: got 2 for 3 processes; wanted one each at least",
        ),
        (lambda: ImageSampler([0, -1]), "labels: got torch.int64 from -1 on; wanted whole numbers from 0 on"),
        (lambda: ImageSampler([0.5, 1.0]), "labels: got torch.float32 from 0.5 on; wanted whole numbers"),
        (lambda: ImageSampler("labels"), "labels: got str; wanted"),
        (lambda: epoch_length(torch.tensor([0, 2]), "under_sampling"), "counts: no images of class 1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
