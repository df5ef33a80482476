"""Searches with several seeds as a queue: the consensus of those done one after the other, to the bit."""

from __future__ import annotations

import json
import os
import sys

import pytest
from test_engine_kills import contents
from test_experiments_queue import Remembered
from tiny_runs import TINY, Silent, tiny_data, tiny_settings

import lt_nas_ext as lt
from lt_nas_ext import cli
from lt_nas_ext.engine import run_consensus
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import seeds as lt_seeds
from lt_nas_ext.experiments.seeds import in_a_queue
from lt_nas_ext.experiments.spread import Spread

DATA, SETTINGS = tiny_data(), tiny_settings("darts", seed=3)
SEEDS = 3


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One after the other in this process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return run_consensus(DATA, SETTINGS, SEEDS, out, False, Silent()), contents(out)


def test_two_at_a_time_find_what_one_after_the_other_finds(alone, tmp_path):
    board, follower = Remembered(), Silent()
    queue = in_a_queue(Spread(jobs=2), board=board)
    found = run_consensus(DATA, SETTINGS, SEEDS, tmp_path / "out", False, follower, queue)
    assert board.begun == ["seed 3", "seed 4", "seed 5"] and board.closed and follower.epochs == 0
    assert {phase for _, phase, _ in board.phases} == {"search"}
    assert board.done == {f"seed {seed}": genotype for seed, genotype in zip(*_found(found), strict=True)}
    assert found.genotype == alone[0].genotype and contents(tmp_path / "out") == alone[1]


def _found(result):
    return result.metrics["seeds"], result.metrics["genotypes"]


class Stopped(Exception):
    pass


class StopsAfterOne(Remembered):
    def finish(self, worker: int, job: str, result: str) -> None:
        super().finish(worker, job, result)
        raise Stopped


def test_stopped_in_the_midst_it_goes_on(alone, tmp_path):
    out, first, second = tmp_path / "out", StopsAfterOne(), Remembered()
    with pytest.raises(Stopped):
        run_consensus(DATA, SETTINGS, SEEDS, out, False, Silent(), in_a_queue(Spread(jobs=2), board=first))
    assert len(first.done) == 1 and not (out / "genotype.json").exists()
    with pytest.raises(UserError, match="already holds a run"):
        run_consensus(DATA, SETTINGS, SEEDS, out, False, Silent(), in_a_queue(Spread(jobs=2), board=second))
    run_consensus(DATA, SETTINGS, SEEDS, out, True, Silent(), in_a_queue(Spread(jobs=2), board=second))
    assert not set(second.begun) & set(first.done) and contents(out) == alone[1]


def test_as_jobs_of_a_cluster(alone, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="optional")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    board = Remembered()
    queue = in_a_queue(Spread(cluster="local", cluster_options=("timeout_min=5",)), board=board)
    run_consensus(DATA, SETTINGS, SEEDS, tmp_path / "out", False, Silent(), queue)
    assert len(board.done) == SEEDS and (tmp_path / "out" / "submitit").is_dir()
    got = {name: content for name, content in contents(tmp_path / "out").items() if not name.startswith("submitit")}
    assert got == alone[1]


def test_one_at_a_time_is_done_in_this_process(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(lt_seeds, "run_queue", lambda *jobs: pytest.fail("a queue for one"))
    follower = Silent()
    run_consensus(DATA, SETTINGS, SEEDS, tmp_path / "out", False, follower, in_a_queue(Spread(jobs=1)))
    assert follower.epochs == SEEDS * SETTINGS.epochs and contents(tmp_path / "out") == alone[1]


def test_the_python_api_hands_its_searches_over(tmp_path):
    given = []
    lt.search(
        DATA, preset="demo-darts", out=tmp_path, progress=Silent(), seeds=2,
        elsewhere=lambda data, searches: given.append((data, searches)), **{**TINY, "epochs": 1},
    )  # fmt: skip
    ((data, searches),) = given
    assert data is DATA and {path.name: one.seed for path, one in searches.items()} == {"seed-0": 0, "seed-1": 1}


def test_the_shell_spreads_its_seeds(tmp_path, capsys):
    words = [
        "search", "--preset", "demo-darts", "--data", "digits", "--epochs", "1", "--batch-size", "128", "--channels",
        "2", "--layers", "1", "--nodes", "1", "--alpha-lr", "1", "--device", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert cli.main([*words, "--seeds", "2", "--jobs", "2", "--progress", "json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    of_the_queue = said[: next(k for k, one in enumerate(said) if one["event"] == "end") + 1]
    assert of_the_queue[0] == {"event": "start", "run": "2 searches", "runs": 2}
    assert [one["run"] for one in of_the_queue if one["event"] == "begin"] == ["seed 0", "seed 1"]
    assert {one["run"] for one in of_the_queue if one["event"] == "done"} == {"seed 0", "seed 1"}
    assert said[-1] == {"event": "result", "out": str(tmp_path / "out")}
    assert cli.main([*words, "--seeds", "2", "--jobs", "2", "--quiet", "--resume"]) == 0
    assert capsys.readouterr().out == ""


def test_each_search_has_curves_of_its_own(tmp_path):
    pytest.importorskip("tensorboard", reason="optional")
    assert lt_seeds.search_one(tiny_data, tmp_path, SETTINGS, True, lambda phase: Silent()).startswith("Genotype(")
    assert list((tmp_path / "tensorboard").glob("events*"))
