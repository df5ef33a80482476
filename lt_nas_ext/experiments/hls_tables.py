"""The tables of the HLS study: supernets at search time, what they found trained with two heads and without, margins.

[paper] The accuracy of the supernet at the end of its search, at the test-time mixing ratio that is best on the test
images. [ours] The ratio is chosen on validation images; the best of the sweep stands beside it, as what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lt_nas_ext.experiments.differences import Difference, by_seed, difference
from lt_nas_ext.experiments.networks import TRAINED_AS, TRAININGS, Place
from lt_nas_ext.experiments.sections import Results, columns_with
from lt_nas_ext.report.readings import chosen_ratio, final_accuracy, sweep
from lt_nas_ext.report.runs import TITLES, Network, Run
from lt_nas_ext.report.tables import EMPTY, Column, Row, rows, spread

Networks = Sequence[tuple[Place, Network]]
Searches = Mapping[str, Sequence[Run]]

PAPER = {
    TITLES["darts"]: 64.56,
    TITLES["darts+resampling"]: 61.20,
    TITLES["darts+bbn"]: 52.14,
    TITLES["hls"]: 65.12,
    TITLES["hls-reverse-sigmoid"]: 61.85,
    TITLES["hls-then-class-head"]: 63.12,
}
"""[paper] Top-1 in % of the supernets on CIFAR-10, exponential μ = 0.01: one run each, at the best ratio of a sweep.
[ours] Which of the four variants its 63.12 is of: it does not say."""


def in_training(networks: Networks, training: str) -> Networks:
    """Those of one way to train what was found."""
    return [(place, network) for place, network in networks if place.training == training]


def searches_of(networks: Networks) -> dict[str, list[Run]]:
    """Row -> its searches, a seed each."""
    found: dict[str, list[Run]] = {}
    for place, network in in_training(networks, networks[0][0].training):
        assert network.search is not None
        found.setdefault(place.title, []).append(network.search)
    return found


def search_table(title: str, networks: Networks, paper: Mapping[str, float]) -> Results:
    """The supernets at the end of their searches."""
    searches = searches_of(networks)

    def measured(title: str, meaning: str, value: Callable[[Run], float | None]) -> Column:
        def show(row: Row) -> str:
            values = [value(run) for run in searches[row.network]]
            return spread(tuple(one for one in values if one is not None), 100)

        return Column(title, meaning, show, accuracy=True)

    columns = [
        Column("search", "", lambda row: row.network, number=False),
        Column("runs", "how many; with several, figures are mean ± standard deviation", lambda row: str(row.seeds)),
        Column("search s", "seconds; where HLS is continued, HLS included", lambda row: spread(row.search_seconds)),
        measured("top-1", "% of the test images, at the ratio chosen on validation", final_accuracy),
        Column("ratio", "that test-time mixing ratio, seed by seed", lambda row: _ratios(searches[row.network])),
        measured("class head", "% at the ratio 0: nothing is chosen", lambda run: sweep(run).get(0.0)),
        measured("best on test", "% at the ratio that is best on the test images: a selection on test data", _best),
    ]
    if paper:
        meaning = "what the paper reports: the best on test of one run"
        columns.append(Column("[paper]", meaning, lambda row: _number(paper.get(row.network)), accuracy=True))
    columns.append(measured("long-tailed", "% on a test set distributed like the training set", _longtailed))
    results = rows([network for _, network in in_training(networks, networks[0][0].training)])
    return f"{title}: supernets at search time", results, columns


def trained_tables(title: str, networks: Networks, trainings: Sequence[str]) -> list[Results]:
    """What was found, trained in each way."""
    return [
        (
            f"{title}: trained {TRAINED_AS[TRAININGS[training]]}",
            rows([network for _, network in in_training(networks, training)]),
            columns_with(),
        )
        for training in trainings
    ]


def search_differences(networks: Networks, paper: Mapping[str, float]) -> list[Difference]:
    """Supernets paired by seed, each at the ratio chosen on validation images."""
    accuracies: dict[str, dict[int, float]] = {}
    for place, network in in_training(networks, networks[0][0].training):
        assert network.search is not None
        accuracies.setdefault(place.title, {})[place.seed] = final_accuracy(network.search)
    continued = dict.fromkeys(place.title for place, _ in networks if place.name.startswith("hls-then-"))
    pairs = [*_pairs(accuracies), *((row, TITLES["hls"]) for row in continued)]
    return [difference(a, b, accuracies, _less(paper, a, b)) for a, b in pairs]


def trained_differences(networks: Networks, training: str) -> list[Difference]:
    """What was found, trained in one way."""
    accuracies = by_seed([(place.title, place.seed, one) for place, one in in_training(networks, training)])
    return [difference(a, b, accuracies) for a, b in _pairs(accuracies)]


def heads_differences(networks: Networks, trainings: Sequence[str]) -> list[Difference]:
    """The same genotype in the first way to train it less in the second."""

    def called(title: str, training: str) -> str:
        return f"{title} {TRAINED_AS[TRAININGS[training]]}"

    accuracies = by_seed([(called(place.title, place.training), place.seed, one) for place, one in networks])
    titles = dict.fromkeys(place.title for place, _ in networks)
    pairs = [[called(title, training) for training in trainings] for title in titles]
    return [difference(first, second, accuracies) for first, second in pairs]


def _pairs(accuracies: Mapping[str, object]) -> list[tuple[str, str]]:
    """Each row less DARTS; and what HLS adds to BBN, and the reverse sigmoid to HLS."""
    plain, bbn, hls, sigmoid = (TITLES[name] for name in ("darts", "darts+bbn", "hls", "hls-reverse-sigmoid"))
    return [*((row, plain) for row in accuracies if row != plain), (hls, bbn), (sigmoid, hls)]


def _less(paper: Mapping[str, float], first: str, second: str) -> float | None:
    return paper[first] - paper[second] if first in paper and second in paper else None


def _best(run: Run) -> float | None:
    return max(sweep(run).values(), default=None)


def _longtailed(run: Run) -> float | None:
    accuracy: float | None = run.history[-1].get("test_longtailed_accuracy")
    return accuracy


def _ratios(runs: Sequence[Run]) -> str:
    chosen = [ratio for ratio in map(chosen_ratio, runs) if ratio is not None]
    return ", ".join(f"{ratio:g}" for ratio in chosen) or EMPTY


def _number(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.2f}"
