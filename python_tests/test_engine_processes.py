"""One run in two gloo processes: the same numbers in both to the bit, and an end of one that is the end of both."""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grouped_runs
import pytest
import torch
import torch.distributed as dist
from grouped_runs import ended, returned, said, send, started, wait_for_epochs
from test_engine_kills import contents, plain
from tiny_runs import Silent, tiny_data, tiny_settings

from lt_nas_ext import cli
from lt_nas_ext.engine import run_adapt, run_consensus, run_search
from lt_nas_ext.engine.processes import ALONE, Group, asked
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.local_crew import LocalCrew
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.methods import Problem, Stream
from lt_nas_ext.methods.darts import Darts

DATA = tiny_data()
CPU = torch.device("cpu")
PAIR = [Group(rank, 2) for rank in range(2)]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    assert ended(started(2, folder, "searches", folder / "out")) == [0, 0], said(folder, 0) + said(folder, 1)
    return folder, returned(folder)


@pytest.mark.parametrize("name", ["darts", "paper-ssf", "paper-hls"])
def test_both_hold_the_same_to_the_bit(searched, name):
    first, second = (result[name] for result in searched[1])
    assert len(first["states"]) == (2 if name == "darts" else 1)  # the contest after it too
    assert plain(first["states"]) == plain(second["states"])
    assert first["history"] == second["history"] and first["genotype"] == second["genotype"]
    assert not torch.equal(first["states"][0]["networks"][ALPHA[name]], first["states"][0]["networks"][ALPHA[name]] * 0)


ALPHA = {"darts": "alphas_normal", "paper-ssf": "supernet.alphas_normal", "paper-hls": "backbone.alphas_normal"}


def test_one_process_writes_and_is_told(searched):
    folder, results = searched
    for name in ("darts", "paper-ssf"):
        out = folder / "out" / name
        assert json.loads((out / "config.json").read_text())["processes"] == 2
        assert [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()] == results[1][name][
            "history"
        ]
        assert [result[name]["told"] > 0 for result in results] == [True, False]
        assert not torch.equal(results[0][name]["draws"], results[1][name]["draws"])


