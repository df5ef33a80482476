"""Kendall's τ-b against hand-worked tables and an independent implementation; its interval against an enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.rank import kendall_interval, kendall_tau, mean_tau, mean_tau_interval

TABLE: list[tuple[Sequence[float], Sequence[float], float]] = [
    ([1, 2, 3], [10, 20, 30], 1.0),
    ([1, 2, 3], [3, 2, 1], -1.0),
    ([1, 2], [5, 4], -1.0),
    ([1, 2, 3, 4], [1, 2, 4, 3], (5 - 1) / 6),
    ([1, 2, 3, 4], [3, 1, 4, 2], (3 - 3) / 6),
    ([1, 1, 2, 3], [1, 2, 2, 3], 4 / 5),  # one pair tied in a, another in b: 4 in order, 5 untied on either side
    ([1, 1, 2, 2], [1, 2, 3, 4], 4 / math.sqrt(4 * 6)),
    ([12, 2, 1, 12, 2], [1, 4, 7, 1, 0], (2 - 6) / math.sqrt(8 * 9)),  # a pair tied in both
    ([0.5, 0.5, 0.7], [1, 1, 1], math.nan),
    ([2, 2], [2, 2], math.nan),
]


@pytest.mark.parametrize(("a", "b", "expected"), TABLE)
def test_a_hand_worked_table(a: Sequence[float], b: Sequence[float], expected: float) -> None:
    for first, second in ((a, b), (b, a)):
        assert kendall_tau(first, second) == pytest.approx(expected, abs=1e-15, nan_ok=True)
    if not math.isnan(expected):
        assert kendall_tau(a, [-value for value in b]) == pytest.approx(-expected, abs=1e-15)


def pair_by_pair(a: Sequence[float], b: Sequence[float]) -> float:
    """τ-b as its definition reads."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    products = [(a[i] - a[j]) * (b[i] - b[j]) for i, j in pairs]
    untied = [sum(values[i] != values[j] for i, j in pairs) for values in (a, b)]
    if not all(untied):
        return math.nan
    return (sum(p > 0 for p in products) - sum(p < 0 for p in products)) / math.sqrt(untied[0] * untied[1])


SMALL = st.integers(-3, 3)


@given(st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=12))
def test_the_definition_pair_by_pair(values: list[tuple[int, int]]) -> None:
    a, b = zip(*values, strict=True)
    assert kendall_tau(a, b) == pytest.approx(pair_by_pair(a, b), abs=1e-14, nan_ok=True)


def test_another_library_agrees() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.integers(0, 8, (2, 40)).astype(float)
        assert kendall_tau(a, torch.from_numpy(b)) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-14)


def test_the_interval_of_three_networks_is_that_of_all_their_draws() -> None:
    """Of the 27 draws from three networks 3 have no τ; the others: -1 in 6, 1/3 in 6, 1 in 12."""
    a, b = [1, 2, 3], [1, 3, 2]
    drawn = [pair_by_pair([a[i] for i in draw], [b[i] for i in draw]) for draw in itertools.product(range(3), repeat=3)]
    assert (
        sorted(round(tau, 9) for tau in drawn if not math.isnan(tau)) == [-1.0] * 6 + [round(1 / 3, 9)] * 6 + [1.0] * 12
    )
    for level, expected in ((0.4, (1 / 3, 1.0)), (0.6, (-1.0, 1.0)), (0.95, (-1.0, 1.0))):
        assert kendall_interval(a, b, draws=4000, level=level) == pytest.approx(expected)


def test_intervals_narrow_with_networks_and_follow_their_seed() -> None:
    random = np.random.default_rng(1)
    widths = []
    for n in (12, 48, 192):
        a = random.normal(size=n)
        b = a + random.normal(size=n)
        low, high = kendall_interval(a, b)
        assert -1 <= low < kendall_tau(a, b) < high <= 1
        assert (low, high) == kendall_interval(a, b) != kendall_interval(a, b, seed=1)
        inner = kendall_interval(a, b, level=0.5)
        assert low < inner[0] < inner[1] < high
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]
    assert all(map(math.isnan, kendall_interval([1, 1, 1], [1, 2, 3])))


def test_the_mean_over_pairs_draws_the_same_networks_in_each() -> None:
    a, b, c = [1, 2, 3, 4, 5], [2, 1, 3, 5, 4], [5, 4, 2, 3, 1]
    assert mean_tau([(a, b), (a, c)]) == pytest.approx((kendall_tau(a, b) + kendall_tau(a, c)) / 2)
    reverse = [-value for value in b]
    assert mean_tau_interval([(a, b), (a, reverse)]) == pytest.approx((0, 0))  # τ and -τ of whatever is drawn
    assert mean_tau_interval([(a, b), (a, b)]) == pytest.approx(kendall_interval(a, b))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2, 3], [1, 2]), r"a, b: got lists of shape \(3,\) and \(2,\); wanted as many figures in both, at least"),
        (([1], [1]), r"a, b: got lists of shape \(1,\) and \(1,\)"),
        (([[1, 2]], [[1, 2]]), r"a, b: got lists of shape \(1, 2\) and"),
        (([1, math.nan], [1, 2]), "a, b: hold values that are not finite"),
        (([1, 2], [1, 2], 0, 0), "draws: got 0; wanted a whole number, at least 1"),
        (([1, 2], [1, 2], 0, 10, 95), r"level: got 95; wanted a share of the draws, in \(0, 1\)"),
    ],
)
def test_what_has_no_order_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kendall_interval(*arguments)  # type: ignore[arg-type]


def test_no_pairs() -> None:
    with pytest.raises(UserError, match="a, b: got lists of shape none"):
        mean_tau([])
