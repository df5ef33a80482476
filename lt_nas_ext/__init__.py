"""Neural architecture search on long-tailed images, on fused C++/CUDA operators for PyTorch.

>>> import lt_nas_ext as lt
>>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
>>> tuple(digits.counts)
(130, 100, 77, 60, 46, 36, 28, 21, 16, 13)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lt_nas_ext.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "UserError",
    "adapt",
    "data",
    "engine",
    "evaluate",
    "export",
    "longtail",
    "methods",
    "nn",
    "ops",
    "predict",
    "retrain",
    "search",
    "space",
]

if TYPE_CHECKING:
    from lt_nas_ext import data, engine, longtail, methods, nn, ops, space
    from lt_nas_ext.api import adapt, evaluate, export, predict, retrain, search
else:

    def __getattr__(name: str) -> Any:
        """A public name, imported on its first use: PyTorch takes seconds, and `lt-nas --help` needs none of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("adapt", "evaluate", "export", "predict", "retrain", "search"):
            return getattr(importlib.import_module("lt_nas_ext.api"), name)
        return importlib.import_module(f"lt_nas_ext.{name}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
