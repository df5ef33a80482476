"""Several seeds: their mean gates, the genotype read from them, and how far they agree."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings

from lt_nas_ext.engine import run_consensus, run_retrain, run_search
from lt_nas_ext.engine.consensus import agreement_of
from lt_nas_ext.engine.health import edges_in_common
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.errors import UserError
from lt_nas_ext.nn import DARTS
from lt_nas_ext.report.runs import read_networks
from lt_nas_ext.space import Genotype, from_gates

DATA = tiny_data()


def cells(*edges: tuple[str, int]) -> dict:
    cell = {"edges": [{"op": op, "source": source, "target": 2} for op, source in edges], "concat": [2]}
    return {"normal": cell, "reduce": {"edges": [], "concat": []}}


def test_agreement_by_hand():
    one = cells(("skip_connect", 0), ("sep_conv_3x3", 1))
    other = cells(("sep_conv_3x3", 1), ("skip_connect", 0))  # the order of edges is no difference
    third = cells(("skip_connect", 0), ("dil_conv_3x3", 1))
    assert edges_in_common(one, other) == 1.0 and edges_in_common(one, third) == pytest.approx(1 / 3)
    assert agreement_of([one, other, third]) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ("name", "overrides"), [("darts", {}), ("darts", {"partial_channels": 2}), ("paper-ssf", {}), ("ssnas", {})]
)
def test_the_consensus_is_read_from_the_mean_of_the_gates(name, overrides):
    settings = tiny_settings(name, epochs=2, views="digits", seed=4, **overrides)
    found = run_consensus(DATA, settings, 2, progress=Silent())
    alone = [
        run_search(DATA, tiny_settings(name, epochs=2, views="digits", seed=seed, **overrides), progress=Silent())
        for seed in (4, 5)
    ]
    assert found.metrics["seeds"] == [4, 5]
    assert found.metrics["genotypes"] == [str(run.genotype) for run in alone]
    last = [run.history[-1]["gates"] for run in alone]
    mean = {cell: (torch.tensor(last[0][cell]) + torch.tensor(last[1][cell])) / 2 for cell in ("normal", "reduce")}
    assert found.genotype == from_gates(mean, DARTS[-mean["normal"].shape[1] :])
    assert 0 <= found.metrics["agreement"] <= 1 and len(found.metrics["with_consensus"]) == 2


def test_a_consensus_is_a_run_that_resumes_reports_and_retrains(tmp_path):
    settings = tiny_settings("darts", epochs=1, alpha_lr=1.0)

    class Broken(Silent):
        def epoch(self, row):
            super().epoch(row)
            if self.epochs == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_consensus(DATA, settings, 3, tmp_path / "run", False, Broken())
    with pytest.raises(UserError, match="already holds a run"):
        run_consensus(DATA, settings, 3, tmp_path / "run", False, Silent())
    with pytest.raises(UserError, match=r"seeds \(was \[0, 1, 2\], now \[0, 1\]\)"):
        run_consensus(DATA, settings, 2, tmp_path / "run", True, Silent())
    follower = Silent()
    found = run_consensus(DATA, settings, 3, tmp_path / "run", True, follower)
    assert follower.epochs == 1  # the last seed; of the second the epoch that was saved is kept
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"seed-0", "seed-1", "seed-2"}
    assert Genotype.load(tmp_path / "run" / "genotype.json") == found.genotype
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["agreement"] == found.metrics["agreement"]
    training = RetrainSettings(epochs=1, batch_size=8, channels=2, layers=3, device="cpu")
    run_retrain(found.genotype, DATA, training, tmp_path / "run" / "retrain", progress=Silent())
    (network,) = read_networks([tmp_path / "run"])
    assert network.genotype == found.genotype and network.name == "DARTS" and network.training is not None


@pytest.mark.parametrize("seeds", [0, 1, -2, True, "2"])
def test_a_consensus_takes_two(seeds):
    with pytest.raises(UserError, match=r"seeds: got .*; wanted a whole number, at least 2 for a consensus"):
        run_consensus(DATA, tiny_settings("darts"), seeds)
