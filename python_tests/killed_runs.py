"""Runs of a second that are killed and go on, in processes of their own, for the tests of what survives."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from tiny_studies import PLAN, SETTINGS, InThisProcess

from lt_nas_ext.engine import RetrainSettings, run_retrain, run_search
from lt_nas_ext.experiments import series
from lt_nas_ext.experiments.table1 import run_table1


def search(out: Path, follower: Silent) -> None:
    """Twelve epochs of two steps each."""
    run_search(tiny_data(), tiny_settings("paper-ssf", rule="top2", epochs=12), out, True, follower)


def retrain(out: Path, follower: Silent) -> None:
    """Two phases, with all that a checkpoint can hold: momentum, projector, moving average; drop-path and mixup."""
    settings = RetrainSettings(
        epochs=8, pretrain_epochs=4, batch_size=12, channels=4, layers=3, projector=(8, 8), ema_decay=0.9, mixup=1.0,
        random_parameters=5000, device="cpu",
    )  # fmt: skip
    run_retrain("random", tiny_data(), settings, out, True, follower)


def reproduce(out: Path, follower: Silent) -> None:
    """Three searches and six trainings, one after the other in this process."""
    series.run_queue = InThisProcess()  # type: ignore[assignment]
    run_table1(out, SETTINGS, plan=PLAN)


RUNS: dict[str, Callable[[Path, Silent], None]] = {"search": search, "retrain": retrain, "reproduce": reproduce}


def run(kind: str, out: Path, die_at_write: int | None = None, note: Path | None = None) -> None:
    """A run in a process of its own.

    Args:
        kind: of `RUNS`.
        out: its directory.
        die_at_write: kill this process just before its so many-th sync or rename.
        note: gets how many of them there were, the seconds from here to the end, the steps that were done before, and
            those taken now.
    """
    torch.set_num_threads(1)
    began, count = time.monotonic(), itertools.count(1)
    last = 0

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def one_more(*args: Any) -> Any:
            nonlocal last
            last = next(count)
            if last == die_at_write:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(*args)

        return one_more

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)  # type: ignore[assignment]
    follower = Silent()
    RUNS[kind](out, follower)
    if note is not None:
        spent = time.monotonic() - began
        note.write_text(json.dumps({"writes": last, "seconds": spent, "done": follower.done, "steps": follower.steps}))
