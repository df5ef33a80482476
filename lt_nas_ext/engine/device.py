"""Where a run computes."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.settings import Precision


def choose_device(name: str) -> torch.device:
    """The device of a setting: "auto" is CUDA where there is one, otherwise the CPU.

    Raises:
        UserError: the name is no device, or the device is not there.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    wanted = "wanted 'auto', 'cpu', 'cuda' or 'cuda:<number>'"
    if not isinstance(name, str):
        raise UserError(f"device: got {name!r}; {wanted}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: got {name!r}; {wanted}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: got {name!r}; {wanted}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device: got {name!r}, but PyTorch {torch.__version__} sees no CUDA device; wanted 'cpu'")
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device.index >= torch.cuda.device_count():
            raise UserError(f"device: got {name!r}; this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def device_name(device: torch.device) -> str:
    """What people call it: "NVIDIA H200", or the model of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def place(module: ModuleT, device: torch.device | str) -> ModuleT:
    """Move a module to `device`, weights in channels_last: its convolutions are two to three times faster on CPUs."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Within this context a network computes in the precision; its weights stay float32.

    bf16 leaves batch norms' statistics and what PyTorch holds to need it in float32, and needs no scaled loss. tf32
    lets CUDA round the factors of float32 products to 10 bits; a CPU does not know it. float32 changes nothing.

    >>> with autocast(torch.device("cpu"), "bf16"):
    ...     nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
    torch.bfloat16
    """
    if precision == "bf16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif precision == "tf32" and device.type == "cuda":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
    else:
        yield


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within this context PyTorch takes only algorithms that give the same bits every time, or refuses.

    It makes a difference on CUDA, where convolutions and sums over scattered elements otherwise may not, and costs
    speed. Ours are deterministic everywhere, and on a CPU so are PyTorch's.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used in a process.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    tried = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = tried


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory (MiB) in use so far: of the device's allocator on CUDA, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
