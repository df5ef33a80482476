"""The queue of worker processes: what they say arrives, and however it ends, none is left behind."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import BarBoard, LogBoard, default_board
from lt_nas_ext.experiments.local_crew import SECONDS_TO_STOP, LocalCrew, cores
from lt_nas_ext.experiments.queue import QueueInterrupted, run_queue
from lt_nas_ext.experiments.worker import Follow, Job


def walk(steps: int, follow: Follow) -> str:
    progress = follow("walking")
    progress.start(steps, "")
    for _ in range(steps):
        progress.step({})
    progress.close()
    return f"{steps} steps, {torch.get_num_threads()} thread"


def warn(follow: Follow) -> str:
    warnings.warn("a gate ties", stacklevel=1)
    return "warned"


def refuse(follow: Follow) -> str:
    raise UserError("epochs: got 0; wanted more")


def fail(follow: Follow) -> str:
    return str(1 / 0)


def die(follow: Follow) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def walk_on(follow: Follow) -> str:
    while True:
        walk(1, follow)
        time.sleep(0.01)


class Remembered:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.jobs, self.begun, self.phases, self.done, self.closed = 0, [], set(), {}, False  # type: ignore[var-annotated]

    def start(self, title: str, jobs: int) -> None:
        self.jobs = jobs

    def begin(self, worker: int, job: str) -> None:
        self.begun.append(job)

    def report(self, worker: int, job: str, phase: str, done: int, total: int) -> None:
        self.phases.add((job, phase, total))

    def finish(self, worker: int, job: str, result: str) -> None:
        self.done[job] = result

    def close(self) -> None:
        self.closed = True


def test_every_job_is_done_once_on_one_thread(tmp_path: Path) -> None:
    board = Remembered()
    jobs = [Job(f"walk {steps}", partial(walk, steps)) for steps in (3, 1, 2)]
    with pytest.warns(UserWarning, match="ties: a gate ties"):
        run_queue([*jobs, Job("ties", warn)], tmp_path, LocalCrew(2), board=board)
    assert board.jobs == 4 and board.closed
    assert board.begun == ["walk 3", "walk 1", "walk 2", "ties"]
    assert board.done == {f"walk {n}": f"{n} steps, 1 thread" for n in (1, 2, 3)} | {"ties": "warned"}
    assert board.phases == {(f"walk {n}", "walking", n) for n in (1, 2, 3)}
    assert not multiprocessing.active_children()


def test_jobs_wait_for_others_and_leave_out_what_is_done(tmp_path: Path) -> None:
    board = Remembered()
    last = Job("last", partial(walk, 1), frozenset({"first", "before"}))
    jobs = [Job("before", fail), Job("first", partial(walk, 30)), last, Job("meanwhile", partial(walk, 1))]
    run_queue(jobs, tmp_path, LocalCrew(2), board=board, done={"before", "of another distribution"})
    assert board.jobs == 3 and board.begun == ["first", "meanwhile", "last"]
    run_queue(jobs, tmp_path, LocalCrew(2), board=Remembered(), done=[job.name for job in jobs])


def test_it_ends_when_its_time_is_over(tmp_path: Path) -> None:
    board = Remembered()
    with pytest.raises(QueueInterrupted, match=f"the time is over with 0 of 2 runs done, .* saved .* in {tmp_path}"):
        jobs = [Job("endless", walk_on), Job("never", warn)]
        run_queue(jobs, tmp_path, LocalCrew(1), board=board, until=time.monotonic() + 1)
    assert board.closed and board.begun == ["endless"] and not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (refuse, UserError, "^epochs: got 0; wanted more$"),
        (fail, RuntimeError, "the bad one failed:\n(.|\n)*ZeroDivisionError"),
    ],
)
def test_what_is_wrong_in_a_job_is_told(tmp_path: Path, job: object, error: type, message: str) -> None:
    board = Remembered()
    with pytest.raises(error, match=message):
        run_queue([Job("the bad one", job), Job("never", warn)], tmp_path, LocalCrew(1), board=board)  # type: ignore[arg-type]
    assert board.closed and board.begun == ["the bad one"] and not multiprocessing.active_children()


def test_a_killed_worker_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the worker at the bad one was killed \(exit code -9\)"):
        run_queue([Job("endless", walk_on), Job("the bad one", die)], tmp_path, LocalCrew(2), board=Remembered())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_no_worker_stays(tmp_path: Path, end: signal.Signals) -> None:
    """Ctrl-C goes to every process of the terminal, SIGKILL to the command alone."""
    words = ["reproduce", "digits", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lt_nas_ext", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert until((tmp_path / "seed-0" / "ssf-nas" / "history.jsonl").exists), "no run began"
        began = time.monotonic()
        if end == signal.SIGINT:
            os.killpg(process.pid, end)
        else:
            process.kill()
        _, err = process.communicate(timeout=60)  # the workers hold this pipe too
        assert until(lambda: not alive(process.pid)), "a worker stays"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in err
    if end == signal.SIGINT:
        assert time.monotonic() - began < SECONDS_TO_STOP  # no worker waits to be killed
        assert process.returncode == 130 and "interrupted with 0 of 4 runs done" in err
        assert err.splitlines()[-1] == f"continue with: python -m lt_nas_ext {' '.join(words)}"


def until(true: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_bars_show_who_is_at_work_and_keep_what_is_done() -> None:
    text = io.StringIO()
    board = BarBoard(Console(file=text, force_terminal=True, width=120))
    board.start("digits", 2)
    board.begin(0, "DARTS, seed 0")
    board.report(0, "DARTS, seed 0", "search", 3, 10)
    board._bars.refresh()
    assert "DARTS, seed 0: search" in text.getvalue() and "3/10" in text.getvalue()
    board.finish(0, "DARTS, seed 0", "macro 95.0 %")
    board.begin(0, "SmallConvNet, seed 0")
    board.close()
    assert "DARTS, seed 0: macro 95.0 %" in text.getvalue() and "1/2" in text.getvalue()


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lt_nas_ext"):
        board = LogBoard()
        board.start("digits", 2)
        board.begin(1, "DARTS, seed 0")
        board.report(1, "DARTS, seed 0", "search", 3, 10)
        board.finish(1, "DARTS, seed 0", "macro 95.0 %")
        board.close()
    assert caplog.messages == ["digits: 2 runs", "DARTS, seed 0: begun", "DARTS, seed 0: macro 95.0 % (1 of 2)"]


def test_the_default_depends_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(default_board(), LogBoard)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(default_board(), BarBoard)


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7})
    assert cores() == 3
