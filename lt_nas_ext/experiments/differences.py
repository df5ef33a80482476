"""One row of a table less another, paired by seed, with a bootstrap interval of the mean."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lt_nas_ext.report.runs import Network
from lt_nas_ext.report.tables import EMPTY, spread

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """First less second, in points of accuracy, a value a seed.

    Attributes:
        first, second: the rows.
        values: one a seed; where a row has several networks of a seed, their mean counts.
        interval: of the mean over seeds, by the bootstrap; None with one seed.
        paper: the same difference in the paper, where it has one.
    """

    first: str
    second: str
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    paper: float | None = None

    @property
    def name(self) -> str:
        """ "SSF-NAS - DARTS"."""
        return f"{self.first} - {self.second}"

    @property
    def bounds(self) -> str:
        """The interval in words."""
        return EMPTY if self.interval is None else f"{self.interval[0]:.1f} … {self.interval[1]:.1f}"

    def __str__(self) -> str:
        bounds = "" if self.interval is None else f", {LEVEL:.0%} of the bootstrap in {self.bounds}"
        paper = "" if self.paper is None else f" ([paper] {self.paper:.2f})"
        return f"{self.name}: {spread(self.values)}{bounds}{paper}"

    def to_json(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "difference": self.name,
            "points": list(self.values),
            "mean": statistics.fmean(self.values),
            "interval": None if self.interval is None else list(self.interval),
            "level": LEVEL,
            "paper": self.paper,
        }


def difference(
    first: str, second: str, accuracies: Mapping[str, Mapping[int, float]], paper: float | None = None
) -> Difference:
    """The difference of two rows of `by_seed`, over the seeds that both have."""
    ours, theirs = accuracies[first], accuracies[second]
    values = tuple(100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs)
    return Difference(first, second, values, bootstrap(values), paper)


def by_seed(networks: Sequence[tuple[str, int, Network]]) -> dict[str, dict[int, float]]:
    """Row -> seed -> top-1, of (row, seed, network); several networks of a row and seed give their mean."""
    found: dict[str, dict[int, list[float]]] = {}
    for row, seed, network in networks:
        found.setdefault(row, {}).setdefault(seed, []).append(network.metrics["top1"])
    return {row: {seed: statistics.fmean(v) for seed, v in seeds.items()} for row, seeds in found.items()}


def bootstrap(values: Sequence[float]) -> tuple[float, float] | None:
    """The central 95 % of the mean of so many values drawn from `values` with replacement; None of a single one.

    The draws are seeded: the same values give the same interval.

    >>> bootstrap([1.0, 1.0]), bootstrap([0.0, 2.0]), bootstrap([1.0])
    ((1.0, 1.0), (0.0, 2.0), None)
    """
    if len(values) < 2:
        return None
    drawn = np.random.RandomState(0).randint(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
