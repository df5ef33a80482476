"""What the pages of the paper's studies share: heading, label distributions, curves, cells, runs, settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.experiments.carry import HALVED
from lt_nas_ext.experiments.differences import Difference
from lt_nas_ext.experiments.images import DISTRIBUTIONS, Images
from lt_nas_ext.experiments.networks import TRAINED_AS, TRAININGS, Place
from lt_nas_ext.experiments.series import Series
from lt_nas_ext.experiments.settings import StudySettings
from lt_nas_ext.experiments.study import entry, machine
from lt_nas_ext.methods import SearchSettings
from lt_nas_ext.report import study_figures
from lt_nas_ext.report.cells import draw_genotype
from lt_nas_ext.report.reproduce import flags
from lt_nas_ext.report.runs import Network
from lt_nas_ext.report.study_page import Picture, Section, StudyPage, Table, table_of, write_study_page
from lt_nas_ext.report.tables import COLUMNS, EMPTY, Column, Row, as_markdown, spread

SMOKE = "smoke, not evidence"

Results = tuple[str, list[Row], list[Column]]
"""A table: title, rows, columns."""


@dataclass(frozen=True)
class PaperStudy:
    """What a study of the paper leaves.

    Attributes:
        heading: what it is and on which images; below scale 1 also that it is no evidence.
        tables: (title, rows, columns) each.
        differences: rows less others, by title of their table.
        report: the page.
    """

    heading: str
    tables: list[Results]
    differences: dict[str, list[Difference]]
    report: Path


def conclude(
    series: Series,
    title: str,
    notes: Sequence[str],
    tables: list[Results],
    differences: dict[str, list[Difference]],
    panels: study_figures.Panels,
    colours: Mapping[str, str],
    defaults: StudySettings,
) -> PaperStudy:
    """Write the page of a study of the SSF-NAS text, with its figures 6 to 9, as `publish` does.

    Args:
        series: the study.
        title: of its page.
        notes: sentences that a reader of its table needs.
        tables: (title, rows, columns) each.
        differences: rows less others, by title of their table.
        panels: row of the figures -> line -> its networks.
        colours: of the lines.
        defaults: of the command that made it.
    """
    sections = [
        results_section(tables, _RESULTS),
        differences_section(differences, DIFFERENCES),
        Section("distributions", "Label distributions", _FIGURE_6, pictures=[_label_distributions(series.images)]),
        Section(
            "supernet",
            "The supernets while they are searched",
            _FIGURE_7,
            pictures=[Picture("figure-7-supernet", study_figures.supernet_curves(panels, colours))],
        ),
        Section(
            "training",
            "The trained networks",
            _FIGURE_8,
            pictures=[Picture("figure-8-training", study_figures.training_curves(panels, colours))],
        ),
        cells_section(series, "figure-9-cells", _FIGURE_9),
        runs_section(series),
    ]
    return publish(series, title, notes, tables, differences, sections, colours, defaults)


def publish(
    series: Series,
    title: str,
    notes: Sequence[str],
    tables: list[Results],
    differences: Mapping[str, list[Difference]],
    sections: Sequence[Section],
    colours: Mapping[str, str],
    defaults: StudySettings,
    more: Mapping[str, Any] | None = None,
) -> PaperStudy:
    """Write report.html with its pictures, table.md and results.json into the study's directory.

    Args:
        series: the study.
        title: of its page.
        notes: sentences that a reader of its table needs.
        tables: (title, rows, columns) each.
        differences: rows less others, by title of their table.
        sections: of the page.
        colours: of the rows and lines.
        defaults: of the command that made it.
        more: what else belongs into results.json.
    """
    heading = f"{title} on {series.images.title}"
    if series.settings.scale < 1.0:
        heading += f": {SMOKE} (scale {series.settings.scale:g})"
    page = StudyPage(
        title=heading,
        warning=_warning(series),
        summary=notes,
        sections=sections,
        settings=_settings(series),
        command=_command(series, defaults),
    )
    report = write_study_page(page, series.out, colours)
    text = [f"**{name}**\n\n{as_markdown(found, columns)}" for name, found, columns in tables]
    write_text(series.out / "table.md", "\n\n".join([f"## {heading}", *text]) + "\n")
    content = {**_results(series, heading, tables, differences), **(more or {})}
    write_text(series.out / "results.json", json.dumps(content, indent=1) + "\n")
    return PaperStudy(heading, tables, dict(differences), report)


def results_section(tables: Sequence[Results], note: str) -> Section:
    """The tables of a study."""
    return Section("results", "Results", note, [table_of(*table) for table in tables])


def differences_section(differences: Mapping[str, Sequence[Difference]], note: str) -> Section:
    """Rows less others, a table each."""
    return Section("differences", "Differences", note, [_difference_table(*one) for one in differences.items()])


def cells_section(series: Series, name: str, note: str) -> Section:
    """What each search found, in pictures whose names begin with `name`."""
    return Section("cells", "Found cells", note, pictures=_cells(series, name))


def runs_section(series: Series) -> Section:
    """Every network of a study in a line."""
    return Section("runs", "Every run", _RUNS, [_runs(series)])


_RESULTS = (
    "top-1 on the balanced test set, last weights, nothing selected on test images; mean ± standard deviation over "
    "runs. long-tailed: on a test set distributed like the training set. many, medium, few: classes with more than "
    "100, 20 to 100, fewer than 20 training images."
)
DIFFERENCES = (
    "Points of top-1 on the balanced test set, paired by seed: mean ± standard deviation, and the central 95 % of the "
    "mean under resampling of the seeds. Few seeds give a wide interval that is still too narrow to trust."
)
_FIGURE_6 = "All training images of the data set under the four distributions of the paper (its figure 6), at scale 1."
_FIGURE_7 = (
    "Test accuracy after each epoch (figure 7 of the paper), for these curves only. A search without labels has no "
    "classifier: there it is that of a linear probe beside it, which the search does not see. Thin lines are seeds."
)
_FIGURE_8 = "Test accuracy by epoch and at the end (figure 8 of the paper). Thin lines and dots are seeds."
_FIGURE_9 = "What each search found (figure 9 of the paper)."
_RUNS = "Seconds are those of the epochs, with their tests; what two runs at a time take from each other is in them."


def columns_with(*more: Column) -> list[Column]:
    """The columns of a study's table, `more` behind top-1."""
    by_title = {column.title: column for column in COLUMNS}
    runs = Column("runs", "how many; with several, figures are mean ± standard deviation", lambda row: str(row.seeds))
    before = [by_title[title] for title in ("params", "search s", "train s", "top-1")]
    after = [by_title[title] for title in ("long-tailed", "many", "medium", "few")]
    return [by_title["network"], runs, *before, *more, *after]


