"""What an adaptation trains: a searched supernet on the images of a target, its backbone at rest or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lt_nas_ext.data import Dataset, ImageSet, normalize
from lt_nas_ext.engine.capture import Captured, recorder_for
from lt_nas_ext.engine.evaluate import batched
from lt_nas_ext.engine.gradients import gradients_for
from lt_nas_ext.engine.guard import Guard
from lt_nas_ext.engine.loop import Row, Watch
from lt_nas_ext.engine.meter import Meter, finite
from lt_nas_ext.engine.optimisers import GroupedOptimiser, cosine, device_options
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.engine.recalibrate import recalibrate
from lt_nas_ext.engine.resident import resident
from lt_nas_ext.engine.seeds import generator
from lt_nas_ext.engine.source import Source
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CosineClassifier, DeferredReweighting, Metrics, evaluate_predictions, make_loss
from lt_nas_ext.methods import Epoch, Labelled, Loss, ParameterGroup, Stream
from lt_nas_ext.methods.imb_nas import AdaptSettings
from lt_nas_ext.space import Supernet

STEP = "step"

CALIBRATION_BATCH = 128
"""Images of a batch that running statistics are taken of [ours]."""


def prepared(source: Source, data: Dataset, settings: AdaptSettings) -> Supernet:
    """The supernet with the weights that the strategy starts from."""
    supernet = source.supernet
    if settings.backbone == "scratch":
        draw_anew(supernet)
    if settings.head == "reinit":
        kind = CosineClassifier if settings.loss == "ldam" else nn.Linear
        supernet.classifier = kind(supernet.feature_dim, data.num_classes)
    return supernet


def draw_anew(supernet: Supernet) -> None:
    """Draw all weights before the head as a new supernet would, and begin its statistics anew; α and the head stay.

    Raises:
        UserError: a module has weights and no `reset_parameters`, as PyTorch's have.
    """
    reset, kept = set[int](), {id(parameter) for parameter in supernet.arch_parameters()}
    for name, module in supernet.named_modules():
        if name.partition(".")[0] == "classifier":
            kept |= {id(parameter) for parameter in module.parameters()}
        elif callable(again := getattr(module, "reset_parameters", None)):
            again()
            reset |= {id(parameter) for parameter in module.parameters()}
    left = [name for name, parameter in supernet.named_parameters() if id(parameter) not in kept | reset]
    if left:
        raise UserError(f"backbone: got 'scratch', and nothing draws {left[0]} anew; wanted reset_parameters() there")


class Adaptation:
    """The state of an adaptation and one epoch of it (an `engine.loop.Trainer`).

    Args:
        supernet: as `prepared`, on its device.
        data: the target.
        parts: its training images: what is trained on, and the hold-out.
        settings: every number.
        device: where it computes.
        group: the processes, which share every batch, and the batches that the backbone at rest turns into features.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Dataset,
        parts: tuple[ImageSet, ImageSet],
        settings: AdaptSettings,
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        self.supernet, self.settings, self.data, self._group = supernet, settings, data, group
        self.train, self.held_out = (resident(part, device) for part in parts)
        self.device, self._rests = device, settings.backbone_rests
        self.counts = self.train.counts(data.num_classes)
        # Without augmentation an image is the same in every epoch: so are its features where the backbone rests.
        name = data.augment if settings.augment == "default" else settings.augment
        self.cached = self._rests and name == "none"
        self._features: torch.Tensor | None = None
        self._held_out_features: torch.Tensor | None = None
        self._feed = Feed(
            Stream("labelled", (settings.sampler,)), self.train, device, data, settings.batch_size, settings.seed,
            "adapt", augmentation=settings.augment, group=group,
        )  # fmt: skip
        self.steps = len(self._feed)
        self._criterion = make_loss(settings.loss, self.counts).to(device)
        self._drw = DeferredReweighting(self.counts, settings.epochs)
        self._parameters = list(supernet.parameters())
        self._optimiser = _optimiser(supernet, settings)
        self._guard = Guard(settings.on_non_finite, device, list(supernet.buffers()))
        recorder = None if self._guard.skips or group.size > 1 else recorder_for(device, settings.capture)
        self._step = Captured(self._descend, recorder, "the step of the adaptation", self._drop_gradients)

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained."""
        groups = self._optimiser.groups if self.settings.trains else ()
        return sum(parameter.numel() for group in groups for parameter in group.parameters)

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        settings, at = self.settings, Epoch(epoch, self.settings.epochs)
        if settings.recalibrate and self._rests and not epoch:
            self.recalibrate()
        weights = self._drw.weights(epoch) if settings.drw else None
        if weights is not None:
            self._criterion.reweight(weights)
        self._optimiser.begin(at)
        self._step.begin(None if weights is None else tuple(weights.tolist()))
        self._guard.begin()
        self.supernet.train(not self._rests)
        meter = Meter()
        for inputs, labels in self._draws(epoch, watch.attempt):
            loss = self._step(inputs, labels)
            if loss is not None:
                assert loss.logits is not None
                self._guard.saw(STEP, loss.figures)
                meter.add({"train_loss": loss.task})
                if loss.logits is not None:
                    meter.add_accuracy("train_accuracy", loss.logits, labels)
            watch.step({} if loss is None else {"train": loss.task})
        self._guard.read()
        self._group.average_buffers(self.supernet.buffers())
        if settings.recalibrate and not self._rests and epoch + 1 == settings.epochs:
            self.recalibrate()
        means, judged = meter.read(self._group), self.judged()
        return {
            "lr": self._optimiser.lr,
            "lr_factors": self._optimiser.factors,
            "train_loss": finite(means["train_loss"]),
            "train_accuracy": means["train_accuracy"],
            "val_macro": finite(judged.macro),
            "val_accuracy": judged.top1,
            **({"skipped": self._guard.skipped} if self._guard.skipped else {}),
        }

    def _draws(self, epoch: int, attempt: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs of a step, images or what is kept of them, and their labels."""
        if not self.cached:
            for draw in self._feed.epoch(epoch, attempt=attempt):
                assert isinstance(draw.batch, Labelled)
                yield draw.batch.images, draw.labels
            return
        if self._features is None:
            self._features = self._features_of(self.train)
        labels = self.train.labels.to(self.device)
        for chosen in self._feed.chosen(epoch, attempt):
            yield self._features[chosen], labels[chosen]

    def _features_of(self, images: ImageSet) -> torch.Tensor:
        self.supernet.eval()
        return batched(self.supernet.features, images, self.device, self.data.mean, self.data.std, self._group)

    def _descend(self, inputs: torch.Tensor, labels: torch.Tensor) -> Loss | None:
        """One step down the loss; None: it was left out."""
        self._guard.keep()
        active = self._optimiser.active
        if self._rests:
            if not self.cached:
                with torch.no_grad():
                    inputs = self.supernet.features(inputs)
            loss = self._backward(self.supernet.classifier, inputs, labels)
        else:
            with gradients_for(active, self._parameters):
                loss = self._backward(self.supernet, inputs, labels)
        loss = self._group.averaged(loss, active)
        loss = replace(loss, gradient_norm=nn.utils.clip_grad_norm_(active, self.settings.grad_clip))
        if not self._guard.lets(STEP, loss.figures):
            self._drop_gradients()
            return None
        self._optimiser.step()
        return loss.detached

    def _backward(self, network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> Loss:
        logits = network(inputs)
        loss = Loss({self.settings.loss: self._criterion(logits, labels)}, logits)
        loss.total.backward()
        return loss

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def judged(self) -> Metrics:
        """The supernet on the hold-out."""
        if self._rests and self._held_out_features is None:
            self._held_out_features = self._features_of(self.held_out)
        features = self._held_out_features if self._rests else self._features_of(self.held_out)
        assert features is not None
        return evaluate_predictions(self.supernet.classifier(features), self.held_out.labels, self.counts)

    def calibration(self) -> Iterator[torch.Tensor]:
        """Normalised batches for running statistics, without augmentation; always the same ones."""
        most = min(self.settings.calibration_images, len(self.train))
        draws = generator(torch.device("cpu"), self.settings.seed, "calibration")
        order = torch.randperm(len(self.train), generator=draws).to(self.train.images.device)[:most]
        for chosen in order.split(CALIBRATION_BATCH):
            if len(chosen) == min(most, CALIBRATION_BATCH):  # a smaller last one would count as much as the others
                images = normalize(self.train.images[chosen].to(self.device), self.data.mean, self.data.std)
                yield images.contiguous(memory_format=torch.channels_last)

    def recalibrate(self) -> None:
        """Take the supernet's running statistics anew, of whole batches, in every process the same."""
        recalibrate(self.supernet, self.calibration())
        self._group.average_buffers(self.supernet.buffers())  # devices may round differently
        self._features = self._held_out_features = None

    def state_dict(self) -> dict[str, Any]:
        return {"networks": self.supernet.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._step.begin(object())  # an optimiser loads into other tensors than those that were recorded
        self.supernet.load_state_dict(state["networks"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._features = self._held_out_features = None


def _optimiser(supernet: Supernet, settings: AdaptSettings) -> GroupedOptimiser:
    """SGD for the head, and for the weights before it where they are trained; never for α."""
    head = tuple(supernet.classifier.parameters())
    groups = [ParameterGroup("head", head)]
    if not settings.backbone_rests:
        own = {id(parameter) for parameter in head}
        weights = tuple(weight for weight in supernet.weight_parameters() if id(weight) not in own)
        share = settings.backbone_lr / settings.lr
        groups.append(ParameterGroup("backbone", weights, lambda epoch: share))
    sgd = torch.optim.SGD(
        [{"params": list(group.parameters)} for group in groups],
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        **device_options([parameter for group in groups for parameter in group.parameters]),
    )
    return GroupedOptimiser(sgd, groups, lambda epoch: cosine(settings.lr, 0.0, epoch))
