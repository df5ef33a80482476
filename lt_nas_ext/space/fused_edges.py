"""The candidates of all edges that leave one state, run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn as tnn

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError

Output = tuple[torch.Tensor | None, torch.Tensor | None]
"""A candidate's output before its batch norm, and the moments to normalise it by; each None where there is none."""


class RunningMoments(tnn.Module):
    """Mean and variance per channel as `nn.BatchNorm2d` tracks them, for E edges at once: (2, E, C).

    Attributes:
        momentum: the share of a batch; 0.1, as there.
    """

    def __init__(self, edges: int, channels: int) -> None:
        super().__init__()
        self.momentum = 0.1
        self.moments: torch.Tensor
        self.batches: torch.Tensor
        self.register_buffer("moments", torch.stack([torch.zeros(edges, channels), torch.ones(edges, channels)]))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, batch: torch.Tensor, count: int) -> torch.Tensor:
        """The moments to normalise by: in training the batch's own, (2, E, C) of `count` numbers a channel each."""
        if not self.training:
            return self.moments
        with torch.no_grad():
            mean, var = batch.to(self.moments.dtype)
            self.moments[0].lerp_(mean, self.momentum)
            self.moments[1].lerp_(var * (count / max(count - 1, 1)), self.momentum)
            self.batches += 1
        return batch

    @torch.no_grad()
    def reset_running_stats(self) -> None:
        """Begin again: mean 0, variance 1, no batch seen."""
        self.moments[0].zero_()
        self.moments[1].fill_(1.0)
        self.batches.zero_()

    def reset_parameters(self) -> None:
        """As `nn.BatchNorm2d`."""
        self.reset_running_stats()

    def keep(self, edges: Sequence[int]) -> None:
        """Go on with some of the edges."""
        self.moments = self.moments[:, list(edges)].clone()

    def norm_state_dict(self, edge: int) -> dict[str, torch.Tensor]:
        """One edge's entries under the names of `nn.BatchNorm2d`."""
        mean, var = self.moments[:, edge]
        return {"running_mean": mean, "running_var": var, "num_batches_tracked": self.batches}

    def from_norm_state_dicts(self, norms: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """This module's entries from those of E batch norms."""
        stacked = [torch.stack([norm[name] for norm in norms]) for name in ("running_mean", "running_var")]
        return {"moments": torch.stack(stacked), "batches": norms[0]["num_batches_tracked"]}


class FusedUnit(tnn.Module):
    """Half of a separable convolution of E edges, or a dilated one: weights, and the statistics of its batch norm."""

    def __init__(self, edges: int, channels: int, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.edges = edges
        self.stride = stride
        self.dilation = dilation
        self.depthwise = tnn.Parameter(torch.empty(edges * channels, 1, kernel, kernel))
        self.pointwise = tnn.Parameter(torch.empty(edges * channels, channels, 1, 1))
        self.norm = RunningMoments(edges, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as nn.Conv2d starts; its fan-in is that of one edge."""
        for weight in (self.depthwise, self.pointwise):
            tnn.init.kaiming_uniform_(weight, a=5**0.5)

    def keep(self, edges: Sequence[int]) -> None:
        """Go on with some of the edges."""
        for name in ("depthwise", "pointwise"):
            each = getattr(self, name).detach().chunk(self.edges)
            setattr(self, name, tnn.Parameter(torch.cat([each[edge] for edge in edges])))
        self.norm.keep(edges)
        self.edges = len(edges)

    def forward(
        self, x: torch.Tensor | list[torch.Tensor], moments: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """z of every edge, not normalised, and the moments to normalise it by; arguments as of `ops.sep_unit`."""
        z, own = ops.sep_unit(
            x, self.depthwise, self.pointwise, self.stride, self.dilation, moments, batch=self.training
        )
        return z, self.norm(own, z[0].numel() // z[0].shape[1])


class FusedConv(tnn.Module):
    """The separable (two units) or dilated (one) convolution of E edges.

    >>> z = FusedConv("sep_conv_3x3", edges=2, channels=4, stride=2)(torch.ones(1, 4, 6, 6))
    >>> len(z), z[0][0].shape, z[0][1].shape
    (2, torch.Size([1, 4, 3, 3]), torch.Size([2, 4]))
    """

    def __init__(self, name: str, edges: int, channels: int, stride: int) -> None:
        super().__init__()
        kernel, dilation = int(name[-1]), 2 if name.startswith("dil") else 1
        strides = [stride] if dilation == 2 else [stride, 1]
        self.units = tnn.ModuleList(FusedUnit(edges, channels, kernel, s, dilation) for s in strides)

    def forward(self, x: torch.Tensor) -> list[Output]:
        first, *second = self._units()
        z, moments = first(x)
        for unit in second:
            z, moments = unit(z, moments)
        return [(one, moments[:, edge]) for edge, one in enumerate(z)]

    def keep(self, edges: Sequence[int]) -> None:
        """Go on with some of the edges."""
        for unit in self._units():
            unit.keep(edges)

    def _units(self) -> list[FusedUnit]:
        return [cast(FusedUnit, unit) for unit in self.units]

    def edge_state_dict(self, edge: int) -> dict[str, torch.Tensor]:
        named = {}
        for place, unit in enumerate(self._units()):
            named[f"op.{4 * place + 1}.weight"] = unit.depthwise.detach().chunk(unit.edges)[edge]
            named[f"op.{4 * place + 2}.weight"] = unit.pointwise.detach().chunk(unit.edges)[edge]
            norm = unit.norm.norm_state_dict(edge)
            named.update({f"op.{4 * place + 3}.{name}": value for name, value in norm.items()})
        return named

    def from_edge_state_dicts(self, edges: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        own = {}
        for place, unit in enumerate(self._units()):
            for name, at in (("depthwise", 1), ("pointwise", 2)):
                own[f"units.{place}.{name}"] = torch.cat([edge[f"op.{4 * place + at}.weight"] for edge in edges])
            norms = [_below(edge, f"op.{4 * place + 3}.") for edge in edges]
            own.update({f"units.{place}.norm.{k}": v for k, v in unit.norm.from_norm_state_dicts(norms).items()})
        return own


class FusedPool(tnn.Module):
    """A pool and its batch norm, once for all edges: neither has a parameter."""

    def __init__(self, name: str, edges: int, channels: int, stride: int) -> None:
        super().__init__()
        self.edges = edges
        # The border is averaged over the pixels that exist.
        self.pool: tnn.Module = (
            tnn.MaxPool2d(3, stride, padding=1)
            if name.startswith("max")
            else tnn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        )
        self.norm = RunningMoments(1, channels)

    def forward(self, x: torch.Tensor) -> list[Output]:
        y = self.pool(x)
        own = ops.channel_moments(y)[:, None] if self.training else self.norm.moments
        moments = self.norm(own, y.numel() // y.shape[1])[:, 0]
        return [(y, moments)] * self.edges

    def keep(self, edges: Sequence[int]) -> None:
        """Go on with some of the edges."""
        self.edges = len(edges)

    def edge_state_dict(self, edge: int) -> dict[str, torch.Tensor]:
        return {f"1.{name}": value for name, value in self.norm.norm_state_dict(0).items()}

    def from_edge_state_dicts(self, edges: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        for edge in edges[1:]:
            for name in ("1.running_mean", "1.running_var"):
                if not torch.equal(edge[name], edges[0][name]):
                    raise UserError(
                        f"{name} of a pool differs between them; wanted equal statistics, as edges that leave one "
                        "state have, or a supernet with cell=PerEdgeCell"
                    )
        return {f"norm.{k}": v for k, v in self.norm.from_norm_state_dicts([_below(edges[0], "1.")]).items()}


class FusedSkip(tnn.Module):
    """The skip connections: the state itself, or for stride 2 a factorized reduction an edge, of the same pixels."""

    def __init__(self, name: str, edges: int, channels: int, stride: int) -> None:
        super().__init__()
        self.edges = edges
        reductions = edges if stride == 2 else 0
        self.reduce = tnn.ModuleList(nn.FactorizedReduce(channels, channels, affine=False) for _ in range(reductions))

    def forward(self, x: torch.Tensor) -> list[Output]:
        if not len(self.reduce):
            return [(x, None)] * self.edges
        pixels = nn.diagonal_pixels(x)
        return [(cast(nn.FactorizedReduce, reduce).of(*pixels), None) for reduce in self.reduce]

    def keep(self, edges: Sequence[int]) -> None:
        """Go on with some of the edges."""
        self.edges = len(edges)
        if len(self.reduce):
            self.reduce = tnn.ModuleList(self.reduce[edge] for edge in edges)

    def edge_state_dict(self, edge: int) -> dict[str, torch.Tensor]:
        return dict(self.reduce[edge].state_dict()) if len(self.reduce) else {}

    def from_edge_state_dicts(self, edges: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {f"reduce.{place}.{name}": value for place, edge in enumerate(edges) for name, value in edge.items()}


def _fuse(name: str, edges: int, channels: int, stride: int) -> tnn.Module:
    if name == "skip_connect":
        return FusedSkip(name, edges, channels, stride)
    return (FusedPool if "pool" in name else FusedConv)(name, edges, channels, stride)


class FusedEdges(tnn.Module):
    """All candidates of the E edges that leave one state.

    Args:
        channels: channels of the state, and of every output.
        edges: E.
        stride: 1 or 2.
        primitives: names of the candidates, in the order of the columns of α.
    """

    def __init__(self, channels: int, edges: int, stride: int, primitives: Sequence[str]) -> None:
        super().__init__()
        self.edges = edges
        self.primitives = tuple(primitives)
        self.kinds = tnn.ModuleDict(
            {name: _fuse(name, edges, channels, stride) for name in primitives if name != "none"}
        )
        self.served = {name: tuple(range(edges)) for name in self.kinds}

    def forward(self, state: torch.Tensor) -> list[list[Output]]:
        """For each edge, for each primitive, what it makes of the state."""
        made: dict[str, dict[int, Output]] = {
            name: dict(zip(self.served[name], self.kinds[name](state), strict=True)) for name in self.kinds
        }
        nothing: Output = (None, None)
        return [[made.get(name, {}).get(edge, nothing) for name in self.primitives] for edge in range(self.edges)]

    def keep(self, chosen: Mapping[str, Sequence[int]]) -> None:
        """From now on compute these edges of each kind and no other, which count as `none` does."""
        for name, edges in chosen.items():
            if name in self.kinds and not edges:
                del self.kinds[name]
            elif name in self.kinds:
                self.kinds[name].keep(edges)  # type: ignore[operator]
        self.served = {name: tuple(chosen[name]) for name in self.kinds}

    def edge_state_dict(self, edge: int) -> dict[str, torch.Tensor]:
        """One edge's entries under the names of the original's mixed operation."""
        named = {}
        for place, name in enumerate(self.primitives):
            if name != "none":
                entries = self.kinds[name].edge_state_dict(edge)  # type: ignore[operator]
                named.update({f"_ops.{place}.{key}": value for key, value in entries.items()})
        return named

    def from_edge_state_dicts(self, edges: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """This module's entries from those of its edges under the names of the original."""
        own = {}
        for place, name in enumerate(self.primitives):
            if name != "none":
                below = [_below(edge, f"_ops.{place}.") for edge in edges]
                entries = self.kinds[name].from_edge_state_dicts(below)  # type: ignore[operator]
                own.update({f"kinds.{name}.{key}": value for key, value in entries.items()})
        return own


def _below(entries: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
