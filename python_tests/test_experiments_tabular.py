"""The tabular study at a tiny scale: its table, its picture, and the agreement that is read from them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_experiments_queue import Remembered
from tiny_runs import Silent

from lt_nas_ext import cli
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import tabular as lt_tabular
from lt_nas_ext.experiments.plain_loop import Recipe, Training, fit_plainly
from lt_nas_ext.experiments.rank import kendall_tau
from lt_nas_ext.experiments.tabular import (
    COLUMNS,
    Agreement,
    Plan,
    Tabular,
    Tau,
    first_genotypes,
    load_digits,
    make_network,
    run_tabular,
    train_network,
)
from lt_nas_ext.space import Genotype, param_count

TINY = Plan(training=Training(epochs=2, batch_size=60, channels=2), layers=1, nodes=1)
STEPS = 2 * (240 // 60)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Silent:
    """A queue in this process: the workers' start takes longer than their work."""
    follower = Silent()
    monkeypatch.setattr(lt_tabular, "run_queue", lambda jobs, *_: [job.work(lambda phase: follower) for job in jobs])
    return follower


def lines_of(study: Tabular) -> list[dict[str, str]]:
    with study.table.open() as file:
        return list(csv.DictReader(file))


def test_workers_train_what_the_table_says(tmp_path: Path) -> None:
    board = Remembered()
    study = run_tabular(tmp_path, networks=2, seeds=1, jobs=1, plan=TINY, board=board)
    assert len(board.done) == 6
    for line in lines_of(study):
        title = {"balance": "balance", "exp-0.1": "exp μ = 0.1", "exp-0.01": "exp μ = 0.01"}[line["distribution"]]
        told = board.done[f"{title}, seed {line['seed']}, network {line['network']}"]
        assert told == f"macro {100 * float(line['macro']):.1f} %"
        assert study.accuracies[title][0][int(line["network"])] == pytest.approx(100 * float(line["macro"]), abs=1e-4)
    assert [(one.first, one.second, one.seeds) for one in study.agreements] == [
        ("balance", "exp μ = 0.1", None), ("balance", "exp μ = 0.01", None), ("exp μ = 0.1", "exp μ = 0.01", None)
    ]  # fmt: skip


def test_the_study_trains_nothing_twice_and_grows(tmp_path: Path, here: Silent) -> None:
    first = run_tabular(tmp_path, networks=3, seeds=1, plan=TINY)
    assert here.steps == 9 * STEPS
    study = run_tabular(tmp_path, networks=4, seeds=2, plan=TINY)
    assert here.steps == 24 * STEPS
    table = study.table.read_text()
    assert run_tabular(tmp_path, networks=4, seeds=2, plan=TINY).table.read_text() == table
    assert here.steps == 24 * STEPS

    lines = lines_of(study)
    assert tuple(lines[0]) == COLUMNS and len(lines) == 24
    for title, seeds in first.accuracies.items():
        assert study.accuracies[title][0][:3] == seeds[0]
    genotypes = first_genotypes(TINY, 4)
    for line in lines:
        network = make_network(genotypes[int(line["network"])], TINY, 0)
        assert line["genotype"] == str(network.genotype) and int(line["parameters"]) == param_count(network)
        assert Genotype.from_darts(line["genotype"]).normal == network.genotype.normal
        assert int(line["training_images"]) == {"exp-0.01": 242}.get(line["distribution"], 240)
        empty = {"balance": {"many", "few"}, "exp-0.1": {"many"}, "exp-0.01": {"many"}}[line["distribution"]]
        assert {name for name in ("many", "medium", "few", "first", "last") if not line[name]} == empty

    # What is said is what can be read from the table.
    def macro(distribution: str) -> np.ndarray:
        chosen = [line for line in lines if line["distribution"] == distribution]
        found = {(int(line["seed"]), int(line["network"])): float(line["macro"]) for line in chosen}
        return np.array([[found[seed, number] for number in range(4)] for seed in range(2)])

    balance, tail = macro("balance"), macro("exp-0.01")
    by_pair = {(one.first, one.second): one for one in study.agreements}
    said = by_pair["balance", "exp μ = 0.01"]
    assert said.means is not None and said.seeds is not None
    assert said.means.value == pytest.approx(kendall_tau(balance.mean(0).round(6), tail.mean(0).round(6)), nan_ok=True)
    both = [kendall_tau(balance[i], tail[1 - i]) for i in range(2)]
    assert said.seeds.value == pytest.approx(np.mean(both), nan_ok=True)
    ceiling = by_pair["balance", "balance"]
    assert ceiling.means is None and ceiling.seeds is not None
    assert ceiling.seeds.value == pytest.approx(kendall_tau(*balance), nan_ok=True)
    results = json.loads(study.report.read_text())
    assert results["machine"]["torch"] and len(results["agreements"]) == 6
    assert results["macro"]["balance"]["mean"] == pytest.approx(100 * balance.mean(), abs=0.01)

    svg = study.picture.read_text()
    assert svg.startswith("<svg") and len(re.findall(r"macro accuracy, exp μ = 0\.01 \(%\)", svg)) == 1
    assert "Two seeds" in svg and svg.count("<use") >= 3 * 4  # a dot a network in each panel

    with pytest.raises(UserError, match=r"out: .*seed-0.*00.json is of a study with other settings; name another"):
        run_tabular(tmp_path, networks=3, seeds=1, plan=replace(TINY, layers=2))


