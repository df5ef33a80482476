"""Jobs of a cluster, through submitit: the run directories, which all its machines see, are the contract.

"slurm" submits each job to Slurm; "local" runs it in a process of this machine, to try the rest of it. A job that the
cluster stops before its end (preempted, or its time over) is submitted again and goes on from its last whole epoch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from lt_nas_ext.engine import Interrupted, LogProgress
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.queue import Heard
from lt_nas_ext.experiments.worker import Job, Report

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


class ClusterCrew:
    """A cluster that jobs are submitted to; those at work when the queue ends are cancelled.

    Args:
        cluster: "slurm" or "local".
        folder: of submitit's files and logs.
        most: jobs submitted at a time; None: all that can begin.
        options: of submitit's `AutoExecutor`, such as {"slurm_partition": "gpu", "timeout_min": 240}.

    Raises:
        UserError: submitit is not installed, or an option is unknown to it.
    """

    def __init__(
        self, cluster: str, folder: Path, most: int | None = None, options: Mapping[str, int | str] | None = None
    ) -> None:
        self._executor = _executor(cluster, folder, options or {})
        self._most, self._seconds = most, SECONDS_BETWEEN_LOOKS[cluster]
        self._begun, self._running = 0, dict[tuple[int, str], Any]()

    @property
    def free(self) -> bool:
        return self._most is None or len(self._running) < self._most

    def begin(self, job: Job) -> int:
        number, self._begun = self._begun, self._begun + 1
        self._running[number, job.name] = self._executor.submit(Unattended(job))
        return number

    def heard(self) -> list[Heard]:
        """The jobs that are done.

        Raises:
            UserError: one failed; its log is named.
        """
        done = [place for place, submitted in self._running.items() if submitted.done()]
        if not done:
            time.sleep(self._seconds)
        return [Heard(*place, Report("done", _result(place[1], self._running.pop(place)))) for place in done]

    def __enter__(self) -> ClusterCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for submitted in self._running.values():
            submitted.cancel(check=False)


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
