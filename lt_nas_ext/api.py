"""Search, adapt, retrain, evaluate, predict, export: a call each. What is not said comes from a preset or a default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from torch import nn

from lt_nas_ext import data as lt_data
from lt_nas_ext.data import Dataset
from lt_nas_ext.engine import (
    BASELINES,
    AdaptResult,
    Classifier,
    Progress,
    SearchResult,
    evaluate,
    export,
    predict,
    retrain_preset,
    run_adapt,
    run_consensus,
    run_retrain,
    run_search,
)
from lt_nas_ext.engine.consensus import Elsewhere
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import AdaptSettings, SearchSettings, method_class, preset
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.space import AnyGenotype, Supernet, load_genotype

__all__ = ["adapt", "evaluate", "export", "predict", "retrain", "search", "search_settings"]

DEFAULT_METHOD = "ssf-nas"


def search(
    data: Dataset | str,
    method: str | None = None,
    preset: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    seeds: int = 1,
    elsewhere: Elsewhere | None = None,
    **overrides: Any,
) -> SearchResult:
    """Search the cells of a network for a set of images.

    Args:
        data: what `lt.data.load` returns, or the name of a data set to load as it is.
        method: a name of `lt.methods.METHODS`; by default the preset's, or "ssf-nas".
        preset: a name of `lt.methods.PRESETS`; by default the method's paper preset.
        out: run directory, with everything that `report` and `retrain` read; None keeps all in memory.
        resume: continue the run in `out`.
        progress: what follows the run; by default a bar on a terminal, log lines elsewhere.
        seeds: searches with so many seeds, from `seed` on; their consensus is returned (`engine.run_consensus`).
        elsewhere: does the searches of several seeds, such as `experiments.seeds.in_a_queue(Spread(jobs=4))`; by
            default they are done one after the other in this process.
        **overrides: any field of `SearchSettings`, such as `epochs=40`.

    Returns:
        The genotype, with history, metrics and health figures.

    Raises:
        UserError: an unknown name or a value out of range, before anything is trained.
        Interrupted: Ctrl-C or SIGTERM; what was done is saved in `out`.

    >>> import lt_nas_ext as lt
    >>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
    >>> found = lt.search(digits, preset="demo-darts", epochs=1, batch_size=256, channels=2, layers=1, alpha_lr=1.0)
    >>> len(found.genotype.normal.edges), len(found.history)
    (8, 1)
    """
    settings = search_settings(method, preset, overrides)
    if seeds != 1:
        return run_consensus(_loaded(data), settings, seeds, out, resume, progress, elsewhere)
    if elsewhere is not None:
        raise UserError("elsewhere: got it with one seed; wanted seeds=2 or more, for searches to spread")
    return run_search(_loaded(data), settings, out, resume, progress)


def search_settings(method: str | None, preset_name: str | None, overrides: dict[str, Any]) -> SearchSettings:
    """The settings of a method's paper preset, or of the preset named, with some replaced.

    Raises:
        UserError: an unknown method, preset or setting, or a preset of another method.

    >>> search_settings("darts", None, {"epochs": 2}).epochs
    2
    """
    if preset_name is None:
        base = preset(method_class(method or DEFAULT_METHOD).paper_preset)
    else:
        base = preset(preset_name)
        if method is not None and method_class(method).name != base.method:
            raise UserError(
                f"preset: {preset_name!r} is a preset of {base.method!r}, not of {method!r}; name one of the two"
            )
    return overridden(base, overrides)


def adapt(
    source: Supernet | SearchResult | str | Path,
    data: Dataset | str,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **overrides: Any,
) -> AdaptResult:
    """Adapt a searched supernet to other, imbalanced images, and rank sub-networks of it (IMB-NAS).

    Args:
        source: the run directory of a finished search, what `search` returned where it had one, or a supernet.
        data: the target: what `lt.data.load` returns, or the name of a data set.
        out: run directory, with everything that `retrain` and `report` read; None keeps all in memory.
        resume: continue the run in `out`.
        progress: what follows the run.
        **overrides: any field of `AdaptSettings`, such as `backbone="finetune"`.

    Returns:
        The best sub-network's genotype, the table of all, the adapted supernet.

    Raises:
        UserError: a source, a target and settings that do not go together, before anything is trained.
        Interrupted: Ctrl-C or SIGTERM; what was done is saved in `out`.

    >>> import lt_nas_ext as lt
    >>> source = lt.space.Supernet(channels=2, layers=1, in_channels=1, nodes=1)
    >>> target = lt.data.load("digits", imbalance="exp", factor=0.1)
    >>> found = lt.adapt(source, target, epochs=1, subnets=2, augment="none")
    >>> [one.rank for one in found.ranking], found.metrics["cached_features"]
    ([1, 2], True)
    """
    return run_adapt(source, _loaded(data), overridden(AdaptSettings(), overrides), out, resume, progress)


def retrain(
    genotype: AnyGenotype | nn.Module | SearchResult | str | Path,
    data: Dataset | str,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    preset: str = "default",
    **overrides: Any,
) -> Classifier:
    """Train a found network, or one to compare it with, on its own.

    Args:
        genotype: a genotype; what `search` returned; a search's run directory or a genotype file; any module; or a
            baseline by name ("resnet32", "small-conv-net", "darts-v2", "fair-darts-a", "random").
        data: what `lt.data.load` returns, or the name of a data set.
        out: run directory; None keeps all in memory.
        resume: continue the run in `out`.
        progress: what follows the run.
        preset: a name of `lt.engine.RETRAIN_PRESETS`.
        **overrides: any field of `RetrainSettings`, such as `epochs=150`.

    Returns:
        The trained network: a module from images in [0, 1] (or uint8) to logits, with `.metrics` on the test set.

    Raises:
        UserError: an unknown name or a value out of range, before anything is trained.
        Interrupted: Ctrl-C or SIGTERM; what was done is saved in `out`.

    >>> import lt_nas_ext as lt
    >>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
    >>> model = lt.retrain("small-conv-net", digits, epochs=1, channels=4)
    >>> lt.evaluate(model, digits.test).images
    440
    """
    settings = overridden(retrain_preset(preset), overrides)
    return run_retrain(_what(genotype), _loaded(data), settings, out, resume, progress).model


def _what(genotype: AnyGenotype | nn.Module | SearchResult | str | Path) -> AnyGenotype | nn.Module | str:
    if isinstance(genotype, SearchResult):
        return cast(AnyGenotype, genotype.genotype)
    if isinstance(genotype, str) and genotype in BASELINES:
        return genotype
    if isinstance(genotype, str | Path):
        path = Path(genotype)
        if not os.path.exists(genotype):  # unlike Path.exists, also where the name is longer than any file's
            raise UserError(f"genotype: got {str(genotype)!r}; no such file, and no baseline: {', '.join(BASELINES)}")
        found = path / "genotype.json" if path.is_dir() else path
        if not found.exists():
            raise UserError(f"genotype: {path} holds no genotype.json; wanted the run directory of a finished search")
        return load_genotype(found)
    return genotype


def _loaded(data: Dataset | str) -> Dataset:
    if isinstance(data, str):
        return lt_data.load(data)
    if not isinstance(data, Dataset):
        raise UserError(
            f"data: got {type(data).__name__}; wanted what lt_nas_ext.data.load returns, or a name such as 'digits'"
        )
    return data
