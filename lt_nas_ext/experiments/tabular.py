"""The tabular study: small networks trained on balanced and on long-tailed digits, every accuracy in one table.

Does the accuracy on balanced images tell which network is good under a long tail? The networks are the first random
genotypes of a tiny space: cells of two nodes, three cells of 8 channels. Each is trained alike, with cross-entropy in a
plain loop, under three label distributions of as many images in all, so that nothing but their shares differs. A seed
stands for everything drawn: which images, initial weights, order, augmentation. The 440 balanced test images chose
nothing.

Kendall's τ between two distributions is to be read beside that between two seeds of one distribution: networks whose
order does not survive another seed have no order that a long tail could change.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lt_nas_ext import data
from lt_nas_ext.data import Dataset, normalize
from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.engine.seeds import derived_seed
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.images import DISTRIBUTIONS
from lt_nas_ext.experiments.local_crew import LocalCrew, cores
from lt_nas_ext.experiments.plain_loop import Recipe, Training, fit_plainly
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.experiments.rank import mean_tau, mean_tau_interval
from lt_nas_ext.experiments.study import machine
from lt_nas_ext.experiments.worker import Follow, Job
from lt_nas_ext.longtail import evaluate_predictions
from lt_nas_ext.report.seed_scatter import Panel, scatter
from lt_nas_ext.report.tables import EMPTY
from lt_nas_ext.space import Genotype, Network, multiply_adds, param_count
from lt_nas_ext.space.derive import random_genotypes

FIGURES = ("macro", "many", "medium", "few", "first", "middle", "last")
COLUMNS = (
    "network", "genotype", "parameters", "multiply_adds", "distribution", "seed", "training_images", *FIGURES,
)  # fmt: skip
"""Of tabular.csv: a line a training. Accuracies are fractions; empty where no class belongs to the group."""

Accuracies = list[list[float]]
"""Seed -> network -> macro accuracy in %."""


@dataclass(frozen=True)
class Plan:
    """Every number of the study but how many networks and seeds.

    Attributes:
        n_max: images of the largest class under each distribution (`experiments.images.DISTRIBUTIONS`): 240, 240 and
            242 in all. The first distribution is the one that the others are compared with.
        training: what all trainings share; channels are those of the first cell.
        layers: cells.
        nodes: of each cell.
        genotype_seed: of the random genotypes.
    """

    n_max: Mapping[str, int] = field(default_factory=lambda: {"balance": 24, "exp-0.1": 60, "exp-0.01": 100})
    training: Training = field(default_factory=lambda: Training(epochs=12, batch_size=60, channels=8, lr=0.1))
    layers: int = 3
    nodes: int = 2
    genotype_seed: int = 0


@dataclass(frozen=True)
class Tau:
    """Kendall's τ-b, and the interval that holds 95 % of it under resampling of the networks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} … {self.high:.2f})"


@dataclass(frozen=True)
class Agreement:
    """How far two distributions order the networks alike.

    Attributes:
        first, second: their titles; the same one twice asks how far a seed orders them as another does.
        means: τ between the means over seeds; None of a distribution with itself.
        seeds: mean τ between one seed of the first and another of the second; None where there is one seed only.
    """

    first: str
    second: str
    means: Tau | None
    seeds: Tau | None

    @property
    def shown(self) -> tuple[str, str, str, str]:
        """Its line of the table."""
        means, seeds = (EMPTY if tau is None else str(tau) for tau in (self.means, self.seeds))
        return self.first, self.second, means, seeds


@dataclass(frozen=True)
class Tabular:
    """What the study leaves.

    Attributes:
        accuracies: title of each distribution -> its accuracies.
        agreements: each pair of distributions, then each with itself.
        table: tabular.csv.
        picture: tabular.svg.
        report: results.json.
    """

    accuracies: Mapping[str, Accuracies]
    agreements: list[Agreement]
    table: Path
    picture: Path
    report: Path


