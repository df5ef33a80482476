"""Whole states on disk: replaced atomically, the previous good one kept, loaded without executing code."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext.errors import UserError

CHECKSUM = "checksum"


class DamagedCheckpointWarning(UserWarning):
    """The newest checkpoint cannot be read; the one before it is used."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is kept: checkpoint.previous.pt beside checkpoint.pt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint by `state` (tensors, numbers, text and containers of them).

    At any moment, even in a power cut, a whole checkpoint is on disk: the new one is written beside the old, synced,
    and renamed over it after the old one took the place of the previous. Where there is no room for it, the old ones
    stay.

    Raises:
        OSError: it cannot be written.
    """
    temporary = _written(path, checkpoint_file(state))
    if path.exists():
        os.replace(path, previous(path))
    os.replace(temporary, path)
    sync_directory(path.parent)


def checkpoint_file(state: dict[str, Any]) -> memoryview:
    """What the file of a checkpoint holds: the state with its checksum."""
    return _saved({**state, CHECKSUM: checksum(state)})


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
            if state.pop(CHECKSUM, None) != checksum(state):
                raise ValueError("its checksum does not match its content")
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


def checksum(state: Mapping[str, Any]) -> str:
    """A digest of all that a checkpoint holds. PyTorch does not check its files: one bit may turn unnoticed.

    >>> checksum({"w": torch.zeros(2)}) == checksum({"w": torch.zeros(2)}) != checksum({"w": torch.zeros(3)})
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(state):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, content in value.items():
            yield f"{key!r};".encode()
            yield from _parts(content)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)};".encode()
        for content in value:
            yield from _parts(content)
    else:
        yield f"{value!r};".encode()


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, text and containers of them atomically: whole and synced, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    os.replace(_written(path, _saved(state)), path)
    sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: whole and synced, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    os.replace(_written(path, text.encode()), path)
    sync_directory(path.parent)


def _saved(state: dict[str, Any]) -> memoryview:
    content = io.BytesIO()  # torch.save itself says nothing of use when a disk is full
    torch.save(state, content)
    return content.getbuffer()


def _written(path: Path, content: bytes | memoryview) -> Path:
    """`content`, synced, in a file beside `path`. Half a file is removed: least of all a full disk needs it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
