"""Runs in several processes of this machine, as torchrun would start them, for the tests of groups."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_studies
import torch
from tiny_runs import Silent, tiny_data, tiny_settings
from torch import nn

from lt_nas_ext import cli
from lt_nas_ext.engine import Interrupted, heartbeat, run_adapt, run_retrain, run_search, search
from lt_nas_ext.engine.processes import join
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.group_crew import together
from lt_nas_ext.experiments.table1 import run_table1
from lt_nas_ext.methods.darts import Darts
from lt_nas_ext.methods.imb_nas import AdaptSettings
from lt_nas_ext.nn import BarlowTwinsLoss
from lt_nas_ext.space import Supernet

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lt_nas_ext.experiments.table1"])  # PyTorch is imported once

Processes = list[Any]


def started(size: int, folder: Path, name: str, *args: Any) -> Processes:
    """Processes that do `RUNS[name]` together; what each prints as an error goes to `folder`, what it returns too."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=work, args=(rank, size, port, folder, name, args)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def ended(processes: Processes, seconds: float = 120.0) -> list[int]:
    """Exit codes; a process that does not end in time is killed, and is -9."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def returned(folder: Path, size: int = 2) -> list[Any]:
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def said(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.err").read_text()


def work(rank: int, size: int, port: int, folder: Path, name: str, args: tuple[Any, ...]) -> None:
    """The inside of one of the processes; it ends as the command line does."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), **address)
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    try:
        result = RUNS[name](*args)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(130)
    except UserError as error:
        print(f"lt-nas: error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    torch.save(result, folder / f"{rank}.pt")


def made() -> list[Any]:
    """Every search that is made in this process from here on."""
    found: list[Any] = []
    original = search._Search.__init__

    def noted(self: Any, *args: Any) -> None:
        original(self, *args)
        found.append(self)

    search._Search.__init__ = noted  # type: ignore[method-assign]
    return found


def searches(out: Path) -> dict[str, Any]:
    """Every kind of step and of stream: what each process holds afterwards."""
    kinds: dict[str, dict[str, Any]] = {
        "darts": {"order": "second", "epochs": 2, "candidates": 2, "candidate_epochs": 1},
        "paper-ssf": {"epochs": 2},
        "paper-hls": {"epochs": 2},
    }
    results = {}
    for name, overrides in kinds.items():
        found, follower = made(), Silent()
        result = run_search(tiny_data(), tiny_settings(name, rule="top2", **overrides), out / name, False, follower)
        results[name] = {
            "states": [one.state_dict() for one in found],
            "history": result.history,
            "genotype": result.genotype.to_json(),
            "told": follower.steps,
            "draws": next(iter(found[0]._weight_feed.epoch(0))).labels,
        }
    return results


def trainings(out: Path) -> dict[str, Any]:
    """A network by name and one of the user's, which each process has drawn otherwise."""
    settings = RetrainSettings(
        epochs=2, pretrain_epochs=1, batch_size=12, channels=2, layers=3, projector=(8, 8), ema_decay=0.9, mixup=1.0,
        device="cpu",
    )  # fmt: skip
    named = run_retrain("random", tiny_data(), settings, out / "named", False, Silent())
    torch.manual_seed(join().rank)
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    plain = RetrainSettings(epochs=2, batch_size=12, device="cpu")
    brought = run_retrain(own, tiny_data(), plain, None, False, Silent())
    return {
        "named": named.model.state_dict(),
        "brought": brought.model.state_dict(),
        "history": [named.history, brought.history],
        "metrics": [named.metrics["macro"], brought.metrics["macro"]],
    }


SMALL_BATCH = 8
"""Of what is evaluated: several to take turns with, of images as few as these."""

ADAPTATIONS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "cached": {"augment": "none", "loss": "cross_entropy"},
    "cached, drawn by class": {"augment": "none", "sampler": "class_uniform", "recalibrate": True},
    "finetune": {"backbone": "finetune", "head": "keep", "recalibrate": True},
    "as is": {"backbone": "as_is", "head": "keep"},
}


def adapting(name: str) -> AdaptSettings:
    small = {"epochs": 2, "batch_size": 12, "subnets": 4, "calibration_images": 24, "device": "cpu"}
    return AdaptSettings(**{**small, **ADAPTATIONS[name]})  # type: ignore[arg-type]


def adaptations(source: Path, out: Path) -> dict[str, Any]:
    """Every kind of backbone, and the supernet of a user that each process has drawn otherwise."""
    importlib.import_module("lt_nas_ext.engine.evaluate").BATCH = SMALL_BATCH
    results = {}
    for name in ADAPTATIONS:
        follower = Silent()
        found = run_adapt(source, tiny_data(), adapting(name), out / name, False, follower)
        results[name] = {
            "state": found.supernet.state_dict(),
            "history": found.history,
            "ranking": [(one.val_macro, one.val_accuracy, str(one.genotype)) for one in found.ranking],
            "macro": found.metrics["supernet"]["macro"],
            "told": follower.steps,
        }
    torch.manual_seed(join().rank)
    own = Supernet(channels=2, num_classes=3, layers=3, in_channels=1, nodes=1)
    brought = run_adapt(own, tiny_data(), adapting("frozen"), None, False, Silent())
    return {**results, "brought": {"state": brought.supernet.state_dict(), "history": brought.history}}