def test_a_training_is_the_same_in_both(tmp_path):
    assert ended(started(2, tmp_path, "trainings", tmp_path / "out")) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)
    first, second = returned(tmp_path)
    assert plain(first) == plain(second)
    saved = torch.load(tmp_path / "out" / "named" / "model.pt", weights_only=True)["network"]
    assert all(torch.equal(first["named"][f"network.{name}"], value) for name, value in saved.items())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The run directory of a tiny search."""
    out = tmp_path_factory.mktemp("source")
    run_search(DATA, tiny_settings("darts"), out, progress=Silent())
    return out


@pytest.fixture(scope="module")
def adapted(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptations")
    assert ended(started(2, folder, "adaptations", source, folder / "out")) == [0, 0], said(folder, 0) + said(folder, 1)
    return folder, returned(folder)


@pytest.mark.parametrize("name", [*grouped_runs.ADAPTATIONS, "brought"])
def test_an_adaptation_is_the_same_in_both(adapted, name):
    first, second = (result[name] for result in adapted[1])
    assert [first.pop("told", 1) > 0, second.pop("told", 0) > 0] == [True, False]
    assert plain(first) == plain(second)


def test_one_process_writes_an_adaptation(adapted):
    folder, results = adapted
    for name in grouped_runs.ADAPTATIONS:
        out = folder / "out" / name
        assert json.loads((out / "config.json").read_text())["processes"] == 2
        history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        assert history == results[1][name]["history"] and len(history) == (0 if name == "as is" else 2)
        ranking = list(csv.DictReader((out / "ranking.csv").read_text().splitlines()))
        assert [row["genotype"] for row in ranking] == [row[2] for row in results[1][name]["ranking"]]


def test_sub_networks_rank_as_in_one_process(adapted, source, monkeypatch):
    """Of the weights as they are: the same figures to the bit, whoever took which."""
    monkeypatch.setattr(importlib.import_module("lt_nas_ext.engine.evaluate"), "BATCH", grouped_runs.SMALL_BATCH)
    alone = run_adapt(source, DATA, grouped_runs.adapting("as is"), progress=Silent())
    wanted = [(one.val_macro, one.val_accuracy, str(one.genotype)) for one in alone.ranking]
    assert len(wanted) == 5  # an odd number for two
    for result in adapted[1]:
        assert [tuple(row) for row in result["as is"]["ranking"]] == wanted
        assert result["as is"]["macro"] == alone.metrics["supernet"]["macro"]


def test_kept_features_train_the_head_as_in_one_process(adapted, source):
    """Nothing is augmented and no batch norm trained: the mean over shares is the mean over the batch."""
    alone = run_adapt(source, DATA, grouped_runs.adapting("cached"), progress=Silent())
    for result in adapted[1]:
        for name, value in alone.supernet.state_dict().items():
            torch.testing.assert_close(result["cached"]["state"][name], value, rtol=1e-5, atol=1e-6)
        losses = [row["train_loss"] for row in result["cached"]["history"]]
        assert losses == pytest.approx([row["train_loss"] for row in alone.history], abs=1e-6)


@pytest.mark.parametrize("below", [".", "ranking"])
def test_an_adaptation_killed_goes_on_to_the_same_end(tmp_path, source, below):
    runs = {name: tmp_path / name / "out" for name in ("whole", "killed")}
    assert ended(started(2, tmp_path / "whole", "killable_adaptation", source, runs["whole"])) == [0, 0]
    processes = started(2, tmp_path / "killed", "killable_adaptation", source, runs["killed"])
    wait_for_epochs(runs["killed"] / below, 1)
    for process in processes:
        send(process, signal.SIGKILL)
    assert ended(processes) == [-9, -9] and not (runs["killed"] / "genotype.json").exists()
    assert ended(started(2, tmp_path / "killed", "killable_adaptation", source, runs["killed"])) == [0, 0]
    assert contents(runs["killed"]) == contents(runs["whole"])


def test_the_command_adapts_in_both_and_speaks_once(tmp_path, source):
    words = [
        "adapt", "--run", str(source), "--data", "digits", "--epochs", "1", "--subnets", "2", "--augment", "none",
        "--device", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert ended(started(2, tmp_path, "command", *words)) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)
    first, second = returned(tmp_path)
    assert first["code"] == second["code"] == 0 and "next: lt-nas retrain" in first["printed"]
    assert second["printed"] == ""


def test_barlow_twins_of_two_halves_is_that_of_the_whole(tmp_path):
    criterion, views = grouped_runs.twins_of_64()
    loss = criterion(*views)
    loss.backward()
    wanted, expected = loss.item(), grouped_runs.gradient(criterion)
    assert ended(started(2, tmp_path, "twins")) == [0, 0]
    for result in returned(tmp_path):
        assert abs(float(result["loss"]) - wanted) <= 1e-5 * wanted
        assert (result["gradient"] - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name, victim", [("endless", 0), ("endless", 1), ("endless_adaptation", 1)])
def test_a_process_that_is_killed_ends_the_other(tmp_path, source, name, victim):
    """The first holds the store by which the other finds out."""
    more = [source] if name == "endless_adaptation" else []
    processes = started(2, tmp_path, name, tmp_path / "out", *more)
    wait_for_epochs(tmp_path / "out", 1)
    began = time.monotonic()
    send(processes[victim], signal.SIGKILL)
    codes = ended(processes)
    assert time.monotonic() - began < 60
    assert codes[victim] == -9 and codes[1 - victim] == 2
    assert f"process {victim} of 2 ended" in said(tmp_path, 1 - victim)
    assert "Traceback" not in said(tmp_path, 1 - victim)


def test_a_process_that_stands_still_ends_the_other(tmp_path):
    processes = started(2, tmp_path, "endless", tmp_path / "out", 3.0)
    wait_for_epochs(tmp_path / "out", 1)
    send(processes[1], signal.SIGSTOP)
    try:
        assert ended(processes[:1]) == [1]
    finally:
        send(processes[1], signal.SIGKILL)
    assert "process 1 of 2 ended without a word" in said(tmp_path, 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert ended(started(2, folder, "killable", folder / "out")) == [0, 0]
    return contents(folder / "out")


def test_killed_together_they_go_on_to_the_same_end(tmp_path, undisturbed):
    processes = started(2, tmp_path, "killable", tmp_path / "out")
    wait_for_epochs(tmp_path / "out", 2)
    for process in processes:
        send(process, signal.SIGKILL)
    assert ended(processes) == [-9, -9]
    assert ended(started(2, tmp_path, "killable", tmp_path / "out")) == [0, 0]
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("asked_to_stop", [0, 1])
def test_one_that_is_asked_to_stop_stops_both(tmp_path, undisturbed, asked_to_stop):
    processes = started(2, tmp_path, "killable", tmp_path / "out")
    wait_for_epochs(tmp_path / "out", 2)
    send(processes[asked_to_stop], signal.SIGTERM)
    assert ended(processes) == [130, 130]
    for rank in range(2):
        assert f"saved in {tmp_path / 'out'}: resume continues from there" in said(tmp_path, rank)
    assert ended(started(2, tmp_path, "killable", tmp_path / "out")) == [0, 0]
    assert contents(tmp_path / "out") == undisturbed


def test_an_alpha_that_differs_is_found(tmp_path):
    assert ended(started(2, tmp_path, "differing", tmp_path / "out")) == [2, 2]
    for rank in range(2):
        assert "after epoch 2 the architecture parameters of process 1 of 2 are not those of process 0" in said(
            tmp_path, rank
        )
    assert len((tmp_path / "out" / "history.jsonl").read_text().splitlines()) == 1


def test_what_is_not_a_number_in_one_begins_the_epoch_again_in_both(tmp_path):
    assert ended(started(2, tmp_path, "poisoned", tmp_path / "out")) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)
    first, second = returned(tmp_path)
    assert plain(first) == plain(second)
    (trouble,) = first["history"][1]["rolled_back"]
    assert trouble == "cross_entropy is not a number in the w step of batch 1"


def test_what_one_process_finds_wrong_ends_both(tmp_path):
    assert ended(started(2, tmp_path / "first", "taken", tmp_path / "out")) == [0, 0]
    assert ended(started(2, tmp_path / "second", "taken", tmp_path / "out")) == [2, 2]
    assert said(tmp_path / "second", 0).startswith(f"lt-nas: error: out: {tmp_path / 'out'} already holds a run")
    assert f"process 0 of 2 ended: out: {tmp_path / 'out'} already holds a run" in said(tmp_path / "second", 1)


def test_what_fails_in_one_process_ends_the_other(tmp_path):
    assert ended(started(2, tmp_path, "interrupted_alone", tmp_path / "out")) == [2, 1]
    assert "process 1 of 2 ended: no such disk" in said(tmp_path, 0)
    assert "OSError: no such disk" in said(tmp_path, 1)


def test_a_batch_that_cannot_be_shared(tmp_path):
    assert ended(started(2, tmp_path, "uneven", tmp_path / "out")) == [2, 2]
    for rank in range(2):
        assert "batch_size: got 9 for 2 processes, which share every batch; wanted a multiple of 2" in said(
            tmp_path, rank
        )


@pytest.mark.parametrize("sampler", ["instance", "class_uniform", "under_sampling"])
@pytest.mark.parametrize("batch_size, sizes", [(8, [4] * 6), (64, [24])])
def test_the_shares_make_the_batch_and_do_not_overlap(sampler, batch_size, sizes):
    """Every image is a number of its own, which no augmentation changes."""
    images = DATA.train.images.clone()
    images[:] = torch.arange(len(images), dtype=torch.uint8)[:, None, None, None]
    numbered = type(DATA.train)(images, DATA.train.labels, DATA.train.files)
    stream = Stream("labelled", (sampler,))
    common = (stream, numbered, CPU, DATA, batch_size, 0, "weights", "default", "none")

    def drawn(group):
        draws = Feed(*common, group=group).epoch(0)
        mean, std = DATA.mean[0], DATA.std[0]
        return [((draw.batch.images[:, 0, 0, 0] * std + mean) * 255).round().long() for draw in draws]

    whole, shares = drawn(ALONE), [drawn(group) for group in PAIR]
    assert len(whole) == len(shares[0]) == len(shares[1])
    for batch, first, second in zip(whole, *shares, strict=True):
        assert len(first) == len(second)
        assert torch.equal(batch[: 2 * len(first) : 2], first) and torch.equal(batch[1 : 2 * len(first) : 2], second)
        assert len(batch) - 2 * len(first) in (0, 1)
        if sampler != "class_uniform":  # which draws with replacement
            assert not set(first.tolist()) & set(second.tolist())


def test_each_process_augments_by_draws_of_its_own():
    same = type(DATA.train)(DATA.train.images[:1].expand(48, -1, -1, -1), DATA.train.labels, DATA.train.files)
    views = [
        next(Feed(Stream("two_views"), same, CPU, DATA, 8, 0, "weights", group=one).epoch(0)).batch for one in PAIR
    ]
    assert not torch.equal(views[0].first, views[1].first)


@pytest.mark.parametrize(
    "group, batch_size, wanted",
    [(PAIR[0], 9, "a multiple of 2"), (PAIR[0], 2, "at least 4, two images each"), (Group(0, 3), 8, "a multiple of 3")],
)
def test_batches_that_no_group_can_share(group, batch_size, wanted):
    with pytest.raises(UserError, match=f"^batch_size: got {batch_size} for {group.size} processes.*wanted {wanted}$"):
        Feed(Stream("labelled"), DATA.train, CPU, DATA, batch_size, 0, "weights", group=group)


def test_fewer_images_than_processes_can_share():
    few = DATA.train.subset(torch.arange(5))
    with pytest.raises(
        UserError, match=r"^data: got 5 image\(s\) for weights and 3 processes; wanted two each or more"
    ):
        Feed(Stream("labelled"), few, CPU, DATA, 12, 0, "weights", group=Group(0, 3))


def test_steps_of_several_processes_are_not_recorded():
    method = Darts(tiny_settings("darts"), Problem(3, (1, 8, 8), (24, 14, 10)))
    steps = Steps(method, method.build(), recorder=object(), group=PAIR[0])
    assert steps.fallbacks == ["gradients are averaged over 2 processes"]
    assert Steps(method, method.build(), recorder=object()).fallbacks == []


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK: got 2 with WORLD_SIZE=2; wanted 0 … 1"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK: got 'one' in the environment; wanted a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "-1"}, "WORLD_SIZE: got '-1' in the environment; wanted a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR: not set, with WORLD_SIZE=2"),
    ],
)
def test_an_environment_that_says_too_little(monkeypatch, environment, message):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert asked() == (0, 1)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        run_search(DATA, tiny_settings("darts"), progress=Silent())


def test_what_does_not_share_its_work_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("reproduce losses", "reproduce tabular", "demo", "report"):
        assert cli.main([*command.split(), "--help"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"lt-nas: error: {command}: got 2 processes (WORLD_SIZE, set by torchrun); wanted one")
    with pytest.raises(UserError, match=r"^seeds: got 2 processes"):
        run_consensus(DATA, tiny_settings("darts"), 2)
    with pytest.raises(UserError, match=r"^jobs: got 2 processes"):
        run_queue([], tmp_path, LocalCrew(1))


def test_a_device_of_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert PAIR[1].device("auto") == PAIR[1].device("cuda") == torch.device("cuda", 1) == chosen[0]
    assert PAIR[1].device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"^device: got 'cuda:0' for 2 processes"):
        PAIR[1].device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"^device: process 1 is number 3 on a machine with 2 CUDA device\(s\)"):
        PAIR[1].device("auto")


def torchrun(out: Path, *words: str) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}",
        "-m", "lt_nas_ext", "search", "--preset", "demo-darts", "--data", "digits", "--batch-size", "128",
        "--channels", "2", "--layers", "1", "--nodes", "1", "--alpha-lr", "1", "--device", "cpu",
        "--out", str(out), *words,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(600)  # three imports of PyTorch at a time, on a machine that may be busy
def test_torchrun_starts_one_search(tmp_path):
    process = torchrun(tmp_path / "out", "--epochs", "1", "--progress", "lines")
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert out.count("Genotype(normal=") == 1 and err.count("darts search epoch 0") == 1
    assert json.loads((tmp_path / "out" / "config.json").read_text())["processes"] == 2


@pytest.mark.timeout(600)
def test_a_process_of_torchrun_that_is_killed_ends_the_other(tmp_path):
    process = torchrun(tmp_path / "out", "--epochs", "5000", "--quiet")
    wait_for_epochs(tmp_path / "out", 1, 400.0)
    began = time.monotonic()
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate(timeout=500)
    assert time.monotonic() - began < 60 and process.returncode != 0
    assert "lt-nas: error: processes: process 1 of 2 ended" in err
