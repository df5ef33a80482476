"""A queue of jobs: which may begin, what came out of which, and when it stops. Who does them is a crew.

What is done stands in run directories, so a queue needs no memory of its own: begun again, each job keeps what is
there and goes on from its last whole epoch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from lt_nas_ext.engine import Interrupted
from lt_nas_ext.engine.stop import StopSignal
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board, default_board
from lt_nas_ext.experiments.worker import Job, Report


class QueueInterrupted(Interrupted):
    """The queue was asked to stop, or its time was over, and it stopped.

    Attributes:
        out: the directory of the study.
        epoch, epochs: here jobs that are done, and all.
    """

    def __init__(self, out: Path, done: int, jobs: int, why: str = "interrupted") -> None:
        self.out, self.epoch, self.epochs = out, done, jobs
        Exception.__init__(self, f"{why} with {done} of {jobs} runs done, the others saved as they stand in {out}")


class Heard(NamedTuple):
    """What was said of a job: its number on the board, its name, and what."""

    number: int
    job: str
    said: Report


class Crew(Protocol):
    """Those who do the jobs.

    Processes of this machine (`LocalCrew`), those of torchrun together (`GroupCrew`), or a cluster (`ClusterCrew`).
    """

    @property
    def free(self) -> bool:
        """Whether one more job may begin."""

    def begin(self, job: Job) -> int:
        """Begin a job where that is so; its number on the board."""

    def heard(self) -> list[Heard]:
        """What was said meanwhile. Waits for it, but not so long that Ctrl-C would seem unheard.

        Raises:
            UserError: a job was lost.
        """

    def __enter__(self) -> Crew: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is at work; its state is saved."""


def run_queue(
    jobs: Sequence[Job],
    out: Path,
    crew: Crew,
    title: str = "",
    board: Board | None = None,
    until: float | None = None,
    done: Collection[str] = (),
) -> None:
    """Do all jobs, in the order given but for those that still wait for another.

    Args:
        jobs: in an order in which they could be done one by one.
        out: where they leave what they do, for the message of an interruption.
        crew: who does them, and how many at a time; at the end nobody is left at work.
        title: what the whole is called on the board.
        board: what follows the queue; by default bars on a terminal, log lines elsewhere.
        until: when to stop, by `time.monotonic()`; by default when all are done.
        done: names of jobs that need not be done again.

    Raises:
        UserError: a job's own, a job was lost, or `out` cannot be written. The other jobs are saved as they stand.
        RuntimeError: a job failed otherwise; the message holds its traceback.
        QueueInterrupted: Ctrl-C, SIGTERM, or the time is over; begin the queue again to continue.
    """
    waiting, finished = [job for job in jobs if job.name not in done], set(done)
    board, names = board or default_board(), {job.name for job in jobs}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot write to {out}: {error.strerror}") from None

    def stopped() -> QueueInterrupted:
        why = "interrupted" if until is None or time.monotonic() < until else "the time is over"
        return QueueInterrupted(out, len(finished), len(jobs), why)

    with StopSignal() as stop, crew:
        board.start(title, len(waiting))
        try:
            while not finished >= names:
                if stop.requested or (until is not None and time.monotonic() >= until):
                    raise stopped()
                for job in [job for job in waiting if job.after <= finished]:
                    if not crew.free:
                        break
                    waiting.remove(job)
                    board.begin(crew.begin(job), job.name)
                for number, name, said in crew.heard():
                    if said.kind == "at work":
                        board.report(number, name, said.text, said.done, said.total)
                    elif said.kind == "warning":
                        warnings.warn(f"{name}: {said.text}", stacklevel=2)
                    elif said.kind == "done":
                        finished.add(name)
                        board.finish(number, name, said.text)
                    elif said.kind == "stopped":
                        raise stopped()
                    elif said.kind == "refused":
                        raise UserError(said.text)
                    else:
                        raise RuntimeError(f"{name} failed:\n{said.text}")
        finally:
            board.close()