def run_tabular(
    out: str | Path = "runs/tabular",
    networks: int = 30,
    seeds: int = 3,
    jobs: int | None = None,
    plan: Plan | None = None,
    board: Board | None = None,
) -> Tabular:
    """Run the study, or what is missing of it: finished trainings in `out` are kept.

    Args:
        out: directory of a file for each training (`seed-0/exp-0.1/07.json`, …) and of what `Tabular` names.
        networks: how many random genotypes, at least 2.
        seeds: how many; they count from 0.
        jobs: networks at work at the same time, each in a process of one thread; by default one a core.
        plan: every other number.
        board: what follows it; by default bars on a terminal, log lines elsewhere.

    Raises:
        UserError: `out` holds a study with other settings.
        QueueInterrupted: Ctrl-C; call again to continue.
    """
    out, jobs, plan = Path(out), cores() if jobs is None else jobs, plan or Plan()
    for name, value, least in (("networks", networks, 2), ("seeds", seeds, 1), ("jobs", jobs, 1)):
        if value < least:
            raise UserError(f"{name}: got {value}; wanted at least {least}")
    genotypes = first_genotypes(plan, networks)
    places = [(seed, name, number) for seed in range(seeds) for name in plan.n_max for number in range(networks)]
    queue = [
        Job(
            f"{DISTRIBUTIONS[name].title}, seed {seed}, network {number}",
            partial(train_network, _file(out, seed, name, number), genotypes[number], name, seed, plan),
        )
        for seed, name, number in places
    ]
    run_queue(queue, out, LocalCrew(jobs), "tabular", board)
    trained = {place: json.loads(_file(out, *place).read_text()) for place in places}
    return _concluded(out, genotypes, seeds, plan, trained)


def first_genotypes(plan: Plan, count: int) -> list[Genotype]:
    """The first genotypes of the plan's space, each once.

    >>> from lt_nas_ext.experiments.tabular import Plan
    >>> two, three = first_genotypes(Plan(), 2), first_genotypes(Plan(), 3)
    >>> three[:2] == two, len(two[0].normal.edges)
    (True, 4)
    """
    drawn: dict[str, Genotype] = {}
    for genotype in random_genotypes(plan.genotype_seed, nodes=plan.nodes):
        drawn.setdefault(str(genotype), genotype)
        if len(drawn) == count:
            break
    return list(drawn.values())


def train_network(file: Path, genotype: Genotype, distribution: str, seed: int, plan: Plan, follow: Follow) -> str:
    """One network under one distribution and seed, trained and measured; its macro accuracy in words."""
    settings = {"genotype": str(genotype), "distribution": distribution, "seed": seed, **asdict(plan)}
    settings["n_max"] = plan.n_max[distribution]
    if file.exists():
        done = json.loads(file.read_text())
        if done["settings"] != json.loads(json.dumps(settings)):
            raise UserError(f"out: {file} is of a study with other settings; name another directory")
        return _told(done)
    began = time.perf_counter()
    digits = load_digits(distribution, seed, plan)
    network = make_network(genotype, plan, seed)
    fit_plainly(network, digits, plan.training, Recipe(), seed, follow("training"))
    with torch.no_grad():
        logits = network(normalize(digits.test.images, digits.mean, digits.std))
    metrics = evaluate_predictions(logits, digits.test.labels, digits.counts).to_json()
    done = {
        "settings": settings,
        "figures": {name: metrics[name] for name in FIGURES},
        "training_images": len(digits.train),
        "seconds": round(time.perf_counter() - began, 2),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(done, indent=1) + "\n")
    return _told(done)


def load_digits(distribution: str, seed: int, plan: Plan) -> Dataset:
    """The digits of one distribution and seed."""
    one = DISTRIBUTIONS[distribution]
    return data.load("digits", one.imbalance, one.factor, seed, n_max=plan.n_max[distribution])


