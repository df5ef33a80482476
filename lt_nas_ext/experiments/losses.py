"""The losses study: what each remedy for a long tail wins on long-tailed digits, over several seeds.

One small network, one plain training loop (`plain_loop`), one set of numbers for all: no remedy was tuned, and nothing
was chosen on the 440 balanced test images. A seed stands for everything drawn: which training images there are, initial
weights, order, augmentation. The numbers are the digits study's, which were chosen with balanced softmax at μ = 0.1.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lt_nas_ext import data
from lt_nas_ext.data import Dataset, ImageSet, normalize
from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.local_crew import LocalCrew, cores
from lt_nas_ext.experiments.plain_loop import Epochs, Recipe, Training, train_plainly
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.experiments.study import Study, machine
from lt_nas_ext.experiments.worker import Follow, Job
from lt_nas_ext.longtail import Calibration, calibrate, evaluate_predictions, retrain_classifier, tau_normalized
from lt_nas_ext.report.tables import Row
from lt_nas_ext.space import param_count

FACTOR = 0.02
"""μ: 130 training images of the first digit, 2 of the last, 360 in all."""

RECIPES: Mapping[str, Recipe] = {
    "cross-entropy": Recipe(),
    "inverse frequency": Recipe("inverse_frequency"),
    "class-balanced": Recipe("class_balanced"),
    "focal": Recipe("focal"),
    "LDAM": Recipe("ldam"),
    "LDAM-DRW": Recipe("ldam", drw=True),
    "DRW": Recipe(drw=True),
    "balanced softmax": Recipe("balanced_softmax"),
    "class-uniform sampler": Recipe(sampler="class_uniform"),
    "square-root sampler": Recipe(sampler="sqrt"),
    "reverse sampler": Recipe(sampler="reverse"),
    "under-sampling": Recipe(sampler="under_sampling"),
    "mixup": Recipe(mixing="mixup"),
    "Remix": Recipe(mixing="remix"),
    "Remix-DRW": Recipe(mixing="remix", drw=True),
    "tail augmentation": Recipe(tail=True),
    "balanced softmax, tail augmentation": Recipe("balanced_softmax", tail=True),
}
"""Row -> its training. Cross-entropy comes first: the others are compared with it. Balanced softmax is also what logit
adjustment in training is at τ = 1."""

FIGURES = ("macro", "top1", "longtailed_top1", "many", "medium", "few", "first", "middle", "last", "per_class", "ece")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Every number of the study but the seeds.

    Attributes:
        training: what all share.
        held_out: share of the training images that post-hoc τ and temperature are fitted on, by a training of its own.
        crt_epochs: of the last layer alone, class-uniform, after cross-entropy.
        recipes: row -> its training.
    """

    training: Training = field(default_factory=Training)
    held_out: float = 0.2
    crt_epochs: int = 10
    recipes: Mapping[str, Recipe] = field(default_factory=lambda: RECIPES)


def run_losses(
    out: str | Path = "runs/losses",
    seeds: int = 5,
    jobs: int | None = None,
    plan: Plan | None = None,
    board: Board | None = None,
) -> Study:
    """Run the study, or what is missing of it: finished trainings in `out` are kept.

    Args:
        out: directory of a file for each training (`seed-0/focal.json`, …) and of results.json.
        seeds: how many; they count from 0.
        jobs: networks at work at the same time, each in a process of one thread; by default one a core.
        plan: every other number.
        board: what follows it; by default bars on a terminal, log lines elsewhere.

    Returns:
        The rows; its `report` is results.json.

    Raises:
        UserError: `out` holds a study with other settings.
        QueueInterrupted: Ctrl-C; call again to continue.
    """
    out, jobs, plan = Path(out), cores() if jobs is None else jobs, plan or Plan()
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value < 1:
            raise UserError(f"{name}: got {value}; wanted at least 1")
    names = (*plan.recipes, HELD_OUT)
    queue = [
        Job(f"{name}, seed {seed}", partial(run_training, _file(out, name, seed), name, seed, plan))
        for seed in range(seeds)
        for name in names
    ]
    run_queue(queue, out, LocalCrew(jobs), "losses", board)
    trained = [
        (seed, json.loads(_file(out, name, seed).read_text())["rows"]) for name in names for seed in range(seeds)
    ]
    figures: dict[str, list[Figures]] = {}
    for seed, rows in trained:
        for row, values in rows.items():
            figures.setdefault(row, []).append({"seed": seed, **values})
    content = {"study": "losses", "machine": machine(), "factor": FACTOR, "plan": asdict(plan), "rows": figures}
    write_text(out / "results.json", json.dumps(content, indent=1) + "\n")
    return Study([], [_row(name, values) for name, values in figures.items()], (out / "results.json").absolute())


