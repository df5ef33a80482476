"""Adapting a supernet from a balanced source to long-tailed targets: every strategy, its cost, and what it can tell.

[paper: IMB-NAS] Accuracy on balanced images does not predict accuracy on imbalanced ones; the cheapest good adaptation
freezes the backbone and retrains the head with a re-weighted loss. Its tables are not available: none is reproduced
here. [ours] Images, sizes, epochs, strategies, and the comparison itself: every sub-network that a supernet ranks is
trained alone, on the source and on every target.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.engine.meter import finite
from lt_nas_ext.experiments.board import Board, default_board
from lt_nas_ext.experiments.carry import HALVED, pack, unpack
from lt_nas_ext.experiments.images import ALL, Images, survey
from lt_nas_ext.experiments.imb_figures import (
    Findings,
    balance_table,
    findings,
    network_table,
    outcome_table,
    pictures,
)
from lt_nas_ext.experiments.imb_runs import ImbPlan, finished, jobs, places
from lt_nas_ext.experiments.imb_settings import SOURCE, ImbSettings
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.experiments.sections import SMOKE
from lt_nas_ext.experiments.series import claim, until
from lt_nas_ext.experiments.study import machine
from lt_nas_ext.methods import AdaptSettings, preset
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.report.reproduce import flags
from lt_nas_ext.report.study_page import Section, StudyPage, Table, write_study_page

SUBNETS = 30

EPOCHS = 40
"""Of the searches and the adaptations; that of the SSF-NAS text."""

# Digits of 8×8 pixels: sizes and learning rates of table 1 on digits.
_DIGITS: dict[str, Any] = {"layers": 3, "channels": 8, "batch_size": 64, "alpha_lr": 0.024, "w_lr": 0.05}
_DIGITS_TRAINING = RetrainSettings(channels=8, layers=3, epochs=40, batch_size=64, lr=0.1, weight_decay=3e-3)

_TRAINING = RetrainSettings(epochs=100)


@dataclass(frozen=True)
class ImbStudy:
    """What the study leaves.

    Attributes:
        heading: what it is and on which images; below scale 1 also that it is no evidence.
        tables: one a target, and what balanced accuracy tells.
        report: the page.
    """

    heading: str
    tables: list[Table]
    report: Path


def imb_plan(settings: ImbSettings) -> ImbPlan:
    """Every number of the study at scale 1."""
    digits = settings.data == "digits"
    search = overridden(preset("darts"), {"epochs": EPOCHS, **(_DIGITS if digits else {})})
    training = _DIGITS_TRAINING if digits else _TRAINING
    return ImbPlan(
        search=search,
        adapt=AdaptSettings(epochs=EPOCHS, subnets=SUBNETS, batch_size=search.batch_size, backbone_lr=search.w_lr),
        training=replace(training, loss="balanced_softmax", drop_path=0.0, test_every=10),
    )


def run_imb(
    out: str | Path = "runs/imb",
    settings: ImbSettings | None = None,
    plan: ImbPlan | None = None,
    board: Board | None = None,
) -> ImbStudy:
    """Run the study, or what is missing of it: runs that are done are kept, others continue.

    Args:
        out: directory of the runs (`exp-0.1/seed-0/frozen-reinit`, …), of report.html, table.md, results.json and the
            pictures.
        settings: on which images, how much, where.
        plan: every other number, at scale 1; by default `imb_plan`.
        board: what follows it; by default bars on a terminal, log lines elsewhere.

    Raises:
        UserError: images that are not there or too few, or an `out` that holds another study.
        QueueInterrupted: Ctrl-C, or the minutes are over; call again to continue.
    """
    began, out, settings = time.monotonic(), Path(out), settings or ImbSettings()
    if settings.carry is not None:
        unpack(settings.carry, out)
    images = survey(settings.data, settings.root, settings.image_scale, settings.distributions)
    plan = (plan or imb_plan(settings)).scaled(settings.scale).on(settings.device)
    claim(out, _identity(settings, plan, images))
    board, end = board or default_board(), until(began, settings.minutes)
    crew = settings.spread.crew(out, settings.device, board, end)
    asked = (plan, settings.chosen, settings.seeds)
    try:
        queue = jobs(out, images, *asked)
        done = finished(out, queue, places(*asked))
        run_queue(queue, out, crew, "imb", board, end, done)
    finally:
        if settings.carry is not None:
            pack(out, settings.carry)
    return _concluded(out, settings, plan, images)


def _identity(settings: ImbSettings, plan: ImbPlan, images: Images) -> dict[str, Any]:
    """What must not change between two calls."""
    parts: dict[str, Any] = {"search": plan.search, "adapt": plan.adapt, "training": plan.training}
    flat = {
        "study": "imb",
        "data": images.title,
        "scale": settings.scale,
        "test_images": images.test,
        "target_loss": plan.target_loss,
        **{f"{part}.{key}": value for part, values in parts.items() for key, value in asdict(values).items()},
        **{f"images.{distribution}": counts for distribution, counts in images.counts.items()},
    }
    fixed = {key: value for key, value in flat.items() if not key.endswith((".device", ".seed"))}
    content: dict[str, Any] = json.loads(json.dumps(fixed))
    return content


def _concluded(out: Path, settings: ImbSettings, plan: ImbPlan, images: Images) -> ImbStudy:
    found = findings(out, plan, settings.chosen, settings.seeds)
    heading = f"Adapting a supernet on {images.title}"
    if settings.scale < 1.0:
        heading += f": {SMOKE} (scale {settings.scale:g})"
    tables = [outcome_table(found, images, target) for target in settings.chosen]
    balance = balance_table(found)
    scatter, ranking = pictures(found)
    page = StudyPage(
        title=heading,
        warning=_warning(out, settings, plan),
        summary=_summary(settings, plan, images),
        sections=[
            Section("results", "Strategies", _RESULTS, tables),
            Section("balanced", "Does balanced accuracy tell imbalanced accuracy?", _BALANCED, [balance], [scatter]),
            Section("ranking", "Does the adapted supernet rank as training does?", _RANKING, pictures=[ranking]),
            Section("networks", "Every sub-network", _NETWORKS, [network_table(found, plan.genotypes(0))]),
        ],
        settings=_settings(plan),
        command=_command(out, settings),
    )
    report = write_study_page(page, out, {})
    balance = replace(balance, title="Kendall's τ between balanced and imbalanced accuracy, trained alone")
    write_text(out / "table.md", _markdown(heading, [*tables, balance]))
    write_text(out / "results.json", json.dumps(_results(settings, plan, images, found, heading), indent=1) + "\n")
    return ImbStudy(heading, [*tables, balance], report)


_RESULTS = (
    "macro: the adapted supernet itself on the balanced test set, last weights. Sub-networks are ranked by macro "
    "accuracy on held-out training images; chosen is the one that ranks first, trained alone, and of the full search "
    "what it found. Hold-out images are new to the adapted supernets, not to the full search, which halves all of them "
    "between weights and architecture. As is with a new head is frozen with a new head, to the bit. Seconds "
    "compare only where nothing else used the machine."
)
_BALANCED = (
    "Each dot is a sub-network, trained alone once on balanced images and once on the target, both tested on the "
    "balanced test set (seed 0). Were balanced accuracy enough, the dots would rise along a line."
)
_RANKING = (
    "The default strategy, a frozen backbone and a new head (seed 0): macro accuracy on the hold-out of the supernet "
    "restricted to a sub-network, against the same sub-network trained alone."
)
_NETWORKS = "Macro accuracy on the balanced test set after training alone (seed 0), as in the pictures."


def _warning(out: Path, settings: ImbSettings, plan: ImbPlan) -> str:
    said = []
    if settings.scale < 1.0:
        said.append(
            f"{SMOKE.capitalize()}: scale {settings.scale:g}, {plan.search.epochs} epochs of search and adaptation, "
            f"{plan.training.epochs} of training, {plan.adapt.subnets} sub-networks: Kendall's τ of so few has a "
            "standard error of its own, see its interval."
        )
    halved = out / HALVED
    if halved.exists():
        names = ", ".join(json.loads(halved.read_text(encoding="utf-8")))
        said.append(f"Continued from checkpoints rounded to half of their bytes: {names}.")
    return " ".join(said)


def _summary(settings: ImbSettings, plan: ImbPlan, images: Images) -> list[str]:
    notes = [
        f"{settings.seeds} seed(s). DARTS searches on the source ({ALL[SOURCE].title}, {sum(images.counts[SOURCE])} "
        f"images) and, as the control, on each target: {plan.search.epochs} epochs, {plan.search.layers} cells, "
        f"C = {plan.search.channels}; adaptations take as many epochs.",
        f"{plan.adapt.subnets} sub-networks, drawn at random, each trained alone for {plan.training.epochs} epochs "
        f"({plan.training.loss.replace('_', ' ')}) on the source and on every target.",
        "[paper: IMB-NAS] Its tables are not available here: nothing on this page reproduces them.",
    ]
    if settings.data == "digits":
        notes.append("Digits have 130 training images of a class: an imbalance ratio of 50 stands for 100.")
    return notes


def _settings(plan: ImbPlan) -> list[tuple[str, list[tuple[str, str]]]]:
    shown: Mapping[str, Any] = {
        "search": asdict(plan.search),
        "adaptation": asdict(plan.adapt),
        "training alone": asdict(plan.training),
        "machine": machine(),
    }
    return [(name, [(key, str(value)) for key, value in values.items()]) for name, values in shown.items()]


def _command(out: Path, settings: ImbSettings) -> str:
    free = ("jobs", "minutes", "carry", "cluster", "cluster_options")
    values = {key: value for key, value in asdict(settings).items() if key not in free}
    return shlex.join(["lt-nas", "reproduce", "imb", *flags(values, asdict(ImbSettings())), "--out", str(out)])


def _markdown(heading: str, tables: list[Table]) -> str:
    parts = [f"## {heading}"]
    for table in tables:
        head = f"| {' | '.join(title for title, _, _ in table.columns)} |"
        rule = f"|{'|'.join('--:' if number else ':--' for _, _, number in table.columns)}|"
        parts.append("\n".join([f"**{table.title}**", "", head, rule, *(f"| {' | '.join(x)} |" for x in table.lines)]))
    return "\n\n".join(parts) + "\n"


def _results(settings: ImbSettings, plan: ImbPlan, images: Images, found: Findings, heading: str) -> dict[str, Any]:
    return {
        "study": "imb",
        "heading": heading,
        "machine": machine(),
        "settings": {key: str(v) if isinstance(v, Path) else v for key, v in asdict(settings).items()},
        "plan": asdict(plan),
        "images": asdict(images),
        "genotypes": {seed: [str(one) for one in plan.genotypes(seed)] for seed in range(settings.seeds)},
        **_finite(asdict(found)),
    }


def _finite(value: Any) -> Any:
    """None in place of what JSON cannot hold: τ of figures that are all tied."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return finite(value) if isinstance(value, float) else value
