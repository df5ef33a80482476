"""Modules over `ops`: the primitives of the DARTS search space, MixedOp, BarlowTwinsLoss."""

from __future__ import annotations

from lt_nas_ext.nn.barlow_twins import BarlowTwinsLoss, projector
from lt_nas_ext.nn.diagonal_pixels import diagonal_pixels
from lt_nas_ext.nn.mixed_op import MixedOp
from lt_nas_ext.nn.primitives import (
    DARTS,
    FAIR_DARTS,
    DilConv,
    FactorizedReduce,
    ReLUConvBN,
    SepConv,
    make_primitive,
)

__all__ = [
    "DARTS",
    "FAIR_DARTS",
    "BarlowTwinsLoss",
    "DilConv",
    "FactorizedReduce",
    "MixedOp",
    "ReLUConvBN",
    "SepConv",
    "diagonal_pixels",
    "make_primitive",
    "projector",
]
