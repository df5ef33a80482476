"""What a method is. The engine trains anything that answers these questions and knows no method by name.

A method states its networks (one module that holds all that is trained), the data streams of its two steps, its
two losses, its parameter groups with their learning-rate factors, its inference, and how a genotype is read off.
It keeps no state of its own: what it computes is a function of its settings, the networks, the batch and the epoch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn

from lt_nas_ext.methods.fit import fitted
from lt_nas_ext.methods.settings import SearchSettings


@dataclass(frozen=True)
class Epoch:
    """Where the search stands: `index` counts from 0 to `count` - 1, within the `phase` of `Method.phases`."""

    index: int
    count: int
    phase: int = 0


@dataclass(frozen=True)
class Problem:
    """What a method may know of the data before it sees any.

    Attributes:
        num_classes: C.
        image_shape: (channels, height, width).
        class_counts: training images of each class.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    class_counts: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """What the engine feeds to a loss.

    Attributes:
        kind: "labelled" gives `Labelled` batches, "two_views" gives `TwoViews` (and no label at all),
            "labelled_views" gives `LabelledViews`, "paired" gives `Paired`: two labelled batches, each by a sampler
            of its own.
        samplers: how images are drawn, one name of `lt_nas_ext.longtail.samplers` for each set of images in a batch.
    """

    kind: Literal["labelled", "two_views", "labelled_views", "paired"]
    samplers: tuple[str, ...] = ("instance",)


@dataclass(frozen=True)
class Labelled:
    """images: (N, C, H, W), augmented and normalised; labels: (N,) int64."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class TwoViews:
    """Two augmentations of the same N images, each (N, C, H, W), normalised."""

    first: torch.Tensor
    second: torch.Tensor


@dataclass(frozen=True)
class LabelledViews(TwoViews):
    """Two views, and the labels (N,) of their images."""

    labels: torch.Tensor


@dataclass(frozen=True)
class Paired:
    """Two labelled batches of a step, by the stream's first and second sampler (BBN: instance and class-uniform)."""

    first: Labelled
    second: Labelled


Batch = Labelled | TwoViews | Paired


@dataclass(frozen=True)
class Loss:
    """A loss as the sum of its named, weighted parts.

    Attributes:
        parts: name -> scalar with gradient, its weight (lambda) included. The first is the task's loss, the others
            regularise: curves show the first, gradients are compared part by part.
        logits: (N, C) of a labelled batch, for the accuracy that is shown; looked at, never differentiated.
        features: (N, F) of a label-free batch, for the linear probe; likewise.
        gradient_norm: of all that the step moves, before clipping; the engine's to fill in.
    """

    parts: Mapping[str, torch.Tensor]
    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None
    gradient_norm: torch.Tensor | None = None

    @property
    def total(self) -> torch.Tensor:
        """The sum of all parts: what is differentiated."""
        return torch.stack(tuple(self.parts.values())).sum() if len(self.parts) > 1 else self.task

    @property
    def task(self) -> torch.Tensor:
        """The first part: the task's loss without regularisers."""
        return next(iter(self.parts.values()))

    @property
    def detached(self) -> Loss:
        """The same figures without what backward needed."""
        seen = (self.logits, self.features, self.gradient_norm)
        return Loss(self.terms, *(None if one is None else one.detach() for one in seen))

    @property
    def terms(self) -> dict[str, torch.Tensor]:
        """The parts as detached tensors, still on their device."""
        return {name: part.detach() for name, part in self.parts.items()}

    @property
    def figures(self) -> dict[str, torch.Tensor]:
        """The parts and, where it is known, the gradient's norm, by name: all must be finite."""
        norm = {} if self.gradient_norm is None else {"the norm of the gradient": self.gradient_norm.detach()}
        return {**self.terms, **norm}


