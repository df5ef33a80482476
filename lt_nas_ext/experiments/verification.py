"""What a long tail costs: DARTS over the four distributions of figure 6 of the SSF-NAS text, searched and trained.

[paper] The supernet and the trained network lose 12.57 to 38.01 points from balance to a long tail on CIFAR-10.
"""

from __future__ import annotations

from pathlib import Path

from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.differences import by_seed, difference
from lt_nas_ext.experiments.images import DISTRIBUTIONS
from lt_nas_ext.experiments.networks import Plan
from lt_nas_ext.experiments.sections import PaperStudy, columns_with, conclude, table_title
from lt_nas_ext.experiments.series import Series, run_series
from lt_nas_ext.experiments.settings import VERIFICATION, StudySettings
from lt_nas_ext.experiments.table1 import table1_plan
from lt_nas_ext.report.palette import SEARCHED
from lt_nas_ext.report.runs import Network
from lt_nas_ext.report.tables import Column, rows, spread

PAPER_COST = "12.57 to 38.01"
"""[paper] Points of accuracy between balance and a long tail."""


def verification_plan(settings: StudySettings) -> Plan:
    """DARTS as in table 1, without controls: the same method on other images."""
    whole = table1_plan(settings)
    return Plan({"darts": whole.searches["darts"]}, whole.training)


def run_verification(
    out: str | Path = "runs/verification",
    settings: StudySettings = VERIFICATION,
    plan: Plan | None = None,
    board: Board | None = None,
) -> PaperStudy:
    """Run the study, or what is missing of it; arguments and errors are those of `run_table1`."""
    return _concluded(run_series("verification", settings, plan or verification_plan(settings), out, board))


def _concluded(series: Series) -> PaperStudy:
    titles = {name: DISTRIBUTIONS[name].title for name in series.settings.distributions}
    found = [(titles[place.distribution], place.seed, network) for place, network in series.networks]
    by_title = {title: [n for row, _, n in found if row == title] for title in titles.values()}
    columns = columns_with()
    columns[0] = Column("distribution", "", columns[0].show, number=False)
    columns[1:1] = [
        _supernet(by_title, "supernet", "test_accuracy", "the supernet's top-1 on the balanced test set"),
        _supernet(by_title, "supernet, long-tailed", "test_longtailed_accuracy", "… on the long-tailed one"),
    ]
    results = [row for title, networks in by_title.items() for row in rows([_named(n, title) for n in networks])]
    title = "; ".join(table_title(series.images, name) for name in titles)
    accuracies = by_seed(found)
    others = [name for name in titles.values() if name != titles.get("balance")]
    costs = [difference(titles["balance"], other, accuracies) for other in others] if "balance" in titles else []
    colours = dict(zip(by_title, SEARCHED, strict=False))
    return conclude(
        series, "DARTS under a long tail", _notes(series), [(title, results, columns)],
        {"what a long tail costs": costs} if costs else {}, {"": by_title}, colours, VERIFICATION,
    )  # fmt: skip


def _named(network: Network, name: str) -> Network:
    return Network(name, network.search, network.training)


def _supernet(by_title: dict[str, list[Network]], title: str, key: str, meaning: str) -> Column:
    def show(row) -> str:  # type: ignore[no-untyped-def]
        last = [n.search.history[-1].get(key) for n in by_title[row.network] if n.search]
        return spread(tuple(value for value in last if value is not None), 100)

    return Column(title, meaning, show, accuracy=True)


def _notes(series: Series) -> list[str]:
    searched, training = series.plan.searches["darts"], series.plan.training
    notes = [
        f"DARTS, {series.settings.seeds} seed(s): {searched.epochs} epochs of search, {training.epochs} of training."
    ]
    if series.images.of_cifar10:
        notes.append(f"[paper] On CIFAR-10 a long tail costs {PAPER_COST} points against balance.")
    return notes
