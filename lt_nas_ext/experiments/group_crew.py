"""The processes that torchrun started as a crew: one job after the other, each in all of them together.

The first of them does what a command does, files and tables included, and tells the others which job comes next; they
do nothing else. Within a job they share its work as in `lt-nas search`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal

import torch

from lt_nas_ext.engine import Interrupted, Several
from lt_nas_ext.engine.processes import Group, join
from lt_nas_ext.engine.stop import StopSignal
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.queue import Heard
from lt_nas_ext.experiments.worker import Job, Report, Reporter

Next = Job | Literal["done", "stopped"]
"""What the first process tells the others."""


def together(study: Callable[[], None]) -> None:
    """Do a study whose queue takes a `GroupCrew`; in the other processes of torchrun the jobs that the first tells of.

    Raises:
        UserError: the study's own, a job's, or another process ended.
        Interrupted: likewise, in all processes.
    """
    group = join()
    with group.run():
        if group.first:
            study()
        else:
            _follow(group)


class GroupCrew:
    """All processes of a group, seen from the first.

    Args:
        group: the processes.
        board: what is told of a job while it lasts.
        until: when to stop, by `time.monotonic()`.

    Raises:
        UserError: this is not the first of them.
    """

    def __init__(self, group: Group, board: Board, until: float | None = None) -> None:
        if not group.first:
            raise UserError(
                f"processes: a study in process {group.rank} of {group.size}; wanted it in the first alone, as lt-nas "
                "reproduce has it: experiments.group_crew.together"
            )
        self._group, self._board, self._until = group, board, until
        self._job: Job | None = None
        self._others_wait = True

    @property
    def free(self) -> bool:
        return self._job is None

    def begin(self, job: Job) -> int:
        self._job = job
        return 0

    def heard(self) -> list[Heard]:
        """Do the job in hand, and say what came out.

        Raises:
            UserError: the job's own.
        """
        assert self._job is not None
        job, self._job = self._job, None
        _tell(self._group, job)
        self._others_wait = False  # should it end otherwise than well, all end with it
        try:
            with _asked_to_stop(self._until):
                said = job.work(lambda phase: Reporter(_ToBoard(self._board, job.name), phase))
        except Interrupted:
            return [Heard(0, job.name, Report("stopped"))]
        self._others_wait = True
        return [Heard(0, job.name, Report("done", said))]

    def __enter__(self) -> GroupCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._others_wait and (error is None or isinstance(error, Interrupted)):
            _tell(self._group, "done" if error is None else "stopped")


class _ToBoard:
    """Where the reports of a job go."""

    def __init__(self, board: Board, job: str) -> None:
        self._board, self._job = board, job

    def send(self, said: Report) -> None:
        """Show one."""
        self._board.report(0, self._job, said.text, said.done, said.total)


def _follow(group: Group) -> None:
    with StopSignal():  # between two jobs the first decides
        while isinstance(told := _told(group), Job):
            told.work(lambda phase: Several(()))
    if told == "stopped":
        raise Interrupted(None, 0, 0)


def _tell(group: Group, what: Next) -> None:
    group.share(torch.frombuffer(bytearray(pickle.dumps(what)), dtype=torch.uint8))


def _told(group: Group) -> Next:
    what: Next = pickle.loads(group.share(None).numpy().tobytes())
    return what


@contextlib.contextmanager
def _asked_to_stop(when: float | None) -> Iterator[None]:
    """Within this context this process gets a SIGTERM when the time is over; a run ends after its step."""
    if when is None:
        yield
        return
    timer = threading.Timer(max(0.0, when - time.monotonic()), os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