def table_title(images: Images, distribution: str) -> str:
    """ "exp μ = 0.1: 20 431 training images, 5 000 … 500 a class"."""
    counts = images.counts[distribution]
    shown = [f"{n:,}".replace(",", "\u202f") for n in (sum(counts), max(counts), min(counts))]
    return f"{DISTRIBUTIONS[distribution].title}: {shown[0]} training images, {shown[1]} … {shown[2]} a class"


def jpeg_notes(images: Images) -> list[str]:
    """What to know of CIFAR-10's images where they are JPEG; else nothing."""
    if not images.of_cifar10 or images.title == "CIFAR-10":
        return []
    return [
        f"{images.title}: the images of CIFAR-10 as JPEG, which costs accuracy. The paper's numbers, on the original "
        "images, stand beside for orientation only."
    ]


def _warning(series: Series) -> str:
    said = []
    if series.settings.scale < 1.0:
        epochs = [f"{name} {_epochs(s)}" for name, s in series.plan.searches.items()]
        tests = "all" if series.images.test is None else str(series.images.test)
        said.append(
            f"{SMOKE.capitalize()}: scale {series.settings.scale:g}, search epochs {', '.join(epochs)}, "
            f"{series.plan.training.epochs} training epochs, {tests} test images a class."
        )
    halved = series.out / HALVED
    if halved.exists():
        said.append(
            f"Continued from checkpoints rounded to half of their bytes: {', '.join(json.loads(halved.read_text()))}."
        )
    return " ".join(said)


def _label_distributions(images: Images) -> Picture:
    counts = {DISTRIBUTIONS[name].title: found for name, found in images.figure_6.items()}
    svg = study_figures.label_distributions(counts, images.class_names)
    return Picture("figure-6-distributions", svg)


def _epochs(settings: SearchSettings) -> str:
    continued = "" if settings.continuous == "none" else f" + {settings.continuous_epochs}"
    return f"{settings.epochs}{continued}"