def constant(epoch: Epoch) -> float:
    """The learning-rate factor of a group that follows the base schedule."""
    return 1.0


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: as history.jsonl shows it.
        parameters: the tensors.
        lr_factor: epoch -> factor on the base learning rate (HLS acts here: Adam is nearly blind to the scale of a
            gradient). A factor of 0 freezes the group: no gradient is computed and no optimiser state moves.
        undecayed: columns (candidates) of these parameters that weight decay leaves alone.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr_factor: Callable[[Epoch], float] = constant
    undecayed: tuple[int, ...] = field(default=())


class Derived(Protocol):
    """What a search finds: `Genotype`, or a method's own value that can be written the same way."""

    def to_json(self) -> str: ...


class UnreachableGateWarning(UserWarning):
    """The search cannot move its gates far enough in the steps it has: its genotype will be close to noise."""


class Method(ABC):
    """One published system. Subclasses are one file each and stand in `lt_nas_ext.methods.METHODS`.

    Args:
        settings: every number of the search.
        problem: what is known of the data beforehand.
    """

    name: ClassVar[str]
    """As on the command line."""
    paper_preset: ClassVar[str]
    """The preset taken where none is named."""
    weight_stream: Stream = Stream("labelled")
    """What `weight_loss` is fed, from the first half of the training images."""
    alpha_stream: Stream = Stream("labelled")
    """What `alpha_loss` is fed, from the second half."""
    readings: tuple[str, ...] = ()
    """The ways to read one pass (BBN: at mixing ratios), by name; chosen is the best on the second half, by the mean
    over classes."""

    def __init__(self, settings: SearchSettings, problem: Problem) -> None:
        self.settings = settings
        self.problem = problem

    @classmethod
    def fitted(cls, settings: SearchSettings, problem: Problem) -> SearchSettings:
        """The settings that the run takes: those asked for, with the numbers that depend on the images."""
        return fitted(settings, problem.class_counts)

    @property
    def losses_follow_epoch(self) -> bool:
        """The losses look at the epoch; where they do not, a step recorded once serves all epochs."""
        return True

    @property
    def label_free(self) -> bool:
        """No loss sees a label: the engine then shows the accuracy of a detached linear probe."""
        return self.weight_stream.kind == self.alpha_stream.kind == "two_views"

    @property
    def phases(self) -> tuple[int, ...]:
        """Epochs of each phase; the learning rates' schedules begin anew in each."""
        return (self.settings.epochs,)

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(self.phases)

    def at(self, epoch: int) -> Epoch:
        """Where the search stands in its `epoch`-th epoch of all."""
        for phase, count in enumerate(self.phases):
            if epoch < count:
                return Epoch(epoch, count, phase)
            epoch -= count
        raise IndexError(f"epoch {epoch} lies behind the last of {self.phases}")

    def identity(self) -> dict[str, Any]:
        """What config.json must hold beside the settings: a run resumes only where it is the same."""
        return {}

    def shown(self, epoch: Epoch) -> dict[str, Any]:
        """Figures of an epoch for history.jsonl, beside losses, accuracies and learning rates."""
        return {}

    @abstractmethod
    def build(self) -> nn.Module:
        """The networks: one module that holds everything that is trained, projectors and heads included."""

    def begin(self, networks: nn.Module, epoch: Epoch) -> None:  # noqa: B027
        """Set what changes in the networks from epoch to epoch; here nothing does."""

    def schedule(self, epoch: Epoch) -> Epoch:
        """Where the cosine schedule of the weights stands; here it spans the whole search."""
        return epoch

    @abstractmethod
    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        """The loss of the weights w on a batch of `weight_stream`."""

    @abstractmethod
    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        """The loss of the architecture parameters on a batch of `alpha_stream`."""

    @abstractmethod
    def alpha_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        """The architecture parameters, by learning-rate group."""

    def weight_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        """The weights, by learning-rate group; here all that is not an architecture parameter, as one."""
        alphas = {id(alpha) for group in self.alpha_groups(networks) for alpha in group.parameters}
        weights = tuple(parameter for parameter in networks.parameters() if id(parameter) not in alphas)
        return [ParameterGroup("weights", weights)]

    def still(self, networks: nn.Module, epoch: Epoch) -> Sequence[nn.Module]:
        """Modules that stay in evaluation mode in this epoch: their running statistics do not move."""
        return ()

    @abstractmethod
    def logits(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Inference: normalised images (N, C, H, W) -> (N, num_classes)."""

    def read(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Inference in every way of `readings` from one pass: normalised images -> (N, len(readings), num_classes)."""
        raise NotImplementedError(f"{self.name} names readings {self.readings} and cannot read them")

    @abstractmethod
    def features(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """What the linear probe reads: normalised images (N, C, H, W) -> (N, F)."""

    @abstractmethod
    def alphas(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        """The architecture parameters by cell type, (E, K) each, for history.jsonl."""

    @abstractmethod
    def gates(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        """The weights of the candidates by cell type, (E, K) each."""

    def deciding_gates(self, networks: nn.Module) -> torch.Tensor:
        """The gates (n,) that can be derived: the polarisation count is over these."""
        return torch.cat([gate.flatten() for gate in self.gates(networks).values()])

    def edges_to_none(self, networks: nn.Module) -> float | None:
        """The share of edges whose largest gate is that of `none`; None, as here: it does not compete."""
        return None

    @abstractmethod
    def derive(self, networks: nn.Module) -> Derived:
        """The genotype that `settings.rule` reads from the gates as they stand."""

    def stop_reason(self, genotype: Derived | None, epoch: Epoch) -> str | None:
        """Why the search ends after this epoch, with the genotype as it stands then; None: it goes on, as here."""
        return None

    def judge(self, networks: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        """What is made of the validation images after an epoch, for its line of history.jsonl; here nothing.

        Args:
            networks: in evaluation mode.
            logits: (N, C) of the half that trains alpha, by `logits`.
            labels: (N,) of the same.
        """
        return {}

    def report(self, networks: nn.Module) -> dict[str, Any]:
        """Figures of the method's own for metrics.json; here none."""
        return {}

    def second_stage(self, networks: nn.Module, history: Sequence[Mapping[str, Any]]) -> Method | None:
        """A method that chooses among the genotypes that this search suggests; None, as here: it derives one."""
        return None

    @property
    def agrees(self) -> bool:
        """Whether `derive_gates` reads a genotype from the mean gates of several searches; here it does not."""
        return False

    def derive_gates(self, gates: Mapping[str, torch.Tensor]) -> Derived:
        """The genotype that `settings.rule` reads from gates such as `gates` returns."""
        raise NotImplementedError(f"{self.name} has no gates to agree on")

    @abstractmethod
    def reachable_gate(self, travel: float) -> float | None:
        """The largest gate after every alpha moved by `travel`, the sum of its learning rate over all steps.

        None for a method without gates.
        """

    @abstractmethod
    def needed_travel(self) -> float:
        """The travel below which the rule reads noise."""

    def warnings(self, travel: float, alpha_steps: int) -> list[Warning]:
        """What to say before the search begins. `travel` is the most that Adam can move alpha in `alpha_steps`."""
        needed = self.needed_travel()
        if travel >= needed:
            return []
        settings, factor = self.settings, needed / travel if travel > 0 else math.inf
        message = (
            f"Adam moves alpha by about its learning rate a step: {alpha_steps} steps at {settings.alpha_lr:g} bring a "
            f"gate to {self.reachable_gate(travel) or 0:.2f} at most, and the rule {settings.rule!r} needs "
            f"{self.reachable_gate(needed) or 0:.2f}; the genotype would be noise"
        )
        if math.isfinite(factor):
            lr, epochs = rounded_up(settings.alpha_lr * factor), math.ceil(settings.epochs * factor)
            message += (
                f". Set alpha_lr to {lr:g} or more, or take {factor:.1f} times as many steps (epochs={epochs}, "
                "or a smaller batch_size)"
            )
        return [UnreachableGateWarning(message)]


def rounded_up(value: float) -> float:
    """`value` with two digits, rounded up: what is advised must be enough.

    >>> rounded_up(0.00411)
    0.0042
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")
