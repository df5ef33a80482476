"""CIFAR-10 and CIFAR-100 through torchvision, which is imported here and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lt_nas_ext.data.downloads import LOG, download_folder
from lt_nas_ext.data.sources import Part, Source, in_memory
from lt_nas_ext.errors import UserError


def cifar(name: str, root: str | os.PathLike[str] | None = None) -> Source:
    """CIFAR-10 or CIFAR-100 [Krizhevsky 2009], read and checked by torchvision; downloaded once where it is not there.

    Args:
        name: "cifar10" or "cifar100".
        root: the folder that holds `cifar-10-batches-py` or `cifar-100-python`, or an empty one to download it into;
            `$XDG_CACHE_HOME/lt_nas_ext` (`~/.cache/lt_nas_ext`) by default.

    Raises:
        UserError: torchvision is missing or does not fit the running PyTorch; `root` is no directory or holds another
            set; or the files are not there, or not whole, and cannot be downloaded.
    """
    class_name, holds = _SETS[name]
    folder = download_folder(root, holds)
    kind = getattr(_torchvision_datasets(), class_name)
    try:
        train, test = (kind(str(folder), train=part) for part in (True, False))
    except (OSError, RuntimeError):  # not there or not whole
        if root is not None:
            _check_no_other_set(kind, folder)
        train, test = _downloaded(name, kind, folder)
    return Source(name, tuple(train.classes), _part(train, "train"), _part(test, "test"))


_SETS = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}
"""torchvision's class of a set, and the folder that it reads."""


def _downloaded(name: str, kind: Any, folder: Path) -> list[Any]:
    """Training and test set, once torchvision has fetched and checked them."""
    faults = _faults(kind, folder / kind.base_folder)
    LOG.info("downloading %s into %s", name, folder)
    try:
        return [kind(str(folder), train=part, download=True) for part in (True, False)]
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken download is a RuntimeError
        if faults:
            raise UserError(
                f"data: {folder / kind.base_folder} is not whole ({', '.join(faults)}) and {name} could not be "
                f"downloaded again ({error}); remove it and try again, or copy the whole folder from another machine"
            ) from error
        raise UserError(
            f"data: {name} is not in {folder} and could not be downloaded ({error}); on a machine without network copy "
            f"{kind.base_folder}/ from another one and give its parent as root"
        ) from error


def _faults(kind: Any, base: Path) -> list[str]:
    """What of a set that lies in `base` is missing or damaged, in words; nothing where no set lies there."""
    if not base.is_dir():
        return []
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return [f"{file} is {fault}" for file, md5 in listed if (fault := _fault(base / file, md5))]


def _fault(file: Path, md5: str) -> str:
    try:
        found = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return "missing"
    return "" if found == md5 else "damaged"


def _check_no_other_set(kind: Any, folder: Path) -> None:
    """Raise `UserError` where the user's `root` holds something else: 170 MB beside it are not what was meant."""
    if (folder / kind.meta["filename"]).is_file():
        raise UserError(
            f"root: {folder} is the set's own folder; wanted the directory that holds {kind.base_folder}: "
            f"{folder.absolute().parent}"
        )
    try:
        found = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"root: cannot list {folder}: {error.strerror}") from error
    if found and not {kind.base_folder, kind.filename} & set(found):
        shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise UserError(
            f"root: {folder} holds {shown} and no {kind.base_folder}; wanted the directory that holds it, or an empty "
            "one to download it into (any images in one folder a class are data='folder')"
        )


def _part(dataset: Any, part: str) -> Part:
    pixels = np.ascontiguousarray(np.asarray(dataset.data).transpose(0, 3, 1, 2))
    files = tuple(f"{part}/{i:05d}" for i in range(len(pixels)))
    return in_memory(torch.from_numpy(pixels), np.asarray(dataset.targets), files)


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
