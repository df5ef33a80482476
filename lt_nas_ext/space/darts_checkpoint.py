"""Checkpoints of the original DARTS supernet, both ways.

A supernet has the original's names outside its cells; what the names inside are, a cell knows itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from lt_nas_ext.errors import UserError

if TYPE_CHECKING:
    from lt_nas_ext.space.supernet import Supernet

_ALPHAS = ("alphas_normal", "alphas_reduce")


def state_dict(net: Supernet) -> dict[str, torch.Tensor]:
    """`net.darts_state_dict()`."""
    named = {
        name: value for name, value in net.state_dict().items() if not name.startswith("cells.") and name not in _ALPHAS
    }
    for place, cell in enumerate(net.cells):
        named.update({f"cells.{place}.{name}": value for name, value in cell.darts_state_dict().items()})  # type: ignore[operator,union-attr]
    return named


def load(net: Supernet, given: Mapping[str, torch.Tensor]) -> None:
    """`net.load_darts_state_dict(given)`."""
    wanted = state_dict(net)
    # Batch norms count their batches since PyTorch 0.4.1; with a fixed momentum the count changes nothing.
    filled = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")} | dict(given)
    _check(filled, wanted, {name: alpha for name, alpha in net.state_dict().items() if name in _ALPHAS})
    own = {name: value for name, value in filled.items() if not name.startswith("cells.")}
    for place, cell in enumerate(net.cells):
        prefix = f"cells.{place}."
        entries = {name.removeprefix(prefix): value for name, value in filled.items() if name.startswith(prefix)}
        renamed = cell.from_darts_state_dict(entries)  # type: ignore[operator,union-attr]
        own.update({prefix + name: value for name, value in renamed.items()})
    net.load_state_dict({name: own.get(name, value) for name, value in net.state_dict().items()})


def _check(
    given: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    optional: Mapping[str, torch.Tensor],
) -> None:
    known = {**wanted, **optional}
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in known]
    advice = "; wanted a checkpoint of a supernet with this one's channels, num_classes, layers, nodes and primitives"
    for what, names in (("is missing", missing), ("is unknown here", unknown)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"state_dict: {names[0]!r} {what}{more}{advice}")
    for name, value in given.items():
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        if shape != tuple(known[name].shape):
            raise UserError(f"state_dict: {name!r} is {shape}, here {tuple(known[name].shape)}{advice}")
