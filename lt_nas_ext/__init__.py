"""Neural architecture search on long-tailed images, on fused C++/CUDA operators for PyTorch.

>>> import lt_nas_ext as lt
>>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
>>> tuple(digits.counts)
(130, 100, 77, 60, 46, 36, 28, 21, 16, 13)
"""

from __future__ import annotations

from lt_nas_ext import data, engine, longtail, methods, nn, ops, space
from lt_nas_ext.api import evaluate, retrain, search
from lt_nas_ext.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "UserError",
    "data",
    "engine",
    "evaluate",
    "longtail",
    "methods",
    "nn",
    "ops",
    "retrain",
    "search",
    "space",
]
