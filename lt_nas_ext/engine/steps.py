"""The two steps of a search. Each computes only what it needs: no gradient of what it does not update.

The gradient of α is taken at the present w (first order), or through the step of w that follows (`unrolled`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from lt_nas_ext.engine.capture import Captured, Recorder
from lt_nas_ext.engine.gradients import gradient_norms, gradients_for
from lt_nas_ext.engine.guard import Guard
from lt_nas_ext.engine.method_losses import MethodLosses
from lt_nas_ext.engine.optimisers import AlphaOptimiser, GroupedOptimiser, weight_optimiser
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.engine.unrolled import Measure, Unrolled
from lt_nas_ext.methods import Batch, Epoch, Loss, Method

ALPHA, WEIGHTS = "α step", "w step"


class Steps:
    """A method's networks with the two optimisers that train them.

    Args:
        method: what is trained, and its settings.
        networks: what `method.build` returned, on its device.
        recorder: records both steps, where the device has one. Of several processes none records: what one of them
            records alone, the others would wait for.
        group: the processes, whose gradients are averaged.

    Attributes:
        guard: looks at the figures of both steps.
    """

    def __init__(
        self, method: Method, networks: nn.Module, recorder: Recorder | None = None, group: Group = ALONE
    ) -> None:
        self.method, self.networks, self._group = method, networks, group
        self.weights = weight_optimiser(method.weight_groups(networks), method.settings, method.schedule)
        self.alphas = AlphaOptimiser(method.alpha_groups(networks), method.settings)
        # Once: a walk over the modules of a supernet takes milliseconds.
        self._parameters = list(networks.parameters())
        self._at = Epoch(0, 1)
        self._losses = MethodLosses(method, networks)
        device = next(networks.parameters()).device
        self.guard = Guard(method.settings.on_non_finite, device, list(networks.buffers()))
        self._unrecorded: list[str] = []
        if recorder is not None and group.size > 1:
            self._unrecorded.append(f"gradients are averaged over {group.size} processes")
        if self.guard.skips or group.size > 1:  # the guard looks between gradient and update
            recorder = None
        order = method.settings.order
        self._unrolled: Unrolled | None = None
        if order != "first":
            exact = order == "exact"
            self._unrolled = Unrolled(self._losses, networks, self.weights, self._parameters, exact, group)
        self._captured_arch = Captured(self._arch, recorder, "the α step", self._drop_gradients)
        self._captured_weight = Captured(self._weight, recorder, "the w step", self._drop_gradients)

    def begin(self, epoch: Epoch) -> None:
        """Set the learning rates of an epoch, who is frozen in it, and what the method changes."""
        self._at = epoch
        self.method.begin(self.networks, epoch)
        self.weights.begin(epoch)
        self.alphas.begin(epoch)
        self.guard.begin()
        moving = {**self.weights.factors, **self.alphas.factors}
        key = (epoch if self.method.losses_follow_epoch else None, tuple(n for n, f in moving.items() if f > 0))
        self._captured_arch.begin(key)
        self._captured_weight.begin(key)

    @property
    def fallbacks(self) -> list[str]:
        """Why a step runs as written although there is a recorder."""
        captured = (self._captured_arch, self._captured_weight)
        return [*self._unrecorded, *(one.reason for one in captured if one.reason is not None)]

    def arch(self, batch: Batch, weight_batch: Batch, measure: Measure | None = None) -> Loss | None:
        """One step of α on a batch of the second half; None: it was left out.

        Args:
            batch: of the second half.
            weight_batch: what the step of w that follows will be taken on; the first order does not look at it.
            measure: gets the gradient norm of each part of the loss.

        Raises:
            NonFinite: figures of this step, or of one before it, are not finite.
        """
        if measure is not None:  # once in a search: not worth a recording
            loss = self._arch(batch, weight_batch, measure)
        else:
            loss = self._captured_arch(batch, *([] if self._unrolled is None else [weight_batch]))
        return self._seen(ALPHA, loss)

    def weight(self, batch: Batch) -> Loss | None:
        """One step of w on a batch of the first half, the whole gradient's norm clipped; None: it was left out.

        Raises:
            NonFinite: figures of this step, or of one before it, are not finite.
        """
        return self._seen(WEIGHTS, self._captured_weight(batch))

    def _seen(self, step: str, loss: Loss | None) -> Loss | None:
        if loss is not None:
            self.guard.saw(step, loss.figures)
        return loss

    def _arch(self, batch: Batch, weight_batch: Batch | None = None, measure: Measure | None = None) -> Loss | None:
        active = self.alphas.active
        self.guard.keep()
        if self._unrolled is not None:
            assert weight_batch is not None
            loss = self._unrolled.backward(active, batch, weight_batch, self._at, measure)
        else:
            with gradients_for(active, self._parameters):
                loss = self._losses.alpha(batch, self._at)
                if measure is not None:
                    measure(gradient_norms(loss, active))
                loss.total.backward()
        loss = self._group.averaged(loss, active)
        norm = nn.utils.get_total_norm([alpha.grad for alpha in active if alpha.grad is not None])
        return self._updated(ALPHA, self.alphas, replace(loss, gradient_norm=norm))

    def _weight(self, batch: Batch) -> Loss | None:
        active = self.weights.active
        self.guard.keep()
        with gradients_for(active, self._parameters):
            loss = self._losses.weight(batch, self._at)
            loss.total.backward()
            loss = self._group.averaged(loss, active)
            norm = nn.utils.clip_grad_norm_(active, self.method.settings.grad_clip)
            return self._updated(WEIGHTS, self.weights, replace(loss, gradient_norm=norm))

    def _updated(self, step: str, optimiser: GroupedOptimiser, loss: Loss) -> Loss | None:
        if not self.guard.lets(step, loss.figures):
            self._drop_gradients()
            return None
        optimiser.step()
        return loss.detached

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "weights": self.weights.state_dict(),
            "alphas": self.alphas.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for captured in (self._captured_arch, self._captured_weight):
            captured.begin(object())  # optimisers load into other tensors than those that were recorded
        self.networks.load_state_dict(state["networks"])
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])
