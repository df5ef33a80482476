"""A study in two gloo processes: one run after the other, each shared, and one of them that writes."""

from __future__ import annotations

import json
import signal
import time

import pytest
import torch.distributed as dist
from grouped_runs import ended, returned, said, send, started, wait_for_epochs
from tiny_studies import PLAN, RUNS, SETTINGS, Told

from lt_nas_ext import cli
from lt_nas_ext.engine.processes import Group
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import spread as lt_spread
from lt_nas_ext.experiments.group_crew import GroupCrew
from lt_nas_ext.experiments.local_crew import LocalCrew
from lt_nas_ext.experiments.spread import Spread

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")

SEED = "exp-0.1/seed-0"
SEARCH = f"{SEED}/darts"


def test_a_study_in_two_processes(tmp_path):
    """Begun, done, and begun again: then nothing is left to do."""
    out = tmp_path / "out"
    assert ended(started(2, tmp_path / "first", "study", out), 300.0) == [0, 0], said(tmp_path / "first", 0)
    first, second = returned(tmp_path / "first")
    assert (first["studies"], second["studies"]) == (1, 0) and second["jobs"] == []
    assert len(first["jobs"]) == len(PLAN.searches) + len(RUNS) and first["steps"] > 0
    for path in [*(out / SEED).glob("*/config.json"), *(out / SEED).glob("*/retrain/config.json")]:
        assert json.loads(path.read_text())["processes"] == 2
    content = json.loads((out / "results.json").read_text())
    assert [network["macro"] > 0 for network in content["networks"]] == [True] * len(RUNS)
    assert (out / "report.html").exists() and (out / "table.md").exists()
    assert ended(started(2, tmp_path / "second", "study", out)) == [0, 0]
    assert returned(tmp_path / "second")[0]["jobs"] == []


@pytest.mark.parametrize("number, codes", [(signal.SIGKILL, [2, -9]), (signal.SIGTERM, [130, 130])])
def test_an_end_of_one_is_the_end_of_both(tmp_path, number, codes):
    processes = started(2, tmp_path, "killable_study", tmp_path / "out")
    wait_for_epochs(tmp_path / "out" / SEARCH, 1)
    began = time.monotonic()
    send(processes[1], number)
    assert ended(processes) == codes and time.monotonic() - began < 60
    if number == signal.SIGKILL:
        assert "process 1 of 2 ended" in said(tmp_path, 0)
    else:
        assert "interrupted with 0 of 9 runs done" in said(tmp_path, 0)
    assert "Traceback" not in said(tmp_path, 0)


def test_it_ends_when_its_time_is_over(tmp_path):
    assert ended(started(2, tmp_path, "killable_study", tmp_path / "out", 0.2)) == [130, 130]
    assert "the time is over with 0 of 9 runs done" in said(tmp_path, 0)


def test_what_the_first_finds_wrong_ends_both(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.json").write_text(json.dumps({"study": "hls"}))
    assert ended(started(2, tmp_path / "runs", "study", out)) == [2, 2]
    assert f"out: {out} holds another study" in said(tmp_path / "runs", 0)
    assert f"process 0 of 2 ended: out: {out} holds another study" in said(tmp_path / "runs", 1)


def test_it_is_for_the_first_and_without_jobs_of_its_own(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"processes: a study in process 1 of 2; wanted it in the first alone"):
        GroupCrew(Group(1, 2), Told())
    monkeypatch.setattr(lt_spread, "join", lambda: Group(0, 2))
    assert isinstance(Spread().crew(tmp_path, "cpu", Told()), GroupCrew)
    for changes in ({"jobs": 2}, {"cluster": "local"}):
        with pytest.raises(UserError, match=r"jobs: got --jobs or --cluster in 2 processes \(torchrun\)"):
            Spread(**changes).crew(tmp_path, "cpu", Told())
    assert SETTINGS.spread == Spread()


@pytest.mark.parametrize("study", ["losses", "tabular"])
def test_studies_of_trainings_too_small_to_share(monkeypatch, capsys, study):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["reproduce", study]) == 2
    assert f"reproduce {study}: got 2 processes (WORLD_SIZE, set by torchrun); wanted one: only search" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"^jobs: got 2 processes"):
        LocalCrew(1)
