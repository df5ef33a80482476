"""A study of the paper so small that all its networks take seconds, for the tests of studies and of what they carry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tiny_runs import Silent, tiny_settings

from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.experiments.networks import Plan
from lt_nas_ext.experiments.settings import StudySettings
from lt_nas_ext.experiments.worker import Job

SETTINGS = StudySettings(data="digits", seeds=1, scale=0.2, device="cpu")
"""26 to 2 images a class, 187 in all; 10 test images a class."""

_SEARCH: dict[str, Any] = {"epochs": 2, "test_every": 1, "batch_size": 24}

PLAN = Plan(
    searches={
        "darts": tiny_settings("darts", **_SEARCH),
        "fair-darts": tiny_settings("authors-fairdarts", **{**_SEARCH, "alpha_lr": 1e-3}),  # no gate reaches 0.85
        "ssf-nas": tiny_settings("paper-ssf", **_SEARCH),
    },
    training=RetrainSettings(epochs=2, channels=2, layers=1, device="cpu"),
    controls=("small-conv-net",),
    random=2,
)
RUNS = ["darts", "fair-darts", "ssf-nas", "random-0", "random-1", "small-conv-net"]


class Told:
    """A board that keeps which jobs are done, and how many steps it was told of."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.steps = 0

    def start(self, title: str, jobs: int) -> None:
        pass

    def begin(self, worker: int, job: str) -> None:
        pass

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        self.steps += done

    def finish(self, worker: int, job: str, result: str) -> None:
        self.jobs.append(job)

    def close(self) -> None:
        pass


class InThisProcess:
    """A queue without workers, whose start takes longer than their work here; it counts the steps."""

    def __init__(self, most: int | None = None) -> None:
        self.follower, self.most, self.names = Silent(), most, list[str]()

    def __call__(
        self,
        jobs: Sequence[Job],
        out: Path,
        workers: int,
        title: str,
        board: object,
        until: float | None,
        done: Collection[str],
    ) -> None:
        for job in [job for job in jobs if job.name not in done][: self.most]:
            job.work(lambda phase: self.follower)
            self.names.append(job.name)
