"""CIFAR-10 and CIFAR-100 through torchvision, which is imported here and nowhere else."""

from __future__ import annotations

import importlib
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lt_nas_ext.data.sources import Part, Source, in_memory
from lt_nas_ext.errors import UserError


def cifar(name: str, root: str | os.PathLike[str] | None = None) -> Source:
    """CIFAR-10 or CIFAR-100 [Krizhevsky 2009]; downloaded once into `root` where it is not there.

    Args:
        name: "cifar10" or "cifar100".
        root: the folder that holds, or shall hold, `cifar-10-batches-py` or `cifar-100-python`;
            `$XDG_CACHE_HOME/lt_nas_ext` (`~/.cache/lt_nas_ext`) by default.

    Raises:
        UserError: torchvision is missing or does not fit the running PyTorch, or the files can be neither found nor
            downloaded.
    """
    folder = Path(root) if root is not None else _cache()
    kind = getattr(_torchvision_datasets(), {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        train, test = (kind(str(folder), train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken download is a RuntimeError
        raise UserError(
            f"data: {name} is not in {folder} and could not be downloaded ({error}); "
            f"on a machine without network copy {kind.base_folder}/ from another one and give its parent as root"
        ) from error
    return Source(name, tuple(train.classes), _part(train, "train"), _part(test, "test"))


def _part(dataset: Any, part: str) -> Part:
    pixels = np.ascontiguousarray(np.asarray(dataset.data).transpose(0, 3, 1, 2))
    files = tuple(f"{part}/{i:05d}" for i in range(len(pixels)))
    return in_memory(torch.from_numpy(pixels), np.asarray(dataset.targets), files)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lt_nas_ext"


def _torchvision_datasets() -> Any:
    try:
        return importlib.import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "torchvision":
            raise
        raise UserError(
            "data: cifar10 and cifar100 are read by torchvision, which is not installed; "
            "pip install 'lt_nas_ext[vision]', or use digits or a folder of images"
        ) from error
    except (RuntimeError, ImportError, OSError, AttributeError) as error:
        # "operator torchvision::nms does not exist", an undefined symbol, a circular import: all mean another build
        raise UserError(
            f"data: torchvision {_version('torchvision')} does not fit the running PyTorch {torch.__version__}"
            f"{_wanted_torch()} ({str(error).splitlines()[0]}); install the torchvision that belongs to this PyTorch, "
            "or use digits or a folder of images"
        ) from error


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(unknown version)"


def _wanted_torch() -> str:
    """torchvision's own requirement, where its metadata state one: ' (it was built for torch 2.11.0)'."""
    try:
        required = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return ""
    found = next(filter(None, (re.match(r"torch\s*\(?==\s*([\w.+]+)", r) for r in required)), None)
    return f" (it was built for torch {found[1]})" if found else ""
