"""The search: it learns, it resumes to the bit, it stops cleanly, and it never reads a label it should not."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from torch import nn

from lt_nas_ext import methods
from lt_nas_ext.data import load, split
from lt_nas_ext.engine import Interrupted, run_search
from lt_nas_ext.engine.stop import StopSignal
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Labelled, Loss, ParameterGroup, Stream, UnreachableGateWarning
from lt_nas_ext.methods.supernet_method import SupernetMethod
from lt_nas_ext.space import Genotype

DATA = tiny_data()


def search(name: str, out=None, resume=False, progress=None, data=DATA, **overrides):
    return run_search(data, tiny_settings(name, **overrides), out, resume, progress or Silent())


def timeless(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} for row in history]


def final_state(out: Path):
    state = torch.load(out / "checkpoint.pt", weights_only=True)["trainer"]
    return {
        **state["networks"],
        **{f"w{k}": v["momentum_buffer"] for k, v in state["weights"]["state"].items()},
        **{f"a{k}": v["exp_avg_sq"] for k, v in state["alphas"]["state"].items()},
    }


@pytest.fixture(scope="module")
def darts(tmp_path_factory):
    return search("darts", tmp_path_factory.mktemp("darts"))


@pytest.fixture(scope="module")
def ssf(tmp_path_factory):
    return search("paper-ssf", tmp_path_factory.mktemp("ssf"))


class Killed(Exception):
    pass


class KilledAt(Silent):
    """A crash after so many epochs, or so many steps."""

    def __init__(self, epochs: int = -1, steps: int = -1) -> None:
        super().__init__()
        self.limits = epochs, steps

    def step(self, figures):
        super().step(figures)
        if self.steps == self.limits[1]:
            raise Killed

    def epoch(self, row):
        super().epoch(row)
        if self.epochs == self.limits[0]:
            raise Killed


@pytest.mark.parametrize("name", ["darts", "authors-fairdarts", "paper-ssf", "paper-hls"])
def test_resume_is_the_uninterrupted_run_to_the_bit(tmp_path, name, request):
    overrides = {"rule": "top2", "split": 0.5}
    shared = {"darts": "darts", "paper-ssf": "ssf"}.get(name)
    whole = request.getfixturevalue(shared) if shared else search(name, tmp_path / "whole", **overrides)
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        search(name, broken, progress=KilledAt(epochs=1), **overrides)
    with pytest.raises(Killed):  # again, in the middle of an epoch
        search(name, broken, resume=True, progress=KilledAt(steps=1), **overrides)
    assert not (broken / "genotype.json").exists()
    follower = Silent()
    resumed = search(name, broken, resume=True, progress=follower, **overrides)
    assert (follower.done, follower.total, follower.steps) == (2, 6, 4) and follower.closed

    assert timeless(resumed.history) == timeless(whole.history)
    expected, got = final_state(whole.out), final_state(broken)
    assert expected.keys() == got.keys()
    assert [key for key in expected if not torch.equal(expected[key], got[key])] == []
    assert resumed.genotype == whole.genotype
    lines = (broken / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]


@pytest.mark.parametrize("name", ["darts", "paper-ssf"])
def test_a_run_that_needs_less_memory_goes_on_as_the_same(tmp_path, name, request):
    """Recomputation may begin on resume: the result is that of the run without it, to the bit."""
    whole = request.getfixturevalue({"darts": "darts", "paper-ssf": "ssf"}[name])
    with pytest.raises(Killed):
        search(name, tmp_path, progress=KilledAt(epochs=1), rule="top2")
    resumed = search(name, tmp_path, resume=True, rule="top2", recompute=True)
    assert timeless(resumed.history) == timeless(whole.history)
    expected, got = final_state(whole.out), final_state(tmp_path)
    assert [key for key in expected if not torch.equal(expected[key], got[key])] == []


def test_history_of_repeated_epochs_is_dropped(tmp_path):
    """A line of an epoch whose checkpoint never came, and half a line: as after a power cut."""
    with pytest.raises(Killed):
        search("darts", tmp_path, progress=KilledAt(epochs=2))
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epoch": 2, "train_loss": 99.0}\n{"epo')
    result = search("darts", tmp_path, resume=True)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows == json.loads(json.dumps(result.history)) and [row["epoch"] for row in rows] == [0, 1, 2]


def test_resuming_a_finished_run_returns_it(darts):
    follower = Silent()
    again = search("darts", darts.out, resume=True, progress=follower)
    assert follower.steps == 0 and again.history == darts.history and again.genotype == darts.genotype
    assert again.metrics == darts.metrics


def test_another_run_is_refused(darts):
    files = {path: path.read_bytes() for path in darts.out.iterdir()}
    with pytest.raises(UserError, match="already holds a run"):
        search("darts", darts.out)
    with pytest.raises(UserError, match=r"epochs \(was 3, now 2\)"):
        search("darts", darts.out, resume=True, epochs=2)
    assert {path: path.read_bytes() for path in darts.out.iterdir()} == files


def test_a_run_directory_is_complete(ssf):
    result, tmp_path = ssf, ssf.out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "config.json", "manifest.csv", "history.jsonl", "checkpoint.pt", "checkpoint.previous.pt", "genotype.json",
        "metrics.json",
    }  # fmt: skip
    assert Genotype.load(tmp_path / "genotype.json") == result.genotype
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["health"] == json.loads(json.dumps(result.health)) and "probe_accuracy" in metrics
    rows = [line.split(",") for line in (tmp_path / "manifest.csv").read_text().splitlines()[1:]]
    shares = {name: {row[0] for row in rows if row[2] == name} for name in ("weights", "alpha", "test")}
    assert len(shares["weights"]) == len(shares["alpha"]) == 24 and len(shares["test"]) == 30
    assert not shares["weights"] & shares["alpha"]


KEYS = {
    "epoch", "seconds", "w_lr", "alpha_lr", "lr_factors", "train_loss", "val_loss", "train_accuracy", "losses", "alpha",
    "gates", "genotype", "peak_memory_mb", "device",
}  # fmt: skip


def test_history_rows(darts, ssf):
    labelled, label_free = darts.history, ssf.history
    assert set(labelled[0]) == KEYS | {"val_accuracy"} and set(label_free[0]) == KEYS | {"probe_accuracy"}
    assert set(label_free[-1]) - set(label_free[0]) == {"alpha_gradient_norms"}
    assert set(label_free[0]["losses"]) == {"weights/barlow_twins", "alpha/barlow_twins", "alpha/zero_one"}
    assert label_free[0]["train_accuracy"] is None and 0 <= label_free[0]["probe_accuracy"] <= 1
    assert [round(row["w_lr"], 6) for row in labelled] == [0.025, 0.019, 0.007]  # cosine to .001 over 3 epochs
    assert [len(labelled[0]["alpha"][cell]) for cell in ("normal", "reduce")] == [2, 2]
    json.dumps(labelled, allow_nan=False)


def test_health_figures(ssf):
    health = ssf.health
    assert health["alpha_steps"] == 6 and health["alpha_travel"] == pytest.approx(6 * 0.3)
    assert health["reachable_gate"] == pytest.approx(1 / (1 + math.exp(-1.8))) and health["gates"] == 2 * 2 * 7
    assert 0 <= health["polarised_gates"] <= 28 and 0 <= health["skip_share"] <= 1
    assert set(health["alpha_gradient_norms"]) == {"barlow_twins", "zero_one"}
    assert health["gradient_ratio"]["barlow_twins/zero_one"] > 0
    assert 0 <= health["genotype_agreement"] <= 1 and health["warnings"] == []
    assert health["lowest_gate"] < 0.5 < health["highest_gate"]  # the gates did move


@pytest.mark.filterwarnings("ignore::lt_nas_ext.space.GateTieWarning")
def test_an_unreachable_gate_is_told_before_anything_is_trained(tmp_path):
    with pytest.warns(UnreachableGateWarning, match="Set alpha_lr to"):
        result = search("paper-ssf", tmp_path, alpha_lr=1e-4, epochs=1)
    assert "the genotype would be noise" in result.health["warnings"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreachableGateWarning)
        with pytest.raises(UnreachableGateWarning):
            search("paper-ssf", tmp_path / "never", alpha_lr=1e-4)
    assert not (tmp_path / "never").exists()


def test_tied_gates_are_told(recwarn):
    result = search("authors-fairdarts", alpha_lr=1e-6, epochs=2, rule="top2")
    assert any("lie within" in text for text in result.health["warnings"])
    assert sum("lie within" in str(warning.message) for warning in recwarn) == 2  # one a cell, none an epoch


def test_a_label_free_search_reads_no_label(ssf):
    """Labels replaced by random ones: the same α and genotype to the bit, only the probe differs."""
    poisoned = search("paper-ssf", data=tiny_data(label_seed=1))
    assert poisoned.genotype == ssf.genotype
    for row, expected in zip(poisoned.history, ssf.history, strict=True):
        assert row["alpha"] == expected["alpha"] and row["losses"] == expected["losses"]
    assert [row["probe_accuracy"] for row in poisoned.history] != [row["probe_accuracy"] for row in ssf.history]


@pytest.mark.parametrize("name", ["darts", "paper-ssf"])
def test_testing_changes_no_other_number(name, request):
    """The curves of the supernet on test images: on the two epochs asked for, and everything else to the bit."""
    plain = request.getfixturevalue({"darts": "darts", "paper-ssf": "ssf"}[name])
    tested = search(name, test_every=2)
    figures = {"test_accuracy", "test_longtailed_accuracy"}
    assert [figures & set(row) for row in tested.history] == [set(), figures, figures]
    assert timeless([{k: v for k, v in row.items() if k not in figures} for row in tested.history]) == timeless(
        plain.history
    )
    assert tested.genotype == plain.genotype


def test_the_accuracies_are_those_of_the_test_images():
    """With the half that trains α for a test set, they are that half's accuracy; its classes lie as in training."""
    half = split(DATA.train, 0.5, 0)[1]
    row = search("darts", data=replace(DATA, test=half), test_every=1).history[-1]
    assert row["test_accuracy"] == pytest.approx(row["val_accuracy"], abs=1e-6)
    assert row["test_longtailed_accuracy"] == pytest.approx(row["val_accuracy"], abs=1e-6)
    other = search("darts", data=replace(DATA, test=half.subset(range(12))), test_every=1).history[-1]
    assert other["test_longtailed_accuracy"] is None  # classes of the training images that the test set lacks


