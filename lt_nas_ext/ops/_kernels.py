"""The compiled kernels: are they here, do they fit the running PyTorch, and may they serve this call?"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

PURE_PYTHON = "built as pure Python on request (LT_NAS_EXT_KERNELS=0)"

_EAGER: contextvars.ContextVar[bool] = contextvars.ContextVar("lt_nas_ext_eager", default=False)


@dataclass(frozen=True)
class KernelStatus:
    """What `lt-nas doctor` prints about the kernels.

    Attributes:
        active: the compiled operators serve; otherwise their eager twins do.
        reason: one sentence that says why (not).
        build: `_C.build_info()` of an active build, otherwise what is known of the inactive one.
    """

    active: bool
    reason: str
    build: dict[str, Any] = field(default_factory=dict)


def _public(version: str) -> str:
    return version.split("+")[0]


def _load() -> KernelStatus:
    """Import `lt_nas_ext._C` only where it was built for the running PyTorch: its C++ interface is not stable."""
    try:
        built = importlib.import_module("lt_nas_ext._build_info")
    except ModuleNotFoundError:
        return KernelStatus(False, "lt_nas_ext was never built here (a source tree on sys.path?); run `pip install .`")
    build = {"torch": built.TORCH_VERSION, "cuda": built.CUDA_VERSION, "cuda_reason": built.CUDA_REASON}
    if not built.KERNELS:
        return KernelStatus(False, PURE_PYTHON, build)
    if _public(built.TORCH_VERSION) != _public(torch.__version__):
        return KernelStatus(
            False,
            f"the kernels were built for PyTorch {built.TORCH_VERSION}, and PyTorch {torch.__version__} is running; "
            "reinstall lt_nas_ext in this environment (pip install --no-cache-dir --force-reinstall --no-deps .)",
            build,
        )
    try:
        extension = importlib.import_module("lt_nas_ext._C")
    except ImportError as error:
        return KernelStatus(
            False, f"the compiled kernels do not load beside PyTorch {torch.__version__}: {error}", build
        )
    return KernelStatus(True, "kernels are active", {**build, **extension.build_info()})


def _announced(status: KernelStatus) -> KernelStatus:
    """The status, once it was said that the kernels do not serve; nothing is said of a build that wanted none."""
    if not status.active:
        if os.environ.get("LT_NAS_EXT_REQUIRE_KERNELS") == "1":
            raise ImportError(f"LT_NAS_EXT_REQUIRE_KERNELS=1, but {status.reason}")
        if status.reason != PURE_PYTHON:
            message = f"lt_nas_ext runs on its eager twins (same results, slower): {status.reason}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
    return status


_STATUS = _announced(_load())


def status() -> KernelStatus:
    """Say whether the compiled kernels serve, and why not where they do not.

    >>> from lt_nas_ext import ops
    >>> isinstance(ops.status().reason, str)
    True
    """
    return _STATUS


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Within this context every operator is its eager twin in plain PyTorch, for tests and comparisons.

    The choice is the calling thread's (and task's) own; other threads keep theirs.

    >>> import torch, lt_nas_ext as lt
    >>> x, alpha = [torch.ones(2), torch.ones(2)], torch.zeros(2)
    >>> with lt.ops.eager():
    ...     lt.ops.mixed_sum(x, alpha)
    tensor([1., 1.])
    """
    token = _EAGER.set(True)
    try:
        yield
    finally:
        _EAGER.reset(token)


@torch.compiler.assume_constant_result  # torch.compile cannot trace a ContextVar: what holds at trace time stays
def _eager_wanted() -> bool:
    return _EAGER.get()


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
KINDS = "dense; float16, bfloat16, float32 or float64"


def computable(x: object) -> bool:
    """Whether the operators, compiled or eager, take x: a dense tensor of one of `FLOATS`."""
    return isinstance(x, torch.Tensor) and x.dtype in FLOATS and x.layout == torch.strided


def came(x: object) -> str:
    """What x is, for the error that it causes.

    >>> came(torch.zeros(1, dtype=torch.int64)), came(torch.eye(2).to_sparse()), came([1.0])
    ('torch.int64', 'torch.float32 in torch.sparse_coo', 'list')
    """
    if not isinstance(x, torch.Tensor):
        return type(x).__name__
    return f"{x.dtype}" if x.layout == torch.strided else f"{x.dtype} in {x.layout}"


def use_kernels(tensor: torch.Tensor) -> bool:
    """Whether the compiled operator serves this tensor's device in this context."""
    if not _STATUS.active or _eager_wanted():
        return False
    if tensor.device.type == "cuda":
        return _cuda_kernels()
    return tensor.device.type in ("cpu", "meta")


IMAGE_TYPES = {
    "cpu": (torch.float32, torch.float64),
    "cuda": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
}
"""Device -> types of the kernels that take images: sep_unit, bn_mixed_sum, depthwise_conv."""


def cover_images(x: torch.Tensor) -> bool:
    """Whether those kernels serve images (N, C, H, W) of this device, type and number of channels, here and now."""
    return (
        x.dtype in IMAGE_TYPES.get(x.device.type, ())
        and x.shape[1] % 4 == 0
        and x.numel() > 0
        and not (x.device.type == "cpu" and torch.is_autocast_enabled("cpu"))
        and use_kernels(x)
    )


def lowered(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors in the type in which autocast takes convolutions here and now; outside its regions themselves."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    wanted = torch.get_autocast_dtype(kind)
    return tuple(one if one.dtype == torch.float64 else one.to(wanted) for one in tensors)


@torch.compiler.assume_constant_result  # torch.compile traces again where the precision has changed
def tf32_allowed() -> bool:
    """Whether float32 products on CUDA may round their factors to 10 bits, here and now."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


@torch.compiler.assume_constant_result  # torch.compile then warns while it traces, and traces no warning
def _cuda_kernels() -> bool:
    """Whether the build has CUDA kernels; where it has none, that is told once."""
    if not _STATUS.build.get("cuda_kernels"):
        _warn_of_cuda()
    return bool(_STATUS.build.get("cuda_kernels"))


@functools.cache
def _warn_of_cuda() -> None:
    message = f"CUDA tensors run on the eager twins (same results, slower): {_STATUS.build.get('cuda_reason')}"
    warnings.warn(message, RuntimeWarning, stacklevel=5)  # at the caller of the operator
