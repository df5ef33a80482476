"""Epochs that survive: the one loop of search and retraining, with resume, history and a clean stop."""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

import torch

from lt_nas_ext.engine.device import device_name, peak_memory_mb
from lt_nas_ext.engine.progress import Progress
from lt_nas_ext.engine.run_dir import RunDirectory
from lt_nas_ext.engine.seeds import isolated_rng, seed_global
from lt_nas_ext.engine.stop import Interrupted, StopSignal

Row = dict[str, Any]


class StopNow(Exception):
    """Raised between two steps of an epoch when a stop was asked for."""


class Watch:
    """What a trainer tells after every step, and where it learns that it is to stop."""

    def __init__(self, progress: Progress, stop: StopSignal) -> None:
        self._progress, self._stop = progress, stop

    def step(self, figures: dict[str, torch.Tensor]) -> None:
        """Call after every step with its detached losses."""
        self._progress.step(figures)
        if self._stop.requested:
            raise StopNow


class Trainer(Protocol):
    """Something trained in epochs, whose state between two epochs is `state_dict`."""

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        """Train one epoch and return its line of history.jsonl, without `epoch`, `seconds`, memory and device.

        A line with the entry `stopped`, the reason in words, is the last one.
        """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(
    trainer: Trainer,
    epochs: int,
    steps_an_epoch: int,
    seed: int,
    device: torch.device,
    directory: RunDirectory | None,
    progress: Progress,
    description: str,
) -> list[Row]:
    """Run the epochs that are not done yet, save after each, and return the history of all.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; every whole epoch is saved.
    """
    history, where = _restore(trainer, device, directory), device_name(device)
    progress.start(epochs * steps_an_epoch, description, len(history) * steps_an_epoch)
    try:
        with StopSignal() as stop, isolated_rng(device):
            for epoch in range(len(history), epochs):
                if history and history[-1].get("stopped"):
                    break
                # Drop-path and the like draw from the global generator: a function of (seed, epoch), as all else.
                seed_global(device, seed, "epoch", epoch)
                began = time.perf_counter()
                try:
                    row = trainer.run_epoch(epoch, Watch(progress, stop))
                except StopNow:
                    raise Interrupted(directory.path if directory else None, epoch, epochs) from None
                seconds = round(time.perf_counter() - began, 4)
                spent = {"peak_memory_mb": peak_memory_mb(device), "device": where}
                history.append({"epoch": epoch, "seconds": seconds, **row, **spent})
                if directory is not None:
                    directory.append_history(history[-1])
                    # The history travels inside too: after a kill between the two writes it decides what is true.
                    directory.save({"trainer": trainer.state_dict(), "history": json.dumps(history)})
                progress.epoch(history[-1])
    finally:
        progress.close()
    return history


def _restore(trainer: Trainer, device: torch.device, directory: RunDirectory | None) -> list[Row]:
    saved = directory.load(device) if directory is not None else None
    if saved is None:
        if directory is not None:
            directory.write_history([])
        return []
    trainer.load_state_dict(saved["trainer"])
    history: list[Row] = json.loads(saved["history"])
    assert directory is not None
    directory.write_history(history)
    return history
