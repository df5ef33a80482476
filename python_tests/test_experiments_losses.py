"""The losses study at a tiny scale, and the plain loop under it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_experiments_queue import Remembered
from tiny_runs import Silent

from lt_nas_ext import cli, data
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import losses as lt_losses
from lt_nas_ext.experiments.losses import FACTOR, HELD_OUT, RECIPES, Plan, run_losses, run_training
from lt_nas_ext.experiments.plain_loop import Epochs, Recipe, Training, train_plainly
from lt_nas_ext.experiments.study import Study
from lt_nas_ext.longtail import LOSSES, SAMPLERS, CosineClassifier
from lt_nas_ext.report.tables import Row

TINY = Training(epochs=3, batch_size=120, channels=2)
DIGITS = data.load("digits", imbalance="exp", factor=FACTOR)
AFTER = ["post-hoc logit adj., τ = 1", "τ-normalised, τ = 1", "cRT"]


def tiny(*names: str) -> Plan:
    return Plan(TINY, crt_epochs=1, recipes={name: RECIPES[name] for name in names})


def test_study_ends_with_every_seed_and_trains_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, board, follower = tiny("cross-entropy", "LDAM-DRW"), Remembered(), Silent()
    first = run_losses(tmp_path, seeds=1, jobs=1, plan=plan, board=board)
    assert [*board.done] == [f"{name}, seed 0" for name in ("cross-entropy", "LDAM-DRW", HELD_OUT)]
    names = ["cross-entropy", *AFTER, "LDAM-DRW", HELD_OUT]
    assert [row.network for row in first.results] == names
    assert f"LDAM-DRW {100 * first.results[4].macro[0]:.1f} %" == board.done["LDAM-DRW, seed 0"]

    # From here on in this process: the workers' start takes longer than their work.
    monkeypatch.setattr(lt_losses, "run_queue", lambda jobs, *rest: [job.work(lambda phase: follower) for job in jobs])
    study = run_losses(tmp_path, seeds=2, plan=plan)
    assert (
        follower.steps == 3 * 3 * 3 - 3
    )  # three trainings of three epochs of 3 steps, but 2 where images are held out
    assert [row.macro[:1] for row in study.results] == [row.macro for row in first.results]
    assert [(row.network, row.seeds, len(row.macro), len(row.few)) for row in study.results] == [
        (name, 2, 2, 2) for name in names
    ]
    results = json.loads(study.report.read_text())
    assert study.report == (tmp_path / "results.json").absolute() and results["machine"]["torch"]
    assert [[run["seed"] for run in results["rows"][name]] for name in names] == [[0, 1]] * 6
    assert [run["macro"] for run in results["rows"]["cRT"]] == list(study.results[3].macro)
    assert results["rows"][HELD_OUT][0]["calibration"]["images"] == len(data.split(DIGITS.train, 0.8, 0)[1])
    assert results["plan"]["recipes"]["LDAM-DRW"] == {
        "loss": "ldam", "sampler": "instance", "drw": True, "mixing": "none", "tail": False
    }  # fmt: skip

    steps = follower.steps
    assert run_losses(tmp_path, seeds=2, plan=plan).results == study.results and follower.steps == steps
    with pytest.raises(UserError, match=r"out: .*cross-entropy.json is of a study with other settings; name another"):
        run_losses(tmp_path, seeds=1, plan=replace(plan, crt_epochs=2))


def test_every_remedy_has_a_row_and_its_own_file() -> None:
    used = {recipe.loss for recipe in RECIPES.values()}
    assert used == set(LOSSES) - {"logit_adjustment"}  # at τ = 1 it is balanced softmax
    assert {recipe.sampler for recipe in RECIPES.values()} == set(SAMPLERS)
    assert {recipe.mixing for recipe in RECIPES.values()} == {"none", "mixup", "remix"}
    assert next(iter(RECIPES)) == "cross-entropy" and RECIPES["cross-entropy"] == Recipe()
    assert len({lt_losses._file(Path(), name, 0) for name in (*RECIPES, HELD_OUT)}) == len(RECIPES) + 1
    assert len({repr(recipe) for recipe in RECIPES.values()}) == len(RECIPES)


def weights(recipe: Recipe, seed: int = 0, epochs: int = 3) -> torch.Tensor:
    network = train_plainly(DIGITS, replace(TINY, epochs=epochs), recipe, seed)
    assert not network.training
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_training_is_a_function_of_its_recipe_and_seed() -> None:
    trained = [weights(recipe) for recipe in RECIPES.values()]
    torch.rand(3)
    assert torch.equal(weights(Recipe()), trained[0]) and not torch.equal(weights(Recipe(), seed=1), trained[0])
    for i, first in enumerate(trained):
        for second in trained[i + 1 :]:
            assert first.shape != second.shape or not torch.equal(first, second)


def test_drw_begins_late_and_ldam_has_its_classifier() -> None:
    assert torch.equal(weights(Recipe(drw=True), epochs=2), weights(Recipe(), epochs=2))  # from epoch 2 on: never
    network: Any = train_plainly(DIGITS, TINY, Recipe("ldam"), 0)
    assert isinstance(network.classifier, CosineClassifier)


def test_all_samplers_take_as_many_steps() -> None:
    for sampler in SAMPLERS:
        batches = Epochs(DIGITS, TINY, Recipe(sampler=sampler), 0, "train")
        seen = [labels for _, labels in batches]
        assert len(seen) == len(batches) == 3 and {len(labels) for labels in seen} == {120}
    rare = torch.cat([labels for _, labels in Epochs(DIGITS, TINY, Recipe(sampler="under_sampling"), 0, "train")])
    assert torch.bincount(rare).tolist() == [36] * 10


def test_a_file_of_its_own_for_each_training(tmp_path: Path) -> None:
    file, silent = tmp_path / "seed-3" / "focal.json", Silent()
    told = run_training(file, "focal", 3, tiny("focal"), lambda phase: silent)
    content = json.loads(file.read_text())
    assert told == f"focal {100 * content['rows']['focal']['macro']:.1f} %"
    assert content["settings"]["seed"] == 3 and content["settings"]["recipe"]["loss"] == "focal"
    assert (silent.total, silent.steps, silent.closed) == (9, 9, True)


@pytest.mark.parametrize("name", ["seeds", "jobs"])
def test_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: got 0; wanted at least 1"):
        run_losses(tmp_path, **{name: 0})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_shell_prints_the_results_path_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def study(out: Path, seeds: int, jobs: int | None) -> Study:
        asked.extend((out, seeds, jobs))
        both = [Row(name, "–", 2, macro=(0.8, 0.7 + loss)) for name, loss in (("cross-entropy", 0), ("focal", 0.1))]
        return Study([], both, tmp_path / "results.json")

    monkeypatch.setattr(lt_losses, "run_losses", study)
    assert cli.main(["reproduce", "losses", "--out", str(tmp_path), "--seeds", "2", "--jobs", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert asked == [tmp_path, 2, 3] and lines[-1] == str(tmp_path / "results.json")
    assert lines[-2] == "cross-entropy - focal: -5.0 ± 7.1"
