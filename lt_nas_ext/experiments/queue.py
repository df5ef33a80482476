"""A queue of jobs for worker processes of one thread each: networks this small gain nothing from a second thread.

What is done stands in run directories, so a queue needs no memory of its own: begun again, each job keeps what is
there and goes on from its last whole epoch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from lt_nas_ext.engine import Interrupted
from lt_nas_ext.engine.processes import check_alone
from lt_nas_ext.engine.stop import StopSignal
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board, default_board
from lt_nas_ext.experiments.worker import Job, Report, serve

SECONDS_TO_STOP = 30.0
"""A step of the largest network here takes less: what has not ended by then never will."""


class QueueInterrupted(Interrupted):
    """The queue was asked to stop, or its time was over, and it stopped.

    Attributes:
        out: the directory of the study.
        epoch, epochs: here jobs that are done, and all.
    """

    def __init__(self, out: Path, done: int, jobs: int, why: str = "interrupted") -> None:
        self.out, self.epoch, self.epochs = out, done, jobs
        Exception.__init__(self, f"{why} with {done} of {jobs} runs done, the others saved as they stand in {out}")


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def at_a_time(device: torch.device, named: str) -> int:
    """How many runs a machine takes at a time: one a core, or one a CUDA device, or one on the device that is named."""
    if device.type == "cpu":
        return cores()
    return 1 if ":" in named else torch.cuda.device_count()


def run_queue(
    jobs: Sequence[Job],
    out: Path,
    workers: int,
    title: str = "",
    board: Board | None = None,
    until: float | None = None,
    done: Collection[str] = (),
) -> None:
    """Do all jobs, `workers` of them at a time, in the order given but for those that still wait for another.

    Args:
        jobs: in an order in which one worker could do them.
        out: where they leave what they do, for the message of an interruption.
        workers: processes, at least 1.
        title: what the whole is called on the board.
        board: what follows the queue; by default bars on a terminal, log lines elsewhere.
        until: when to stop, by `time.monotonic()`; by default when all are done.
        done: names of jobs that need not be done again.

    Raises:
        UserError: a job's own, a worker was killed, or `out` cannot be written. The other jobs are saved as they stand.
        RuntimeError: a job failed otherwise; the message holds its traceback.
        QueueInterrupted: Ctrl-C, SIGTERM, or the time is over; begin the queue again to continue.
    """
    check_alone("jobs", "the queue starts the processes that it needs, --jobs of them")
    waiting, finished = [job for job in jobs if job.name not in done], set(done)
    board, names = board or default_board(), {job.name for job in jobs}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot write to {out}: {error.strerror}") from None
    with StopSignal() as stop, _crew(min(workers, len(waiting))) as crew:
        board.start(title, len(waiting))
        try:
            while not finished >= names:
                if stop.requested:
                    raise QueueInterrupted(out, len(finished), len(jobs))
                if until is not None and time.monotonic() >= until:
                    raise QueueInterrupted(out, len(finished), len(jobs), "the time is over")
                for worker in crew:
                    job = next((job for job in waiting if job.after <= finished), None)
                    if worker.job is None and job is not None:
                        waiting.remove(job)
                        worker.begin(job)
                        board.begin(worker.number, worker.name)
                for worker in _spoken(crew):
                    said = worker.hear()
                    if said.kind == "at work":
                        board.report(worker.number, worker.name, said.text, said.done, said.total)
                    elif said.kind == "warning":
                        warnings.warn(f"{worker.name}: {said.text}", stacklevel=2)
                    elif said.kind == "done":
                        finished.add(worker.name)
                        board.finish(worker.number, worker.name, said.text)
                        worker.job = None
                    elif said.kind == "stopped":
                        raise QueueInterrupted(out, len(finished), len(jobs))
                    elif said.kind == "refused":
                        raise UserError(said.text)
                    else:
                        raise RuntimeError(f"{worker.name} failed:\n{said.text}")
        finally:
            board.close()


class _Worker:
    """A worker process, seen from outside."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that PyTorch's threads hold
        self.number, self.job = number, None  # type: int, Job | None
        self.pipe, other_end = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=serve, args=(other_end, number), name=f"lt-nas worker {number}"
        )
        self.process.start()
        other_end.close()  # only the worker's own is left: its death closes the pipe

    @property
    def name(self) -> str:
        """Of the job in hand."""
        return "" if self.job is None else self.job.name

    def begin(self, job: Job) -> None:
        """Give it a job."""
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it was killed: `hear` says so
            self.pipe.send(job)

    def hear(self) -> Report:
        """The next thing it says.

        Raises:
            UserError: it was killed.
        """
        try:
            said: Report = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(SECONDS_TO_STOP)
            code = self.process.exitcode
            raise UserError(
                f"jobs: the worker at {self.name or 'its start'} was killed (exit code {code}); where memory is short "
                "give fewer --jobs. What is done is kept: the same command continues"
            ) from None
        return said


@contextlib.contextmanager
def _crew(size: int) -> Iterator[list[_Worker]]:
    """So many workers; at the end of the context none is left."""
    crew: list[_Worker] = []
    try:
        with _deaf_to_ctrl_c():
            crew += [_Worker(number) for number in range(size)]
        yield crew
    finally:
        for worker in crew:
            worker.process.terminate()  # at work: ends after its step; idle: at once
        try:
            for worker in crew:
                worker.process.join(SECONDS_TO_STOP)
        finally:
            for worker in crew:
                worker.process.kill()
                worker.process.join()
                worker.pipe.close()


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started in this context ignore Ctrl-C from their first moment, while they still import PyTorch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _spoken(crew: Sequence[_Worker]) -> list[_Worker]:
    """The workers that have something to say. Waits for one, but not so long that Ctrl-C would seem unheard."""
    pipes: dict[Connection, _Worker] = {worker.pipe: worker for worker in crew}
    ready = wait(list(pipes), timeout=0.2)
    return [worker for pipe, worker in pipes.items() if pipe in ready]
