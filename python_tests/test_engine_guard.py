"""Numbers that go wrong: named, not learnt from, and the run goes on or ends as the settings say."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from dataclasses import replace

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings

from lt_nas_ext.engine import CollapseWarning, NonFiniteError, NonFiniteWarning, run_retrain, run_search
from lt_nas_ext.engine.guard import STEPS_BETWEEN_READS, Guard, NonFinite
from lt_nas_ext.engine.health import collapse_warnings
from lt_nas_ext.engine.phases import Retraining
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.methods.darts import Darts

DATA = tiny_data()
CPU = torch.device("cpu")


def figures(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


class Poison:
    """Makes a loss not finite at the calls that it names, counted from 0 over the whole run."""

    def __init__(self, monkeypatch, side, calls, value=math.nan, spare=None):
        self.count, self.calls, self.value, self.spare = 0, set(calls), value, spare
        original = getattr(Darts, f"{side}_loss")

        def poisoned(method, networks, batch, epoch):
            loss = original(method, networks, batch, epoch)
            call, self.count = self.count, self.count + 1
            return type(loss)({k: v * self.value if call in self.calls else v for k, v in loss.parts.items()})

        monkeypatch.setattr(Darts, f"{side}_loss", poisoned)


def search(out=None, **overrides):
    return run_search(DATA, tiny_settings("darts", rule="top2", **overrides), out, bool(out), Silent())


def weights(result):
    return torch.load(result.out / "checkpoint.pt", weights_only=True)["trainer"]["networks"]


@pytest.mark.parametrize("value, word", [(math.nan, "not a number"), (math.inf, "infinite"), (-math.inf, "infinite")])
@pytest.mark.parametrize("name", ["cross_entropy", "zero_one", "the norm of the gradient"])
def test_the_number_the_step_and_the_batch_are_named(name, value, word):
    guard = Guard("stop", CPU, ())
    good = {"cross_entropy": 1.0, "zero_one": 2.0, "the norm of the gradient": 3.0}
    for _ in range(4):
        guard.saw("w step", figures(**good))
        guard.saw("α step", figures(**good))
    with pytest.raises(NonFinite, match=f"^{name} is {word} in the w step of batch 5$"):
        guard.saw("w step", figures(**{**good, name: value}))


def test_where_reading_waits_for_the_device_it_is_done_now_and_then():
    guard = Guard("rollback", torch.device("cuda"), ())
    guard.saw("w step", figures(loss=math.nan))
    for _ in range(STEPS_BETWEEN_READS - 2):
        guard.saw("w step", figures(loss=0.0))
    with pytest.raises(NonFinite, match="loss is not a number in the w step of batch 1"):
        guard.saw("w step", figures(loss=0.0))
    guard.begin()
    guard.saw("w step", figures(loss=math.inf))
    with pytest.raises(NonFinite, match="infinite in the w step of batch 1"):
        guard.read()
    guard.read()  # it is told once


def test_a_step_that_is_left_out_leaves_running_statistics_as_they_were():
    buffer = torch.tensor([1.0, 2.0])
    guard = Guard("skip", CPU, [buffer])
    for place, loss in enumerate([1.0, math.nan, 2.0]):
        guard.keep()
        buffer += math.nan if math.isnan(loss) else 1.0
        assert guard.lets("w step", figures(loss=loss)) == (place != 1)
    assert buffer.tolist() == [3.0, 4.0]
    assert guard.skipped == {"steps": 1, "first": "loss is not a number in the w step of batch 2"}
    guard.read()
    guard.begin()
    assert guard.skipped == {}


def test_an_epoch_without_a_single_step_is_an_end():
    guard = Guard("skip", CPU, ())
    assert not guard.lets("α step", figures(loss=math.inf))
    with pytest.raises(NonFinite, match="α step of batch 1"):
        guard.read()


@pytest.mark.parametrize("side, step", [("weight", "w step"), ("alpha", "α step")])
def test_a_search_begins_the_epoch_again_with_other_draws(monkeypatch, tmp_path, side, step):
    untouched = search(tmp_path / "untouched")
    with monkeypatch.context() as patch:
        Poison(patch, side, {3})  # two steps an epoch: the second of epoch 2
        with pytest.warns(NonFiniteWarning, match=f"epoch 2: cross_entropy is not a number in the {step} of batch 2"):
            result = search(tmp_path / "again")
    assert len(result.history) == 3 and all(math.isfinite(row["train_loss"]) for row in result.history)
    assert result.history[0]["train_loss"] == untouched.history[0]["train_loss"]
    assert result.history[1]["train_loss"] != untouched.history[1]["train_loss"]
    (trouble,) = result.history[1]["rolled_back"]
    assert trouble == f"cross_entropy is not a number in the {step} of batch 2"
    assert all(value.isfinite().all() for value in weights(result).values())


@pytest.mark.parametrize("policy, calls", [("rollback", {2, 4}), ("rollback", set(range(2, 99))), ("stop", {2})])
def test_a_search_ends_with_its_state_saved_and_goes_on(monkeypatch, tmp_path, policy, calls):
    whole = search(tmp_path / "whole")
    with monkeypatch.context() as patch:
        Poison(patch, "weight", calls, math.inf)
        with pytest.raises(NonFiniteError, match=r"stopped in epoch 2: .*infinite.*1 whole epoch\(s\) are saved"):
            search(tmp_path / "broken", on_non_finite=policy)
    # What went wrong was none of its own: it goes on, and is what it would have been.
    resumed = search(tmp_path / "broken", on_non_finite="skip")
    saved, expected = weights(resumed), weights(whole)
    assert [name for name in expected if not torch.equal(saved[name], expected[name])] == []


def test_a_run_without_a_directory_says_that_nothing_is_saved(monkeypatch):
    Poison(monkeypatch, "weight", range(99))
    with pytest.raises(NonFiniteError, match=r"begun again with other draws.*Nothing was saved"):
        search()


@pytest.mark.parametrize("side, step", [("weight", "w step"), ("alpha", "α step")])
def test_a_search_leaves_a_step_out(monkeypatch, tmp_path, side, step):
    Poison(monkeypatch, side, {2, 5})
    with pytest.warns(NonFiniteWarning, match="epoch 2: 1 step"):
        result = search(tmp_path, on_non_finite="skip")
    assert [row.get("skipped") for row in result.history] == [
        None,
        {"steps": 1, "first": f"cross_entropy is not a number in the {step} of batch 1"},
        {"steps": 1, "first": f"cross_entropy is not a number in the {step} of batch 2"},
    ]
    assert all(math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"]) for row in result.history)
    assert all(value.isfinite().all() for value in weights(result).values())


def test_a_gradient_that_overflows_is_found_where_the_loss_is_fine(monkeypatch):
    original = Darts.weight_loss

    def steep(method, networks, batch, epoch):
        loss = original(method, networks, batch, epoch)
        kink = (loss.task - loss.task.detach()).clamp_min(0).sqrt()  # 0, with an infinite slope there
        return type(loss)({"cross_entropy": loss.task + kink})

    monkeypatch.setattr(Darts, "weight_loss", steep)
    with pytest.raises(NonFiniteError, match="the norm of the gradient is not a number in the w step of batch 1"):
        search(on_non_finite="stop")


def retrain(out=None, **more):
    settings = RetrainSettings(
        epochs=3, batch_size=12, channels=2, layers=3, projector=(8, 8), test_every=3, device="cpu", **more
    )
    return run_retrain("small-conv-net", DATA, settings, out, out is not None, Silent())


@pytest.fixture
def diverging(monkeypatch):
    """Makes the loss of chosen steps of a retraining not a number, counted over pre-training and training."""

    def install(calls):
        count = itertools.count()
        for name in ("_twins_loss", "_labelled_loss"):
            original = getattr(Retraining, name)

            def poisoned(self, *given, original=original):
                loss = original(self, *given)
                value = math.nan if next(count) in calls else 1.0
                return replace(loss, parts={name: value * part for name, part in loss.parts.items()})

            monkeypatch.setattr(Retraining, name, poisoned)

    return install


@pytest.mark.parametrize("call, epoch, name", [(0, 1, "barlow_twins"), (5, 2, "barlow_twins"), (8, 3, "cross_entropy")])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_retraining_begins_the_epoch_again(diverging, tmp_path, call, epoch, name, ema_decay):
    """In its first epoch, within a phase, and where the second phase begins with an optimiser of its own."""
    diverging({call})
    with pytest.warns(NonFiniteWarning, match=f"epoch {epoch}: {name} is not a number"):
        result = retrain(tmp_path, pretrain_epochs=2, ema_decay=ema_decay)
    assert [row["phase"] for row in result.history] == ["pretrain"] * 2 + ["train"] * 3
    assert ["rolled_back" in row for row in result.history].index(True) == epoch - 1
    assert all(value.isfinite().all() for value in result.model.state_dict().values())


def test_a_retraining_leaves_steps_out_or_stops(diverging, tmp_path):
    diverging({1, 6})
    with pytest.warns(NonFiniteWarning, match="1 step"):
        result = retrain(on_non_finite="skip")
    assert [row.get("skipped", {}).get("steps") for row in result.history] == [1, 1, None]
    with pytest.raises(
        NonFiniteError, match="stopped in epoch 1: cross_entropy is not a number in the step of batch 2"
    ):
        diverging({1})
        retrain(tmp_path, on_non_finite="stop")


def test_a_resumed_rollback_is_the_same_to_the_bit(monkeypatch, tmp_path):
    """What goes wrong by the numbers alone goes wrong again: a run killed after the epoch ends as one that was not."""
    Poison(monkeypatch, "weight", {3})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonFiniteWarning)
        first = search(tmp_path / "whole")
        monkeypatch.undo()
        rows = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
        again = search(tmp_path / "whole")
    assert rows == json.loads(json.dumps(first.history)) == json.loads(json.dumps(again.history))


@pytest.mark.parametrize(
    "skips, nones, words",
    [
        (0.49, None, []),
        (0.5, None, ["50 % of the operations found are skip connections"]),
        (0.1, 0.49, []),
        (0.0, 1.0, ["'none' has the largest gate on 100 % of the edges"]),
        (1.0, 0.5, ["100 % of the operations", "'none' has the largest gate on 50 %"]),
    ],
)
def test_collapse_in_words(skips, nones, words):
    said = [str(warning) for warning in collapse_warnings(skips, nones)]
    assert len(said) == len(words) and all(one.startswith(start) for one, start in zip(said, words, strict=True))


@pytest.mark.parametrize("winner, match", [("skip_connect", "skip connections"), ("none", "'none' has the largest")])
def test_a_search_that_collapsed_says_so(monkeypatch, winner, match):
    original = Darts.build

    def build(method):
        networks = original(method)
        with torch.no_grad():
            for alpha in networks.arch_parameters():
                alpha[:, method.primitives.index(winner)] += 5.0
        return networks

    monkeypatch.setattr(Darts, "build", build)
    with pytest.warns(CollapseWarning, match=match):
        result = search(alpha_lr=1e-6)
    assert any(match in said for said in result.health["warnings"])
    assert result.health["edges_to_none"] == (1.0 if winner == "none" else 0.0)


def test_fair_gates_have_no_none_that_could_win():
    result = run_search(DATA, tiny_settings("paper-ssf", rule="top2"), progress=Silent())
    assert result.health["edges_to_none"] is None