def study(out: Path) -> dict[str, Any]:
    """Three searches and six trainings, one of them of cells that a rule left empty at first."""
    told = tiny_studies.Told()
    done: list[Any] = []
    together(lambda: done.append(run_table1(out, tiny_studies.SETTINGS, plan=tiny_studies.PLAN, board=told)))
    return {"studies": len(done), "jobs": told.jobs, "steps": told.steps}


def killable_study(out: Path, minutes: float | None = None) -> None:
    """The same, of searches that somebody has to end."""
    searches = {name: replace(one, epochs=5000) for name, one in tiny_studies.PLAN.searches.items()}
    plan = replace(tiny_studies.PLAN, searches=searches)
    settings = replace(tiny_studies.SETTINGS, scale=1.0, minutes=minutes)
    together(lambda: run_table1(out, settings, plan=plan) and None)


class Slow(Silent):
    """So that a run can be killed before its end."""

    def epoch(self, row: object) -> None:
        super().epoch(row)
        time.sleep(0.1)


def killable_adaptation(source: Path, out: Path) -> None:
    """Three epochs, then five sub-networks; continued where there are some."""
    run_adapt(source, tiny_data(), replace(adapting("finetune"), epochs=3), out, True, Slow())


def endless_adaptation(out: Path, source: Path) -> None:
    """An adaptation that somebody has to end."""
    run_adapt(source, tiny_data(), replace(adapting("cached"), epochs=50000), out, True, Silent())


def command(*words: str) -> dict[str, Any]:
    """What `lt-nas` returns and prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main(words)
    return {"code": code, "printed": printed.getvalue()}


def twins() -> dict[str, torch.Tensor]:
    """Barlow Twins of a share of 64 images, and the gradient that the processes agree on."""
    group, (criterion, views) = join(), twins_of_64()
    group.over_global_batch(criterion)
    with group.run():
        loss = criterion(*(view[group.rank :: group.size] for view in views))
        loss.backward()
        group.average_gradients(list(criterion.parameters()))
    return {"loss": loss.detach(), "gradient": gradient(criterion)}


def twins_of_64() -> tuple[BarlowTwinsLoss, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    projector = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 48))
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) / 4)
    return BarlowTwinsLoss(projector, scale=1 / 48), torch.randn(2, 64, 16, generator=draws)


def gradient(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def endless(out: Path, silent: float | None = None) -> None:
    """A search that somebody has to end."""
    if silent is not None:
        heartbeat.SILENT, heartbeat.GRACE = silent, 1.0
    run_search(tiny_data(), tiny_settings("darts", rule="top2", epochs=5000), out, True, Silent())


def differing(out: Path) -> None:
    """In process 1 one α moves by itself, in the second epoch."""
    original, calls = Steps.arch, [0]

    def moved(self: Steps, *args: Any) -> Any:
        loss = original(self, *args)
        calls[0] += 1
        if calls[0] == 3 and join().rank == 1:
            with torch.no_grad():
                self.alphas.groups[0].parameters[0][0, 0] += 1e-6
        return loss

    Steps.arch = moved  # type: ignore[method-assign]
    run_search(tiny_data(), tiny_settings("darts", rule="top2"), out, False, Silent())


def poisoned(out: Path) -> dict[str, Any]:
    """In process 1 the loss of one step, in the second epoch, is not a number."""
    original, calls, found = Darts.weight_loss, [0], made()

    def worse(*args: Any) -> Any:
        loss, calls[0] = original(*args), calls[0] + 1
        spoilt = calls[0] == 3 and join().rank == 1
        return type(loss)({name: part * math.nan if spoilt else part for name, part in loss.parts.items()})

    Darts.weight_loss = worse  # type: ignore[method-assign]
    result = run_search(tiny_data(), tiny_settings("darts", rule="top2"), out, False, Silent())
    return {"history": result.history, "state": found[0].state_dict()}


def uneven(out: Path) -> None:
    run_search(tiny_data(), tiny_settings("darts", rule="top2", batch_size=9), out, False, Silent())


def taken(out: Path) -> None:
    """An out that holds another run, which the first process alone finds."""
    run_search(tiny_data(), tiny_settings("darts", rule="top2", epochs=1), out, False, Silent())


def interrupted_alone(out: Path) -> None:
    """Process 1 fails in a way of its own, before the first step."""
    if join().rank == 1:
        Darts.build = lambda method: (_ for _ in ()).throw(OSError("no such disk"))  # type: ignore[method-assign]
    run_search(tiny_data(), tiny_settings("darts", rule="top2"), out, False, Silent())


def killable(out: Path) -> None:
    """Five epochs of two steps each, continued where there are some."""
    run_search(tiny_data(), tiny_settings("darts", rule="top2", epochs=5), out, True, Silent())


RUNS: dict[str, Callable[..., Any]] = {
    run.__name__: run
    for run in (
        searches, trainings, adaptations, twins, endless, endless_adaptation, differing, poisoned, uneven, taken,
        interrupted_alone, killable, killable_adaptation, command, study, killable_study,
    )
}  # fmt: skip


def send(process: Any, number: signal.Signals) -> None:
    os.kill(process.pid, number)


def wait_for_epochs(out: Path, count: int, seconds: float = 120.0) -> None:
    """Until a run has so many lines of history."""
    until, history = time.monotonic() + seconds, out / "history.jsonl"
    while not history.exists() or len(history.read_text().splitlines()) < count:
        assert time.monotonic() < until, f"{out} has no {count} epochs after {seconds:g} s"
        time.sleep(0.02)
