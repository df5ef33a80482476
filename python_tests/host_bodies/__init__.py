"""Builds the drivers that run bodies of CUDA kernels on the host, and hands them tensors."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16", torch.float16: "half"}
UNDEFINED = ["-fsanitize=undefined", "-fno-sanitize-recover"]


def build(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The driver as a library; the test is skipped where nothing can compile it."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not (driver.parents[2] / "csrc").is_dir():
        pytest.skip("needs a C++ compiler and the source tree")
    library = tmp_path_factory.mktemp("bodies") / f"{driver.stem}.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-std=c++17", *UNDEFINED, str(driver), "-o", str(library)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def pointers(tensors: Sequence[torch.Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])
