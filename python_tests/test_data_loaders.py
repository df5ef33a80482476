"""Batches: an epoch is a pure function of seed and number, whatever came before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext.data import Batches, ImageSet
from lt_nas_ext.errors import UserError


def numbered(n, labels=None):
    """Image i has the value i everywhere."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4).contiguous()
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    return ImageSet(images, labels, tuple(f"{i}" for i in range(n)))


def seen(batches, epoch, start=0):
    return [images[:, 0, 0, 0].tolist() for images, _ in batches.epoch(epoch, start)]


@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 1000), st.integers(0, 50), st.booleans())
def test_laws_of_an_epoch(n, batch_size, seed, epoch, drop_last):
    batches = Batches(numbered(n), batch_size, seed, drop_last=drop_last)
    got = seen(batches, epoch)
    assert len(got) == len(batches) >= 1
    flat = [i for batch in got for i in batch]
    assert len(set(flat)) == len(flat)
    size = min(batch_size, n)
    assert {len(b) for b in got[:-1]} <= {size}
    assert len(flat) == (n // size * size if drop_last else n)
    other = Batches(numbered(n), batch_size, seed, drop_last=drop_last)
    seen(other, epoch + 7)
    assert seen(other, epoch) == got
    assert seen(batches, epoch, start=1) == got[1:]  # where a run stopped, it goes on


def test_labels_belong_to_their_images_and_seeds_differ():
    labels = torch.arange(60) % 7
    batches = Batches(numbered(60, labels), 20, seed=0)
    for images, found in batches.epoch(3):
        assert images.dtype == torch.uint8
        assert torch.equal(found, images[:, 0, 0, 0].long() % 7)
    assert seen(batches, 0) != seen(Batches(numbered(60), 20, seed=1), 0)
    assert seen(batches, 0) != seen(batches, 1)
    assert batches.class_counts == (9, 9, 9, 9, 8, 8, 8)


def test_two_streams_over_the_same_images():
    labels = (torch.arange(200) >= 190).long()
    common = numbered(200, labels)
    instance, uniform = Batches(common, 50, seed=0), Batches(common, 50, seed=1, sampler="class_uniform")
    assert len(instance) == len(uniform) == 4
    tail = {
        kind: sum(int(y.sum()) for e in range(10) for _, y in stream.epoch(e))
        for kind, stream in (("instance", instance), ("uniform", uniform))
    }
    assert tail["instance"] == 100
    assert abs(tail["uniform"] - 1000) < 3 * (2000 * 0.25) ** 0.5


def test_an_under_sampled_epoch_is_shorter():
    batches = Batches(numbered(60, (torch.arange(60) >= 53).long()), 4, seed=0, sampler="under_sampling")
    got = seen(batches, 0)
    assert len(got) == len(batches) == 3  # 14 images of 60, 7 of each class
    assert len({i for batch in got for i in batch}) == 12
    assert seen(batches, 1) != got
    assert len(Batches(numbered(60, (torch.arange(60) >= 53).long()), 99, sampler="under_sampling")) == 1


@pytest.mark.cuda
def test_batches_stay_on_the_device_and_are_the_same():
    here, there = Batches(numbered(60), 20), Batches(numbered(60).to("cuda"), 20)
    images, labels = next(there.epoch(0))
    assert images.is_cuda
    assert labels.is_cuda
    assert seen(here, 1) == seen(there, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Batches(numbered(4), 0), "batch_size: got 0"),
        (lambda: Batches(numbered(4).subset([]), 2), "images: the set is empty"),
        (lambda: Batches(numbered(4), 2, sampler="uniform"), "sampler: got 'uniform'; wanted one of 'instance'"),
        (lambda: Batches(numbered(4), 2, seed=-1), "num_samples, seed, epoch: got None, -1"),
        (
            lambda: Batches(numbered(2, torch.tensor([0, 2])), 2, sampler="class_uniform"),
            "counts: no images of class 1",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
