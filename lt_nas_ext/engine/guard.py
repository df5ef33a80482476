"""Numbers that go wrong: a loss or a gradient that is not finite is named, and the run does not learn from it.

By choice such a step is left out (`skip`), the epoch begins again with other draws (`rollback`, once in a row, then it
ends), or the run ends (`stop`). The state of the last whole epoch is kept in every case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lt_nas_ext.engine.unrolled import restore
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.settings import OnNonFinite

STEPS_BETWEEN_READS = 50
"""On CUDA reading waits for the device; so late at most is a step found that went wrong."""

Figures = Mapping[str, torch.Tensor]


class NonFinite(Exception):
    """A step met a number that is not finite.

    Attributes:
        what: the step, the number and its value, the batch: all but the epoch.
    """

    def __init__(self, step: str, batch: int, name: str, value: float) -> None:
        self.what = f"{name} is {_word(value)} in the {step} of batch {batch + 1}"
        super().__init__(self.what)


class NonFiniteError(UserError):
    """The run ended because of numbers that are not finite; everything up to the last whole epoch is kept."""


class NonFiniteWarning(UserWarning):
    """Numbers were not finite, and the run goes on without what they would have done."""


class Guard:
    """Looks at the figures of every step: the parts of its loss, and the norm of its gradient.

    Args:
        on_non_finite: what happens to a step whose figures are not all finite.
        device: where they are computed.
        buffers: what a step that is left out must leave as it was: running statistics.

    >>> guard = Guard("stop", torch.device("cpu"), ())
    >>> guard.begin()
    >>> guard.saw("w step", {"cross_entropy": torch.tensor(0.7)})
    >>> guard.saw("w step", {"cross_entropy": torch.tensor(float("inf"))})
    Traceback (most recent call last):
        ...
    lt_nas_ext.engine.guard.NonFinite: cross_entropy is infinite in the w step of batch 2
    """

    def __init__(self, on_non_finite: OnNonFinite, device: torch.device, buffers: Sequence[torch.Tensor]) -> None:
        self.skips = on_non_finite == "skip"
        self._patience = 1 if device.type == "cpu" else STEPS_BETWEEN_READS
        self._buffers = list(buffers)
        self._kept: list[torch.Tensor] = []
        self.begin()

    def begin(self) -> None:
        """An epoch begins: batches count from 1."""
        self._left_out: dict[str, int] = {}
        self._first: NonFinite | None = None
        self._batches: dict[str, int] = {}
        self._unread: list[tuple[str, int, tuple[str, ...], torch.Tensor]] = []

    @property
    def skipped(self) -> dict[str, Any]:
        """How many steps were left out in this epoch, and why the first was; empty: none."""
        if self._first is None:
            return {}
        return {"steps": sum(self._left_out.values()), "first": self._first.what}

    def saw(self, step: str, figures: Figures) -> None:
        """Look at the figures of a step that was done, now or a little later.

        Raises:
            NonFinite: one of them, or of those not read so far, is not finite.
        """
        if self.skips:  # it was looked at before the update
            return
        self._unread.append((step, self._count(step), tuple(figures), _together(figures)))
        if len(self._unread) >= self._patience:
            self.read()

    def read(self) -> None:
        """Look at what was not read so far; call it at the end of an epoch.

        Raises:
            NonFinite: one of the figures is not finite, or all steps of a kind were left out.
        """
        for step, count in self._left_out.items():
            if count == self._batches[step] and self._first is not None:
                raise self._first
        unread, self._unread = self._unread, []
        for one in unread:
            _check(*one)

    def keep(self) -> None:
        """Before a step: note what it must leave as it was, should it be left out."""
        if self.skips:
            self._kept = [buffer.clone() for buffer in self._buffers]

    def lets(self, step: str, figures: Figures) -> bool:
        """Whether the update may follow, once the gradients are there; where not, the buffers are as before.

        Only where steps are left out does this look, and waits for the device.
        """
        if not self.skips:
            return True
        batch = self._count(step)
        try:
            _check(step, batch, tuple(figures), _together(figures))
        except NonFinite as found:
            restore(self._buffers, self._kept)
            self._left_out[step] = self._left_out.get(step, 0) + 1
            self._first = self._first or found
            return False
        return True

    def _count(self, step: str) -> int:
        batch = self._batches.get(step, 0)
        self._batches[step] = batch + 1
        return batch


def _check(step: str, batch: int, names: tuple[str, ...], values: torch.Tensor) -> None:
    for name, value in zip(names, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise NonFinite(step, batch, name, value)


def _together(figures: Figures) -> torch.Tensor:
    return torch.stack([figure.detach().float() for figure in figures.values()])


def _word(value: float) -> str:
    return "not a number" if math.isnan(value) else "infinite"
