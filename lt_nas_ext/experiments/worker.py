"""The inside of a worker process: one job after the other, on one thread, everything shown told to the parent.

A worker whose parent is gone finds the pipe closed at its next report and ends: nothing trains on unseen.
"""

from __future__ import annotations

import errno
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

import torch

from lt_nas_ext.engine import Interrupted, Progress
from lt_nas_ext.errors import UserError

SECONDS_BETWEEN_REPORTS = 0.25

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a system says where a disk is full or read-only."""

GONE = (EOFError, BrokenPipeError, ConnectionResetError)
"""What a pipe raises whose other end is closed."""

Follow = Callable[[str], Progress]
"""What a job is shown with: the name of a phase ("search") -> what follows it."""


@dataclass(frozen=True)
class Job:
    """A part of a study.

    Attributes:
        name: as it is shown, "SSF-NAS, seed 0"; no other job of the queue has it.
        work: does it and returns what came out, in a few words. It goes to another process, so it is a function of a
            module (or a `functools.partial` of one); what is there of it already it does not do again.
        after: names of jobs before it in the queue that must be done first.
    """

    name: str
    work: Callable[[Follow], str]
    after: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Report:
    """What a worker says.

    Attributes:
        kind: at work; done; stopped between two steps; refused (a `UserError`); failed (anything else); warning.
        text: the phase, what came out, or what is wrong.
        done, total: steps of the phase.
    """

    kind: Literal["at work", "done", "stopped", "refused", "failed", "warning"]
    text: str = ""
    done: int = 0
    total: int = 0


def serve(pipe: Connection, number: int = 0) -> None:
    """Take jobs from the pipe until it closes, or SIGTERM stops one."""
    # Ctrl-C reaches every process of the terminal; the parent decides and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    take_device(number)
    warnings.showwarning = lambda message, *more, **rest: pipe.send(Report("warning", str(message)))
    try:
        said = None
        while said is None or said.kind != "stopped":
            said = _outcome(pipe.recv(), pipe)
            pipe.send(said)
    except GONE:
        return


def take_device(number: int) -> None:
    """Make one CUDA device of several that of this process: jobs ask for "cuda", and workers share the devices out."""
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _outcome(job: Job, pipe: Connection) -> Report:
    try:
        return Report("done", job.work(lambda phase: Reporter(pipe, phase)))
    except Interrupted:
        return Report("stopped")
    except UserError as error:
        return Report("refused", str(error))
    except GONE:
        raise
    except OSError as error:
        if error.errno not in UNWRITABLE:
            return Report("failed", traceback.format_exc())
        return Report("refused", f"out: cannot write what {job.name} found: {error.strerror}; the others are kept")
    except Exception:
        return Report("failed", traceback.format_exc())


class Listener(Protocol):
    """Where reports go: a pipe to another process, or straight to a board."""

    def send(self, said: Report, /) -> None:
        """Take one."""


class Reporter:
    """A progress that tells where the phase stands, four times a second at most."""

    def __init__(self, pipe: Listener, phase: str) -> None:
        self._pipe, self._phase = pipe, phase
        self._done = self._total = 0
        self._told = 0.0

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        self._done, self._total = done, total_steps
        self._tell()

    def step(self, figures: Mapping[str, Any]) -> None:
        self._done += 1
        if time.monotonic() - self._told >= SECONDS_BETWEEN_REPORTS:
            self._tell()

    def epoch(self, row: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass

    def _tell(self) -> None:
        self._pipe.send(Report("at work", self._phase, self._done, self._total))
        self._told = time.monotonic()
