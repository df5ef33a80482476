"""Gates: how architecture parameters α become the weights of candidate operations."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops._kernels import KINDS, came, computable

Gate = Literal["softmax", "sigmoid", "identity"]
GATES: tuple[str, ...] = get_args(Gate)


def check_gate(gate: str) -> None:
    """Raise `UserError` where `gate` is not one of `GATES`."""
    if gate not in GATES:
        raise UserError(f"gate: got {gate!r}; wanted one of {', '.join(map(repr, GATES))}")


def check_alpha(alpha: torch.Tensor) -> None:
    """Raise `UserError` where `alpha` is no tensor of architecture parameters."""
    if not computable(alpha):
        raise UserError(f"alpha: got {came(alpha)}; wanted a floating-point tensor of shape (K,) or (E, K) ({KINDS})")
    if alpha.dim() not in (1, 2):
        raise UserError(f"alpha: got shape {tuple(alpha.shape)}; wanted (K,) or (E, K)")


def gate_weights(alpha: torch.Tensor, gate: str) -> torch.Tensor:
    """Weights of the candidates of each edge.

    Args:
        alpha: (K,) or (E, K) architecture parameters.
        gate: "softmax" over the K candidates of an edge (DARTS), "sigmoid" of each on its own (FairDARTS),
            or "identity" where `alpha` already holds the weights.

    Returns:
        Weights of the shape of `alpha`.

    Raises:
        UserError: `gate` is none of the three, or `alpha` no such tensor.

    >>> gate_weights(torch.zeros(4), "softmax")
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    >>> gate_weights(torch.zeros(2, 2), "sigmoid").sum()
    tensor(2.)
    """
    check_gate(gate)
    check_alpha(alpha)
    if gate == "softmax":
        return torch.softmax(alpha, dim=-1)
    return torch.sigmoid(alpha) if gate == "sigmoid" else alpha
