"""The adaptation: a searched supernet takes to other images, and its sub-networks are ranked on some of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from lt_nas_ext.data import Batches, Dataset, ImageSet, normalize, split
from lt_nas_ext.engine.capture import Captured, recorder_for
from lt_nas_ext.engine.classifier import Classifier
from lt_nas_ext.engine.device import choose_device, place
from lt_nas_ext.engine.evaluate import batched, evaluate
from lt_nas_ext.engine.gradients import gradients_for
from lt_nas_ext.engine.guard import Guard
from lt_nas_ext.engine.loop import Row, Watch, train
from lt_nas_ext.engine.meter import Meter, finite
from lt_nas_ext.engine.optimisers import GroupedOptimiser, cosine, device_options
from lt_nas_ext.engine.processes import check_alone
from lt_nas_ext.engine.progress import Progress, following
from lt_nas_ext.engine.recalibrate import recalibrate
from lt_nas_ext.engine.resident import resident
from lt_nas_ext.engine.run_dir import RunDirectory, check_out, run_config
from lt_nas_ext.engine.search import SearchResult
from lt_nas_ext.engine.seeds import derived_seed, generator, isolated_rng, seed_global
from lt_nas_ext.engine.source import Source, read_source
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CosineClassifier, DeferredReweighting, Metrics, evaluate_predictions, make_loss
from lt_nas_ext.methods import Epoch, Labelled, Loss, ParameterGroup, Stream
from lt_nas_ext.methods.imb_nas import AdaptSettings, drawn_genotypes
from lt_nas_ext.space import Genotype, Supernet, distinct, sub_network

STEP = "step"

CALIBRATION_BATCH = 128
"""Images of a batch that running statistics are taken of [ours]."""


class Candidate(NamedTuple):
    """A sub-network: its genotype, and whether the source's search found it or it was drawn."""

    origin: str
    genotype: Genotype


@dataclass(frozen=True)
class Ranked:
    """A sub-network and how the adapted supernet judges it.

    Attributes:
        rank: from 1.
        origin: "searched" or "drawn".
        val_macro, val_accuracy: of the supernet restricted to it, on the hold-out.
        genotype: the cells.
    """

    rank: int
    origin: str
    val_macro: float
    val_accuracy: float
    genotype: Genotype


@dataclass(frozen=True)
class AdaptResult:
    """What an adaptation leaves.

    Attributes:
        genotype: the sub-network that ranks first.
        ranking: all of them, the best first.
        supernet: the adapted one, in evaluation mode; it takes images normalised by the target's `mean` and `std`.
        settings: every number.
        history: a dict an epoch, as in history.jsonl.
        metrics: final figures, as in metrics.json.
        out: the run directory, or None.
    """

    genotype: Genotype
    ranking: list[Ranked]
    supernet: Supernet
    settings: AdaptSettings
    history: list[Row]
    metrics: dict[str, Any]
    out: Path | None


