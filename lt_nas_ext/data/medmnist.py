"""MedMNIST through its own package, which is imported here and nowhere else."""

from __future__ import annotations

import importlib
import os
import zipfile
from typing import Any

import numpy as np
import torch

from lt_nas_ext.data.downloads import LOG, download_folder
from lt_nas_ext.data.sources import Part, Source, in_memory
from lt_nas_ext.errors import UserError

MEDMNIST = (
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist", "tissuemnist",
    "organamnist", "organcmnist", "organsmnist",
)  # fmt: skip
"""Its sets of 28×28 images with one label each: without chestmnist (several labels an image) and the volumes."""


def medmnist(name: str, root: str | os.PathLike[str] | None = None) -> Source:
    """A set of MedMNIST [Yang et al. 2023], grey or RGB, 28×28, most of them long-tailed as they are.

    Training and test images are the set's own; its validation images are not used: searches split their own.

    Args:
        name: one of `MEDMNIST`.
        root: the folder that holds NAME.npz, or shall; `$XDG_CACHE_HOME/lt_nas_ext` (`~/.cache/lt_nas_ext`) by default.

    Raises:
        UserError: the package is missing, `root` is no directory, or the file is not there, or not whole, and cannot be
            downloaded.
    """
    file = download_folder(root, f"{name}.npz") / f"{name}.npz"
    package = _package()
    about = package.INFO[name]
    kind = getattr(package, about["python_class"])
    there = file.exists()
    if not there:
        LOG.info("downloading %s into %s", name, file.parent)
    try:
        # download=True also checks a file that is there
        train, test = (kind(split=part, download=True, root=str(file.parent)) for part in ("train", "test"))
    except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        state = f"{file} is not whole" if there else f"{name} is not in {file.parent}"
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"data: {state} and could not be downloaded ({reason}); on a machine without network copy {file.name} from "
            "another one and give its directory as root"
        ) from error
    names = tuple(about["label"][str(label)] for label in range(len(about["label"])))
    return Source(name, names, _part(train, "train"), _part(test, "test"))


def _part(dataset: Any, part: str) -> Part:
    pixels = np.asarray(dataset.imgs)
    planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    files = tuple(f"{part}/{i:06d}" for i in range(len(pixels)))
    return in_memory(torch.from_numpy(np.ascontiguousarray(planes)), np.asarray(dataset.labels).reshape(-1), files)


def _package() -> Any:
    try:
        package = importlib.import_module("medmnist")
    except ImportError as error:
        raise UserError(
            "data: the sets of MedMNIST are read by the package medmnist, which is not installed; "
            "pip install 'lt_nas_ext[medmnist]', or use digits or a folder of images"
        ) from error
    if not hasattr(package, "PathMNIST"):  # it only prints so where a package that it needs is missing
        raise UserError("data: medmnist lacks packages that it needs; pip install 'lt_nas_ext[medmnist]' gets them")
    return package
