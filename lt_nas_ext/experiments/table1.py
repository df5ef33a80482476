"""Table 1 of the SSF-NAS text: DARTS, FairDARTS and SSF-NAS on long-tailed CIFAR-10, with the controls it lacks.

[paper] 40 epochs of search and 150 of training, exponential μ = 0.1, the balanced test set: 78.26, 79.35, 82.64.

FairDARTS searches with its authors' settings (`authors-fairdarts`, epochs apart). With the text's learning rate of α,
3e-4 (`paper-fairdarts`), 40 epochs of 79 steps can bring a gate to 0.72 at the very best: its threshold of 0.85 would
keep no edge of any cell. Where the threshold keeps none all the same, as it must at a small scale, the cells are read
by the rule top2, and the page says so.

[ours] All networks of a seed are trained alike, on the same images. The text pre-trains SSF-NAS's network with Barlow
Twins and does not say for how long: `pretrain_epochs` adds that, 0 by default. Its depth and width are not stated
either: `size`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.engine.retrain_presets import retrain_preset
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.differences import Difference, by_seed, difference
from lt_nas_ext.experiments.networks import RANDOM, Plan
from lt_nas_ext.experiments.sections import PaperStudy, columns_with, conclude, jpeg_notes, table_title
from lt_nas_ext.experiments.series import Series, run_series
from lt_nas_ext.experiments.settings import StudySettings
from lt_nas_ext.methods import preset
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.report import curves
from lt_nas_ext.report.runs import TITLES
from lt_nas_ext.report.tables import EMPTY, Column, rows

METHODS = {"darts": "darts", "fair-darts": "authors-fairdarts", "ssf-nas": "paper-ssf"}
"""Method -> the preset of its search; the later one has more parts."""

CONTROLS = ("resnet32", "darts-v2")
"""Networks of `engine.BASELINES` that no search on these images found."""

RANDOM_GENOTYPES = 5

PAPER = {"DARTS": 78.26, "FairDARTS": 79.35, "SSF-NAS": 82.64}
"""[paper] Table 1: top-1 in % on the balanced test set of CIFAR-10, exponential μ = 0.1."""

PAPER_DISTRIBUTION = "exp-0.1"

EPOCHS = 40, 150
"""[paper] Of search and training."""

TRAINING = {"small": "default", "paper": "darts"}
"""Size -> the preset of every network's training: DARTS' own has the auxiliary classifier and cutout too."""

# [ours] Digits of 8×8 pixels, at the full number of epochs, in minutes a seed: the digits study's three cells and
# learning rates, α's so that the gates travel as far in the 160 steps of 40 epochs as in that study's 96.
DIGITS_SEARCH: dict[str, Any] = {"layers": 3, "channels": 8, "batch_size": 64, "alpha_lr": 0.024, "w_lr": 0.05}
DIGITS_METHODS = {"darts": "demo-darts", "fair-darts": "authors-fairdarts", "ssf-nas": "demo-ssf"}
DIGITS_TRAINING = RetrainSettings(channels=8, layers=3, lr=0.1, weight_decay=3e-3, drop_path=0.0, test_every=10)


def table1_plan(settings: StudySettings, pretrain_epochs: int = 0) -> Plan:
    """Every number of the study at scale 1."""
    digits = settings.data == "digits"
    changed = {"epochs": EPOCHS[0], "test_every": 1, **(DIGITS_SEARCH if digits else {})}
    presets = DIGITS_METHODS if digits else METHODS
    training = DIGITS_TRAINING if digits else retrain_preset(TRAINING[settings.size])
    return Plan(
        searches={method: overridden(preset(name), changed) for method, name in presets.items()},
        training=replace(training, epochs=EPOCHS[1]),
        controls=CONTROLS,
        random=RANDOM_GENOTYPES,
        pretrain_epochs=pretrain_epochs,
    )


def run_table1(
    out: str | Path = "runs/table1",
    settings: StudySettings | None = None,
    pretrain_epochs: int = 0,
    plan: Plan | None = None,
    board: Board | None = None,
) -> PaperStudy:
    """Run the study, or what is missing of it.

    Args:
        out: directory of the runs (`exp-0.1/seed-0/darts`, …), of report.html, table.md, results.json and the pictures.
        settings: on which images, how much, where.
        pretrain_epochs: Barlow Twins epochs before the training of SSF-NAS's network, at scale 1.
        plan: every other number, at scale 1; by default `table1_plan`.
        board: what follows it; by default bars on a terminal, log lines elsewhere.

    Raises:
        UserError: images that are not there or too few, or an `out` that holds another study.
        QueueInterrupted: Ctrl-C, or the minutes are over; call again to continue.
    """
    settings = settings or StudySettings()
    if pretrain_epochs < 0:
        raise UserError(f"pretrain_epochs: got {pretrain_epochs}; wanted a whole number, at least 0")
    return _concluded(run_series("table1", settings, plan or table1_plan(settings, pretrain_epochs), out, board))


def _concluded(series: Series) -> PaperStudy:
    tables, differences, panels = [], {}, {}
    for name in series.settings.distributions:
        found = [(place, network) for place, network in series.networks if place.distribution == name]
        networks = [network for _, network in found]
        paper = PAPER if series.images.of_cifar10 and name == PAPER_DISTRIBUTION else {}
        column = Column("[paper]", "top-1 that the paper reports", _shown(paper), accuracy=True)
        title = table_title(series.images, name)
        tables.append((title, rows(networks), columns_with(*([column] if paper else []))))
        accuracies = by_seed([(network.name, place.seed, network) for place, network in found])
        differences[title] = _differences(series, accuracies, paper)
        label = title.split(":")[0]
        panels[label] = {row: [n for n in networks if n.name == row] for row in dict.fromkeys(n.name for n in networks)}
    colours = curves.colours([network for _, network in series.networks])
    return conclude(series, "Table 1", _notes(series), tables, differences, panels, colours, StudySettings())


def _shown(paper: dict[str, float]) -> Any:
    return lambda row: f"{paper[row.network]:.2f}" if row.network in paper else EMPTY


def _differences(series: Series, accuracies: dict[str, dict[int, float]], paper: dict[str, float]) -> list[Difference]:
    """Each method less the ones before it, the paper's order; and each less every control."""
    methods = [TITLES[method] for method in series.plan.searches]
    pairs = [(later, earlier) for i, later in enumerate(methods) for earlier in methods[:i]]
    pairs += [(method, control) for method in methods for control in accuracies if control not in methods]
    return [difference(a, b, accuracies, paper[a] - paper[b] if a in paper and b in paper else None) for a, b in pairs]


def _notes(series: Series) -> list[str]:
    plan, training = series.plan, series.plan.training
    presets = ", ".join(f"{TITLES[method]} {settings.preset}" for method, settings in plan.searches.items())
    epochs = next(iter(plan.searches.values())).epochs
    notes = [
        f"{series.settings.seeds} seed(s); {epochs} epochs of search (presets: {presets}) and {training.epochs} of "
        f"training, batch {training.batch_size}, {training.loss.replace('_', ' ')}, alike for all networks of a seed.",
        f"Controls: {plan.random} {RANDOM} a seed, about as large as the networks found, "
        f"{' and '.join(TITLES[control] for control in plan.controls)}.",
    ]
    if plan.pretrain_epochs:
        notes.append(f"SSF-NAS's network alone has {plan.pretrain_epochs} epochs of Barlow Twins before its training.")
    read = {n.genotype.rule for _, n in series.networks if n.name == TITLES["fair-darts"] and n.genotype}
    if "top2" in read:
        notes.append("FairDARTS: its threshold of 0.85 left a cell without an operation; such cells are read by top2.")
    if series.settings.data == "digits":
        notes.append("Digits are not the paper's images, and settings and sizes here are ours.")
    return [*notes, *jpeg_notes(series.images)]