def test_a_run_begun_before_the_setting_continues(tmp_path):
    with pytest.raises(Killed):
        search("darts", tmp_path, progress=KilledAt(epochs=2))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["settings"]["test_every"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    resumed = search("darts", tmp_path, resume=True, test_every=1)
    assert ["test_accuracy" in row for row in resumed.history] == [False, False, True]


def test_the_two_halves_are_what_split_says():
    settings = tiny_settings("darts")
    weights, alpha = split(DATA.train, settings.split, settings.seed, settings.stratify)
    assert not set(weights.files) & set(alpha.files) and len(weights) + len(alpha) == len(DATA.train)


def test_seeds_and_the_callers_random_state(darts):
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    again = search("darts")
    assert torch.equal(torch.rand(4), expected)
    assert timeless(again.history) == timeless(darts.history)
    assert search("darts", epochs=1, seed=1).history[0]["train_loss"] != darts.history[0]["train_loss"]


def test_too_few_images():
    import dataclasses

    tiny = dataclasses.replace(DATA, train=DATA.train.subset([0, 1]))
    with pytest.raises(UserError, match="leaves 1 image"):
        search("paper-ssf", data=tiny)


def test_unknown_names_are_told_before_anything_is_written(tmp_path):
    for overrides, message in [
        ({"views": "simclr"}, "views: got 'simclr'"),
        ({"augment": "mixup"}, "augment: got 'mixup'"),
        ({"device": "tpu"}, "device: got 'tpu'"),
        ({"method": "drats"}, "did you mean 'darts'"),
    ]:
        with pytest.raises(UserError, match=message):
            search("paper-ssf", tmp_path / "run", **overrides)
        assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::lt_nas_ext.methods.UnreachableGateWarning")
def test_no_gate_survives_the_threshold_but_the_search_can_be_read_otherwise(tmp_path):
    """An error after the last epoch loses nothing: rule and threshold may change on resume."""
    with pytest.raises(UserError, match="a threshold of at most"):
        search("authors-fairdarts", tmp_path, threshold=0.999, alpha_lr=0.8, lambda_01=0.0)
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1])["genotype"] is None
    follower = Silent()
    result = search(
        "authors-fairdarts", tmp_path, resume=True, progress=follower, alpha_lr=0.8, lambda_01=0.0, rule="top2"
    )
    assert follower.steps == 0 and result.genotype.rule == "top2"


