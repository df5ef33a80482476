"""Who is updated, with which learning rate, when: the two optimisers of a search, by the method's groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Epoch, ParameterGroup, SearchSettings


def cosine(highest: float, lowest: float, epoch: Epoch) -> float:
    """The cosine schedule, an epoch at a time [paper: DARTS]: `highest` in epoch 0, towards `lowest` at the end.

    >>> [round(cosine(1.0, 0.0, Epoch(e, 4)), 4) for e in range(4)]
    [1.0, 0.8536, 0.5, 0.1464]
    """
    return lowest + 0.5 * (highest - lowest) * (1.0 + math.cos(math.pi * epoch.index / epoch.count))


def device_options(parameters: Sequence[torch.Tensor]) -> dict[str, Any]:
    """How an optimiser is made for parameters: on CUDA in one launch, and so that a graph can hold it."""
    return {"fused": True} if any(parameter.is_cuda for parameter in parameters) else {}


def set_rate(group: dict[str, Any], lr: float) -> None:
    """Set the learning rate of an optimiser's group: on CUDA a tensor that stays, for recorded steps to read."""
    device = group["params"][0].device if group["params"] else torch.device("cpu")
    if device.type != "cuda":
        group["lr"] = lr
    elif isinstance(group["lr"], torch.Tensor) and group["lr"].device == device:
        group["lr"].fill_(lr)
    else:
        group["lr"] = torch.tensor(lr, device=device)


class GroupedOptimiser:
    """A PyTorch optimiser whose groups follow base_lr(epoch) · factor(epoch).

    A group of factor 0 is frozen: `active` leaves its parameters out, so they get no gradient, and an optimiser of
    PyTorch does not touch a parameter without gradient (no decay, no moment moves).

    Args:
        optimiser: made over exactly the groups' parameters, group by group.
        groups: what the method states.
        base_lr: epoch -> learning rate.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, groups: Sequence[ParameterGroup], base_lr: Callable[[Epoch], float]
    ) -> None:
        self.optimiser = optimiser
        self.groups = tuple(groups)
        self.base_lr = base_lr
        self.lr = 0.0
        self.factors: dict[str, float] = {}

    def begin(self, epoch: Epoch) -> None:
        """Set the learning rates of an epoch."""
        self.lr = self.base_lr(epoch)
        self.factors = lr_factors(self.groups, epoch)
        for group, target in zip(self.groups, self.optimiser.param_groups, strict=True):
            set_rate(target, self.lr * self.factors[group.name])

    @property
    def active(self) -> list[nn.Parameter]:
        """The parameters of all groups that are not frozen in this epoch."""
        return [p for group in self.groups if self.factors[group.name] > 0 for p in group.parameters]

    def step(self) -> None:
        """Update the active parameters from their gradients, then drop the gradients."""
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_optimiser(self.optimiser, state)


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state that may have been saved on another kind of device: how the optimiser works here stays."""
    own = {name: optimiser.defaults[name] for name in ("fused", "foreach", "capturable") if name in optimiser.defaults}
    optimiser.load_state_dict({**state, "param_groups": [{**group, **own} for group in state["param_groups"]]})


def lr_factors(groups: Sequence[ParameterGroup], epoch: Epoch) -> dict[str, float]:
    """The factor of each group in an epoch.

    Raises:
        UserError: a method's factor is negative or not a number.
    """
    factors = {group.name: float(group.lr_factor(epoch)) for group in groups}
    for name, factor in factors.items():
        if not (math.isfinite(factor) and factor >= 0):
            raise UserError(f"lr_factor of {name!r}: got {factor} in epoch {epoch.index}; wanted a number, at least 0")
    return factors


def weight_optimiser(
    groups: Sequence[ParameterGroup], settings: SearchSettings, schedule: Callable[[Epoch], Epoch]
) -> GroupedOptimiser:
    """SGD with momentum and a cosine schedule [paper: DARTS], which stands where `schedule` says in an epoch."""
    sgd = torch.optim.SGD(
        [{"params": list(group.parameters)} for group in groups],
        lr=settings.w_lr,
        momentum=settings.w_momentum,
        weight_decay=settings.w_weight_decay,
        **device_options([parameter for group in groups for parameter in group.parameters]),
    )
    return GroupedOptimiser(sgd, groups, lambda epoch: cosine(settings.w_lr, settings.w_lr_min, schedule(epoch)))


class AlphaOptimiser(GroupedOptimiser):
    """Adam at a constant rate [paper: DARTS], with a weight decay that can leave candidates out.

    The decay is Adam's own coupled one (wd · α is added to the gradient), added here because PyTorch's cannot leave
    columns of a parameter alone: `none` under a sigmoid has no gradient and must not move.
    """

    def __init__(self, groups: Sequence[ParameterGroup], settings: SearchSettings) -> None:
        options = device_options([parameter for group in groups for parameter in group.parameters])
        adam = torch.optim.Adam(
            [{"params": list(group.parameters)} for group in groups],
            lr=settings.alpha_lr,
            betas=settings.alpha_betas,
            capturable=bool(options),
            **options,
        )
        super().__init__(adam, groups, lambda epoch: settings.alpha_lr)
        self.weight_decay = settings.alpha_weight_decay

    @torch.no_grad()
    def step(self) -> None:
        for group in self.groups:
            for alpha in group.parameters:
                if alpha.grad is not None:
                    decayed = alpha.clone()
                    for column in group.undecayed:
                        decayed[..., column] = 0.0
                    alpha.grad.add_(decayed, alpha=self.weight_decay)
        super().step()


def alpha_travel(groups: Sequence[ParameterGroup], lr: float, epochs: Sequence[Epoch], steps_an_epoch: int) -> float:
    """The most that Adam can move an α in these epochs: the sum of its learning rate over all steps."""
    factors = [lr_factors(groups, epoch) for epoch in epochs]
    return lr * steps_an_epoch * max(sum(row[group.name] for row in factors) for group in groups)
