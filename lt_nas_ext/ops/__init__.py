"""Fused operators. Each is one name: its folder in csrc, its file here, its test, its benchmark."""

from __future__ import annotations

from lt_nas_ext.ops._kernels import KernelStatus, eager, status
from lt_nas_ext.ops.barlow_twins_loss import barlow_twins_loss, barlow_twins_loss_eager
from lt_nas_ext.ops.bn_mixed_sum import bn_mixed_sum, bn_mixed_sum_eager, channel_moments
from lt_nas_ext.ops.depthwise_conv import depthwise_conv, depthwise_conv_eager
from lt_nas_ext.ops.gates import GATES, gate_weights
from lt_nas_ext.ops.mixed_sum import mixed_sum, mixed_sum_eager
from lt_nas_ext.ops.sep_unit import sep_unit, sep_unit_eager

__all__ = [
    "GATES",
    "KernelStatus",
    "barlow_twins_loss",
    "barlow_twins_loss_eager",
    "bn_mixed_sum",
    "bn_mixed_sum_eager",
    "channel_moments",
    "depthwise_conv",
    "depthwise_conv_eager",
    "eager",
    "gate_weights",
    "mixed_sum",
    "mixed_sum_eager",
    "sep_unit",
    "sep_unit_eager",
    "status",
]