class Toy(SupernetMethod):
    """A method in a file of its own: class-uniform w stream, paired α stream, a frozen α for the first epoch."""

    name = "toy"
    paper_preset = "darts"
    weight_stream = Stream("labelled", ("class_uniform",))
    alpha_stream = Stream("paired", ("instance", "class_uniform"))

    def weight_loss(self, networks, batch, epoch):
        logits = networks(batch.images)
        return Loss({"task": nn.functional.cross_entropy(logits, batch.labels)}, logits=logits.detach())

    def alpha_loss(self, networks, batch, epoch):
        ratio = 1 - (epoch.index / epoch.count) ** 2
        assert isinstance(batch.first, Labelled) and batch.first.images.shape == batch.second.images.shape
        first, second = (nn.functional.cross_entropy(networks(s.images), s.labels) for s in (batch.first, batch.second))
        return Loss({"task": ratio * first + (1 - ratio) * second})

    def alpha_groups(self, networks):
        normal, reduce = networks.arch_parameters()
        late = ParameterGroup("normal", (normal,), lambda epoch: float(epoch.index > 0))
        return [late, ParameterGroup("reduce", (reduce,), lambda epoch: 0.5)]


def test_a_new_method_is_one_class(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "toy", Toy)
    result = search("darts", method="toy")
    assert [row["lr_factors"]["normal"] for row in result.history] == [0.0, 1.0, 1.0]
    assert result.history[0]["lr_factors"] == {"weights": 1.0, "normal": 0.0, "reduce": 0.5}
    start = torch.tensor(result.history[0]["alpha"]["normal"])
    assert start.abs().max() < 0.01  # frozen in the first epoch: the noise it began with
    assert torch.tensor(result.history[2]["alpha"]["normal"]).abs().max() > 0.1
    assert result.health["alpha_travel"] == pytest.approx(0.3 * 2 * 2)


