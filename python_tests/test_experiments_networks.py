"""The networks of a study: their order, what waits for what, and random genotypes as large as those found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_studies import PLAN, RUNS, SETTINGS

from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.experiments.images import survey
from lt_nas_ext.experiments.networks import DRAWS, _parameters, about_as_large, finished, jobs, places
from lt_nas_ext.space import random_genotype

TRAINING = RetrainSettings(channels=4, layers=3, seed=2)


def test_random_genotypes_are_as_large_as_those_found() -> None:
    one = random_genotype(7)
    size = _parameters(one, TRAINING)
    chosen = about_as_large([one], TRAINING)
    sizes = [_parameters(genotype, TRAINING) for genotype in chosen]
    within = [0.8 * size <= other <= 1.2 * size for other in sizes]
    assert 5 <= sum(within) < DRAWS  # some are not, so the choice matters
    assert within == sorted(within, reverse=True)  # those within come first
    outside = [max(0.8 * size - other, other - 1.2 * size) for other in sizes[sum(within) :]]
    assert outside == sorted(outside)  # then the nearest
    assert len({str(genotype) for genotype in chosen}) == len(chosen) == DRAWS
    assert about_as_large([one], TRAINING) == chosen != about_as_large([one], replace(TRAINING, seed=3))


def test_the_range_spans_all_networks_found() -> None:
    found = [random_genotype(i) for i in range(4)]
    sizes = [_parameters(genotype, TRAINING) for genotype in found]
    first = _parameters(about_as_large(found, TRAINING)[0], TRAINING)
    assert 0.8 * min(sizes) <= first <= 1.2 * max(sizes)


def test_what_waits_for_what(tmp_path: Path) -> None:
    distributions = ("exp-0.1", "balance")
    images = survey("digits", None, SETTINGS.scale, distributions)
    queue = jobs(tmp_path, images, PLAN, distributions, 2)
    assert len(queue) == len({job.name for job in queue}) == 4 * 9
    first = queue[:9]
    assert [(job.name.removesuffix(", exp μ = 0.1, seed 0"), len(job.after)) for job in first] == [
        ("DARTS, exp μ = 0.1, seed 0: search", 0),
        ("FairDARTS, exp μ = 0.1, seed 0: search", 0),
        ("SSF-NAS, exp μ = 0.1, seed 0: search", 0),
        ("SmallConvNet", 0),
        ("DARTS", 1),
        ("FairDARTS", 1),
        ("SSF-NAS", 1),
        ("random genotype 0", 3),
        ("random genotype 1", 3),
    ]
    before: set[str] = set()
    for job in queue:
        assert job.after <= before
        before.add(job.name)
    runs = places(PLAN, distributions, 2)
    assert [run.name for run in runs if run.seed == 0][:6] == RUNS and len(runs) == 4 * 6


def test_what_is_done_has_its_metrics(tmp_path: Path) -> None:
    def write(run: str, name: str) -> None:
        path = tmp_path / "exp-0.1/seed-0" / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    write("darts", "genotype.json")
    write("fair-darts/retrain", "history.jsonl")
    assert finished(tmp_path, PLAN, ["exp-0.1"], 1) == set()
    write("darts", "metrics.json")
    write("ssf-nas", "metrics.json")
    write("ssf-nas/retrain", "metrics.json")
    write("random-1", "metrics.json")
    where = "exp μ = 0.1, seed 0"
    assert finished(tmp_path, PLAN, ["exp-0.1"], 2) == {
        f"DARTS, {where}: search", f"SSF-NAS, {where}: search", f"SSF-NAS, {where}", f"random genotype 1, {where}",
    }  # fmt: skip


@pytest.mark.parametrize(("scale", "epochs"), [(1.0, 150), (0.5, 75), (0.05, 8), (0.001, 2)])
def test_a_scale_leaves_two_epochs(scale: float, epochs: int) -> None:
    plan = replace(PLAN, training=replace(PLAN.training, epochs=150), pretrain_epochs=150).scaled(scale)
    assert (plan.training.epochs, plan.pretrain_epochs) == (epochs, epochs)
