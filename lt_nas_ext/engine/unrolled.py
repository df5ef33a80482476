"""The gradient of α through the step of w that it brings about: DARTS of second order, and without differences.

w is moved in place and put back to the bit; no second network is made. All passes are probes: they leave the running
statistics of batch norms as they were, whatever module keeps them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lt_nas_ext.engine.gradients import gradient_norms, gradients_for
from lt_nas_ext.engine.method_losses import MethodLosses
from lt_nas_ext.engine.optimisers import GroupedOptimiser
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.methods import Batch, Epoch, Loss

REACH = 0.01
"""Length of the steps of w to either side of which the difference is taken [paper: DARTS, section 2.3]."""

Tensors = list[torch.Tensor]
Measure = Callable[[dict[str, torch.Tensor]], None]


class Unrolled:
    """∇_α L_val(w'(α), α), w' = w − η (momentum · buffer + ∇_w L_train(w, α) + decay · w): the next step of w.

    By the chain rule it is ∂_α L_val(w', α) − η ∂²L_train(w, α)/∂α∂w · v with v = ∇_w' L_val(w', α) [paper: DARTS,
    eqs. 6, 7]. The product with the second derivative is a central difference of ∂_α L_train at w ± R·v, R = .01/‖v‖,
    divided by 2R [paper, eq. 8]; or, `exact`, the gradient of ⟨∇_w L_train, v⟩ in one more backward pass. Where ReLUs
    change sign within R the difference is no derivative: in the tests, on three cells and batches of 8 in float64, it
    misses by more than the gradient's own length, and `exact` does not.

    The clipping of ∇_w L_train is left out, as in the authors' code [paper]. Groups of w with learning rates of their
    own have v scaled by them [ours; with one group it is the paper's formula]. Weights that get no gradient from
    L_train do not move, as they do not under SGD. In several processes the step of w and v are those of the whole
    batch; the gradients that are left are of the process's share, and averaging them gives that of the whole.

    Args:
        losses: the method's two.
        networks: what it built, in training mode.
        optimiser: the SGD of the real step: rates, decay and momentum buffers are its.
        everything: all parameters of the networks.
        exact: by double backward.
        group: the processes.
    """

    def __init__(
        self,
        losses: MethodLosses,
        networks: nn.Module,
        optimiser: GroupedOptimiser,
        everything: Sequence[nn.Parameter],
        exact: bool,
        group: Group = ALONE,
    ) -> None:
        self.losses, self.optimiser, self.exact = losses, optimiser, exact
        self._everything, self._group = everything, group
        self._buffers = list(networks.buffers())

    def backward(
        self, alphas: Sequence[nn.Parameter], batch: Batch, weight_batch: Batch, at: Epoch, measure: Measure | None
    ) -> Loss:
        """Fill the gradients of `alphas`; return L_val(w', α), whose parts `measure` compares by their ∂_α.

        Args:
            alphas: the architecture parameters to be moved.
            batch: of L_val.
            weight_batch: of L_train, the batch of the step of w that is to follow.
            at: where the search stands.
            measure: called with the norm of each part's gradient.
        """
        with unmoved(self._buffers):
            weights, rates, step = self._step_of_w(weight_batch, at)
            start = [weight.detach().clone() for weight in weights]
            try:
                with torch.no_grad():
                    torch._foreach_sub_(weights, step)
                with gradients_for([*weights, *alphas], self._everything):
                    loss = self.losses.alpha(batch, at)
                    if measure is not None:
                        measure(gradient_norms(loss, alphas))
                    found = _gradients(loss.total, [*weights, *alphas])
                direction, direct = found[: len(weights)], found[len(weights) :]
                self._group.average(direction)
                torch._foreach_mul_(direction, rates)  # η, so that what follows is η times the product
                restore(weights, start)
                through = self._exact if self.exact else self._difference
                indirect = through(weights, direction, start, alphas, weight_batch, at)
            finally:
                restore(weights, start)
        for alpha, gradient, change in zip(alphas, direct, indirect, strict=True):
            alpha.grad = gradient.sub_(change)
        return loss

    def _step_of_w(self, batch: Batch, at: Epoch) -> tuple[Tensors, list[float], Tensors]:
        """The weights that SGD would move, the learning rate of each, and how far it would."""
        active = self.optimiser.active
        with gradients_for(active, self._everything):
            total = self.losses.weight(batch, at).total
            gradients = dict(zip(active, torch.autograd.grad(total, active, allow_unused=True), strict=True))
        self._group.average([gradient for gradient in gradients.values() if gradient is not None])
        weights, rates, steps = Tensors(), list[float](), Tensors()
        for group in self.optimiser.optimiser.param_groups:
            moved = [weight for weight in group["params"] if gradients.get(weight) is not None]
            if not moved:
                continue
            step = torch._foreach_mul([weight.detach() for weight in moved], group["weight_decay"])
            torch._foreach_add_(step, [gradients[weight] for weight in moved])
            for one, weight in zip(step, moved, strict=True):
                buffer: Any = self.optimiser.optimiser.state[weight].get("momentum_buffer")
                if buffer is not None:  # before the first step of w there is none
                    one.add_(buffer, alpha=group["momentum"])
            torch._foreach_mul_(step, group["lr"])
            weights, rates, steps = weights + moved, rates + [group["lr"]] * len(moved), steps + list(step)
        return weights, rates, steps

    def _difference(
        self,
        weights: Tensors,
        direction: Tensors,
        start: Tensors,
        alphas: Sequence[nn.Parameter],
        batch: Batch,
        at: Epoch,
    ) -> Tensors:
        """[∂_α L_train(w + R·v, α) − ∂_α L_train(w − R·v, α)] / 2R; `direction` is v, and overwritten."""
        length = torch.stack(torch._foreach_norm(direction)).norm()
        reach = REACH / length.clamp_min(torch.finfo(length.dtype).tiny)
        torch._foreach_mul_(direction, reach)
        with torch.no_grad():
            torch._foreach_add_(weights, direction)
        ahead = self._alpha_gradients(alphas, batch, at)
        restore(weights, start)
        with torch.no_grad():
            torch._foreach_sub_(weights, direction)
        behind = self._alpha_gradients(alphas, batch, at)
        return [(a - b).div_(2.0 * reach) for a, b in zip(ahead, behind, strict=True)]

    def _alpha_gradients(self, alphas: Sequence[nn.Parameter], batch: Batch, at: Epoch) -> Tensors:
        with gradients_for(alphas, self._everything):
            return _gradients(self.losses.weight(batch, at).total, alphas)

    def _exact(
        self,
        weights: Tensors,
        direction: Tensors,
        start: Tensors,
        alphas: Sequence[nn.Parameter],
        batch: Batch,
        at: Epoch,
    ) -> Tensors:
        """∂_α ⟨∇_w L_train(w, α), v⟩."""
        with gradients_for([*weights, *alphas], self._everything):
            total = self.losses.weight(batch, at).total
            gradients = torch.autograd.grad(total, weights, create_graph=True)
            product = torch.stack([(g * v).sum() for g, v in zip(gradients, direction, strict=True)]).sum()
            return _gradients(product, alphas)


def _gradients(of: torch.Tensor, parameters: Sequence[torch.Tensor]) -> Tensors:
    """The gradient by each parameter; zero by those that it does not depend on."""
    return list(torch.autograd.grad(of, list(parameters), materialize_grads=True, allow_unused=True))


@torch.no_grad()
def restore(tensors: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Give tensors the values that they had, to the bit."""
    if tensors:
        torch._foreach_copy_(list(tensors), list(values))


@contextlib.contextmanager
def unmoved(buffers: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within this context buffers may change; afterwards they are what they were, to the bit."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        restore(buffers, before)