@pytest.mark.filterwarnings("ignore::lt_nas_ext.space.GateTieWarning")
def test_alpha_frozen_throughout_is_no_error(monkeypatch):
    class Frozen(Toy):
        def alpha_groups(self, networks):
            return [ParameterGroup("alpha", tuple(networks.arch_parameters()), lambda epoch: 0.0)]

    monkeypatch.setitem(methods.METHODS, "frozen", Frozen)
    with pytest.warns(UnreachableGateWarning):
        result = search("darts", method="frozen")
    assert result.history[0]["alpha"] == result.history[-1]["alpha"] and result.history[-1]["val_loss"] is None


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["darts", "paper-ssf"])
def test_search_on_cuda(tmp_path, name):
    torch.cuda.manual_seed(3)
    expected = torch.rand(2, device="cuda")
    torch.cuda.manual_seed(3)
    with pytest.raises(Killed):
        search(name, tmp_path, progress=KilledAt(epochs=1), device="cuda")
    result = search(name, tmp_path, resume=True, device="cuda")
    assert torch.equal(torch.rand(2, device="cuda"), expected)
    assert len(result.history) == 3 and result.history[-1]["peak_memory_mb"] > 0


@pytest.mark.filterwarnings("ignore::lt_nas_ext.methods.UnreachableGateWarning")
@pytest.mark.filterwarnings("ignore::lt_nas_ext.space.GateTieWarning")
def test_search_on_digits_learns():
    digits = load("digits", imbalance="exp", factor=0.1)
    result = search("demo-darts", data=digits, epochs=5, batch_size=64, channels=4, w_lr=0.1)
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.6 * losses[0]
    free = search("demo-ssf", data=digits, epochs=5, batch_size=64, channels=4, layers=1, nodes=2, projector=(32, 32))
    losses = [row["train_loss"] for row in free.history]
    assert losses[-1] < 0.8 * losses[0]
    assert free.history[-1]["probe_accuracy"] > 0.4


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from lt_nas_ext.engine import Interrupted, run_search
from tiny_runs import Silent, tiny_data, tiny_settings
class Loud(Silent):
    def epoch(self, row):
        print("epoch", row["epoch"], flush=True)
try:
    run_search(tiny_data(), tiny_settings("darts", epochs=2000), sys.argv[2], progress=Loud())
except Interrupted as stop:
    print(stop, flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resumes(tmp_path, number):
    here, out = str(Path(__file__).parent), tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, here, str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "epoch 0\n"
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    done = len(json.loads(saved["history"]))
    expected = f"interrupted in epoch {done + 1} of 2000; {done} saved in {out}: resume continues from there"
    assert text.splitlines()[-1] == expected
    with pytest.raises(Killed):
        search("darts", out, resume=True, progress=KilledAt(epochs=1), epochs=2000)
    rows = [json.loads(line)["epoch"] for line in (out / "history.jsonl").read_text().splitlines()]
    assert rows == list(range(done + 1))


def test_the_first_signal_asks_and_the_second_ends():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupted_without_a_directory_says_that_nothing_is_kept():
    class Stops(Silent):
        def step(self, figures):
            if not self.closed:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="nothing was saved") as caught:
        search("darts", progress=Stops())
    assert caught.value.out is None and caught.value.epoch == 0 and caught.value.epochs == 3
