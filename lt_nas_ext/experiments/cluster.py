"""A queue of jobs on a cluster, through submitit: the run directories, which all its machines see, are the contract.

"slurm" submits each job to Slurm; "local" runs it in a process of this machine, to try the rest of it. A job that the
cluster stops before its end (preempted, or its time over) is submitted again and goes on from its last whole epoch.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lt_nas_ext.engine import Interrupted, LogProgress
from lt_nas_ext.engine.stop import StopSignal
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board, default_board
from lt_nas_ext.experiments.queue import QueueInterrupted
from lt_nas_ext.experiments.worker import Job

Cluster = Literal["none", "slurm", "local"]

SECONDS_BETWEEN_LOOKS = {"slurm": 10.0, "local": 0.5}


class Unattended:
    """A job as the cluster takes it: nobody follows it but its log."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> str:
        return self.job.work(lambda phase: LogProgress())

    def checkpoint(self) -> Any:
        """What submitit submits in its place, when it was stopped: itself, for the run directory has the state."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def run_on_cluster(
    cluster: str,
    jobs: Sequence[Job],
    out: Path,
    workers: int | None,
    options: Mapping[str, int | str] | None = None,
    title: str = "",
    board: Board | None = None,
    until: float | None = None,
    done: Collection[str] = (),
) -> None:
    """Do all jobs, each submitted when those that it waits for are done.

    Args:
        cluster: "slurm" or "local".
        jobs: as of `run_queue`.
        out: the directory of the study; submitit's files and logs go to `out`/submitit.
        workers: jobs submitted at a time at most; None: all that can begin.
        options: of submitit's `AutoExecutor`, such as {"slurm_partition": "gpu", "timeout_min": 240}.
        title: as of `run_queue`.
        board: likewise.
        until: likewise.
        done: likewise.

    Raises:
        UserError: submitit is not installed, an option is unknown to it, or a job failed; its log is named.
        QueueInterrupted: Ctrl-C, SIGTERM, or the time is over. Jobs that run are cancelled; their state is saved.
    """
    executor = _executor(cluster, out / "submitit", options or {})
    waiting, finished = [job for job in jobs if job.name not in done], set(done)
    board, names, running = board or default_board(), {job.name for job in jobs}, dict[str, Any]()
    places: dict[str, int] = {}
    board.start(title, len(waiting))
    with StopSignal() as stop:
        try:
            while not finished >= names:
                if stop.requested:
                    raise QueueInterrupted(out, len(finished), len(jobs))
                if until is not None and time.monotonic() >= until:
                    raise QueueInterrupted(out, len(finished), len(jobs), "the time is over")
                ready = [job for job in waiting if job.after <= finished]
                for job in ready[: None if workers is None else max(0, workers - len(running))]:
                    waiting.remove(job)
                    places[job.name] = len(places)
                    running[job.name] = executor.submit(Unattended(job))
                    board.begin(places[job.name], job.name)
                for name in [name for name, submitted in running.items() if submitted.done()]:
                    said = _result(name, running.pop(name))
                    finished.add(name)
                    board.finish(places[name], name, said)
                time.sleep(SECONDS_BETWEEN_LOOKS[cluster] if running else 0.0)
        finally:
            for submitted in running.values():
                submitted.cancel(check=False)
            board.close()


def _executor(cluster: str, folder: Path, options: Mapping[str, int | str]) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError(
            f"cluster: got {cluster!r}, which needs the package submitit, which is not installed: pip install submitit"
        ) from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{"name": "lt-nas", "timeout_min": 24 * 60, **options})
    except (NameError, ValueError, RuntimeError) as error:
        raise UserError(f"cluster_options: {error}") from None
    return executor


def _result(name: str, submitted: Any) -> str:
    try:
        return str(submitted.result())
    except Interrupted:
        raise UserError(f"cluster: {name} was stopped; the same command continues") from None
    except Exception as error:
        raise UserError(
            f"cluster: {name} failed: {_reason(error)}; its log: {submitted.paths.stderr}. What is done is kept: the "
            "same command continues"
        ) from None


def _reason(error: Exception) -> str:
    """The last line of a traceback in submitit's account of a failure, which ends with the paths of its logs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in reversed(lines) if line.split(":")[0].endswith("Error")), lines[-1])