HELD_OUT = "post-hoc logit adj., τ fitted"


def run_training(file: Path, name: str, seed: int, plan: Plan, follow: Follow) -> str:
    """One training of one seed, and the rows that it gives; its macro accuracy in words."""
    settings = {"name": name, "seed": seed, "factor": FACTOR, **asdict(replace(plan, recipes={}))}
    settings["recipe"] = asdict(plan.recipes[name]) if name in plan.recipes else {}
    if file.exists():
        done = json.loads(file.read_text())
        if done["settings"] != json.loads(json.dumps(settings)):
            raise UserError(f"out: {file} is of a study with other settings; name another directory")
        return _told(done["rows"])
    began = time.perf_counter()
    digits = data.load("digits", imbalance="exp", factor=FACTOR, seed=seed)
    rows = _held_out(digits, seed, plan, follow) if name == HELD_OUT else _trained(digits, name, seed, plan, follow)
    next(iter(rows.values()))["seconds"] = round(time.perf_counter() - began, 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
    return _told(rows)


def _trained(digits: Dataset, name: str, seed: int, plan: Plan, follow: Follow) -> dict[str, Figures]:
    network = train_plainly(digits, plan.training, plan.recipes[name], seed, follow("training"))
    rows = {name: _figures(network, digits)}
    if plan.recipes[name] != Recipe():
        return rows
    # What can be done about a network that was trained without a remedy.
    plain = Calibration(temperature=1.0, tau=1.0, tau_temperature=1.0, images=0)
    rows["post-hoc logit adj., τ = 1"] = _figures(network, digits, plain, digits.counts)
    rows["τ-normalised, τ = 1"] = _figures(tau_normalized(network), digits)
    batches = Epochs(digits, plan.training, Recipe(sampler="class_uniform"), seed, "crt")
    training = plan.training
    crt = retrain_classifier(
        network, batches, plan.crt_epochs, None, training.lr, training.momentum, training.weight_decay, seed=seed
    )
    rows["cRT"] = _figures(crt, digits)
    return rows


def _held_out(digits: Dataset, seed: int, plan: Plan, follow: Follow) -> dict[str, Figures]:
    train, validation = data.split(digits.train, 1.0 - plan.held_out, seed)
    part = replace(digits, train=train)
    network = train_plainly(part, plan.training, Recipe(), seed, follow("training"))
    fitted = calibrate(_logits(network, part, validation), validation.labels, part.counts)
    figures = _figures(network, part, fitted, digits.counts)
    return {HELD_OUT: {**figures, "calibration": asdict(fitted), "unadjusted_macro": _figures(network, part)["macro"]}}


@torch.no_grad()
def _logits(network: nn.Module, digits: Dataset, images: ImageSet) -> torch.Tensor:
    logits: torch.Tensor = network(normalize(images.images, digits.mean, digits.std))
    return logits


def _figures(
    network: nn.Module, digits: Dataset, adjustment: Calibration | None = None, groups: Sequence[int] | None = None
) -> Figures:
    """Figures on the test images; the groups many, medium, few by these training counts."""
    logits = _logits(network, digits, digits.test)
    if adjustment is not None:
        logits = adjustment.adjusted(logits, digits.counts)
    metrics = evaluate_predictions(logits, digits.test.labels, groups or digits.counts).to_json()
    return {**{name: metrics[name] for name in FIGURES}, "parameters": param_count(network)}


def _told(rows: Mapping[str, Figures]) -> str:
    return ", ".join(f"{name} {100 * figures['macro']:.1f} %" for name, figures in rows.items())


def _row(name: str, values: Sequence[Figures]) -> Row:
    def of(figure: str) -> tuple[float, ...]:
        return tuple(float(v[figure]) for v in values if v.get(figure) is not None)

    return Row(
        network=name,
        searched="–",
        seeds=len(values),
        params=of("parameters"),
        train_seconds=of("seconds"),
        top1=of("top1"),
        macro=of("macro"),
        longtailed=of("longtailed_top1"),
        many=of("many"),
        medium=of("medium"),
        few=of("few"),
        first=of("first"),
        middle=of("middle"),
        last=of("last"),
    )


def _file(out: Path, name: str, seed: int) -> Path:
    words = "".join(letter if letter.isalnum() and letter.isascii() else " " for letter in name.lower()).split()
    return out / f"seed-{seed}" / f"{'-'.join(words)}.json"
