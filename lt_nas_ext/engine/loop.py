"""Epochs that survive: the one loop of search and retraining, with resume, history and a clean stop."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from lt_nas_ext.engine.device import deterministic, device_name, peak_memory_mb
from lt_nas_ext.engine.guard import NonFinite, NonFiniteError, NonFiniteWarning
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.engine.progress import Progress
from lt_nas_ext.engine.run_dir import RunDirectory
from lt_nas_ext.engine.seeds import isolated_rng, seed_global
from lt_nas_ext.engine.stop import Interrupted, StopSignal
from lt_nas_ext.methods.settings import OnNonFinite

Row = dict[str, Any]

ATTEMPTS: dict[OnNonFinite, int] = {"rollback": 2, "skip": 1, "stop": 1}
"""At an epoch, where numbers in it are not finite."""

_STATES = {"alphas": "optimiser of the architecture parameters", "weights": "optimiser of the weights"}
"""What parts of a state are called for people; the others as they are."""


class StopNow(Exception):
    """Raised between two steps of an epoch when a stop was asked for."""


class Watch:
    """What a trainer tells after every step, and where it learns that it is to stop.

    Attributes:
        attempt: at this epoch, from 0; each draws differently.
    """

    def __init__(self, progress: Progress, stop: StopSignal, attempt: int = 0, group: Group = ALONE) -> None:
        self._progress, self._stop, self.attempt, self._group = progress, stop, attempt, group

    def step(self, figures: dict[str, torch.Tensor]) -> None:
        """Call after every step with its detached losses."""
        self._progress.step(figures)
        if self._group.any(self._stop.requested):  # all of them after the same step
            raise StopNow


class Conduct(Protocol):
    """The settings that every run has, whatever it trains."""

    @property
    def seed(self) -> int: ...

    @property
    def on_non_finite(self) -> OnNonFinite: ...

    @property
    def deterministic(self) -> bool: ...


class Trainer(Protocol):
    """Something trained in epochs, whose state between two epochs is `state_dict`."""

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        """Train one epoch and return its line of history.jsonl, without `epoch`, `seconds`, memory and device.

        A line with the entry `stopped`, the reason in words, is the last one.

        Raises:
            NonFinite: numbers went wrong; its state is then of no use.
        """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(
    trainer: Trainer,
    epochs: int,
    steps_an_epoch: int,
    settings: Conduct,
    device: torch.device,
    directory: RunDirectory | None,
    progress: Progress,
    description: str,
    group: Group = ALONE,
) -> list[Row]:
    """Run the epochs that are not done yet, save after each, and return the history of all.

    Args:
        trainer: what is trained.
        epochs: of the whole run.
        steps_an_epoch: for the progress.
        settings: of its conduct.
        device: where it computes.
        directory: where it is saved; None: nowhere, or the first process of the group does it.
        progress: what follows it.
        description: what it is called there.
        group: the processes; the lines of history are those of the first.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; every whole epoch is saved.
        NonFiniteError: numbers were not finite as often as an epoch is tried; every whole epoch is saved, and the
            trainer is as it was after the last of them.
        ProcessesDiffer: the processes do not hold the same state after an epoch; those before are saved.
    """
    history, where = _restore(trainer, device, directory, group), device_name(device)
    found = group.share(None if directory is None else str(directory.path))
    out = None if found is None else Path(found)
    progress.start(epochs * steps_an_epoch, description, len(history) * steps_an_epoch)
    try:
        with StopSignal() as stop, isolated_rng(device), deterministic(settings.deterministic):
            for epoch in range(len(history), epochs):
                if history and history[-1].get("stopped"):
                    break
                began, before, troubles = time.perf_counter(), copied(trainer.state_dict()), list[str]()
                while len(troubles) < ATTEMPTS[settings.on_non_finite]:
                    attempt = len(troubles)
                    # Drop-path and the like draw from the global generator: a function of (seed, epoch), as all else.
                    again = ("attempt", attempt) if attempt else ()
                    seed_global(device, settings.seed, "epoch", epoch, *again, *group.mark)
                    try:
                        row = trainer.run_epoch(epoch, Watch(progress, stop, attempt, group))
                        break
                    except StopNow:
                        raise Interrupted(out, epoch, epochs) from None
                    except NonFinite as found:
                        troubles.append(found.what)
                        trainer.load_state_dict(copied(before))
                        progress.start(epochs * steps_an_epoch, description, epoch * steps_an_epoch)
                else:
                    raise _gave_up(epoch, troubles, out)
                _warn_of_trouble(epoch, troubles, row)
                if troubles:
                    row["rolled_back"] = troubles
                seconds = round(time.perf_counter() - began, 4)
                spent = {"peak_memory_mb": peak_memory_mb(device), "device": where}
                _check_alike(trainer, group, epoch)
                history.append(group.share({"epoch": epoch, "seconds": seconds, **row, **spent}))
                if directory is not None:
                    directory.append_history(history[-1])
                    # The history travels inside too: after a kill between the two writes it decides what is true.
                    directory.save({"trainer": trainer.state_dict(), "history": json.dumps(history)})
                progress.epoch(history[-1])
    finally:
        progress.close()
    return history


def _check_alike(trainer: Trainer, group: Group, epoch: int) -> None:
    if group.size > 1:
        group.check_alike({_STATES.get(name, name): part for name, part in trainer.state_dict().items()}, epoch)


def copied(state: Any) -> Any:
    """A state that stays as it is while its trainer goes on; several times as fast as `copy.deepcopy`.

    >>> state = {"w": torch.zeros(1), "groups": [{"lr": 0.1}]}
    >>> copied(state)["groups"] == state["groups"], copied(state)["w"] is state["w"]
    (True, False)
    """
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return type(state)(map(copied, state)) if isinstance(state, list | tuple) else state


def _warn_of_trouble(epoch: int, troubles: Sequence[str], row: Row) -> None:
    said = [f"{trouble}; the epoch began again with other draws" for trouble in troubles]
    if "skipped" in row:
        said.append(f"{row['skipped']['steps']} step(s) were left out; the first: {row['skipped']['first']}")
    for one in said:
        warnings.warn(NonFiniteWarning(f"epoch {epoch + 1}: {one}"), stacklevel=3)


def _gave_up(epoch: int, troubles: Sequence[str], out: Path | None) -> NonFiniteError:
    kept = "Nothing was saved, for the run has no out directory"
    if out is not None:
        kept = f"{epoch} whole epoch(s) are saved in {out}: resume continues from there"
    return NonFiniteError(
        f"on_non_finite: stopped in epoch {epoch + 1}: {'; begun again with other draws, '.join(troubles)}. {kept}. A "
        "smaller learning rate, a smaller grad_clip or precision float32 may help; on_non_finite='skip' leaves such "
        "steps out"
    )


def _restore(trainer: Trainer, device: torch.device, directory: RunDirectory | None, group: Group) -> list[Row]:
    saved = group.share(directory.load(device) if directory is not None else None, device)
    if saved is None:
        if directory is not None:
            directory.write_history([])
        return []
    trainer.load_state_dict(saved["trainer"])
    history: list[Row] = json.loads(saved["history"])
    if directory is not None:
        directory.write_history(history)
    return history