def _cells(series: Series, prefix: str) -> list[Picture]:
    pictures = []
    for place, network in series.networks:
        if network.search is None or network.genotype is None or place.training != series.plan.trainings[0]:
            continue
        title = f"{network.name}, {DISTRIBUTIONS[place.distribution].title}, seed {place.seed}"
        nodes = network.search.settings.get("nodes")
        name = f"{prefix}-{place.name}-{place.distribution}-seed-{place.seed}"
        note = f"read by the rule {network.genotype.rule}"
        pictures.append(Picture(name, draw_genotype(network.genotype, nodes, title), title, note))
    return pictures


def _difference_table(title: str, found: Sequence[Difference]) -> Table:
    columns = [("difference", "", False), ("points", "mean ± standard deviation over seeds", True)]
    columns.append(("95 %", "bootstrap interval of the mean", True))
    with_paper = any(one.paper is not None for one in found)
    columns += [("[paper]", "the paper's own difference, a run each", True)] if with_paper else []
    lines = []
    for one in found:
        paper = [EMPTY if one.paper is None else f"{one.paper:.2f}"] if with_paper else []
        lines.append([one.name, spread(one.values), one.bounds, *paper])
    return Table(title, columns, lines)


def _runs(series: Series) -> Table:
    columns = [
        ("network", "", False), ("trained", "", False), ("distribution", "", False), ("seed", "", True),
        ("search s", "", True), ("train s", "", True), ("params", "", True), ("top-1", "", True),
        ("long-tailed", "", True), ("device", "", False),
    ]  # fmt: skip
    return Table("", columns, [_run_line(place, network) for place, network in series.networks])


def _run_line(place: Place, network: Network) -> list[str]:
    runs = [run for run in (network.search, network.training) if run]
    times = {run.kind: f"{run.seconds:.0f}" for run in runs if run.seconds is not None}
    longtailed = network.metrics.get("longtailed_top1")
    return [
        network.name,
        TRAINED_AS[TRAININGS[place.training]] if network.search else EMPTY,
        DISTRIBUTIONS[place.distribution].title,
        str(place.seed),
        times.get("search", EMPTY),
        times.get("retrain", EMPTY),
        f"{network.metrics['parameters']:,}".replace(",", "\u202f"),
        f"{100 * network.metrics['top1']:.1f}",
        EMPTY if longtailed is None else f"{100 * longtailed:.1f}",
        ", ".join(devices(network)),
    ]


def devices(network: Network) -> list[str]:
    """What its epochs were computed on."""
    rows = [row for run in (network.search, network.training) if run for row in run.history]
    return list(dict.fromkeys(str(row["device"]) for row in rows if row.get("device")))


def _settings(series: Series) -> list[tuple[str, list[tuple[str, str]]]]:
    shown = {f"search: {name}": asdict(settings) for name, settings in series.plan.searches.items()}
    own = {"pretrain_epochs": series.plan.pretrain_epochs} if series.plan.pretrain_epochs else {}
    if own:
        shown["training of SSF-NAS's network, besides"] = own
    shown["training of every network"] = asdict(series.plan.training)
    pairs = [(name, [(key, str(value)) for key, value in values.items()]) for name, values in shown.items()]
    return [*pairs, ("machine", [(key, str(value)) for key, value in machine().items()])]


def _command(series: Series, defaults: StudySettings) -> str:
    free = ("jobs", "minutes", "carry", "cluster", "cluster_options")
    values = {key: value for key, value in asdict(series.settings).items() if key not in free}
    words = flags(values, asdict(defaults))
    if series.plan.pretrain_epochs:
        words += ["--pretrain-epochs", str(series.plan.pretrain_epochs)]
    return shlex.join(["lt-nas", "reproduce", series.name, *words, "--out", str(series.out)])


def _results(
    series: Series,
    heading: str,
    tables: Sequence[Results],
    differences: Mapping[str, Sequence[Difference]],
) -> dict[str, Any]:
    return {
        "study": series.name,
        "heading": heading,
        "machine": machine(),
        "settings": {key: str(v) if isinstance(v, Path) else v for key, v in asdict(series.settings).items()},
        "plan": asdict(series.plan),
        "images": asdict(series.images),
        "tables": {
            title: [{column.title: column.show(row) for column in columns} for row in found]
            for title, found, columns in tables
        },
        "differences": {title: [one.to_json() for one in found] for title, found in differences.items()},
        "networks": [_entry(place, network) for place, network in series.networks],
    }


def _entry(place: Place, network: Network) -> dict[str, Any]:
    trained = {} if network.search is None else {"trained": TRAININGS[place.training]}
    about = {"distribution": place.distribution, "run": place.name, **trained}
    return {**about, **entry(network), "devices": devices(network)}
