"""DARTS + BBN: a searched backbone under two searched heads; and HLS, which lets the backbone settle first.

No code of the paper's authors is public. [paper] is what its text states (methods of the design give the sections),
[paper: BBN] the original of the two branches (Zhou et al., arXiv:1912.02413), [ours] what we reconstructed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.mixing import Schedule, constant, mixed_loss, mixing_ratios, reverse_sigmoid, schedule
from lt_nas_ext.methods.base import Batch, Epoch, Loss, Paired, ParameterGroup, Problem, Stream
from lt_nas_ext.methods.settings import SearchSettings
from lt_nas_ext.methods.supernet_method import SupernetMethod
from lt_nas_ext.space import BbnGenotype, BbnSupernet, Genotype

TEST_RATIOS = tuple(step / 10 for step in range(11))
"""The test-time mixing ratios that are tried: 0, .1, … 1 [paper]."""

CONTINUATIONS: dict[str, Schedule] = {
    "class-head": partial(constant, value=0.0),
    "half": partial(constant, value=0.5),
    "reverse-sigmoid": reverse_sigmoid,
    "frozen-backbone": partial(constant, value=0.0),
}
"""The mixing ratio of each variant of continuous training [paper]."""


_WITHOUT = {"partial_channels": 1, "auxiliary_skip": False, "stop_at_skips": 0, "candidates": 0}
"""Options of one supernet that mean nothing, or nothing clear, with two heads: their values without them."""


def hls_factor(ratio: float, k: float = 1.0) -> float:
    """g(r) = exp(−k(1/r − 1)), g(0) = 0 [ours, for the paper's eq. 17].

    It has the three properties that the paper states: about 1 early, a negative exponential, and below r throughout
    (for k ≥ 1).

    >>> [round(hls_factor(r), 4) for r in (1.0, 0.5, 0.0)]
    [1.0, 0.3679, 0.0]
    """
    return math.exp(-k * (1.0 / ratio - 1.0)) if ratio > 0.0 else 0.0


class Bbn(SupernetMethod):
    """z = r · z_I(b(x_I)) + (1 − r) · z_C(b(x_C)), loss r · CE(z, y_I) + (1 − r) · CE(z, y_C), for w and α alike.

    [paper] The backbone b of normal and reduction cells; two heads z_I, z_C of one normal cell, fed by its last two
    cells; architecture parameters of their own for backbone normal, backbone reduction and either head. x_I is
    instance-sampled, x_C class-uniform, on the training as on the validation side. r falls as 1 − (t/T)²
    [paper: BBN] or along a reverse sigmoid. HLS lowers the learning rate of the backbone's α, and with the scope
    "arch+weights" that of its weights, as r falls. Inference mixes the heads at a test-time ratio: the best of
    0, .1, … 1, here on validation data.

    [ours] The formula of g and of the reverse sigmoid; both batches as one pass through the backbone; a head whose
    share of the loss is 0 is frozen, or weight decay alone would move it; the rate of the continuing epochs.

    >>> from lt_nas_ext.methods import preset
    >>> Bbn(preset("paper-hls"), Problem(10, (3, 32, 32), (5000,) * 10)).ratio(Epoch(25, 50))
    0.75
    """

    name = "darts+bbn"
    paper_preset = "paper-hls"
    weight_stream = Stream("paired", ("instance", "class_uniform"))
    alpha_stream = Stream("paired", ("instance", "class_uniform"))
    readings = tuple(f"{ratio:g}" for ratio in TEST_RATIOS)

    def __init__(self, settings: SearchSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        for name, wanted in _WITHOUT.items():
            came = getattr(settings, name)
            if came != wanted:
                raise UserError(f"{name}: got {came!r} for {self.name}, which has no such option; wanted {wanted}")
        _ = self.ratios  # a schedule that cannot be followed is told now

    @property
    def losses_follow_epoch(self) -> bool:
        return True

    @property
    def phases(self) -> tuple[int, ...]:
        settings = self.settings
        continued = () if settings.continuous == "none" else (settings.continuous_epochs,)
        return (settings.epochs, *continued)

    @cached_property
    def ratios(self) -> tuple[tuple[float, ...], ...]:
        """The mixing ratio of every epoch, phase by phase."""
        settings = self.settings
        main = schedule(settings.mixing, settings.mixing_beta, settings.mixing_constant)
        schedules = [main, *(CONTINUATIONS[name] for name in (settings.continuous,) if name in CONTINUATIONS)]
        return tuple(mixing_ratios(function, count) for function, count in zip(schedules, self.phases, strict=True))

    def ratio(self, epoch: Epoch) -> float:
        """The mixing ratio r."""
        return self.ratios[epoch.phase][epoch.index]

    def identity(self) -> dict[str, Any]:
        # Two functions of one name may differ: what counts is what they return.
        return {"mixing_ratios": list(self.ratios[0])} if callable(self.settings.mixing) else {}

    def shown(self, epoch: Epoch) -> dict[str, Any]:
        return {"mixing_ratio": self.ratio(epoch)}

    def build(self) -> BbnSupernet:
        backbone = self.build_supernet(classifier=False)
        return BbnSupernet.of(backbone, self.problem.num_classes, self.settings.alpha_init)

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self._mixed(networks, batch, epoch)

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self.regularised(self._mixed(networks, batch, epoch), networks, epoch)

    def matrices(self, networks: nn.Module) -> Sequence[torch.Tensor]:
        return cast(BbnSupernet, networks).arch_parameters()

    def _mixed(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        assert isinstance(batch, Paired)
        ratio = self.ratio(epoch)
        logits = cast(BbnSupernet, networks).pair(batch.first.images, batch.second.images).mixed(ratio)
        return Loss({"cross_entropy": mixed_loss(logits, batch.first.labels, batch.second.labels, ratio)})

    def alpha_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        factors = {
            "normal": self.backbone_factor,
            "reduce": self.backbone_factor,
            "instance_head": self.instance_factor,
            "class_head": self.class_factor,
        }
        alphas = cast(BbnSupernet, networks).alphas()
        return [
            ParameterGroup(f"alpha_{name}", (alpha,), partial(self._once_free, factors[name]))
            for name, alpha in alphas.items()
        ]

    def _once_free(self, factor: Callable[[Epoch], float], epoch: Epoch) -> float:
        """A factor of α, but 0 while `alpha_frozen` holds."""
        return factor(epoch) if epoch.phase or self.alpha_factor(epoch) else 0.0

    def weight_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        net = cast(BbnSupernet, networks)
        parts = {
            "backbone": (net.backbone, self.backbone_weights_factor),
            "instance_head": (net.instance_head, self.instance_factor),
            "class_head": (net.class_head, self.class_factor),
        }
        alphas = {id(alpha) for alpha in net.arch_parameters()}
        return [
            ParameterGroup(name, tuple(p for p in part.parameters() if id(p) not in alphas), factor)
            for name, (part, factor) in parts.items()
        ]

    def backbone_factor(self, epoch: Epoch) -> float:
        """Factor on the learning rate of the backbone's α: HLS, a constant, or 0."""
        settings = self.settings
        if self._backbone_rests(epoch) or settings.hls == "freeze":
            return 0.0
        factor = {"none": 1.0, "constant": settings.hls_constant}.get(settings.hls)
        return self._pace(epoch) * (hls_factor(self.ratio(epoch), settings.hls_k) if factor is None else factor)

    def backbone_weights_factor(self, epoch: Epoch) -> float:
        """Factor on the learning rate of the backbone's weights: as its α's where the scope says so."""
        if self.settings.hls_scope == "arch+weights":
            return self.backbone_factor(epoch)
        return 0.0 if self._backbone_rests(epoch) else self._pace(epoch)

    def instance_factor(self, epoch: Epoch) -> float:
        """Factor on both learning rates of the instance head."""
        return self._pace(epoch) if self.ratio(epoch) > 0.0 else 0.0

    def class_factor(self, epoch: Epoch) -> float:
        """Factor on both learning rates of the class head."""
        return self._pace(epoch) if self.ratio(epoch) < 1.0 else 0.0

    def still(self, networks: nn.Module, epoch: Epoch) -> Sequence[nn.Module]:
        net = cast(BbnSupernet, networks)
        return (net.backbone, net.instance_head) if self._backbone_rests(epoch) else ()

    def _backbone_rests(self, epoch: Epoch) -> bool:
        return epoch.phase == 1 and self.settings.continuous == "frozen-backbone"

    def _pace(self, epoch: Epoch) -> float:
        return self.settings.continuous_lr if epoch.phase == 1 else 1.0

    def read(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        branches = cast(BbnSupernet, networks).branches(images)
        return torch.stack([branches.mixed(ratio) for ratio in TEST_RATIOS], dim=1)

    def alphas(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        return {name: alpha.detach() for name, alpha in cast(BbnSupernet, networks).alphas().items()}

    def derive_gates(self, gates: Mapping[str, torch.Tensor]) -> BbnGenotype:
        backbone = super().derive_gates({name: gates[name] for name in ("normal", "reduce")})
        heads = super().derive_gates({"normal": gates["instance_head"], "reduce": gates["class_head"]})
        return BbnGenotype(cast(Genotype, backbone), *cast(Genotype, heads).cells.values())
