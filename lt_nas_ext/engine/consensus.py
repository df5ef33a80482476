"""One search for each of several seeds, and the genotype that they agree on."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext.data import Dataset
from lt_nas_ext.engine.health import edges_in_common, skip_share
from lt_nas_ext.engine.processes import check_alone
from lt_nas_ext.engine.progress import Progress
from lt_nas_ext.engine.run_dir import RunDirectory, check_out, run_config
from lt_nas_ext.engine.search import SearchResult, run_search
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Problem, SearchSettings, method_class

Elsewhere = Callable[[Dataset, Mapping[Path, SearchSettings]], None]
"""Does searches, each with its settings in its directory, begun or continued: in processes of their own, say."""


def run_consensus(
    data: Dataset,
    settings: SearchSettings,
    seeds: int,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
) -> SearchResult:
    """Search with `seeds` seeds from `settings.seed` on; derive one genotype from the mean of their final gates [ours].

    Args:
        data: as of `run_search`.
        settings: likewise.
        seeds: how many; at least 2.
        out: directory of the consensus, a run that can be retrained; the searches are in `seed-0/`, … below it.
        resume: continue what is in `out`.
        progress: what follows each search that is done here.
        elsewhere: does the searches before; by default, and what it leaves undone, one after the other in this process.

    Returns:
        The consensus: no history of its own, and in `metrics` how far the seeds agree. `agreement` is the mean share of
        edges that two seeds' genotypes have in common, `with_consensus` that of each seed's with the result's.

    Raises:
        UserError: a method without gates to agree on, or as `run_search`.
        Interrupted: as `run_search`; every finished search is kept.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 2:
        raise UserError(f"seeds: got {seeds!r}; wanted a whole number, at least 2 for a consensus")
    check_alone("seeds", "each search is a run of its own, and --jobs of them run side by side")
    check_out(out, resume)
    if elsewhere is not None and out is None:
        raise UserError("elsewhere: got it without out; wanted out=DIR, where the searches leave what they find")
    problem = Problem(data.num_classes, data.image_shape, tuple(data.counts))
    kind = method_class(settings.method)
    settings = kind.fitted(settings, problem)
    method = kind(settings, problem)
    if not method.agrees:
        raise UserError(f"seeds: got {seeds} for method {settings.method!r}, which has no gates to agree on; wanted 1")
    numbers = range(settings.seed, settings.seed + seeds)
    directory = None
    if out is not None:
        directory = RunDirectory(out, run_config("search", settings, data, seeds=list(numbers)), resume)
    searches = {seed: replace(settings, seed=seed) for seed in numbers}
    if elsewhere is not None and directory is not None:
        elsewhere(data, {directory.path / f"seed-{seed}": own for seed, own in searches.items()})
    runs = []
    for seed, own in searches.items():
        below = None if directory is None else directory.path / f"seed-{seed}"
        with warnings.catch_warnings():
            if below is not None and (below / "metrics.json").exists():
                warnings.simplefilter("ignore")  # it is only read, and what it has to say was said
            runs.append(run_search(data, own, below, below is not None, progress))
    gates = mean_gates([run.history[-1]["gates"] for run in runs])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        genotype = method.derive_gates(gates)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    found = [json.loads(run.genotype.to_json()) for run in runs]
    result = json.loads(genotype.to_json())
    health = {"skip_share": skip_share(result), "warnings": [str(warning.message) for warning in caught]}
    metrics = {
        "seeds": list(numbers),
        "agreement": agreement_of(found),
        "with_consensus": [edges_in_common(one, result) for one in found],
        "genotypes": [str(run.genotype) for run in runs],
        "seconds": round(sum(run.metrics["seconds"] for run in runs), 2),
        "health": health,
    }
    if directory is not None:
        directory.write_text("genotype.json", genotype.to_json())
        directory.write_json("metrics.json", metrics)
    return SearchResult(genotype, settings, [], metrics, health, directory.path if directory else None)


def mean_gates(runs: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The mean over runs of the gates that a line of history.jsonl holds, by cell type.

    >>> mean_gates([{"normal": [[0.0, 1.0]]}, {"normal": [[0.5, 0.0]]}])
    {'normal': tensor([[0.2500, 0.5000]], dtype=torch.float64)}
    """
    return {
        cell: torch.stack([torch.tensor(run[cell], dtype=torch.float64) for run in runs]).mean(0) for cell in runs[0]
    }


def agreement_of(genotypes: Sequence[Mapping[str, Any]]) -> float:
    """The mean share of edges that two of the genotypes have in common, over all pairs."""
    shares = [edges_in_common(one, other) for one, other in itertools.combinations(genotypes, 2)]
    return sum(shares) / len(shares)