def run_adapt(
    source: Supernet | SearchResult | str | Path,
    data: Dataset,
    settings: AdaptSettings,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> AdaptResult:
    """Adapt a supernet, then rank sub-networks of it by macro accuracy on a stratified hold-out.

    Args:
        source: a supernet, or a search with its run directory; it is left as it is.
        data: the target. Its training images, less `val_fraction`, are adapted to; its test images choose nothing.
            Images are normalised by its own mean and standard deviation.
        settings: every number.
        out: run directory, which `retrain` takes as it takes that of a search; None keeps everything in memory.
        resume: continue the run in `out`: bit for bit as if it had not been interrupted, on a CPU.
        progress: what follows the run.

    Raises:
        UserError: a source, settings or data that do not go together, or an `out` that holds another run.
        Interrupted: Ctrl-C or SIGTERM, after everything up to the last whole epoch or sub-network was saved.
    """
    check_alone("adapt", "only search and retrain share their work")
    check_out(out, resume)
    progress = following(progress)
    device = choose_device(settings.device)
    found = read_source(source)
    _check_data(found, data, settings)
    parts = split(data.train, 1.0 - settings.val_fraction, settings.seed, class_names=data.class_names)
    about, candidates = found.about, candidates_of(found, settings)
    with isolated_rng(device):
        seed_global(device, settings.seed, "networks")
        supernet = place(_prepared(found, data, settings), device)
    adaptation = _Adaptation(supernet, data, parts, settings, device)
    directory = None
    if out is not None:
        directory = RunDirectory(out, run_config("adapt", settings, data, source=about), resume)
        data.write_manifest(
            directory.path / "manifest.csv", {"train": parts[0], "validation": parts[1], "test": data.test}
        )
    epochs = settings.epochs if settings.trains else 0
    history = train(
        adaptation,
        epochs,
        adaptation.steps,
        settings,
        device,
        directory,
        progress,
        f"{settings.strategy} adaptation",
    )
    if not epochs and settings.recalibrate:
        adaptation.recalibrate()
    supernet.eval()
    below = None
    if directory is not None:
        drawn = [str(candidate.genotype) for candidate in candidates]
        config = run_config("sub-networks", settings, data, source=about, genotypes=drawn)
        below = RunDirectory(directory.path / "ranking", config, resume=True)
    judge = _Judge(adaptation, candidates)
    rows = train(judge, len(candidates), 1, settings, device, below, progress, "sub-networks")
    ranking = _ranked(candidates, rows)
    metrics = _metrics(adaptation, data, history, rows, ranking)
    if directory is not None:
        directory.write_text("ranking.csv", as_csv(ranking))
        directory.write_text("genotype.json", ranking[0].genotype.to_json())
        directory.write_json("metrics.json", metrics)
    where = directory.path if directory else None
    return AdaptResult(ranking[0].genotype, ranking, supernet, settings, history, metrics, where)


def candidates_of(source: Source, settings: AdaptSettings) -> list[Candidate]:
    """What is ranked: the genotype that the search found, where it is known, and the drawn ones."""
    drawn = drawn_genotypes(source.supernet, settings.subnets, settings.seed)
    searched = [] if source.genotype is None or not _fits(source) else [source.genotype]
    return [
        Candidate("searched" if genotype in searched else "drawn", genotype)
        for genotype in distinct([*searched, *drawn])
    ]


def _fits(source: Source) -> bool:
    """Whether the genotype found is a sub-network: a threshold may have left a node without an edge."""
    try:
        sub_network(source.supernet, source.genotype)  # type: ignore[arg-type]
    except UserError:
        return False
    return True


def _check_data(source: Source, data: Dataset, settings: AdaptSettings) -> None:
    """Raise `UserError` where the target does not go with the supernet or the strategy."""
    supernet, channels = source.supernet, data.image_shape[0]
    if channels != supernet.in_channels:
        raise UserError(
            f"data: got images of {channels} channel(s); wanted {supernet.in_channels}, as the supernet was searched on"
        )
    if len(data.counts) != data.num_classes:
        raise UserError(
            f"data: its labels go up to {len(data.counts) - 1}, and there are {data.num_classes} class names; wanted "
            f"labels 0 … {data.num_classes - 1}"
        )
    fewest = min(range(data.num_classes), key=lambda c: data.counts[c])
    if data.counts[fewest] < 2:
        raise UserError(
            f"val_fraction: class {data.class_names[fewest]!r} has {data.counts[fewest]} training image(s); wanted at "
            "least 2 of every class, one to train on and one to rank sub-networks by"
        )
    if settings.head == "keep":
        _check_kept(source, data, settings)


def _check_kept(source: Source, data: Dataset, settings: AdaptSettings) -> None:
    head = source.supernet.classifier
    if head.out_features != data.num_classes:
        raise UserError(
            f"head: got 'keep' for a head of {head.out_features} classes and a target of {data.num_classes}; wanted "
            "head='reinit', or a target of the same classes"
        )
    if source.class_names is not None and source.class_names != tuple(data.class_names):
        pairs = zip(source.class_names, data.class_names, strict=True)
        own, other = next((a, b) for a, b in pairs if a != b)
        raise UserError(
            f"head: got 'keep', and where the source's classes have {own!r} the target's have {other!r}; wanted "
            "head='reinit', or a target of the same classes in the same order"
        )
    if not source.head_trained:
        raise UserError(
            "head: got 'keep' for a supernet searched without labels, whose head was never trained; wanted 'reinit'"
        )
    if settings.loss == "ldam" and not isinstance(head, CosineClassifier):
        raise UserError(
            "loss: got 'ldam' with head='keep', and the head is no CosineClassifier; wanted head='reinit', which makes "
            "one"
        )


def _prepared(source: Source, data: Dataset, settings: AdaptSettings) -> Supernet:
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


class _Adaptation:
    """The state of an adaptation and one epoch of it (an `engine.loop.Trainer`)."""

    def __init__(
        self,
        supernet: Supernet,
        data: Dataset,
        parts: tuple[ImageSet, ImageSet],
        settings: AdaptSettings,
        device: torch.device,
    ) -> None:
        self.supernet, self.settings, self.data = supernet, settings, data
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
            "adapt", augmentation=settings.augment,
        )  # fmt: skip
        order = derived_seed(settings.seed, "order", "adapt", 0)  # that of the feed: a cache changes no batch
        self._batches = Batches(self.train, settings.batch_size, order, settings.sampler)
        self.steps = len(self._feed)
        self._criterion = make_loss(settings.loss, self.counts).to(device)
        self._drw = DeferredReweighting(self.counts, settings.epochs)
        self._parameters = list(supernet.parameters())
        self._optimiser = _optimiser(supernet, settings)
        self._guard = Guard(settings.on_non_finite, device, list(supernet.buffers()))
        recorder = None if self._guard.skips else recorder_for(device, settings.capture)
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
        if settings.recalibrate and not self._rests and epoch + 1 == settings.epochs:
            self.recalibrate()
        means, judged = meter.read(), self.judged()
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
        # Another attempt takes the order of an epoch that is none of the run's.
        for chosen in self._batches.indices(epoch + attempt * self.settings.epochs):
            yield self._features[chosen], labels[chosen]

    def _features_of(self, images: ImageSet) -> torch.Tensor:
        self.supernet.eval()
        return batched(self.supernet.features, images, self.device, self.data.mean, self.data.std)

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
        """Take the supernet's running statistics anew."""
        recalibrate(self.supernet, self.calibration())
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


