"""The adaptation: a searched supernet takes to other images, and its sub-networks are ranked on some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lt_nas_ext.data import Dataset, split
from lt_nas_ext.engine.adaptation import Adaptation, prepared
from lt_nas_ext.engine.classifier import Classifier
from lt_nas_ext.engine.device import place
from lt_nas_ext.engine.evaluate import evaluate
from lt_nas_ext.engine.loop import Row, train
from lt_nas_ext.engine.processes import Group, join
from lt_nas_ext.engine.progress import Progress, Several, following
from lt_nas_ext.engine.ranking import Judge, Ranked, as_csv, candidates_of, ranked
from lt_nas_ext.engine.run_dir import RunDirectory, check_out, run_config
from lt_nas_ext.engine.search import SearchResult
from lt_nas_ext.engine.seeds import isolated_rng, seed_global
from lt_nas_ext.engine.source import Source, read_source
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import CosineClassifier
from lt_nas_ext.methods.imb_nas import AdaptSettings
from lt_nas_ext.space import Genotype, Supernet


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

    Where torchrun started several processes, in all of them together (`engine.processes`).

    Args:
        source: a supernet, or a search with its run directory, which all processes see; it is left as it is.
        data: the target. Its training images, less `val_fraction`, are adapted to; its test images choose nothing.
            Images are normalised by its own mean and standard deviation.
        settings: every number.
        out: run directory, which `retrain` takes as it takes that of a search; None keeps everything in memory.
        resume: continue the run in `out`: bit for bit as if it had not been interrupted, on a CPU.
        progress: what follows the run.

    Raises:
        UserError: a source, settings or data that do not go together, or an `out` that holds another run.
        NonFiniteError: losses or gradients were not finite, and `settings.on_non_finite` has no other way.
        Interrupted: Ctrl-C or SIGTERM, after everything up to the last whole epoch or sub-network was saved.
        ProcessEnded: another process of the run did.
        ProcessesDiffer: the processes do not hold the same numbers any more.
    """
    group = join()
    with group.run():
        return _adapted(source, data, settings, out, resume, progress, group)


def _adapted(
    source: Supernet | SearchResult | str | Path,
    data: Dataset,
    settings: AdaptSettings,
    out: str | Path | None,
    resume: bool,
    progress: Progress | None,
    group: Group,
) -> AdaptResult:
    check_out(out, resume)
    progress = following(progress) if group.first else Several(())
    device = group.device(settings.device)
    found = read_source(source)
    _check_data(found, data, settings)
    parts = split(data.train, 1.0 - settings.val_fraction, settings.seed, class_names=data.class_names)
    about, candidates = found.about, candidates_of(found, settings)
    with isolated_rng(device):
        seed_global(device, settings.seed, "networks")
        supernet = place(prepared(found, data, settings), device)
    group.spread([*supernet.parameters(), *supernet.buffers()])  # one from memory each process may have drawn itself
    adaptation = Adaptation(supernet, data, parts, settings, device, group)
    directory = below = None
    if out is not None and group.first:
        directory = RunDirectory(out, run_config("adapt", settings, data, source=about, **group.identity), resume)
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
        group,
    )
    if not epochs and settings.recalibrate:
        adaptation.recalibrate()
    supernet.eval()
    if directory is not None:
        drawn = [str(candidate.genotype) for candidate in candidates]
        config = run_config("sub-networks", settings, data, source=about, genotypes=drawn)
        below = RunDirectory(directory.path / "ranking", config, resume=True)
    judge = Judge(adaptation, candidates, group)
    rows = train(judge, len(candidates), 1, settings, device, below, progress, "sub-networks", group)
    ranking = ranked(candidates, rows)
    metrics = _metrics(adaptation, data, history, rows, ranking)
    if directory is not None:
        directory.write_text("ranking.csv", as_csv(ranking))
        directory.write_text("genotype.json", ranking[0].genotype.to_json())
        directory.write_json("metrics.json", metrics)
    where = None if out is None else Path(out)
    return AdaptResult(ranking[0].genotype, ranking, supernet, settings, history, metrics, where)


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


def _metrics(
    adaptation: Adaptation, data: Dataset, history: Sequence[Row], rows: Sequence[Row], ranking: Sequence[Ranked]
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
