"""The digits study at a tiny scale, from images to table, page and results.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_experiments_queue import Remembered
from tiny_runs import Silent, tiny_settings

from lt_nas_ext import cli
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import digits as lt_digits
from lt_nas_ext.experiments.digits import PLAN, Plan, run_digits, run_network
from lt_nas_ext.experiments.study import Study, margins
from lt_nas_ext.report.tables import Row

NAMES = ["SSF-NAS", "DARTS", "random genotype", "SmallConvNet"]
ONCE = {"epochs": 1, "alpha_lr": 1.0, "batch_size": 128}
TINY_PLAN = Plan(
    searches={name: tiny_settings(f"demo-{short}", **ONCE) for name, short in (("ssf-nas", "ssf"), ("darts", "darts"))},
    controls=PLAN.controls,
    training=replace(PLAN.training, epochs=1, channels=2, layers=1),
)


def test_study_ends_with_every_seed_and_trains_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, follower = Remembered(), Silent()
    first = run_digits(tmp_path, seeds=1, jobs=1, plan=TINY_PLAN, board=board)
    assert [*board.done] == [f"{name}, seed 0" for name in NAMES]
    assert [f"macro {100 * row.macro[0]:.1f} %" for row in first.results] == [*board.done.values()]

    # From here on in this process: the workers' start takes longer than their work.
    monkeypatch.setattr(lt_digits, "run_queue", lambda jobs, *rest: [job.work(lambda phase: follower) for job in jobs])
    study = run_digits(tmp_path, seeds=2, plan=TINY_PLAN)
    assert [row.macro[:1] for row in study.results] == [row.macro for row in first.results]
    assert [(row.network, row.seeds, len(row.macro), row.state) for row in study.results] == [
        (name, 2, 2, "") for name in NAMES
    ]
    page = study.report.read_text(encoding="utf-8")
    assert study.report == (tmp_path / "report.html").absolute()
    assert "every seed" in page and "SSF-NAS, seed 1" in page and "subset seeds 0, 1" in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(entry["network"], entry["seed"]) for entry in results["networks"]] == [
        (name, seed) for name in NAMES for seed in (0, 1)
    ]
    assert [entry["macro"] for entry in results["networks"]] == [value for row in study.results for value in row.macro]
    assert results["machine"]["torch"] and results["plan"]["training"]["loss"] == "balanced_softmax"
    random = [entry["genotype"] for entry in results["networks"] if entry["network"] == "random genotype"]
    assert random[0] != random[1]  # a fresh one for each seed

    steps = follower.steps
    again = run_digits(tmp_path, seeds=2, plan=TINY_PLAN)
    assert 0 < steps == follower.steps and again.results == study.results


def test_the_same_images_and_training_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[Path, tuple[Any, Any]] = {}

    class Found:
        genotype = None
        metrics = {"macro": 0.5}  # noqa: RUF012

    def retrain(what: object, data: Any, settings: Any, out: Path, *rest: object) -> Found:
        trained[out] = (data, settings)
        return Found()

    monkeypatch.setattr(lt_digits, "run_retrain", retrain)
    monkeypatch.setattr(lt_digits, "run_search", lambda *args: Found())
    for name in ("ssf-nas", "darts", "random", "small-conv-net"):
        assert run_network(tmp_path / name, name, 3, PLAN, lambda phase: Silent()) == "macro 50.0 %"
    assert len({data.train.files for data, _ in trained.values()}) == 1
    same = replace(PLAN.training, seed=3)
    assert {out.relative_to(tmp_path): settings for out, (_, settings) in trained.items()} == {
        Path("ssf-nas/retrain"): same,
        Path("darts/retrain"): same,
        Path("random"): same,
        Path("small-conv-net"): replace(same, channels=None, layers=None),
    }
    assert same.loss == "balanced_softmax" and same.pretrain_epochs == 0
    data = trained[tmp_path / "random"][0]
    assert sum(data.counts) == 527 and data.seed == 3


def test_margins_are_paired_by_seed() -> None:
    ours, even, far = (
        Row(name, "–", 2, macro=values)
        for name, values in zip("ABC", [(0.9, 0.8), (0.9, 0.8), (0.8, 0.9)], strict=True)
    )
    assert margins([ours, even, far]) == ["A - B: 0.0 ± 0.0", "A - C: 0.0 ± 14.1"]


@pytest.mark.parametrize("name", ["seeds", "jobs"])
def test_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: got 0; wanted at least 1"):
        run_digits(tmp_path, **{name: 0})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_shell_prints_the_report_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def study(out: Path, seeds: int, jobs: int | None) -> Study:
        asked.extend((out, seeds, jobs))
        both = [Row(name, "–", 2, macro=(0.9, 0.8 + gain)) for name, gain in (("SSF-NAS", 0.1), ("SmallConvNet", 0.0))]
        return Study([], both, tmp_path / "report.html")

    monkeypatch.setattr(lt_digits, "run_digits", study)
    assert cli.main(["reproduce", "digits", "--out", str(tmp_path), "--seeds", "2", "--jobs", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert asked == [tmp_path, 2, 3] and lines[-1] == str(tmp_path / "report.html")
    assert lines[-2] == "SSF-NAS - SmallConvNet: 5.0 ± 7.1"
