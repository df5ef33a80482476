"""The published systems, one file each, on the contract of `base.Method`. The engine trains any of them."""

from __future__ import annotations

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.base import (
    Batch,
    Epoch,
    Labelled,
    LabelledViews,
    Loss,
    Method,
    Paired,
    ParameterGroup,
    Problem,
    Stream,
    TwoViews,
    UnreachableGateWarning,
)
from lt_nas_ext.methods.bbn import Bbn, hls_factor
from lt_nas_ext.methods.darts import Darts
from lt_nas_ext.methods.fair_darts import FairDarts, zero_one_loss
from lt_nas_ext.methods.imb_nas import AdaptSettings, different_genotypes
from lt_nas_ext.methods.presets import PRESETS, preset
from lt_nas_ext.methods.random_search import RandomSearch
from lt_nas_ext.methods.rebalanced import DartsResampling, DartsReweighting
from lt_nas_ext.methods.settings import SearchSettings, nearest
from lt_nas_ext.methods.ssf_nas import SsfNas
from lt_nas_ext.methods.ssnas import Ssnas

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (Darts, FairDarts, SsfNas, Ssnas, Bbn, DartsResampling, DartsReweighting, RandomSearch)
}
"""Name -> method. A new method is one file and one row here."""


def method_class(name: str) -> type[Method]:
    """The method of this name.

    Raises:
        UserError: no such method; the message names the nearest one.

    >>> method_class("ssf-nas").paper_preset
    'paper-ssf'
    """
    if not isinstance(name, str) or name not in METHODS:
        raise UserError(f"method: got {name!r}; {nearest(str(name), list(METHODS))}")
    return METHODS[name]


__all__ = [
    "METHODS",
    "PRESETS",
    "AdaptSettings",
    "Batch",
    "Epoch",
    "Labelled",
    "LabelledViews",
    "Loss",
    "Method",
    "Paired",
    "ParameterGroup",
    "Problem",
    "SearchSettings",
    "Stream",
    "TwoViews",
    "UnreachableGateWarning",
    "different_genotypes",
    "hls_factor",
    "method_class",
    "preset",
    "zero_one_loss",
]
