"""A run on disk: config.json, manifest.csv, history.jsonl, checkpoint.pt, genotype.json, metrics.json, model.pt.

The directory is the whole contract with reports, retraining and other people's code; nothing else is shared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext import ops
from lt_nas_ext.data import Dataset
from lt_nas_ext.engine.checkpoint import load_checkpoint, save_checkpoint, write_text
from lt_nas_ext.errors import UserError

FILES = ("config.json", "history.jsonl", "checkpoint.pt", "genotype.json", "metrics.json", "model.pt")

FREE_ON_RESUME = (
    "device", "recompute", "capture", "deterministic", "on_non_finite", "rule", "threshold", "preset", "root", "title",
    "test_every", "run", "processes",
)  # fmt: skip
"""Settings that may differ on resume: where images lie and what they are called, where and how numbers are computed
and by how many processes, what is read from them."""


class RunDirectory:
    """The files of one run.

    Args:
        path: the directory; made where it is not there.
        config: what identifies the run (see `run_config`).
        resume: continue what is there. Where nothing is there, the run begins; a queue can so repeat one command.

    Raises:
        UserError: the directory holds a run and `resume` is off, or it holds a run with other settings.
    """

    def __init__(self, path: str | Path, config: dict[str, Any], resume: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"out: {self.path} is a file; wanted a directory for the run")
        # As it will be read back: tuples become lists, and a function of the user's (a schedule) its name.
        config = json.loads(json.dumps(config, default=_function_name))
        found = [name for name in FILES if (self.path / name).exists()]
        if found:
            _check_continues(self.path, config, resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / "config.json", json.dumps(config, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"out: cannot write to {self.path}: {error.strerror}") from None

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest whole checkpoint, or None."""
        return load_checkpoint(self.path / "checkpoint.pt", device)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with self.writing("checkpoint.pt"):
            save_checkpoint(self.path / "checkpoint.pt", state)

    def append_history(self, row: dict[str, Any]) -> None:
        """One more line of history.jsonl."""
        with self.writing("history.jsonl"), open(self.path / "history.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Replace history.jsonl: on resume by what the checkpoint knows, dropping lines of epochs that are repeated."""
        self.write_text("history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a file such as metrics.json."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file such as genotype.json."""
        with self.writing(name):
            write_text(self.path / name, text)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Around whatever writes a file of the run: a full or read-only disk is a `UserError` that names the file."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"out: cannot write {self.path / name}: {error.strerror or error}. What was saved before is whole: "
                "make room, or the directory writable, and resume"
            ) from None


def check_out(out: str | Path | None, resume: bool) -> None:
    """Raise `UserError` where `out` is no path, or there is none to resume from."""
    if out is None and resume:
        raise UserError("resume: got True without out; wanted out=DIR, the directory of the run to continue")
    if not isinstance(out, str | Path | None):
        raise UserError(f"out: got {type(out).__name__}; wanted the path of a directory, or None")


def check_spares_runs(path: Path, argument: str) -> None:
    """Raise `UserError` where a file to be written is one of those that a run consists of."""
    if path.name in (*FILES, "manifest.csv") and any((path.parent / name).exists() for name in FILES):
        raise UserError(f"{argument}: {path} belongs to the run in {path.parent}; wanted another file to write")


def run_config(kind: str, settings: Any, data: Dataset, **more: Any) -> dict[str, Any]:
    """Everything that config.json holds: the kind of run, settings, data, versions."""
    return {
        "kind": kind,
        "settings": dataclasses.asdict(settings),
        "data": {
            "name": data.name,
            "title": data.title,
            "imbalance": data.imbalance,
            "factor": data.factor,
            "seed": data.seed,
            "class_order": list(data.class_order),
            "root": data.root,
            "num_classes": data.num_classes,
            "image_shape": list(data.image_shape),
            "class_names": list(data.class_names),
            "counts": [int(count) for count in data.counts],
            "test_images": len(data.test),
        },
        **more,
        "versions": versions(),
    }


def versions() -> dict[str, Any]:
    """The versions that a result depends on."""
    try:
        own = importlib.metadata.version("lt_nas_ext")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    return {
        "lt_nas_ext": own,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "kernels": ops.status().active,
    }


def read_config(path: str | Path) -> dict[str, Any]:
    """The config.json of a run.

    Raises:
        UserError: the directory holds no run, or its config.json is damaged.
    """
    file = Path(path) / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"run: {path} holds no run (no config.json); wanted the out of a search or retraining"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise UserError(f"{file}: wanted an object with 'settings'; this is not the config.json of a run")
    return content


def _function_name(value: Any) -> str:
    return f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _check_continues(path: Path, config: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise UserError(
            f"out: {path} already holds a run; continue it with resume=True (--resume), or name another directory"
        )
    differing = _differences(read_config(path), config)
    if differing:
        raise UserError(
            f"out: {path} holds a run with other settings: {'; '.join(differing)}. "
            "Resume with the settings it was begun with, or name another directory"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`name (was X, now Y)` for all that identifies a run: everything but versions and FREE_ON_RESUME."""
    if before.get("kind") != now.get("kind"):  # nothing else compares
        return [f"kind (was {before.get('kind')!r}, now {now.get('kind')!r})"]
    lines = []
    for section in [key for key in now if key != "versions"]:
        old, new = before.get(section), now[section]
        if not isinstance(old, dict) or not isinstance(new, dict):
            old, new = {section: old}, {section: new}
        for name in sorted({*old, *new} - set(FREE_ON_RESUME)):
            if old.get(name) != new.get(name):
                lines.append(f"{name} (was {old.get(name)!r}, now {new.get(name)!r})")
    return lines
