"""Contests of genotypes: random search, and the second stage of a search; and the genotypes next to a derived one."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from tiny_runs import COUNTS, Silent, tiny_data, tiny_settings

from lt_nas_ext.engine import run_search
from lt_nas_ext.engine.optimisers import cosine
from lt_nas_ext.longtail import BalancedSoftmax
from lt_nas_ext.methods import Epoch, Labelled, Problem, method_class
from lt_nas_ext.nn import DARTS, FAIR_DARTS
from lt_nas_ext.space import Genotype, derive, from_gates, random_genotype, runners_up

PROBLEM = Problem(3, (1, 8, 8), COUNTS)
RANDOM = {"epochs": 4, "candidate_epochs": 2, "w_lr": 0.1}


def search(name: str, out=None, progress=None, **overrides):
    settings = tiny_settings(name, **overrides)
    return run_search(tiny_data(), settings, out, out is not None, progress or Silent())


def made(**overrides):
    settings = tiny_settings("random", **{**RANDOM, **overrides})
    return method_class("random")(settings, PROBLEM)


# ---- random search


def test_as_many_genotypes_as_the_epochs_have_room_for():
    drawn = [made(epochs=8, candidate_epochs=2, seed=seed).genotypes for seed in (0, 1)]
    assert [len(genotypes) for genotypes in drawn] == [4, 4] and len({*drawn[0], *drawn[1]}) > 4
    assert drawn[0] == tuple(random_genotype(seed, nodes=1, primitives=DARTS) for seed in range(4))


def test_one_candidate_learns_at_a_time_on_a_schedule_of_its_own():
    method = made(epochs=6, candidate_epochs=3)
    factors = [[g.lr_factor(Epoch(e, 6)) for g in method.weight_groups(method.build())] for e in range(6)]
    assert factors == [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3
    rows = search("random", epochs=6, candidate_epochs=3).history
    rates = [cosine(0.025, 0.001, Epoch(e, 3)) for e in range(3)]
    assert [row["w_lr"] for row in rows] == pytest.approx(rates * 2)
    assert [row["candidate"] for row in rows] == [0, 0, 0, 1, 1, 1]


def test_the_loss_is_balanced_softmax():
    method = made()
    networks = method.build().eval()
    batch = Labelled(torch.randn(6, 1, 8, 8), torch.arange(6) % 3)
    for turn in (0, 1):
        method.begin(networks, Epoch(2 * turn, 4))
        wanted = BalancedSoftmax(COUNTS)(networks.networks[turn](batch.images), batch.labels)
        assert method.weight_loss(networks, batch, Epoch(2 * turn, 4)).total.item() == pytest.approx(wanted.item())


def test_the_best_on_macro_accuracy_wins():
    """Two networks of equal accuracy on a long tail; one of them sees the tail."""
    method = made()
    networks = method.build()
    labels = torch.tensor([0] * 4 + [1, 2])
    head = torch.eye(3)[torch.tensor([0, 0, 0, 0, 0, 0])]
    tail = torch.eye(3)[torch.tensor([0, 0, 1, 1, 1, 2])]
    for turn, logits in ((0, head), (1, tail)):
        networks.turn = turn
        judged = method.judge(networks, logits, labels)
        assert judged == {"candidate": turn, "val_macro": pytest.approx([1 / 3, 2.5 / 3][turn])}
    assert method.derive(networks) == method.genotypes[1]
    assert [one["val_macro"] for one in method.report(networks)["candidates"]] == pytest.approx([1 / 3, 2.5 / 3])


class Broken(Silent):
    """A crash after so many epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.left = epochs

    def epoch(self, row):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_random_search_resumes_and_is_a_run_like_any_other(tmp_path):
    whole = search("random", tmp_path / "whole", **RANDOM)
    with pytest.raises(KeyboardInterrupt):
        search("random", tmp_path / "broken", Broken(3), **RANDOM)
    again = search("random", tmp_path / "broken", **RANDOM)
    drop = ("seconds", "peak_memory_mb")
    histories = [[{k: v for k, v in row.items() if k not in drop} for row in r.history] for r in (whole, again)]
    assert histories[0] == histories[1] and whole.genotype == again.genotype
    macros = [one["val_macro"] for one in whole.metrics["candidates"]]
    assert macros == [whole.history[1]["val_macro"], whole.history[3]["val_macro"]]
    best = max(range(2), key=lambda place: macros[place])
    assert str(whole.genotype) == whole.metrics["candidates"][best]["genotype"]
    assert whole.health["gates"] == 0 and whole.health["polarised_gates"] is None and whole.health["warnings"] == []
    assert Genotype.load(tmp_path / "whole" / "genotype.json") == whole.genotype
    json.dumps(json.loads((tmp_path / "whole" / "metrics.json").read_text()), allow_nan=False)


# ---- next to the derived genotype


