"""Ctrl-C and SIGTERM end a run cleanly: the step in hand is finished, and everything up to the last epoch is on disk.

An epoch is a pure function of the state at its beginning, which the checkpoint holds, so an interrupted epoch is
not saved half done: the resumed run repeats it and arrives at the same bits. At most the current epoch is lost.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was asked to stop and stopped between two steps.

    Attributes:
        out: the run directory, or None where nothing is saved.
        epoch: whole epochs that are saved.
        epochs: epochs of the whole run.
    """

    def __init__(self, out: Path | None, epoch: int, epochs: int) -> None:
        self.out, self.epoch, self.epochs = out, epoch, epochs
        if out is None:
            kept = "nothing was saved, for the run has no out directory"
        else:
            kept = f"{epoch} saved in {out}: resume continues from there"
        super().__init__(f"interrupted in epoch {epoch + 1} of {epochs}; {kept}")


class StopSignal:
    """Within this context the first Ctrl-C (or SIGTERM) sets `requested`; a second one ends the process at once.

    Outside the main thread Python delivers no signals; the context then does nothing.

    >>> with StopSignal() as stop:
    ...     stop.requested
    False
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: the handler was not set from Python, and cannot be put back from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
