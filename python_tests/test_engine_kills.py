"""SIGKILL at random moments, in the midst of writing too: what goes on afterwards ends as if nothing had been."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import killed_runs
import pytest
import torch

from lt_nas_ext.engine.checkpoint import load_checkpoint

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lt_nas_ext.experiments.table1"])  # PyTorch is imported once

FIRST, ALL = 3, 20
"""Moments in the normal tests, and in the slow ones."""

NOT_COMPARED = {"seconds", "adapt_seconds", "ranking_seconds", "peak_memory_mb", "versions"}


def started(*args: Any) -> Any:
    process = CONTEXT.Process(target=killed_runs.run, args=args)
    process.start()
    return process


def ended(*args: Any) -> int:
    process = started(*args)
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return int(process.exitcode)


def plain(value: Any) -> Any:
    """Comparable: without what may differ between two runs, tensors as their bits."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(content) for key, content in value.items() if key not in NOT_COMPARED}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def contents(out: Path) -> dict[str, Any]:
    """All files of a run, or of the runs below it, that are not drawn or written for people."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".json" and path.name != "results.json":
            found[name] = plain(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".csv":
            found[name] = path.read_text()
        elif path.suffix == ".pt" and "previous" not in path.name:
            content = torch.load(path, weights_only=True)
            history = [plain(json.loads(content.pop("history")))] if path.name == "checkpoint.pt" else []
            content.pop("checksum", None)  # of the seconds too
            found[name] = [plain(content), *history]
    return found


@pytest.fixture(scope="module", params=list(killed_runs.RUNS))
def whole(request, tmp_path_factory):
    """A run that nobody disturbed: its kind, its contents, how many writes it takes and how long."""
    base = tmp_path_factory.mktemp(request.param)
    assert ended(request.param, base / "out", None, base / "note") == 0
    return request.param, contents(base / "out"), json.loads((base / "note").read_text())


def moments(count: int) -> list[Any]:
    """Every second moment is a write."""
    marks = [() if k < FIRST else (pytest.mark.slow,) for k in range(count)]
    return [pytest.param(k, marks=mark, id=f"{'write' if k % 2 else 'time'}-{k}") for k, mark in enumerate(marks)]


@pytest.mark.parametrize("moment", moments(ALL))
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(whole, tmp_path, moment):
    kind, expected, note = whole
    draw, out = random.Random(f"{kind} {moment}"), tmp_path / "out"
    if moment % 2:
        assert ended(kind, out, draw.randint(1, note["writes"])) == -9
    else:
        process = started(kind, out)
        time.sleep(draw.uniform(0.05, 0.95) * note["seconds"])
        process.kill()
        process.join()
    saved = load_checkpoint(out / "checkpoint.pt") if out.exists() else None
    assert ended(kind, out, None, tmp_path / "note") == 0
    if kind != "reproduce":  # nothing was done again that the newest checkpoint holds
        steps, again = note["steps"], json.loads((tmp_path / "note").read_text())
        epochs = len(expected["history.jsonl"])
        done = 0 if saved is None else len(json.loads(saved["history"]))
        assert (again["done"], again["steps"]) == (done * steps // epochs, (epochs - done) * steps // epochs)
    got = contents(out)
    assert got.keys() == expected.keys()
    assert [name for name in expected if got[name] != expected[name]] == []
