"""Progress: a bar on a terminal, a line an epoch elsewhere; device values are read twice a second at most."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import torch
from rich.console import Console

from lt_nas_ext.engine import health
from lt_nas_ext.engine.meter import Meter, finite
from lt_nas_ext.engine.probe import LinearProbe
from lt_nas_ext.engine.progress import BarProgress, JsonProgress, LogProgress, Several, default_progress
from lt_nas_ext.engine.tensorboard import TensorBoard
from lt_nas_ext.errors import UserError

ROW = {"epoch": 3, "seconds": 1.5, "train_loss": 0.25, "probe_accuracy": 0.5, "val_accuracy": None}


class Counted(torch.Tensor):
    reads = 0

    def __float__(self) -> float:
        Counted.reads += 1
        return 1.0


def test_the_bar_shows_losses_and_accuracies_and_reads_seldom():
    text = io.StringIO()
    bar = BarProgress(Console(file=text, force_terminal=True, width=140))
    bar.start(100, "darts search", done=10)
    for _ in range(50):
        bar.step({"train": Counted(1)})
    bar.epoch(ROW)
    bar.step({})
    bar.close()
    assert Counted.reads <= 2
    assert "darts search" in text.getvalue() and "probe 50.0 %" in text.getvalue()


def test_log_lines(caplog):
    with caplog.at_level(logging.INFO, logger="lt_nas_ext"):
        log = LogProgress()
        log.start(10, "ssf-nas search")
        log.step({})
        log.epoch(ROW)
        log.epoch({"epoch": 4, "train_loss": None})
        log.close()
    assert caplog.messages == [
        "ssf-nas search epoch 3: loss 0.25 probe 50.0 % 1.5 s",
        "ssf-nas search epoch 4: loss -  0.0 s",
    ]


def test_json_is_a_line_an_event_and_reads_seldom():
    stream = io.StringIO()
    follower = JsonProgress(stream)
    Counted.reads = 0
    follower.start(100, "darts search", done=10)
    for _ in range(50):
        follower.step({"train": Counted(1)})
    follower.epoch(ROW)
    follower.close()
    first, step, epoch, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first == {"event": "start", "run": "darts search", "steps": 100, "done": 10}
    assert step == {"event": "step", "step": 11, "figures": {"train": 1.0}} and Counted.reads == 1
    assert epoch == {"event": "epoch", **ROW} and last == {"event": "end", "step": 60}


def test_several_are_all_told():
    streams = io.StringIO(), io.StringIO()
    both = Several([JsonProgress(stream) for stream in streams])
    both.start(2, "x")
    both.step({"train": 0.5})
    both.epoch(ROW)
    both.close()
    first, second = (stream.getvalue() for stream in streams)
    assert first == second and first.count("\n") == 4


def test_tensorboard_has_every_number_and_a_resumed_run_writes_over_what_it_repeats(tmp_path):
    pytest.importorskip("tensorboard", reason="optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (range(3), range(1, 4)):  # killed in epoch 3, whose checkpoint had not been written
        board = TensorBoard(tmp_path)
        board.start(4, "darts search")
        for epoch in epochs:
            board.step({})
            row = {**ROW, "epoch": epoch, "losses": {"weights/task": float(epoch)}, "gates": {"normal": [[0.2, 0.8]]}}
            board.epoch({**row, "alpha": {"normal": [[1.0]]}, "genotype": {}, "device": "cpu"})
        board.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(
        f"darts search/{name}" for name in ("losses/weights/task", "probe_accuracy", "seconds", "train_loss")
    )
    scalars = events.Scalars("darts search/losses/weights/task")
    assert [(event.step, event.value) for event in scalars] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert [event.step for event in events.Histograms("darts search/gates/normal")] == [0, 1, 2, 3]


def test_without_tensorboard_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="tensorboard: needs the package tensorboard"):
        TensorBoard(tmp_path)


def test_the_default_depends_on_the_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(default_progress(), LogProgress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(default_progress(), BarProgress)


def test_meter():
    meter = Meter()
    meter.add_accuracy("accuracy", torch.eye(3), torch.tensor([0, 1, 0]))
    meter.add_accuracy("accuracy", torch.eye(1, 3), torch.tensor([0]))
    meter.add({"loss": torch.tensor(float("nan"))})
    figures = meter.read()
    assert figures["accuracy"] == 0.75
    assert [finite(value) for value in (figures["loss"], 0.5, None)] == [None, 0.5, None]


def test_the_probe_reads_features_and_leaves_them_alone():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (256,), generator=generator)
    features = 0.05 * torch.nn.functional.one_hot(labels, 5) + 7.0  # far from standardised
    features.requires_grad_(True)
    probe = LinearProbe(5, 3, lr=0.05, device=torch.device("cpu"))
    for _ in range(40):
        probe.learn(features, labels)
    assert (probe.logits(features).argmax(1) == labels).float().mean() > 0.95
    assert features.grad is None


def edge(op: str, source: int = 0, target: int = 2) -> dict[str, object]:
    return {"op": op, "source": source, "target": target}


def test_agreement_and_skips():
    a = {"normal": {"edges": [edge("skip_connect"), edge("sep_conv_3x3", 1)]}, "rule": "top2"}
    b = {"normal": {"edges": [edge("skip_connect"), edge("sep_conv_5x5", 1)]}, "rule": "top2"}
    assert health.skip_share(a) == 0.5
    assert health.agreement([a, a]) == 1.0
    assert health.agreement([a, b]) == 1 / 3  # one edge in common of three
    assert health.agreement([a]) is None and health.agreement([a, None, a]) is None
    assert health.agreement([b, a, a, a, a, a]) == 1.0  # the last five epochs only
    two = {"normal": a["normal"], "head": a["normal"]}  # other cells, same figures
    assert health.skip_share(two) == 0.5 and health.agreement([two, two]) == 1.0


def test_gradient_ratio():
    assert health.gradient_ratio({}) is None
    assert health.gradient_ratio({"cross_entropy": 1.0}) is None
    assert health.gradient_ratio({"barlow_twins": 3.0, "zero_one": 0.0}) is None
    assert health.gradient_ratio({"barlow_twins": 3.0, "zero_one": 2.0}) == {"barlow_twins/zero_one": 1.5}
