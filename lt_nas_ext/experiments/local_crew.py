"""Worker processes of this machine, one thread each: networks this small gain nothing from a second thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

import torch

from lt_nas_ext.engine.processes import check_alone
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.queue import Heard
from lt_nas_ext.experiments.worker import Job, Report, serve

SECONDS_TO_STOP = 30.0
"""A step of the largest network here takes less: what has not ended by then never will."""


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def at_a_time(device: torch.device, named: str) -> int:
    """How many runs a machine takes at a time: one a core, or one a CUDA device, or one on the device that is named."""
    if device.type == "cpu":
        return cores()
    return 1 if ":" in named else torch.cuda.device_count()


class LocalCrew:
    """So many workers at most, each started with the first job that finds none at leisure.

    Args:
        size: at least 1.

    Raises:
        UserError: torchrun started this process: each of them would start so many.
    """

    def __init__(self, size: int) -> None:
        check_alone("jobs", "the queue starts the processes that it needs, --jobs of them")
        self._size, self._workers = size, list[_Worker]()

    @property
    def free(self) -> bool:
        return len(self._workers) < self._size or any(worker.job is None for worker in self._workers)

    def begin(self, job: Job) -> int:
        worker = next((worker for worker in self._workers if worker.job is None), None)
        if worker is None:
            with _deaf_to_ctrl_c():
                worker = _Worker(len(self._workers))
            self._workers.append(worker)
        worker.begin(job)
        return worker.number

    def heard(self) -> list[Heard]:
        pipes: dict[Connection, _Worker] = {worker.pipe: worker for worker in self._workers}
        ready = wait(list(pipes), timeout=0.2)
        return [worker.hear() for pipe, worker in pipes.items() if pipe in ready]

    def __enter__(self) -> LocalCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()  # at work: ends after its step; idle: at once
        try:
            for worker in self._workers:
                worker.process.join(SECONDS_TO_STOP)
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()
                worker.pipe.close()


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

    def begin(self, job: Job) -> None:
        """Give it a job."""
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it was killed: `hear` says so
            self.pipe.send(job)

    def hear(self) -> Heard:
        """The next thing it says; after the last of a job it is at leisure.

        Raises:
            UserError: it was killed.
        """
        name = "" if self.job is None else self.job.name
        try:
            said: Report = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(SECONDS_TO_STOP)
            code = self.process.exitcode
            raise UserError(
                f"jobs: the worker at {name or 'its start'} was killed (exit code {code}); where memory is short "
                "give fewer --jobs. What is done is kept: the same command continues"
            ) from None
        if said.kind == "done":
            self.job = None
        return Heard(self.number, name, said)


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
