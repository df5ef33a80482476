"""Recorded steps: the order of what happens, the same numbers to the bit, and falling back."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from test_engine_steps import AT, batch, made, snapshot
from tiny_runs import Silent, tiny_data
from torch import nn

from lt_nas_ext.engine import RetrainSettings, phases, run_retrain
from lt_nas_ext.engine.capture import MOST_RECORDINGS, WARM_CALLS, Captured, CaptureFallbackWarning, recorder_for
from lt_nas_ext.engine.optimisers import load_optimiser
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.methods import Epoch, Labelled, Loss


class Log:
    """A recorder without a GPU: writes down what it is asked for; a replay does the work on the recording's buffers.

    As on CUDA, recording does nothing but say where results will stand: here, in copies of zeros.
    """

    def __init__(self) -> None:
        self.order: list[str] = []

    def warm(self, work):
        self.order.append("warm")
        return work()

    def record(self, work):
        self.order.append("record")
        result = Loss({})

        def replay():
            self.order.append("replay")
            done = work()
            for field in dataclasses.fields(Loss):
                object.__setattr__(result, field.name, getattr(done, field.name))

        return result, replay


class Broken(Log):
    """A device that can record nothing."""

    def record(self, work):
        work_done_by_python = nn.Parameter(torch.zeros(1))
        work_done_by_python.grad = torch.ones(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def loss_of(x):
    return Loss({"sum": x.images.sum()}, logits=x.images.flatten(1))


def labelled(n=2, fill=0.0):
    return Labelled(torch.full((n, 1, 2, 2), fill), torch.zeros(n, dtype=torch.int64))


def test_order_of_a_step():
    log = Log()
    step = Captured(loss_of, log, "a step")
    step.begin("first")
    found = [float(step(labelled(fill=float(i))).parts["sum"]) for i in range(WARM_CALLS + 3)]
    assert found == [8.0 * i for i in range(WARM_CALLS + 3)]
    assert log.order == ["warm"] * WARM_CALLS + ["record", "replay", "replay", "replay"]
    step.begin("first")
    step(labelled())
    assert log.order[-1] == "replay" and log.order.count("record") == 1
    step.begin("second")  # other circumstances: once as written, then recorded anew
    step(labelled())
    step(labelled())
    assert log.order[-3:] == ["warm", "record", "replay"]


def test_inputs_are_copied_into_buffers_of_their_layout():
    kept = []

    def step_of(x):
        kept.append(x.images)
        return loss_of(x)

    step = Captured(step_of, Log(), "a step")
    images = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    for _ in range(WARM_CALLS + 2):
        step(Labelled(images, torch.zeros(2)))
    assert all(one is images for one in kept[:WARM_CALLS]) and kept[-1] is kept[-2] is not images
    assert torch.equal(kept[-1], images) and kept[-1].stride() == images.stride()


def test_every_shape_has_a_recording_and_too_many_run_as_written():
    log = Log()
    step = Captured(loss_of, log, "a step")
    for n in range(1, MOST_RECORDINGS + 3):
        for _ in range(WARM_CALLS + 1):
            assert step(labelled(n, 1.0)).parts["sum"] == 4.0 * n
    assert log.order.count("record") == MOST_RECORDINGS


def test_without_a_recorder_the_step_runs_as_written():
    assert recorder_for(torch.device("cpu")) is None
    step = Captured(loss_of, None, "a step")
    assert all(step(labelled(fill=2.0)).parts["sum"] == 16 for _ in range(WARM_CALLS + 3))


def test_what_cannot_be_recorded_is_told_once_and_runs_as_written():
    recovered = []
    step = Captured(loss_of, Broken(), "the w step", lambda: recovered.append(True))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = [step(labelled(fill=float(i))).parts["sum"] for i in range(WARM_CALLS + 4)]
    assert found == [8.0 * i for i in range(WARM_CALLS + 4)]
    assert [one.category for one in told] == [CaptureFallbackWarning]
    assert "the w step runs as written" in str(told[0].message) and "not permitted" in str(told[0].message)
    assert step.reason == "RuntimeError: operation not permitted when stream is capturing" and recovered == [True]


@pytest.mark.parametrize("name", ["darts", "paper-fairdarts", "paper-ssf"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_recorded_steps_are_the_written_ones_to_the_bit(name, order):
    written, recorded = made(name, order=order), made(name, order=order)
    recorded = with_recorder(recorded, Log())
    for _ in range(WARM_CALLS + 3):
        for steps in (written, recorded):
            given = batch(steps.method)
            steps.arch(given, given)
            steps.weight(given)
    a, b = snapshot(written.networks), snapshot(recorded.networks)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert recorded.fallbacks == []


def with_recorder(steps: Steps, log: Log) -> Steps:
    again = Steps(steps.method, steps.networks, log)
    again.begin(AT)
    return again


def test_learning_rates_and_frozen_groups_of_an_epoch_are_recorded_anew_only_where_they_must():
    log = Log()
    steps = with_recorder(made("darts"), log)

    def go(epoch):
        steps.begin(epoch)
        steps.weight(batch(steps.method))

    for _ in range(WARM_CALLS + 1):
        go(Epoch(0, 4))
    go(Epoch(1, 4))  # another rate, which is read from where it stands
    assert log.order.count("record") == 1
    steps.method.__class__ = type("Moving", (type(steps.method),), {"losses_follow_epoch": True})
    go(Epoch(2, 4))
    go(Epoch(2, 4))
    assert log.order.count("record") == 2


def test_a_fallback_leaves_no_gradient_behind():
    steps = with_recorder(made("darts"), Broken())
    with pytest.warns(CaptureFallbackWarning):
        for _ in range(WARM_CALLS + 2):
            steps.weight(batch(steps.method))
    assert len(steps.fallbacks) == 1
    assert all(parameter.grad is None for parameter in steps.networks.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"pretrain_epochs": 2, "ema_decay": 0.9},
        {"drop_path": 0.3, "mixup": 1.0, "auxiliary": 0.4},
        {"loss": "balanced_softmax", "drw": True},
    ],
)
def test_a_recorded_retraining_is_the_written_one_to_the_bit(monkeypatch, options):
    log, found = Log(), []
    for recorder in (None, log):
        monkeypatch.setattr(phases, "recorder_for", lambda device, wanted, recorder=recorder: recorder)
        settings = RetrainSettings(
            epochs=4, batch_size=8, channels=2, layers=3, projector=(8, 8), device="cpu", test_every=4, **options
        )
        result = run_retrain("random", tiny_data(), settings, progress=Silent())
        figures = [row["train_loss"] for row in result.history]
        found.append([*figures, *result.model.state_dict().values()])
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*found, strict=True))
    assert log.order.count("replay") > log.order.count("record") >= 1


def test_a_loss_without_its_graph():
    x = torch.ones(2, requires_grad=True)
    loss = Loss({"task": x.sum(), "more": (2 * x).sum()}, logits=x * 3)
    seen = loss.detached
    assert not any(part.requires_grad for part in seen.parts.values()) and not seen.logits.requires_grad
    assert seen.features is None and dataclasses.astuple(seen)[0].keys() == loss.parts.keys()
    assert seen.total == 6


def test_a_state_saved_elsewhere_keeps_how_the_optimiser_works_here():
    weight = nn.Parameter(torch.ones(1))
    here, there = torch.optim.Adam([weight], fused=True), torch.optim.Adam([weight])
    load_optimiser(here, there.state_dict())
    assert here.param_groups[0]["fused"] is True


# ---- on CUDA ---------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["darts", "authors-fairdarts", "paper-ssf"])
@pytest.mark.parametrize(("order", "recompute"), [("first", False), ("second", False), ("first", True)])
def test_graphs_are_the_written_steps(name, order, recompute):
    device = torch.device("cuda")
    results = []
    for recorder in (None, recorder_for(device)):
        made_here = made(name, order=order, recompute=recompute)
        steps = Steps(made_here.method, made_here.networks.to(device, memory_format=torch.channels_last), recorder)
        losses = []
        for step in range(WARM_CALLS + 4):
            steps.begin(Epoch(step // 3, 4))
            given = moved(batch(steps.method), device)
            losses.append(steps.arch(given, given).task.clone())
            losses.append(steps.weight(given).task.clone())
        assert steps.fallbacks == []
        results.append([*losses, *snapshot(steps.networks).values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def moved(value, device):
    fields = {f.name: getattr(value, f.name).to(device) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **fields)


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{"pretrain_epochs": 2}, {"drop_path": 0.3, "mixup": 1.0}, {"precision": "bf16"}])
def test_a_retraining_by_graphs_is_the_written_one(options):
    found = []
    for capture in (False, True):
        settings = RetrainSettings(
            epochs=4, batch_size=8, channels=4, layers=3, projector=(8, 8), device="cuda", capture=capture,
            deterministic=True, **options
        )  # fmt: skip
        result = run_retrain("random", tiny_data(), settings, progress=Silent())
        found.append([*(row["train_loss"] for row in result.history), *result.model.cpu().state_dict().values()])
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*found, strict=True))
