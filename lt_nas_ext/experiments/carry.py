"""The state of a study in a few small files, for machines that are lent for minutes and keep nothing.

Of a run that is done goes what tables and pages read, of one at work its newest checkpoint too: no older one, no
trained weights, no manifest. Networks of searches whose supernets others adapt go along, and where there is room the
checkpoints of searches that others are to begin from: without them those do more epochs, to the same numbers. Only
where the rest is more than can be carried, the large tensors of the checkpoints are rounded to half of their bytes: the
study then continues, not to the bit, and says so.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from lt_nas_ext.engine.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from lt_nas_ext.errors import UserError

FILE_BYTES = 16_000_000
ALL_BYTES = 48_000_000

STUDY = "study.json"
HALVED = "halved.json"
"""Runs that were once continued from rounded checkpoints."""

SOURCE = "source"
"""Directory of a search whose supernet other runs start from: its networks go along when it is done, too."""

_KEPT = ("config.json", "history.jsonl", "genotype.json", "metrics.json", "ranking.csv")
_WHOLE, _HALF = "checkpoint.pt", "checkpoint.half.pt"
_PART = re.compile(r"state-([0-9a-f]{16})\.([0-9]+)of([0-9]+)")
_LARGE = 1024  # numbers; smaller tensors (α, moments of batch norm) stay as they are


def pack(
    out: Path,
    directory: Path,
    all_bytes: int = ALL_BYTES,
    file_bytes: int = FILE_BYTES,
    needed: Collection[Path] = (),
) -> list[str]:
    """Write the state of the study in `out` into `directory`, in place of what was there.

    Args:
        out: directory of a study.
        directory: where the files go; made where it is not there.
        all_bytes: the most that they may be together.
        file_bytes: and each.
        needed: runs that are done, and that others are to begin from.

    Returns:
        Names of the runs whose checkpoints were rounded, to fit.

    Raises:
        UserError: it does not fit even so, or cannot be written.
    """
    halved: list[str] = []
    content = _archive(out, None, needed)
    if needed and len(content) > all_bytes:
        content = _archive(out, None)
    if len(content) > all_bytes:
        content = _archive(out, halved)
    if len(content) > all_bytes:
        raise UserError(
            f"carry: the state of {out} takes {len(content) / 1e6:.0f} MB and may take {all_bytes / 1e6:.0f}; "
            "with fewer --jobs fewer runs are half done"
        )
    parts = [content[i : i + file_bytes] for i in range(0, len(content), file_bytes)]
    digest = hashlib.sha256(content).hexdigest()[:16]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        before = [path for path in directory.iterdir() if _PART.fullmatch(path.name)]
        written = [directory / f"state-{digest}.{i}of{len(parts)}" for i in range(len(parts))]
        for path, part in zip(written, parts, strict=True):
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_bytes(part)
            os.replace(temporary, path)
        for path in set(before) - set(written):  # last: at any moment one state is whole
            path.unlink()
    except OSError as error:
        raise UserError(f"carry: cannot write to {directory}: {error.strerror}") from None
    return halved


def unpack(directory: Path, out: Path) -> None:
    """Put the state in `directory` where the study will find it; where `out` holds a study, that one goes on.

    Raises:
        UserError: the files are damaged, or some are missing.
    """
    if (out / STUDY).exists() or not directory.is_dir():
        return
    found: dict[str, dict[int, Path]] = {}
    wanted: dict[str, int] = {}
    for path in directory.iterdir():
        if name := _PART.fullmatch(path.name):
            found.setdefault(name[1], {})[int(name[2])] = path
            wanted[name[1]] = int(name[3])
    if not found:
        return
    for digest, parts in sorted(found.items(), key=lambda one: -max(path.stat().st_mtime for path in one[1].values())):
        content = b"".join(parts[i].read_bytes() for i in sorted(parts))
        if len(parts) == wanted[digest] and hashlib.sha256(content).hexdigest()[:16] == digest:
            _extract(content, out)
            return
    raise UserError(f"carry: no state in {directory} is whole; wanted all of its files, unchanged")


def _archive(out: Path, halved: list[str] | None, needed: Collection[Path] = ()) -> bytes:
    """The state as one compressed tar; a list takes the runs whose checkpoints are rounded, None rounds none."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as tar:
        for path in sorted(out.rglob("config.json")):
            run, name = path.parent, path.parent.relative_to(out).as_posix()
            for kept in _KEPT:
                if (run / kept).exists():
                    _add(tar, f"{name}/{kept}", (run / kept).read_bytes())
            if not (run / _WHOLE).exists():
                continue
            finished = (run / "metrics.json").exists()
            if finished and run.name == SOURCE:
                _add(tar, f"{name}/{_WHOLE}", bytes(checkpoint_file(_networks(load_checkpoint(run / _WHOLE)))))
                continue
            if finished and run not in needed:
                continue
            if halved is None:
                _add(tar, f"{name}/{_WHOLE}", (run / _WHOLE).read_bytes())
            else:
                halved.append(name)
                _add(tar, f"{name}/{_HALF}", _saved(_rounded(load_checkpoint(run / _WHOLE))))
        rounded = sorted({*_halved_before(out), *(halved or ())})
        if rounded:
            _add(tar, HALVED, json.dumps(rounded).encode())
        _add(tar, STUDY, (out / STUDY).read_bytes())
    return buffer.getvalue()


def _halved_before(out: Path) -> list[str]:
    path = out / HALVED
    return list(json.loads(path.read_text())) if path.exists() else []


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _extract(content: bytes, out: Path) -> None:
    """study.json last: before it there is no study in `out`, and a killed unpacking begins again."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for name, data in _members(tar):
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name == _HALF:
                state = torch.load(io.BytesIO(data), weights_only=True)
                save_checkpoint(path.with_name(_WHOLE), _restored(state))
            else:
                path.write_bytes(data)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not member.isfile():
            raise UserError(f"carry: the state holds {member.name!r}, which is no file of a study")
        file = tar.extractfile(member)
        assert file is not None
        yield member.name, file.read()


def _networks(state: Any) -> Any:
    """Of the checkpoint of a search what an adaptation reads."""
    return {"trainer": {"networks": state["trainer"]["networks"]}, "history": state["history"]}


def _saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _rounded(state: Any) -> Any:
    """Large float32 tensors as float16 of a common scale: eleven bits of the largest number, whatever its size."""
    if isinstance(state, dict):
        return {key: _rounded(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_rounded(value) for value in state)
    if isinstance(state, torch.Tensor) and state.dtype == torch.float32 and state.numel() >= _LARGE:
        scale = float(state.abs().max()) or 1.0
        return {"half": (state / scale).half(), "scale": scale}
    return state


def _restored(state: Any) -> Any:
    if isinstance(state, dict):
        if state.keys() == {"half", "scale"}:
            return state["half"].float() * state["scale"]
        return {key: _restored(value) for key, value in state.items()}
    return type(state)(_restored(value) for value in state) if isinstance(state, list | tuple) else state
