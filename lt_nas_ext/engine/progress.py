"""What a run shows while it works: a bar on a terminal, otherwise a log line an epoch; or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

from lt_nas_ext.errors import UserError

LOG = logging.getLogger("lt_nas_ext")
SECONDS_BETWEEN_READS = 0.5

Figures = Mapping[str, "torch.Tensor | float"]


class Progress(Protocol):
    """Anything that follows a run. `step` gets tensors that are still on the device: reading one waits for it."""

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        """A run of `total_steps` steps begins, of which `done` were done before a resume."""

    def step(self, figures: Figures) -> None:
        """One more step; `figures` are its losses."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One more epoch; `row` is its line of history.jsonl."""

    def close(self) -> None:
        """The run ended, whole or not."""


class BarProgress:
    """A bar with the losses and the last epoch's accuracies, and the time left."""

    def __init__(self, console: Console | None = None) -> None:
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]} {task.fields[accuracies]}"),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, losses="", accuracies="")
        self._read = 0.0

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        self._bar.update(self._task, total=total_steps, description=description, completed=done)
        self._bar.start()

    def step(self, figures: Figures) -> None:
        self._bar.advance(self._task)
        # Reading a value waits for the device; twice a second costs nothing, every step would.
        if time.monotonic() - self._read >= SECONDS_BETWEEN_READS:
            losses = " ".join(f"{name} {float(value):.4g}" for name, value in figures.items())
            self._bar.update(self._task, losses=losses)
            self._read = time.monotonic()

    def epoch(self, row: Mapping[str, Any]) -> None:
        self._bar.update(self._task, accuracies=_accuracies(row))

    def close(self) -> None:
        self._bar.stop()


class LogProgress:
    """A line an epoch to the logger `lt_nas_ext`, level INFO."""

    def __init__(self) -> None:
        self._description = ""

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        self._description = description

    def step(self, figures: Figures) -> None:
        pass

    def epoch(self, row: Mapping[str, Any]) -> None:
        loss, seconds = row.get("train_loss"), row.get("seconds") or 0.0
        shown = "-" if loss is None else f"{loss:.4g}"
        LOG.info("%s epoch %s: loss %s %s %.1f s", self._description, row["epoch"], shown, _accuracies(row), seconds)

    def close(self) -> None:
        pass


class JsonProgress:
    """A JSON object a line: `start`, `step` (twice a second at most), `epoch` (its line of history.jsonl), `end`.

    >>> JsonProgress(sys.stdout).start(20, "darts search", done=10)
    {"event": "start", "run": "darts search", "steps": 20, "done": 10}
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._step, self._read = 0, 0.0

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        self._step = done
        self.say("start", run=description, steps=total_steps, done=done)

    def step(self, figures: Figures) -> None:
        self._step += 1
        if time.monotonic() - self._read >= SECONDS_BETWEEN_READS:
            self.say("step", step=self._step, figures={name: float(value) for name, value in figures.items()})
            self._read = time.monotonic()

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.say("epoch", **row)

    def close(self) -> None:
        self.say("end", step=self._step)

    def say(self, event: str, **content: Any) -> None:
        """Print one event."""
        print(json.dumps({"event": event, **content}), file=self._stream, flush=True)


class Several:
    """All of them are told.

    >>> Several([LogProgress(), JsonProgress(sys.stdout)]).close()
    {"event": "end", "step": 0}
    """

    def __init__(self, followers: Sequence[Progress]) -> None:
        self._followers = tuple(followers)

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        for follower in self._followers:
            follower.start(total_steps, description, done)

    def step(self, figures: Figures) -> None:
        for follower in self._followers:
            follower.step(figures)

    def epoch(self, row: Mapping[str, Any]) -> None:
        for follower in self._followers:
            follower.epoch(row)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()


def default_progress() -> Progress:
    """A bar where standard error is a terminal, otherwise log lines."""
    return BarProgress() if sys.stderr.isatty() else LogProgress()


def following(progress: Progress | None) -> Progress:
    """The progress given, or the default one.

    Raises:
        UserError: it is no progress.
    """
    if progress is None:
        return default_progress()
    if not all(callable(getattr(progress, name, None)) for name in ("start", "step", "epoch", "close")):
        raise UserError(
            f"progress: got {type(progress).__name__}; wanted an object with start, step, epoch and close, or None"
        )
    return progress


def _accuracies(row: Mapping[str, Any]) -> str:
    names = {"probe_accuracy": "probe", "val_accuracy": "val", "train_accuracy": "train", "test_macro": "test macro"}
    shown = [f"{label} {100 * row[name]:.1f} %" for name, label in names.items() if row.get(name) is not None]
    return " ".join(shown)
