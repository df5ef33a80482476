"""Retraining: a found genotype, or any network to compare it with, trained on its own by one and the same loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lt_nas_ext.data import Dataset, ImageSet, split
from lt_nas_ext.engine.architecture import build_network, describe, genotype_of
from lt_nas_ext.engine.classifier import Classifier
from lt_nas_ext.engine.device import place
from lt_nas_ext.engine.evaluate import evaluate, predict_logits
from lt_nas_ext.engine.loop import Row, train
from lt_nas_ext.engine.phases import Retraining
from lt_nas_ext.engine.processes import Group, join
from lt_nas_ext.engine.progress import Progress, Several, following
from lt_nas_ext.engine.retrain_settings import SIZES, RetrainSettings
from lt_nas_ext.engine.run_dir import RunDirectory, check_out, run_config
from lt_nas_ext.engine.seeds import isolated_rng, seed_global
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CosineClassifier, calibrate, evaluate_predictions, last_linear
from lt_nas_ext.space import AnyGenotype, BbnGenotype, Genotype, Network, multiply_adds, param_count


@dataclass(frozen=True)
class RetrainResult:
    """What a retraining leaves.

    Attributes:
        model: the trained network in evaluation mode, with normalisation and class names; it takes images in [0, 1].
        metrics: final figures on the test set, as in metrics.json.
        history: a dict an epoch, as in history.jsonl.
        out: the run directory, or None.
    """

    model: Classifier
    metrics: dict[str, Any]
    history: list[Row]
    out: Path | None


def run_retrain(
    what: AnyGenotype | nn.Module | str,
    data: Dataset,
    settings: RetrainSettings,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> RetrainResult:
    """Train a network on the training images, less `val_fraction`, and evaluate its last weights on the test images.

    Where torchrun started several processes, in all of them together (`engine.processes`).

    Args:
        what: a genotype (of a `BbnGenotype` the network with both heads learns from paired streams); a module from
            normalised images to logits (trained in place; for a pre-training it needs `features` and `feature_dim`);
            or a name of `architecture.BASELINES`.
        data: the long-tailed training set and its test set.
        settings: every number.
        out: run directory; None keeps everything in memory.
        resume: continue the run in `out`.
        progress: what follows the run.

    Raises:
        UserError: settings or data that cannot work, or an `out` that holds another run.
        NonFiniteError: losses or gradients were not finite, and `settings.on_non_finite` has no other way.
        Interrupted: Ctrl-C or SIGTERM, after everything up to the last whole epoch was saved.
        ProcessEnded: another process of the run did.
        ProcessesDiffer: the processes do not hold the same numbers any more.
    """
    group = join()
    with group.run():
        return _retrained(what, data, settings, out, resume, progress, group)


def _retrained(
    what: AnyGenotype | nn.Module | str,
    data: Dataset,
    settings: RetrainSettings,
    out: str | Path | None,
    resume: bool,
    progress: Progress | None,
    group: Group,
) -> RetrainResult:
    check_out(out, resume)
    whole = data
    data, validation = _without_validation(whole, settings)
    progress = following(progress) if group.first else Several(())
    device = group.device(settings.device)
    what = _derived(what, settings)
    architecture = describe(
        what,
        settings.channels,
        settings.layers,
        SIZES[settings.size],
        settings.seed,
        settings.random_parameters,
        data.num_classes,
        data.image_shape[0],
        settings.test_mixing,
    )
    if settings.loss == "ldam":
        architecture["classifier"] = "cosine"
    with isolated_rng(device):
        seed_global(device, settings.seed, "networks")
        if isinstance(what, nn.Module):
            network = what
        else:
            network = build_network(architecture, data.num_classes, data.image_shape[0], settings.auxiliary > 0)
        model = place(Classifier.of(network, data, architecture), device)
        if isinstance(what, nn.Module):
            _check_fits(model, data, settings)
            group.spread([*network.parameters(), *network.buffers()])  # each process may have drawn its own
        retraining = Retraining(model, data, settings, device, group)
    more: dict[str, Any] = {"architecture": architecture, **group.identity}
    # Two functions of one name may differ: what counts is what they return.
    if callable(settings.mixing):
        more["mixing_ratios"] = list(retraining.ratios)
    directory = None
    if out is not None and group.first:
        directory = RunDirectory(out, run_config("retrain", settings, whole, **more), resume)
        parts = {"train": data.train, "test": data.test}
        if validation is not None:
            parts["validation"] = validation
        data.write_manifest(directory.path / "manifest.csv", parts)
    history = train(
        retraining,
        settings.pretrain_epochs + settings.epochs,
        retraining.steps,
        settings,
        device,
        directory,
        progress,
        f"{architecture['name']} retraining",
        group,
    )
    retraining.finish()
    if isinstance(network, Network) and network is not what:
        network.auxiliary_head = None  # it served the training alone
    if validation is not None:
        model.calibration = calibrate(predict_logits(model, validation.images), validation.labels, data.counts)
    model.metrics, model.history = _metrics(retraining, history), history
    if directory is not None:
        with directory.writing("model.pt"):
            model.save(directory.path / "model.pt")
        genotype = genotype_of(architecture)
        if genotype is not None:
            directory.write_text("genotype.json", genotype.to_json())
        directory.write_json("metrics.json", model.metrics)
    return RetrainResult(model.eval(), model.metrics, history, None if out is None else Path(out))


def _derived(what: AnyGenotype | nn.Module | str, settings: RetrainSettings) -> AnyGenotype | nn.Module | str:
    """The genotype with heads or without, as the settings ask for."""
    if settings.derived == "plain" and isinstance(what, BbnGenotype):
        return what.backbone
    if settings.derived != "bbn" or isinstance(what, BbnGenotype):
        return what
    if not isinstance(what, Genotype):
        came = repr(what) if isinstance(what, str) else type(what).__name__
        raise UserError(f"derived: got 'bbn' for {came}; wanted it with a genotype, whose normal cell makes the heads")
    return BbnGenotype(what, what.normal, what.normal)


def _without_validation(data: Dataset, settings: RetrainSettings) -> tuple[Dataset, ImageSet | None]:
    """The data set that is trained on, with its own counts, mean and deviation; and what was taken out, if anything."""
    if not settings.val_fraction:
        return data, None
    fewest = min(range(data.num_classes), key=lambda c: data.counts[c])
    if data.counts[fewest] < 2:
        raise UserError(
            f"val_fraction: class {data.class_names[fewest]!r} has {data.counts[fewest]} training image(s); "
            "wanted at least 2 of every class, one to train on and one to hold out, or val_fraction=0"
        )
    train, validation = split(data.train, 1.0 - settings.val_fraction, settings.seed)
    return replace(data, train=train), validation


def _check_fits(model: Classifier, data: Dataset, settings: RetrainSettings) -> None:
    """Raise `UserError` where a module of the user's own cannot be trained on the data."""
    name, (channels, height, width) = type(model.network).__name__, data.image_shape
    if not any(parameter.requires_grad for parameter in model.network.parameters()):
        raise UserError(f"genotype: {name} has no parameters to train; wanted a module from images to logits")
    if settings.loss == "ldam" and not isinstance(last_linear(model.network)[1], CosineClassifier):
        raise UserError(
            f"loss: got 'ldam' for {name}, whose last layer is a Linear; wanted a CosineClassifier, which "
            "lt_nas_ext.longtail.cosine_classifier(module) puts there"
        )
    wanted = f"wanted a module from (N, {channels}, {height}, {width}) to logits (N, {data.num_classes})"
    try:
        logits = predict_logits(model, data.train.images[:2])
    except Exception as error:  # a module of the user's own fails in ways of its own
        raise UserError(f"genotype: {name} fails on the training images ({error}); {wanted}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape[1:] != (data.num_classes,):
        raise UserError(f"genotype: {name} makes {tuple(logits.shape)} of two images; {wanted}")


def _metrics(retraining: Retraining, history: list[Row]) -> dict[str, Any]:
    model, settings = retraining.model, retraining.settings
    return {
        **evaluate(model, retraining.test).to_json(),
        **_posthoc(model, retraining.test),
        "architecture": model.architecture["name"],
        "parameters": param_count(model.network),
        "multiply_adds": multiply_adds(model.network, model.image_shape),
        "epochs": settings.epochs,
        "pretrain_epochs": settings.pretrain_epochs,
        "seconds": round(sum(row["seconds"] for row in history), 2),
    }


def _posthoc(model: Classifier, test: ImageSet) -> dict[str, Any]:
    """What the validation images were good for: the calibration error after, and every figure after the adjustment."""
    calibration = model.calibration
    if calibration is None:
        return {}
    logits = calibration.calibrated(predict_logits(model, test.images))
    ece = evaluate_predictions(logits, test.labels, model.train_counts).ece
    adjusted = evaluate(model, test, adjusted=True).to_json()
    return {"posthoc": {**asdict(calibration), "ece": ece, "adjusted": adjusted}}
