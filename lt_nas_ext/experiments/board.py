"""What a queue shows: on a terminal a bar for the whole and one for each worker, elsewhere a line a job; or JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBars

LOG = logging.getLogger("lt_nas_ext")


class Board(Protocol):
    """Anything that follows a queue. `worker` counts from 0."""

    def start(self, title: str, jobs: int) -> None:
        """A queue of so many jobs begins."""

    def begin(self, worker: int, job: str) -> None:
        """A worker takes a job."""

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        """Where a phase of it stands, in steps."""

    def finish(self, worker: int, job: str, result: str) -> None:
        """A job is done."""

    def close(self) -> None:
        """The queue ended, whole or not."""


class BarBoard:
    """Bars below, and above them a line for each job that is done, which stays."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = RichBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._whole = self._bars.add_task("", total=None, unit="runs")
        self._workers: dict[int, TaskID] = {}

    def start(self, title: str, jobs: int) -> None:
        self._bars.update(self._whole, description=f"[bold]{escape(title)}", total=jobs)
        self._bars.start()

    def begin(self, worker: int, job: str) -> None:
        self._workers[worker] = self._bars.add_task(escape(job), total=None, unit="steps")

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        self._bars.update(self._workers[worker], description=escape(f"{job}: {phase}"), completed=done, total=total)

    def finish(self, worker: int, job: str, result: str) -> None:
        self._bars.remove_task(self._workers.pop(worker))
        self._bars.advance(self._whole)
        self._bars.console.print(f"{job}: {result}", highlight=False, markup=False)

    def close(self) -> None:
        self._bars.stop()


class LogBoard:
    """A line to the logger `lt_nas_ext`, level INFO, where a job begins and where it is done."""

    def __init__(self) -> None:
        self._jobs = self._done = 0

    def start(self, title: str, jobs: int) -> None:
        self._jobs = jobs
        LOG.info("%s: %d runs", title, jobs)

    def begin(self, worker: int, job: str) -> None:
        LOG.info("%s: begun", job)

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        pass

    def finish(self, worker: int, job: str, result: str) -> None:
        self._done += 1
        LOG.info("%s: %s (%d of %d)", job, result, self._done, self._jobs)

    def close(self) -> None:
        pass


class JsonBoard:
    """A JSON object a line: `start`, then of each run `begin`, `step` as it tells of them, `done`; `end`.

    >>> JsonBoard(sys.stdout).begin(0, "seed 0")
    {"event": "begin", "run": "seed 0"}
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def start(self, title: str, jobs: int) -> None:
        self._say("start", run=title, runs=jobs)

    def begin(self, worker: int, job: str) -> None:
        self._say("begin", run=job)

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        self._say("step", run=job, phase=phase, step=done, steps=total)

    def finish(self, worker: int, job: str, result: str) -> None:
        self._say("done", run=job, result=result)

    def close(self) -> None:
        self._say("end")

    def _say(self, event: str, **content: str | int) -> None:
        print(json.dumps({"event": event, **content}), file=self._stream, flush=True)


class QuietBoard:
    """Nothing."""

    def start(self, title: str, jobs: int) -> None:
        pass

    def begin(self, worker: int, job: str) -> None:
        pass

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        pass

    def finish(self, worker: int, job: str, result: str) -> None:
        pass

    def close(self) -> None:
        pass


def default_board() -> Board:
    """Bars where standard error is a terminal, otherwise log lines."""
    return BarBoard() if sys.stderr.isatty() else LogBoard()
