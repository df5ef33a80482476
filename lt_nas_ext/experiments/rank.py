"""How well two lists of figures of the same networks agree on their order: Kendall's τ-b, with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lt_nas_ext.errors import UserError

Pair = tuple[ArrayLike, ArrayLike]


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """τ-b: 1 where both lists order the networks alike, -1 where one is the other's reverse, about 0 where unrelated.

    Of all pairs of networks, (those in the same order - those in opposite orders) / √(pairs not tied in a · pairs not
    tied in b) (Kendall 1945). Values are tied where they are equal to the bit.

    Args:
        a: n figures, such as the accuracies of n networks on one set of images.
        b: n figures of the same networks, in the same order.

    Returns:
        τ-b; NaN where all of a list are tied.

    Raises:
        UserError: the lists are not of one length, shorter than 2, or hold a value that is not finite.

    >>> kendall_tau([1, 2, 3, 4], [1, 2, 4, 3])  # five pairs in the same order, one in opposite orders
    0.6666666666666666
    """
    return mean_tau([(a, b)])


def kendall_interval(
    a: ArrayLike, b: ArrayLike, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of `kendall_tau` over the networks: as many are drawn with replacement, each time.

    Args:
        a: as of `kendall_tau`.
        b: as of `kendall_tau`.
        seed: of the draws; the same one gives the same interval.
        draws: how many; those in which all of a list are tied have no τ and are left out.
        level: share of the draws that lies within, in (0, 1).

    Returns:
        (low, high); NaN where no draw has a τ.

    Raises:
        UserError: as `kendall_tau`, or a number out of its range.

    >>> kendall_interval([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    (1.0, 1.0)
    """
    return mean_tau_interval([(a, b)], seed, draws, level)


def mean_tau(pairs: Sequence[Pair]) -> float:
    """Mean of `kendall_tau` over pairs of lists, all of the same networks: of several seeds, say."""
    checked = _checked(pairs)
    return float(_mean_taus(checked, np.ones((1, len(checked[0][0]))))[0])


def mean_tau_interval(
    pairs: Sequence[Pair], seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """As `kendall_interval`, of `mean_tau`: each draw takes the same networks in all pairs."""
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise UserError(f"draws: got {draws!r}; wanted a whole number, at least 1")
    if not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise UserError(f"level: got {level!r}; wanted a share of the draws, in (0, 1)")
    checked = _checked(pairs)
    n = len(checked[0][0])
    times_drawn = np.random.default_rng(seed).multinomial(n, [1.0 / n] * n, size=draws)
    found = _mean_taus(checked, times_drawn.astype(np.float64))
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [(1.0 - level) / 2, (1.0 + level) / 2])
    return float(low), float(high)


def _checked(pairs: Sequence[Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
    lists = [(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)) for a, b in pairs]
    shapes = {values.shape for pair in lists for values in pair}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or shape[0] < 2:
        came = ", ".join(f"{a.shape} and {b.shape}" for a, b in lists) or "none"
        raise UserError(f"a, b: got lists of shape {came}; wanted as many figures in both, at least 2")
    if not all(np.isfinite(values).all() for pair in lists for values in pair):
        raise UserError("a, b: hold values that are not finite; leave out the networks without a figure")
    return lists


def _mean_taus(pairs: Sequence[tuple[np.ndarray, np.ndarray]], times_drawn: np.ndarray) -> np.ndarray:
    """(D,) means over the pairs, of D draws that hold network i `times_drawn[d, i]` times, (D, n)."""
    return np.mean([_taus(a, b, times_drawn) for a, b in pairs], axis=0)


def _taus(a: np.ndarray, b: np.ndarray, times_drawn: np.ndarray) -> np.ndarray:
    # Networks i and j meet times_drawn[i] · times_drawn[j] times in a draw; a network tied with itself adds nothing.
    signs_a, signs_b = (np.sign(values[:, None] - values) for values in (a, b))

    def over_pairs(of_pair: np.ndarray) -> np.ndarray:
        return ((times_drawn @ of_pair) * times_drawn).sum(1)

    with np.errstate(invalid="ignore"):  # 0 / 0 where all are tied: NaN
        return over_pairs(signs_a * signs_b) / np.sqrt(over_pairs(signs_a**2) * over_pairs(signs_b**2))
