"""BBN's mixing ratio over the epochs, and the loss of two batches that it mixes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError

Mixing = Literal["parabolic", "reverse-sigmoid", "constant"]
MIXINGS: tuple[str, ...] = get_args(Mixing)

Schedule = Callable[[float], float]
"""From progress t/T, at least 0 and below 1, to the mixing ratio r in [0, 1]."""


def parabolic(progress: float) -> float:
    """r = 1 − (t/T)² [paper: BBN, eq. 7]: the instance head first, the class head last.

    >>> [parabolic(t) for t in (0.0, 0.5, 1.0)]
    [1.0, 0.75, 0.0]
    """
    return 1.0 - progress * progress


def reverse_sigmoid(progress: float, beta: float = 10.0) -> float:
    """r = 1 / (1 + exp(β(t/T − ½))) [ours, for the paper's eq. 18]: from near 1 to near 0, symmetrical about ½.

    >>> [round(reverse_sigmoid(t), 4) for t in (0.0, 0.5, 1.0)]
    [0.9933, 0.5, 0.0067]
    """
    # The argument is within ±β/2; a β of thousands would overflow the exponential on one side.
    x = beta * (progress - 0.5)
    return 1.0 / (1.0 + math.exp(x)) if x < 0 else math.exp(-x) / (1.0 + math.exp(-x))


def constant(progress: float, value: float = 0.5) -> float:
    """The same ratio throughout.

    >>> constant(0.9)
    0.5
    """
    return value


def schedule(mixing: str | Schedule, beta: float = 10.0, value: float = 0.5) -> Schedule:
    """The schedule of a name, or the function given.

    Args:
        mixing: a name of `MIXINGS`, or any function of progress.
        beta: of `reverse_sigmoid`.
        value: of `constant`.

    Raises:
        UserError: neither.

    >>> schedule("parabolic") is parabolic
    True
    """
    named: dict[str, Schedule] = {
        "parabolic": parabolic,
        "reverse-sigmoid": partial(reverse_sigmoid, beta=beta),
        "constant": partial(constant, value=value),
    }
    if isinstance(mixing, str) and mixing in named:
        return named[mixing]
    if not callable(mixing):
        names = ", ".join(map(repr, MIXINGS))
        raise UserError(f"mixing: got {mixing!r}; wanted one of {names}, or a function of the progress t/T")
    return mixing


def mixing_ratios(function: Schedule, epochs: int) -> tuple[float, ...]:
    """r of every epoch, at t/T = 0, 1/T, … (T−1)/T: epochs count from 0, so the end of a schedule is never reached.

    Raises:
        UserError: the function returns something outside [0, 1], NaN or no number; the message names the epoch.

    >>> mixing_ratios(parabolic, 4)
    (1.0, 0.9375, 0.75, 0.4375)
    """
    ratios = []
    for epoch in range(epochs):
        ratio = function(epoch / epochs)
        try:
            number = float(ratio)
        except (TypeError, ValueError):
            number = math.nan
        if not 0.0 <= number <= 1.0:
            raise UserError(f"mixing: the schedule returns {ratio!r} in epoch {epoch} of {epochs}; wanted r in [0, 1]")
        ratios.append(number)
    return tuple(ratios)


def check_ratio(name: str, ratio: float) -> float:
    """`ratio` as a float; `UserError` where it is no mixing ratio.

    >>> check_ratio("test_ratio", 1)
    1.0
    """
    number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    if not number or not 0.0 <= ratio <= 1.0:
        raise UserError(f"{name}: got {ratio!r}; wanted a mixing ratio in [0, 1]")
    return float(ratio)


def mixed_loss(
    logits: torch.Tensor,
    instance_labels: torch.Tensor,
    class_labels: torch.Tensor,
    ratio: float,
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
) -> torch.Tensor:
    """r · CE(z, y_I) + (1 − r) · CE(z, y_C) with z the mixed logits [paper: BBN, eq. 6].

    Args:
        logits: (N, C), z = r · z_I + (1 − r) · z_C.
        instance_labels: (N,) of the instance-sampled images.
        class_labels: (N,) of the class-uniform ones.
        ratio: r.
        criterion: in place of cross-entropy.

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> mixed_loss(z, torch.tensor([0]), torch.tensor([1]), ratio=1.0)
    tensor(0.1269)
    """
    return ratio * criterion(logits, instance_labels) + (1.0 - ratio) * criterion(logits, class_labels)