def gates(*rows: list[float]) -> dict[str, torch.Tensor]:
    """Gates of both cells: the normal one as given, in the other all is decided by far."""
    sure = torch.tensor([[0.9, 0.01]] * len(rows))
    sure[4:] = 0.02
    return {"normal": torch.tensor(rows), "reduce": sure}


def test_runners_up_by_hand():
    """Two nodes: the closest call first, an operation for another or, where that is closer, an edge for another."""
    table = gates([0.9, 0.5], [0.8, 0.2], [0.7, 0.02], [0.05, 0.04], [0.6, 0.55])
    names = ("skip_connect", "sep_conv_3x3")
    chosen = {*from_gates(table, names).normal.edges}
    found = runners_up(table, names, 4)
    assert [sorted({*one.normal.edges} ^ chosen) for one in found] == [
        [("sep_conv_3x3", 2, 3), ("skip_connect", 2, 3)],  # .6 for .55
        [("sep_conv_3x3", 0, 2), ("skip_connect", 0, 2)],  # .9 for .5
        [("sep_conv_3x3", 1, 2), ("skip_connect", 1, 2)],  # .8 for .2
        [("skip_connect", 0, 3), ("skip_connect", 1, 3)],  # .7 for .05 of another edge, its own second has .02
    ]
    assert all({*one.reduce.edges} == {*from_gates(table, names).reduce.edges} for one in found)


@pytest.mark.parametrize("rule", ["top2", "per_edge", "threshold_sparse", "threshold_edge"])
def test_runners_up_of_every_rule_are_distinct_and_allowed(rule):
    generator = torch.Generator().manual_seed(0)
    tables = {name: torch.softmax(torch.randn(14, 8, generator=generator), 1) for name in ("normal", "reduce")}
    found = runners_up(tables, DARTS, 6, rule, 0.2)
    assert len({*found, from_gates(tables, DARTS, rule, 0.2)}) == 7 and all(one.rule == rule for one in found)


@pytest.mark.parametrize("rule", ["top2", "per_edge"])
def test_from_gates_is_derive(rule):
    alpha = torch.randn(2, 14, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    softmax = {name: torch.softmax(one, 1) for name, one in zip(("normal", "reduce"), alpha, strict=True)}
    assert from_gates(softmax, DARTS, rule) == derive(*alpha, rule=rule)


def test_a_candidate_that_must_stay_is_no_runner_up():
    assert runners_up(gates([0.9, 0.1], [0.8, 0.1]), ("skip_connect", "none"), 5) == []


# ---- the second stage


def test_candidates_are_recent_and_near_genotypes():
    settings = tiny_settings("authors-fairdarts", candidates=4, candidate_epochs=2, rule="top2")
    method = method_class(settings.method)(settings, PROBLEM)
    networks = method.build()
    with torch.no_grad():
        for alpha in networks.arch_parameters():
            alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(2)))
    older = [random_genotype(seed, FAIR_DARTS, nodes=1) for seed in range(7)]
    history = [{"genotype": json.loads(one.to_json())} for one in older]
    contest = method.second_stage(networks, history)
    derived = method.derive(networks)
    near = runners_up(networks.gates(), FAIR_DARTS, 2)
    assert contest.genotypes == (derived, older[-1], *near) and contest.settings.epochs == 8
    few = method.second_stage(networks, [{"genotype": None}])
    assert few.genotypes == (derived, *runners_up(networks.gates(), FAIR_DARTS, 3))
    settings = tiny_settings("authors-fairdarts")
    assert method_class(settings.method)(settings, PROBLEM).second_stage(networks, history) is None


@pytest.mark.parametrize("name", ["darts", "paper-ssf"])
def test_a_search_with_a_contest_resumes_at_any_point(tmp_path, name):
    numbers = {"epochs": 2, "alpha_lr": 0.5, "candidates": 3, "candidate_epochs": 1, "w_lr": 0.1}
    whole = search(name, tmp_path / "whole", **numbers)
    contest = whole.metrics["ranking"]["candidates"]
    assert whole.metrics["ranking"]["seconds"] > 0
    assert len(contest) == 3 and all(0 <= one["val_macro"] <= 1 for one in contest)
    best = max(range(3), key=lambda place: contest[place]["val_macro"])
    assert str(whole.genotype) == contest[best]["genotype"]
    for epochs in (1, 3):  # in the search, and in the contest
        with pytest.raises(KeyboardInterrupt):
            search(name, tmp_path / str(epochs), Broken(epochs), **numbers)
        again = search(name, tmp_path / str(epochs), **numbers)
        assert again.metrics["ranking"]["candidates"] == contest and again.genotype == whole.genotype
    plain = search(name, **{**numbers, "candidates": 0})
    assert "ranking" not in plain.metrics
    for row, expected in itertools.zip_longest(plain.history, whole.history):
        assert row["alpha"] == expected["alpha"]  # the search itself is the same
    assert contest[0]["genotype"] == str(plain.genotype)