def test_every_distribution_has_as_many_images_and_its_own_shares() -> None:
    plan = Plan()
    counts = {name: load_digits(name, 0, plan).counts for name in plan.n_max}
    assert {name: sum(found) for name, found in counts.items()} == {"balance": 240, "exp-0.1": 240, "exp-0.01": 242}
    assert {name: (found[0], found[-1]) for name, found in counts.items()} == {
        "balance": (24, 24), "exp-0.1": (60, 6), "exp-0.01": (100, 1)
    }  # fmt: skip


def test_a_training_is_a_function_of_network_distribution_and_seed(tmp_path: Path) -> None:
    genotype, other = first_genotypes(TINY, 2)

    def weights(genotype: Genotype, distribution: str, seed: int) -> torch.Tensor:
        digits = load_digits(distribution, seed, TINY)
        network = fit_plainly(make_network(genotype, TINY, seed), digits, TINY.training, Recipe(), seed)
        assert not network.training
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    first = weights(genotype, "balance", 0)
    torch.rand(3)
    assert torch.equal(weights(genotype, "balance", 0), first)
    for changed in ((genotype, "exp-0.1", 0), (genotype, "balance", 1), (other, "balance", 0)):
        found = weights(*changed)
        assert found.shape != first.shape or not torch.equal(found, first)

    silent = Silent()
    told = train_network(tmp_path / "a.json", genotype, "exp-0.01", 1, TINY, lambda phase: silent)
    content = json.loads((tmp_path / "a.json").read_text())
    assert told == f"macro {100 * content['figures']['macro']:.1f} %" and content["training_images"] == 242
    assert (content["settings"]["n_max"], content["settings"]["seed"]) == (100, 1)


@pytest.mark.parametrize(("name", "least"), [("networks", 2), ("seeds", 1), ("jobs", 1)])
def test_too_few_are_refused(tmp_path: Path, name: str, least: int) -> None:
    with pytest.raises(UserError, match=f"{name}: got 0; wanted at least {least}"):
        run_tabular(tmp_path, **{name: 0})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_shell_shows_the_agreement_and_the_paths_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def study(out: Path, networks: int, seeds: int, jobs: int | None) -> Tabular:
        asked.extend((out, networks, seeds, jobs))
        agreement = Agreement("balance", "exp μ = 0.1", Tau(0.5, 0.25, 0.75), None)
        files = (out / "tabular.csv", out / "tabular.svg", out / "results.json")
        return Tabular({"balance": [[80.0, 90.0], [82.0, 96.0]]}, [agreement], *files)

    monkeypatch.setattr(lt_tabular, "run_tabular", study)
    words = ["--out", str(tmp_path), "--networks", "2", "--seeds", "2", "--jobs", "1"]
    assert cli.main(["reproduce", "tabular", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert asked == [tmp_path, 2, 2, 1]
    assert lines[-3:] == [str(tmp_path / name) for name in ("tabular.csv", "tabular.svg", "results.json")]
    assert any(line.split() == ["balance", "81.0", "87.0", "93.0"] for line in lines)
    assert any(re.fullmatch(r"\s*balance\s+exp μ = 0\.1\s+0\.50 \(0\.25 … 0\.75\)\s+–\s*", line) for line in lines)
