"""Whole states on disk: replaced atomically, the previous good one kept, loaded without executing code."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext.errors import UserError


class DamagedCheckpointWarning(UserWarning):
    """The newest checkpoint cannot be read; the one before it is used."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is kept: checkpoint.previous.pt beside checkpoint.pt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint by `state` (tensors, numbers, text and containers of them).

    At any moment, even in a power cut, a whole checkpoint is on disk: the new one is written beside the old, synced,
    and renamed over it after the old one took the place of the previous.
    """
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        os.replace(path, previous(path))
    os.replace(temporary, path)
    sync_directory(path.parent)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest whole checkpoint, or None where there is none.

    Warns (`DamagedCheckpointWarning`) where the newest is damaged and the previous one serves.

    Raises:
        UserError: there are checkpoints, and none can be read.
    """
    failures = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(candidate, map_location=device, weights_only=True)
        except Exception as error:  # a damaged file fails in many ways: zip, pickle, size, type
            failures.append(f"{candidate}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        if failures:
            message = f"damaged checkpoint, using the one before it: {failures[0]}"
            warnings.warn(message, DamagedCheckpointWarning, stacklevel=2)
        return state
    if failures:
        raise UserError(f"no checkpoint can be read ({'; '.join(failures)}); start again in another directory")
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: whole and synced, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