class _Judge:
    """Judges one sub-network an epoch (an `engine.loop.Trainer` that trains nothing)."""

    def __init__(self, adaptation: _Adaptation, candidates: Sequence[Candidate]) -> None:
        self._adaptation, self._candidates = adaptation, candidates

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        adaptation, candidate = self._adaptation, self._candidates[epoch]
        network = sub_network(adaptation.supernet, candidate.genotype).eval()
        if adaptation.settings.recalibrate_subnets:
            recalibrate(network, adaptation.calibration())
        data, held_out = adaptation.data, adaptation.held_out
        found = evaluate_predictions(
            batched(network, held_out, adaptation.device, data.mean, data.std), held_out.labels, adaptation.counts
        )
        watch.step({})
        return {"origin": candidate.origin, "val_macro": found.macro, "val_accuracy": found.top1}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: the rows of the history are all there is."""


def _ranked(candidates: Sequence[Candidate], rows: Sequence[Row]) -> list[Ranked]:
    """The best first; of equals the one that was drawn first."""
    order = sorted(range(len(rows)), key=lambda i: -rows[i]["val_macro"])
    return [
        Ranked(rank, candidates[i].origin, rows[i]["val_macro"], rows[i]["val_accuracy"], candidates[i].genotype)
        for rank, i in enumerate(order, 1)
    ]


def as_csv(ranking: Sequence[Ranked]) -> str:
    """The table of sub-networks: rank, origin, val_macro, val_accuracy, genotype.

    >>> from lt_nas_ext.space import DARTS_V2
    >>> print(as_csv([Ranked(1, "drawn", 0.5, 0.75, DARTS_V2)])[:60])
    rank,origin,val_macro,val_accuracy,genotype
    1,drawn,0.5,0.75
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "origin", "val_macro", "val_accuracy", "genotype"])
    for one in ranking:
        writer.writerow([one.rank, one.origin, one.val_macro, one.val_accuracy, one.genotype])
    return text.getvalue()


def _metrics(
    adaptation: _Adaptation, data: Dataset, history: Sequence[Row], rows: Sequence[Row], ranking: Sequence[Ranked]
) -> dict[str, Any]:
    settings, judged = adaptation.settings, adaptation.judged()
    supernet = Classifier.of(adaptation.supernet, data).eval()
    seconds = [round(sum(row["seconds"] for row in part), 2) for part in (history, rows)]
    best = ranking[0]
    return {
        "strategy": settings.strategy,
        "epochs": len(history),
        "trained_parameters": adaptation.trained_parameters,
        "cached_features": adaptation.cached,
        "val_macro": judged.macro,
        "val_accuracy": judged.top1,
        "supernet": evaluate(supernet, data.test).to_json(),
        "subnets": len(ranking),
        "best": {"origin": best.origin, "val_macro": best.val_macro, "genotype": str(best.genotype)},
        "adapt_seconds": seconds[0],
        "ranking_seconds": seconds[1],
        "seconds": round(sum(seconds), 2),
    }
