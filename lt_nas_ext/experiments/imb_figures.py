"""What the runs of the study of adaptations say: read back, paired, put into tables and pictures."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lt_nas_ext.experiments.carry import SOURCE as SEARCH
from lt_nas_ext.experiments.images import ALL, Images
from lt_nas_ext.experiments.imb_runs import DEFAULT, FULL, STRATEGIES, ImbPlan, Place, net
from lt_nas_ext.experiments.imb_settings import SOURCE
from lt_nas_ext.experiments.rank import kendall_interval, kendall_tau
from lt_nas_ext.report.scatter import Panel, scatter_plots
from lt_nas_ext.report.study_page import Picture, Table
from lt_nas_ext.report.tables import EMPTY, spread
from lt_nas_ext.space import Genotype

COLUMNS = [
    ("strategy", "what becomes of the supernet's backbone and head", False),
    ("macro", "%, mean over classes on the balanced test set: the adapted supernet itself", True),
    ("few", "%, of it the classes with fewer than 20 training images", True),
    ("train s", "seconds of the epochs; of the full search those of its epochs", True),
    ("rank s", "seconds that the ranking of all sub-networks took", True),
    ("of a full search", "both against the seconds of the full search", True),
    ("τ", "Kendall's τ between the ranking and the macro accuracy of each sub-network trained alone", True),
    ("95 %", "bootstrap interval of τ over the sub-networks", True),
    ("chosen", "%, macro on the balanced test set of the network that ranks first, trained alone", True),
]


@dataclass(frozen=True)
class Outcome:
    """A row of one target and seed; accuracies are fractions.

    Attributes:
        macro, few: of the adapted supernet on the balanced test set; few is None where no class has so few images.
        train_seconds, ranking_seconds, full_seconds: of this row, and the search on the target.
        tau, interval: of its ranking with stand-alone training.
        chosen: what the network ranked first reaches alone; of a full search what it found.
        judged: the sub-networks' accuracies on the hold-out, in the order in which they were drawn.
    """

    macro: float
    few: float | None
    train_seconds: float
    ranking_seconds: float
    full_seconds: float
    tau: float
    interval: tuple[float, float]
    chosen: float
    judged: list[float]

    @property
    def share(self) -> float:
        """Its seconds in those of the full search."""
        return (self.train_seconds + self.ranking_seconds) / self.full_seconds


@dataclass(frozen=True)
class Findings:
    """All that the runs say.

    Attributes:
        alone: distribution -> seed -> macro of each drawn sub-network trained alone, in the order drawn.
        searched: distribution -> seed -> the same of the genotype found on the source.
        outcomes: target -> row -> a value a seed.
        balanced: target -> a value a seed: τ between balanced and imbalanced accuracy, and its interval.
    """

    alone: dict[str, list[list[float]]]
    searched: dict[str, list[float]]
    outcomes: dict[str, dict[str, list[Outcome]]]
    balanced: dict[str, list[tuple[float, tuple[float, float]]]]


def findings(out: Path, plan: ImbPlan, targets: Sequence[str], seeds: int) -> Findings:
    """Read the runs of the study, all of them done."""
    alone = {
        distribution: [
            [_macro(out, net(distribution, seed, k)) for k in range(plan.adapt.subnets)] for seed in range(seeds)
        ]
        for distribution in (SOURCE, *targets)
    }
    searched = {d: [_macro(out, net(d, seed, "searched")) for seed in range(seeds)] for d in alone}
    drawn = [[str(genotype) for genotype in plan.genotypes(seed)] for seed in range(seeds)]
    outcomes: dict[str, dict[str, list[Outcome]]] = {}
    for target in targets:
        rows = {FULL: "full", **{strategy.title: strategy.name for strategy in STRATEGIES}}
        outcomes[target] = {
            row: [
                _outcome(out, Place(target, seed, name), drawn[seed], alone[target][seed], searched[target][seed])
                for seed in range(seeds)
            ]
            for row, name in rows.items()
        }
    balanced = {
        target: [_agreement(alone[SOURCE][seed], alone[target][seed]) for seed in range(seeds)] for target in targets
    }
    return Findings(alone, searched, outcomes, balanced)


def _outcome(out: Path, place: Place, drawn: Sequence[str], alone: Sequence[float], searched: float) -> Outcome:
    target, seed, name = place
    metrics, full = _json(place.within(out)), _json(Place(target, seed, SEARCH).within(out))
    with open(place.within(out) / "ranking.csv", encoding="utf-8", newline="") as file:
        judged = {row["genotype"]: float(row["val_macro"]) for row in csv.DictReader(file)}
    values = [judged[genotype] for genotype in drawn]
    tau, interval = _agreement(values, alone)
    best = metrics["best"]["genotype"]
    if name == "full":
        chosen = _macro(out, net(target, seed, "full"))
    else:
        chosen = alone[drawn.index(best)] if best in drawn else searched
    return Outcome(
        macro=metrics["supernet"]["macro"],
        few=metrics["supernet"]["few"],
        train_seconds=full["seconds"] if name == "full" else metrics["adapt_seconds"],
        ranking_seconds=metrics["ranking_seconds"],
        full_seconds=full["seconds"],
        tau=tau,
        interval=interval,
        chosen=chosen,
        judged=values,
    )


def _agreement(one: Sequence[float], other: Sequence[float]) -> tuple[float, tuple[float, float]]:
    return kendall_tau(one, other), kendall_interval(one, other)


def _macro(out: Path, place: Place) -> float:
    return float(_json(place.within(out))["macro"])


def _json(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return content


def outcome_table(found: Findings, images: Images, target: str) -> Table:
    """The rows of a target: the control first."""
    lines = []
    for row, values in found.outcomes[target].items():
        few = tuple(value.few for value in values if value.few is not None)
        lines.append(
            [
                row,
                spread(tuple(value.macro for value in values), 100),
                spread(few, 100),
                spread(tuple(value.train_seconds for value in values)),
                spread(tuple(value.ranking_seconds for value in values)),
                EMPTY if row == FULL else f"{spread(tuple(value.share for value in values), 100, 0)} %",
                spread(tuple(value.tau for value in values), digits=2),
                _interval([value.interval for value in values]),
                spread(tuple(value.chosen for value in values), 100),
            ]
        )
    counts = images.counts[target]
    title = f"{ALL[target].title}: {sum(counts)} training images, {max(counts)} … {min(counts)} a class"
    return Table(title, COLUMNS, lines)


def balance_table(found: Findings) -> Table:
    """Does accuracy on balanced images tell that on imbalanced ones?"""
    columns = [
        ("target", "", False),
        ("τ", "Kendall's τ between macro accuracy after training on balanced and on imbalanced images", True),
        ("95 %", "bootstrap interval of τ over the sub-networks", True),
        ("balanced", "%, macro of the sub-networks trained alone on balanced images: mean, lowest … highest", True),
        ("on the target", "%, the same on the target", True),
    ]
    lines = []
    for target, values in found.balanced.items():
        lines.append(
            [
                ALL[target].title,
                spread(tuple(tau for tau, _ in values), digits=2),
                _interval([interval for _, interval in values]),
                _range(found.alone[SOURCE]),
                _range(found.alone[target]),
            ]
        )
    return Table("", columns, lines)


def _interval(intervals: Sequence[tuple[float, float]]) -> str:
    """The interval, of several seeds the mean of theirs; "–" where some seed has none."""
    low, high = (statistics.fmean(ends) for ends in zip(*intervals, strict=True))
    return EMPTY if math.isnan(low) else f"{low:.2f} … {high:.2f}"


def _range(seeds: Sequence[Sequence[float]]) -> str:
    values = [100 * value for seed in seeds for value in seed]
    return f"{statistics.fmean(values):.1f}, {min(values):.1f} … {max(values):.1f}"


def pictures(found: Findings) -> tuple[Picture, Picture]:
    """Balanced against imbalanced accuracy; the default strategy's ranking against stand-alone training. Seed 0."""
    balanced, ranked = {}, {}
    for target, rows in found.outcomes.items():
        title, alone = ALL[target].title, _percent(found.alone[target][0])
        marked = {"found on the balanced source": (100 * found.searched[SOURCE][0], 100 * found.searched[target][0])}
        points = list(zip(_percent(found.alone[SOURCE][0]), alone, strict=True))
        balanced[title] = Panel(points, _said(*found.balanced[target][0]), marked)
        outcome = rows[DEFAULT.title][0]
        ranked[title] = Panel(
            list(zip(_percent(outcome.judged), alone, strict=True)), _said(outcome.tau, outcome.interval)
        )
    dot = "a sub-network"
    return (
        Picture(
            "figure-balanced-imbalanced",
            scatter_plots(
                balanced, "trained on balanced images, macro (%)", "trained on the target, macro (%)", dot,
                "Accuracy after training on balanced and on imbalanced images", "balanced",
            ),
        ),
        Picture(
            "figure-ranking",
            scatter_plots(
                ranked, "as part of the supernet, hold-out macro (%)", "trained alone on the target, macro (%)", dot,
                "Accuracy of sub-networks as part of the adapted supernet and trained alone", "ranking",
            ),
        ),
    )  # fmt: skip


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def _said(tau: float, interval: tuple[float, float]) -> str:
    return f"τ = {spread((tau,), digits=2)}, 95 %: {_interval([interval])}"


def network_table(found: Findings, drawn: Sequence[Genotype]) -> Table:
    """Every sub-network trained alone; seed 0."""
    columns = [("sub-network", "", False), *((ALL[d].title, "%, macro, trained alone", True) for d in found.alone)]
    names: Mapping[int, str] = {k: f"{k:02d}" for k in range(len(drawn))}
    lines = [[name, *(f"{100 * seeds[0][k]:.1f}" for seeds in found.alone.values())] for k, name in names.items()]
    lines.append(["found on the source", *(f"{100 * seeds[0]:.1f}" for seeds in found.searched.values())])
    return Table("", columns, lines)