def make_network(genotype: Genotype, plan: Plan, seed: int) -> Network:
    """The network of a genotype with its initial weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "network"))
        return Network(genotype, plan.training.channels, num_classes=10, layers=plan.layers, in_channels=1)


def agreements(accuracies: Mapping[str, Accuracies]) -> list[Agreement]:
    """Each pair of distributions, then each with itself where there are several seeds.

    >>> seeds = {"A": [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], "B": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]}
    >>> for one in agreements(seeds):
    ...     print(one.first, one.second, *(tau and round(tau.value, 2) for tau in (one.means, one.seeds)))
    A B 0.82 0.67
    A A None 0.33
    B B None 1.0
    """
    found = []
    for (first, ours), (second, theirs) in itertools.combinations(accuracies.items(), 2):
        # Rounded to less than one test image: equal means must tie, whether summed here or read from the table.
        means = [np.round(np.mean(values, axis=0), 2) for values in (ours, theirs)]
        others = list(itertools.permutations(range(len(ours)), 2))
        found.append(Agreement(first, second, _tau([means]), _tau([(ours[i], theirs[j]) for i, j in others])))
    for title, ours in accuracies.items():
        pairs = list(itertools.combinations(ours, 2))
        found += [Agreement(title, title, None, _tau(pairs))] if pairs else []
    return found


def _tau(pairs: Sequence[Any]) -> Tau | None:
    return Tau(mean_tau(pairs), *mean_tau_interval(pairs)) if pairs else None


def _concluded(
    out: Path, genotypes: Sequence[Genotype], seeds: int, plan: Plan, trained: Mapping[tuple[int, str, int], Any]
) -> Tabular:
    accuracies = {
        DISTRIBUTIONS[name].title: [
            [round(100 * trained[seed, name, number]["figures"]["macro"], 9) for number in range(len(genotypes))]
            for seed in range(seeds)
        ]
        for name in plan.n_max
    }
    found = agreements(accuracies)
    content = {
        "study": "tabular",
        "machine": machine(),
        "plan": asdict(plan),
        "networks": len(genotypes),
        "seeds": seeds,
        "seconds": round(sum(one["seconds"] for one in trained.values()), 1),
        "macro": {title: _spread(values) for title, values in accuracies.items()},
        "agreements": [asdict(one) for one in found],
    }
    here = out.absolute()
    study = Tabular(accuracies, found, here / "tabular.csv", here / "tabular.svg", here / "results.json")
    write_text(study.table, as_csv(genotypes, plan, trained))
    write_text(study.picture, draw(study))
    write_text(study.report, json.dumps(content, indent=1) + "\n")
    return study


def _spread(values: Accuracies) -> dict[str, float]:
    """Of the networks' means over seeds, in %."""
    means = np.mean(values, axis=0)
    return {"mean": round(float(means.mean()), 2), "least": round(float(means.min()), 2),
            "most": round(float(means.max()), 2), "deviation": round(float(means.std(ddof=1)), 2)}  # fmt: skip


def as_csv(genotypes: Sequence[Genotype], plan: Plan, trained: Mapping[tuple[int, str, int], Any]) -> str:
    """tabular.csv: a line a training, network by network; no figure in it depends on the machine's speed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, genotype in enumerate(genotypes):
        network = make_network(genotype, plan, 0)
        costs = param_count(network), multiply_adds(network, (1, 8, 8))
        for name in plan.n_max:
            for seed in sorted({seed for seed, *_ in trained}):
                one = trained[seed, name, number]
                figures = ("" if one["figures"][key] is None else f"{one['figures'][key]:.6f}" for key in FIGURES)
                writer.writerow([number, genotype, *costs, name, seed, one["training_images"], *figures])
    return text.getvalue()


def draw(study: Tabular) -> str:
    """The first distribution against each other one, and beside them one seed against another of the first."""
    (base, ours), *others = study.accuracies.items()
    by_pair = {(one.first, one.second): one for one in study.agreements}
    panels = [
        Panel(
            f"τ = {by_pair[base, title].means}",
            f"macro accuracy, {base} (%)",
            f"macro accuracy, {title} (%)",
            list(zip(*ours, strict=True)),
            list(zip(*theirs, strict=True)),
        )
        for title, theirs in others
    ]
    if (base, base) in by_pair:
        sides = [[[value] for value in seed] for seed in ours[:2]]
        x, y = (f"macro accuracy, {base}, seed {seed} (%)" for seed in range(2))
        panels.append(Panel(f"Two seeds: τ = {by_pair[base, base].seeds}", x, y, *sides))
    return scatter(panels, "Accuracy of each network on balanced and on long-tailed digits", "tabular")


def _told(done: Mapping[str, Any]) -> str:
    return f"macro {100 * done['figures']['macro']:.1f} %"


def _file(out: Path, seed: int, distribution: str, number: int) -> Path:
    return out / f"seed-{seed}" / distribution / f"{number:02d}.json"
