"""A run's curves in TensorBoard, while it lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext.engine.progress import Figures
from lt_nas_ext.errors import UserError

NOT_CURVES = ("epoch", "alpha", "gates", "genotype")


class TensorBoard:
    """Writes every number of history.jsonl, and histograms of the gates, an epoch at a time.

    A `Progress`: give it to `search` or `retrain`, alone or with others (`Several`). A logger of your own is another
    class with these four methods.

    Args:
        directory: of the event files; what a run resumed in it repeats is written over.

    Raises:
        UserError: the package tensorboard is not installed.
    """

    def __init__(self, directory: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: needs the package tensorboard, which is not installed: pip install tensorboard"
            ) from None
        self._open = SummaryWriter
        self._directory, self._description = Path(directory), ""
        self._writer: Any = None

    def start(self, total_steps: int, description: str, done: int = 0) -> None:
        self._description = description

    def step(self, figures: Figures) -> None:
        pass

    def epoch(self, row: Mapping[str, Any]) -> None:
        epoch = row["epoch"]
        if self._writer is None:
            self._writer = self._open(str(self._directory), purge_step=epoch)
        for name, value in curves({key: value for key, value in row.items() if key not in NOT_CURVES}):
            self._writer.add_scalar(f"{self._description}/{name}", value, epoch)
        for name, gates in row.get("gates", {}).items():
            self._writer.add_histogram(f"{self._description}/gates/{name}", torch.tensor(gates), epoch)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def curves(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a mapping, however deep, with its path.

    >>> list(curves({"w_lr": 0.1, "losses": {"weights/task": 2.0}, "device": "cpu", "val_accuracy": None}))
    [('w_lr', 0.1), ('losses/weights/task', 2.0)]
    """
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from curves(value, f"{above}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{above}{name}", float(value)
