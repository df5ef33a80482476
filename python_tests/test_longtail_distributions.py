"""Class counts against the published tables, and the images that LDAM-DRW selects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import class_counts, subset_indices

CIFAR10_EXP = {
    0.01: ((5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50), 12406),
    0.02: ((5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100), 13996),
    0.1: ((5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500), 20431),
}


@pytest.mark.parametrize("factor", CIFAR10_EXP)
def test_cifar10_exponential(factor):
    counts, total = CIFAR10_EXP[factor]
    assert class_counts("exp", factor, 10, 5000) == counts
    assert sum(counts) == total


@pytest.mark.parametrize(("factor", "tail"), [(0.01, 50), (0.02, 100), (0.1, 500)])
def test_cifar10_step(factor, tail):
    assert class_counts("step", factor, 10, 5000) == (5000,) * 5 + (tail,) * 5


@pytest.mark.parametrize(
    ("factor", "total", "first", "middle", "last"),
    [(0.01, 10847, 500, 48, 5), (0.02, 12608, 500, 69, 10), (0.1, 19573, 500, 156, 50)],
)
def test_cifar100_exponential(factor, total, first, middle, last):
    counts = class_counts("exp", factor, 100, 500)
    assert sum(counts) == total
    assert (counts[0], counts[50], counts[99]) == (first, middle, last)


@pytest.mark.parametrize(("factor", "tail", "total"), [(0.01, 5, 25250), (0.02, 10, 25500), (0.1, 50, 27500)])
def test_cifar100_step(factor, tail, total):
    counts = class_counts("step", factor, 100, 500)
    assert counts == (500,) * 50 + (tail,) * 50
    assert sum(counts) == total


def test_digits():
    assert sum(class_counts("exp", 0.1, 10, 130)) == 527


def test_balance_and_odd_step():
    assert class_counts("balance", 1.0, 3, 7) == (7, 7, 7)
    assert class_counts("step", 0.5, 5, 10) == (10, 10, 5, 5, 5)


@pytest.mark.parametrize(("n_max", "factor", "tail"), [(100, 0.29, 29), (100, 0.57, 57), (1000, 0.003, 3)])
def test_whole_tails_are_not_lost_to_rounding(n_max, factor, tail):
    """100 · 0.29 is 28.999999999999996 in floating point."""
    assert class_counts("step", factor, 2, n_max)[-1] == tail


@given(st.sampled_from(["exp", "step"]), st.floats(0.001, 1.0), st.integers(2, 120), st.integers(1000, 10**6))
def test_laws_of_counts(imbalance, factor, num_classes, n_max):
    counts = class_counts(imbalance, factor, num_classes, n_max)
    assert len(counts) == num_classes
    assert list(counts) == sorted(counts, reverse=True)
    assert counts[0] == n_max
    assert counts[-1] == pytest.approx(n_max * factor, abs=1)


def reference_ldam(labels: np.ndarray, counts: list[int], seed: int) -> np.ndarray:
    """LDAM-DRW's selection as its text tells it: the global generator seeded, classes shuffled one after another."""
    state = np.random.get_state()
    np.random.seed(seed)
    kept = []
    for c, n in enumerate(counts):
        members = np.where(labels == c)[0]
        np.random.shuffle(members)
        kept.extend(members[:n])
    np.random.set_state(state)
    return np.array(kept)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_images_of_ldam_drw(seed):
    labels = np.random.RandomState(5).permutation(np.repeat(np.arange(4), 50))
    counts = [50, 20, 7, 1]
    chosen = subset_indices(torch.from_numpy(labels), counts, seed)
    assert chosen.dtype == torch.int64
    np.testing.assert_array_equal(chosen.numpy(), reference_ldam(labels, counts, seed))


def test_the_images_of_ldam_drw_on_cifar10_by_number():
    """Numbers within a class, of 5000 images each, seed 0: they do not depend on how the classes are interleaved."""
    by_class = torch.arange(10).repeat_interleave(5000)
    chosen = subset_indices(by_class, CIFAR10_EXP[0.01][0], seed=0)
    assert len(chosen) == 12406
    interleaved = torch.arange(50000) % 10
    same = subset_indices(interleaved, CIFAR10_EXP[0.01][0], seed=0)
    torch.testing.assert_close(chosen % 5000, same // 10)
    assert (chosen[:5] % 5000).tolist() == [398, 3833, 4836, 4572, 636]
    assert (chosen[-3:] % 5000).tolist() == [1578, 433, 1162]


def test_the_global_generator_is_left_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    subset_indices(torch.tensor([0, 0, 1]), [1, 1], seed=9)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exponential", 0.1, 10, 50), "imbalance: got 'exponential'; wanted one of 'balance', 'exp', 'step'"),
        (("exp", 0.0, 10, 50), r"factor: got 0.0; wanted μ = n_min / n_max in \(0, 1\]"),
        (("exp", 100, 10, 50), r"factor: got 100; .* ratio of 100 is factor=0.01"),
        (("exp", float("nan"), 10, 50), "factor: got nan"),
        (("step", True, 10, 50), "factor: got True"),
        (("balance", 0.1, 10, 50), "factor: 0.1 has no effect with imbalance='balance'"),
        (("exp", 0.1, 1, 50), "num_classes: got 1; 'exp' needs at least 2"),
        (("balance", 1.0, 0, 50), "num_classes: got 0"),
        (("exp", 0.1, 10, 0), "n_max: got 0"),
        (("exp", 0.01, 10, 50), r"factor: 0.01 of n_max=50 leaves the last class without an image; .* = 0.02"),
    ],
)
def test_bad_distributions(arguments, message):
    with pytest.raises(UserError, match=message):
        class_counts(*arguments)


@pytest.mark.parametrize(
    ("labels", "counts", "seed", "message"),
    [
        ([0, 0, 1], [3, 1], 0, "counts: class 0 has 2 images and 3 are wanted"),
        ([0, 2], [1, 1], 0, "labels: found 0 … 2; with 2 counts they must be in 0 … 1"),
        ([0, 1], [1, 1], -1, "seed: got -1; wanted an integer in 0 … 4294967295"),
        ([0, 1], [1, 1], 0.5, "seed: got 0.5"),
    ],
)
def test_bad_subsets(labels, counts, seed, message):
    with pytest.raises(UserError, match=message):
        subset_indices(torch.tensor(labels), counts, seed)
