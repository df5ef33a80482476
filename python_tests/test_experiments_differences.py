"""Differences of two rows, paired by seed, and the interval that the bootstrap gives their mean."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from lt_nas_ext.experiments.differences import bootstrap, by_seed, difference
from lt_nas_ext.report.runs import Network, Run


def network(top1: float) -> Network:
    return Network("any", None, Run(Path("run"), {"kind": "retrain"}, (), {"top1": top1}))


def test_paired_by_seed_and_several_of_a_seed_averaged() -> None:
    found = [("A", 0, 0.9), ("A", 1, 0.7), ("B", 0, 0.8), ("B", 0, 0.6), ("B", 1, 0.8), ("B", 2, 0.1)]
    accuracies = by_seed([(row, seed, network(top1)) for row, seed, top1 in found])
    assert accuracies == {"A": {0: 0.9, 1: 0.7}, "B": {0: pytest.approx(0.7), 1: 0.8, 2: 0.1}}
    one = difference("A", "B", accuracies, paper=1.5)
    assert one.values == pytest.approx((20.0, -10.0)) and one.interval == pytest.approx((-10.0, 20.0))
    assert str(one) == "A - B: 5.0 ± 21.2, 95% of the bootstrap in -10.0 … 20.0 ([paper] 1.50)"
    assert one.to_json()["mean"] == pytest.approx(5.0) and one.to_json()["difference"] == "A - B"


def test_one_seed_has_no_interval() -> None:
    one = difference("A", "B", {"A": {0: 0.5}, "B": {0: 0.25}})
    assert (str(one), one.interval, one.bounds) == ("A - B: 25.0", None, "–")


def test_the_bootstrap_is_seeded_and_narrows_with_more_values() -> None:
    few, many = [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0] * 9
    widths = []
    for values in (few, many):
        interval = bootstrap(values)
        assert interval is not None and interval == bootstrap(values)
        assert interval[0] < statistics.fmean(values) < interval[1]
        widths.append(interval[1] - interval[0])
    # The standard error of a mean of n falls with the root of n: 36 values against 4.
    assert widths[1] == pytest.approx(widths[0] / 3, rel=0.1)
