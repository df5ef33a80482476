"""What every study ends with: a table over its seeds, a page, and results.json with the figures of every seed."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.engine.device import device_name
from lt_nas_ext.engine.run_dir import versions
from lt_nas_ext.report.page import write_report
from lt_nas_ext.report.runs import Network, read_networks
from lt_nas_ext.report.tables import Row, rows, spread

FIGURES = (
    "macro", "top1", "many", "medium", "few", "longtailed_top1", "per_class", "ece", "parameters", "multiply_adds",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What a study leaves.

    Attributes:
        networks: all of them, read back from disk.
        results: the rows of its table; the first is the one that the others are compared with.
        report: the page.
    """

    networks: list[Network]
    results: list[Row]
    report: Path


def conclude(runs: Iterable[Path], out: Path, name: str, **more: Any) -> Study:
    """Read the runs of a study back, and write report.html and results.json into `out`.

    Args:
        runs: their directories, row by row.
        out: directory of the study.
        name: of the study.
        **more: what else belongs into results.json, such as its settings.
    """
    networks = read_networks(runs)
    content = {"study": name, "machine": machine(), **more, "networks": [entry(network) for network in networks]}
    write_text(out / "results.json", json.dumps(content, indent=1) + "\n")
    return Study(networks, rows(networks), write_report(networks, out / "report.html"))


def margins(results: Sequence[Row]) -> list[str]:
    """The first row less each other one, in points of macro accuracy, paired by seed: a line each.

    >>> print(*margins([Row("A", "–", 2, macro=(0.5, 0.75)), Row("B", "–", 2, macro=(0.5, 0.5))]))
    A - B: 12.5 ± 17.7
    """
    first, *others = results
    return [f"{first.network} - {other.network}: {spread(_differences(first, other), 100)}" for other in others]


def _differences(first: Row, other: Row) -> tuple[float, ...]:
    return tuple(a - b for a, b in zip(first.macro, other.macro, strict=True))


def machine() -> dict[str, Any]:
    """What a figure means nothing without: machine, versions, and the date on which results.json was written.

    `load` is the mean number of processes that wanted a core in the last 15 minutes: above `cores`, seconds are longer
    than on a quiet machine.
    """
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": device_name(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[2], 2),
        **versions(),
    }


def entry(network: Network) -> dict[str, Any]:
    """What results.json holds of a network."""
    return {
        "network": network.name,
        "seed": network.seed,
        **{name: network.metrics.get(name) for name in FIGURES},
        "search_seconds": network.search.metrics.get("seconds") if network.search else None,
        "train_seconds": network.metrics.get("seconds"),
        "genotype": None if network.genotype is None else str(network.genotype),
    }
