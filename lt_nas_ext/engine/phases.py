"""The two phases of a retraining: Barlow Twins without labels, where asked for, then labels."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from lt_nas_ext import nn as lt_nn
from lt_nas_ext.data import Dataset
from lt_nas_ext.engine.capture import Captured, recorder_for
from lt_nas_ext.engine.classifier import Classifier
from lt_nas_ext.engine.device import autocast
from lt_nas_ext.engine.ema import MovingAverage
from lt_nas_ext.engine.evaluate import evaluate
from lt_nas_ext.engine.guard import Guard
from lt_nas_ext.engine.loop import Row, Watch
from lt_nas_ext.engine.meter import Meter, finite
from lt_nas_ext.engine.optimisers import cosine, device_options, load_optimiser, set_rate
from lt_nas_ext.engine.processes import ALONE, Group
from lt_nas_ext.engine.resident import resident
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.engine.seeds import generator
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import (
    DeferredReweighting,
    LongTailLoss,
    MixedTargets,
    make_loss,
    mixed_loss,
    mixing_ratios,
    mixup,
    remix,
    schedule,
)
from lt_nas_ext.methods import Epoch, Labelled, Loss, Paired, Stream, TwoViews
from lt_nas_ext.space import TwoHeads

STEP = "step"


class Retraining:
    """The state of a retraining and one epoch of it (an `engine.loop.Trainer`): Barlow Twins first, then labels."""

    def __init__(
        self,
        model: Classifier,
        data: Dataset,
        settings: RetrainSettings,
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        self.model, self.network, self.settings, self._group = model, model.network, settings, group
        self.test, self._device = resident(data.test, device), device
        images, draws = resident(data.train, device), (settings.batch_size, settings.seed)
        if len(images) < 2:
            raise UserError(f"data: got {len(images)} training image(s); wanted at least 2")
        names = (settings.views, settings.augment)
        self.ratios = _mixing_ratios(self.network, settings)
        stream = (
            Stream("paired", ("instance", "class_uniform")) if self.ratios else Stream("labelled", (settings.sampler,))
        )
        options = (settings.cutout, settings.tail_augment)
        self._supervised = Feed(stream, images, device, data, *draws, "retrain", *names, *options, group)
        self.steps = len(self._supervised)
        self._criterion = _criterion(data, settings).to(device)
        self._counts, self._drw = data.counts, DeferredReweighting(data.counts, settings.epochs)
        has_auxiliary = getattr(self.network, "auxiliary_head", None) is not None
        self._auxiliary = settings.auxiliary if has_auxiliary else 0.0
        self._twins: lt_nn.BarlowTwinsLoss | None = None
        if settings.pretrain_epochs:
            self._views = Feed(Stream("two_views"), images, device, data, *draws, "pretrain", *names, group=group)
            self._twins = _barlow_twins(self.network, settings).to(device)
            if settings.global_batch:
                group.over_global_batch(self._twins)
        self._guard = Guard(settings.on_non_finite, device, list(self.network.buffers()))
        self._phase = ""
        self._average: MovingAverage | None = None
        # What a recorded step would not notice: numbers of an epoch that are no tensors.
        self._changes = bool(settings.drop_path or self.ratios or settings.drw)
        recorder = None if self._guard.skips or group.size > 1 else recorder_for(device, settings.capture)
        self._captured = Captured(self._step, recorder, "the step", self._drop_gradients)

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        pretrain = self.settings.pretrain_epochs
        self._guard.begin()
        if epoch < pretrain:
            row = self._pretrain(Epoch(epoch, pretrain), watch)
        else:
            row = self._train(Epoch(epoch - pretrain, self.settings.epochs), watch)
        return {**row, "skipped": self._guard.skipped} if self._guard.skipped else row

    def _pretrain(self, at: Epoch, watch: Watch) -> Row:
        assert self._twins is not None
        self._enter("pretrain")
        lr = self._set_lr(cosine(self.settings.pretrain_lr, 0.0, at))
        self._set_drop_path(0.0)
        self.network.train()
        meter = Meter()
        self._captured.begin("pretrain")
        for draw in self._views.epoch(at.index, attempt=watch.attempt):
            loss = self._seen(self._captured(draw.batch))
            if loss is not None:
                meter.add({"train_loss": loss.task})
            watch.step({} if loss is None else loss.terms)
        self._guard.read()
        self._average_statistics()
        found = meter.read(self._group)["train_loss"]
        return {"phase": "pretrain", "lr": lr, "train_loss": finite(found), **_NOT_TESTED}

    def _train(self, at: Epoch, watch: Watch) -> Row:
        settings = self.settings
        self._enter("train")
        highest = settings.finetune_lr if settings.pretrain_epochs and settings.finetune_lr else settings.lr
        lr = self._set_lr(cosine(highest, settings.lr_min, at))
        self._set_drop_path(settings.drop_path * at.index / at.count)
        if settings.drw:
            assert isinstance(self._criterion, LongTailLoss)
            self._criterion.reweight(self._drw.weights(at.index))
        self._ratio = self.ratios[at.index] if self.ratios else 1.0
        self.network.train()
        meter = Meter()
        self._captured.begin(("train", at.index) if self._changes else "train")
        for step, draw in enumerate(self._supervised.epoch(at.index, attempt=watch.attempt)):
            given = self._mixed(draw.batch, at, step) if isinstance(draw.batch, Labelled) else (draw.batch,)
            loss = self._seen(self._captured(*given))
            if loss is not None:
                if self._average is not None:
                    self._average.update()
                meter.add({"train_loss": loss.task})
                if loss.logits is not None:
                    meter.add_accuracy("train_accuracy", loss.logits, draw.labels)
            watch.step({} if loss is None else {"train": loss.task})
        self._guard.read()
        self._average_statistics()
        figures = meter.read(self._group)
        row: Row = {"phase": "train", "lr": lr, "train_loss": finite(figures["train_loss"]), **_NOT_TESTED}
        row["train_accuracy"] = figures.get("train_accuracy")
        if self.ratios:
            row["mixing_ratio"] = self._ratio
        if (at.index + 1) % settings.test_every == 0 or at.index + 1 == at.count:
            with contextlib.nullcontext() if self._average is None else self._average.applied():
                metrics = evaluate(self.model, self.test)
            row.update(test_top1=metrics.top1, test_macro=metrics.macro)
        return row

    def finish(self) -> None:
        """Leave the network with the weights that are reported."""
        if self._average is not None:
            self._average.apply()

    def _mixed(self, batch: Labelled, at: Epoch, step: int) -> tuple[torch.Tensor, torch.Tensor | MixedTargets]:
        settings = self.settings
        if not settings.mixup or 10 * at.index >= 9 * at.count:
            return batch.images, batch.labels
        draws = generator(
            torch.device("cpu"), settings.seed, "mixup", at.index, step
        )  # to read one would wait for CUDA
        if settings.remix:
            return remix(batch.images, batch.labels, self._counts, settings.mixup, generator=draws)
        return mixup(batch.images, batch.labels, settings.mixup, draws)

    def _step(
        self, given: TwoViews | Paired | torch.Tensor, targets: torch.Tensor | MixedTargets | None = None
    ) -> Loss | None:
        """One step down the loss of two views, of a pair of batches, or of images with their targets.

        None: it was left out, for loss or gradient were not finite.
        """
        self._guard.keep()
        if isinstance(given, TwoViews):
            loss = self._twins_loss(given)
        elif isinstance(given, Paired):
            loss = self._paired_loss(given)
        else:
            assert targets is not None
            loss = self._labelled_loss(given, targets)
        loss.total.backward()
        loss = self._group.averaged(loss, self._parameters())
        norm = nn.utils.clip_grad_norm_(self._parameters(), self.settings.grad_clip)
        loss = replace(loss, gradient_norm=norm)
        if not self._guard.lets(STEP, loss.figures):
            self._drop_gradients()
            return None
        self._optimiser.step()
        self._drop_gradients()
        return loss.detached

    def _seen(self, loss: Loss | None) -> Loss | None:
        if loss is not None:
            self._guard.saw(STEP, loss.figures)
        return loss

    def _drop_gradients(self) -> None:
        self._optimiser.zero_grad(set_to_none=True)

    def _twins_loss(self, views: TwoViews) -> Loss:
        assert self._twins is not None
        with self._autocast():
            first, second = (self.network.features(view) for view in (views.first, views.second))  # type: ignore[operator]
        return Loss({"barlow_twins": self._twins(first.float(), second.float())})

    def _labelled_loss(self, images: torch.Tensor, targets: torch.Tensor | MixedTargets) -> Loss:
        """That of the auxiliary classifier included [paper: DARTS]."""
        auxiliary = None
        with self._autocast():
            if self._auxiliary:
                logits, auxiliary = self.network.forward_auxiliary(images)  # type: ignore[operator]
            else:
                logits = self.network(images)
        loss = self._criterion(logits.float(), targets)
        if auxiliary is not None:
            loss = loss + self._auxiliary * self._criterion(auxiliary.float(), targets)
        return Loss({self.settings.loss: loss}, logits)

    def _paired_loss(self, batch: Paired) -> Loss:
        first, second = batch.first, batch.second
        with self._autocast():
            branches = cast(TwoHeads, self.network).pair(first.images, second.images)
        mixed = branches.mixed(self._ratio).float()
        return Loss({self.settings.loss: mixed_loss(mixed, first.labels, second.labels, self._ratio, self._criterion)})

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return autocast(self._device, self.settings.precision)

    def _average_statistics(self) -> None:
        """Running statistics over all processes, where they are averaged over the steps too."""
        twins = [] if self._twins is None else self._twins.buffers()
        average = [] if self._average is None else self._average.tensors
        self._group.average_buffers([*self.network.buffers(), *twins, *average])

    def _enter(self, phase: str) -> None:
        """Begin a phase with an optimiser of its own: momentum of one loss is no use to the other.

        Nor are the weights of the first phase any use to the average of the second.
        """
        if phase != self._phase:
            self._phase = phase
            settings = self.settings
            self._optimiser = torch.optim.SGD(
                self._parameters(),
                lr=settings.lr,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                **device_options(self._parameters()),
            )
            if phase == "train" and settings.ema_decay:
                self._average = MovingAverage(self.network, settings.ema_decay)

    def _parameters(self) -> list[nn.Parameter]:
        projector = self._twins.parameters() if self._phase == "pretrain" and self._twins is not None else ()
        return [*self.network.parameters(), *projector]

    def _set_lr(self, lr: float) -> float:
        for group in self._optimiser.param_groups:
            set_rate(group, lr)
        return lr

    def _set_drop_path(self, probability: float) -> None:
        if hasattr(self.network, "drop_path"):
            self.network.drop_path = probability  # type: ignore[assignment]
            self.network.drop_path_on = self.settings.drop_path_on  # type: ignore[assignment]

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "twins": None if self._twins is None else self._twins.state_dict(),
            "phase": self._phase,
            "optimiser": self._optimiser.state_dict() if self._phase else None,
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self._twins is not None:
            self._twins.load_state_dict(state["twins"])
        self._captured.begin(object())  # an optimiser loads into other tensors than those that were recorded
        self._phase, self._average = "", None
        if state["phase"]:
            self._enter(state["phase"])
            load_optimiser(self._optimiser, state["optimiser"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])


_NOT_TESTED = {"train_accuracy": None, "test_top1": None, "test_macro": None}


def _criterion(data: Dataset, settings: RetrainSettings) -> nn.Module:
    if settings.loss == "cross_entropy" and not settings.mixup and not settings.drw:
        return nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)  # in one kernel
    return make_loss(settings.loss, data.counts, settings.label_smoothing)


def _mixing_ratios(network: nn.Module, settings: RetrainSettings) -> tuple[float, ...]:
    """The mixing ratio of each supervised epoch of a network with two heads; none for any other."""
    if not isinstance(network, TwoHeads):
        return ()
    for name, wanted in (("mixup", 0.0), ("auxiliary", 0.0), ("sampler", "instance")):
        if getattr(settings, name) != wanted:
            raise UserError(f"{name}: got {getattr(settings, name)!r} for a network with two heads; wanted {wanted!r}")
    if settings.loss == "ldam":
        raise UserError("loss: got 'ldam' for a network with two heads, which are no cosines; wanted another")
    return mixing_ratios(schedule(settings.mixing, settings.mixing_beta, settings.mixing_constant), settings.epochs)


def _barlow_twins(network: nn.Module, settings: RetrainSettings) -> lt_nn.BarlowTwinsLoss:
    width = getattr(network, "feature_dim", None)
    if not callable(getattr(network, "features", None)) or not isinstance(width, int):
        raise UserError(
            f"pretrain_epochs: got {settings.pretrain_epochs}, but {type(network).__name__} has no features(x) with a "
            "feature_dim to pre-train; give it both, or set pretrain_epochs=0"
        )
    scale = 1.0 / settings.projector[-1] if settings.bt_scale == "dim" else 1.0
    return lt_nn.BarlowTwinsLoss(lt_nn.projector((width, *settings.projector)), settings.lambda_bt, scale)
