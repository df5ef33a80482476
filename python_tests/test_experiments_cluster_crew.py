"""A study as jobs of a cluster: submitted in order, found again, and cancelled with their state saved."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from test_experiments_queue import Remembered, fail, walk, walk_on

from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import worker
from lt_nas_ext.experiments.cluster_crew import ClusterCrew
from lt_nas_ext.experiments.imb_settings import ImbSettings
from lt_nas_ext.experiments.local_crew import LocalCrew, at_a_time, cores
from lt_nas_ext.experiments.queue import QueueInterrupted, run_queue
from lt_nas_ext.experiments.settings import StudySettings
from lt_nas_ext.experiments.spread import Spread
from lt_nas_ext.experiments.worker import Job


def note(path: Path, follow: object) -> str:
    path.write_text("written")
    return "noted"


@pytest.fixture
def submitit(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the jobs' functions stand in tests
    return pytest.importorskip("submitit", reason="optional")


def test_jobs_are_submitted_when_those_they_wait_for_are_done(submitit, tmp_path):
    board = Remembered()
    jobs = [
        Job("before", fail),
        Job("first", partial(note, tmp_path / "first")),
        Job("last", partial(walk, 2), frozenset({"first", "before"})),
    ]
    run_queue(jobs, tmp_path, ClusterCrew("local", tmp_path, 2, {"timeout_min": 5}), board=board, done={"before"})
    assert board.begun == ["first", "last"] and board.closed and board.jobs == 2
    assert board.done["first"] == "noted" and board.done["last"].startswith("2 steps")
    assert (tmp_path / "first").read_text() == "written"


def test_a_job_that_fails_is_named_with_its_log(submitit, tmp_path):
    with pytest.raises(UserError, match=r"cluster: the bad one failed: .*ZeroDivisionError.*its log: .*_log\.err"):
        run_queue([Job("the bad one", fail)], tmp_path, ClusterCrew("local", tmp_path), board=Remembered())


def test_jobs_are_cancelled_when_the_time_is_over(submitit, tmp_path):
    board = Remembered()
    with pytest.raises(QueueInterrupted, match="the time is over with 0 of 1 runs done"):
        crew = ClusterCrew("local", tmp_path, 1)
        run_queue([Job("endless", walk_on)], tmp_path, crew, board=board, until=time.monotonic() + 2)
    assert board.begun == ["endless"] and board.closed


def test_an_option_that_submitit_does_not_know_is_named(submitit, tmp_path):
    with pytest.raises(UserError, match=r"cluster_options: .*no_such_option"):
        ClusterCrew("local", tmp_path, 1, {"no_such_option": 1})


def test_without_submitit_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"cluster: got 'slurm', which needs the package submitit"):
        ClusterCrew("slurm", tmp_path, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": "sge"}, "cluster: got 'sge'; wanted one of 'none', 'slurm', 'local'"),
        ({"cluster": "slurm", "cluster_options": ("gpu",)}, "cluster_options: got 'gpu'; wanted NAME=VALUE"),
        ({"jobs": 0}, "jobs: got 0; wanted a whole number, at least 1"),
        ({"cluster_options": ("timeout_min=5",)}, "cluster_options: got some with cluster='none'"),
    ],
)
@pytest.mark.parametrize("settings", [StudySettings, ImbSettings, Spread])
def test_wrong_settings_are_named(settings, changes, message):
    with pytest.raises(UserError, match=message):
        settings(**changes)


def test_a_study_of_adaptations_goes_to_a_cluster_too(submitit, tmp_path):
    crew = ImbSettings(cluster="local", cluster_options=("timeout_min=5",), jobs=1).spread.crew(
        tmp_path, "auto", Remembered()
    )
    assert isinstance(crew, ClusterCrew)
    run_queue([Job("first", partial(note, tmp_path / "first"))], tmp_path, crew, board=Remembered())
    assert (tmp_path / "first").read_text() == "written" and (tmp_path / "submitit").is_dir()
    assert isinstance(ImbSettings(jobs=3).spread.crew(tmp_path, "cpu", Remembered()), LocalCrew)


def test_workers_share_the_devices_of_a_machine_out(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for number in range(4):
        worker.take_device(number)
    assert taken == [0, 1, 0, 1]
    assert at_a_time(torch.device("cuda", 0), "auto") == at_a_time(torch.device("cuda", 0), "cuda") == 2
    assert at_a_time(torch.device("cuda", 1), "cuda:1") == 1
    assert at_a_time(torch.device("cpu"), "auto") == cores()
