"""Splits: disjoint, complete, stratified, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext.data import ImageSet, split
from lt_nas_ext.errors import UserError


def images_of(counts):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return ImageSet(
        torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels, tuple(f"{i}.png" for i in range(len(labels)))
    )


@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_laws_of_a_stratified_split(counts, fraction, seed):
    images = images_of(counts)
    first, second = split(images, fraction, seed)
    assert sorted(first.files + second.files) == sorted(images.files)
    for n, a, b in zip(counts, first.counts(len(counts)), second.counts(len(counts)), strict=True):
        assert a + b == n
        assert a >= 1
        assert b >= 1
        assert abs(a - fraction * n) <= 1
    again, _ = split(images, fraction, seed)
    assert again.files == first.files


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_laws_of_a_label_free_split(n, fraction, seed):
    images = images_of([n])
    relabelled = ImageSet(images.images, torch.arange(n), images.files)
    first, second = split(images, fraction, seed, stratify=False)
    assert sorted(first.files + second.files) == sorted(images.files)
    assert abs(len(first) - fraction * n) <= 1
    assert split(relabelled, fraction, seed, stratify=False)[0].files == first.files  # labels are not looked at


def test_halves_and_seeds():
    images = images_of([50, 20, 2])
    first, second = split(images)
    assert first.counts(3) == second.counts(3) == (25, 10, 1)
    assert split(images, seed=1)[0].files != first.files
    positions = [int(file[:-4]) for file in first.files]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split(images_of([3, 1])), "images: class 1 has 1 image, which cannot be on both sides of a split"),
        (lambda: split(images_of([1]), stratify=False), "images: the set has 1 image"),
        (lambda: split(images_of([3, 3]), fraction=1.0), r"fraction: got 1.0; wanted the share .* in \(0, 1\)"),
        (lambda: split(images_of([3, 3]), fraction=0), "fraction: got 0"),
        (lambda: split(images_of([3, 3]), seed=-1), "seed: got -1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_one_image_of_a_class_can_be_split_without_labels():
    first, second = split(images_of([9, 1]), stratify=False)
    assert len(first) == len(second) == 5
