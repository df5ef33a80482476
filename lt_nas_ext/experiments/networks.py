"""The networks of a study: what is searched, what is trained beside it, and the jobs that do both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lt_nas_ext.engine import RetrainSettings, run_retrain, run_search
from lt_nas_ext.engine.retrain_settings import SIZES
from lt_nas_ext.experiments.images import DISTRIBUTIONS, Images
from lt_nas_ext.experiments.worker import Follow, Job
from lt_nas_ext.methods import SearchSettings
from lt_nas_ext.report.runs import TITLES, Network, read_networks
from lt_nas_ext.space import EmptyCellError, Genotype, genotype_param_count
from lt_nas_ext.space.derive import random_genotypes

LEAST_EPOCHS = 2
"""A scale leaves at least so many."""

RANDOM = "random genotypes"

DRAWS = 300
"""Random genotypes of a seed, of which the control takes those that are as large as the networks found."""

ABOUT_AS_LARGE = 0.2
"""How far below the smallest and above the largest network found the parameters of a random one may lie [ours]."""


@dataclass(frozen=True)
class Plan:
    """Every number of a study but its seeds and images.

    Attributes:
        searches: method -> the settings of its search.
        training: how every network is trained.
        controls: networks that no search made, by name (`engine.BASELINES`).
        random: random genotypes of each seed.
        pretrain_epochs: Barlow Twins epochs before the training of SSF-NAS's network.
    """

    searches: Mapping[str, SearchSettings]
    training: RetrainSettings
    controls: Sequence[str] = ()
    random: int = 0
    pretrain_epochs: int = 0

    def scaled(self, scale: float) -> Plan:
        """The plan with that share of its epochs."""
        return replace(
            self,
            searches={name: replace(s, epochs=_share(s.epochs, scale)) for name, s in self.searches.items()},
            training=replace(self.training, epochs=_share(self.training.epochs, scale)),
            pretrain_epochs=_share(self.pretrain_epochs, scale) if self.pretrain_epochs else 0,
        )


def _share(epochs: int, scale: float) -> int:
    return max(min(LEAST_EPOCHS, epochs), round(scale * epochs))


class Place(NamedTuple):
    """One run of a study: which network, on which distribution, by which seed. Together its directory."""

    distribution: str
    seed: int
    name: str

    @property
    def title(self) -> str:
        """As tables call the network."""
        return RANDOM if self.name.startswith("random-") else TITLES[self.name]

    def within(self, out: Path) -> Path:
        """The run directory."""
        return out / self.distribution / f"seed-{self.seed}" / self.name


def places(plan: Plan, distributions: Sequence[str], seeds: int) -> list[Place]:
    """All runs of a study, in the order of its tables."""
    names = [*plan.searches, *(f"random-{k}" for k in range(plan.random)), *plan.controls]
    return [Place(dist, seed, name) for dist in distributions for name in names for seed in range(seeds)]


def read(out: Path, runs: Sequence[Place]) -> list[tuple[Place, Network]]:
    """The networks of these runs, each called as tables call it."""
    return [(run, replace(read_networks([run.within(out)])[0], name=run.title)) for run in runs]


def jobs(out: Path, images: Images, plan: Plan, distributions: Sequence[str], seeds: int) -> list[Job]:
    """What is to be done, seed by seed: searches first, and the networks that wait for them last."""
    return [
        job
        for distribution in distributions
        for seed in range(seeds)
        for job in _of_a_seed(out, images, plan, distribution, seed)
    ]


def done(path: Path) -> bool:
    """Whether a run has all its files: metrics.json is the last one that it writes."""
    return (path / "metrics.json").exists()


def finished(out: Path, plan: Plan, distributions: Sequence[str], seeds: int) -> set[str]:
    """Names of the jobs whose runs are done."""
    names = set()
    for run in places(plan, distributions, seeds):
        here = run.within(out)
        if run.name in plan.searches:
            names |= {_search_name(run)} if done(here) else set()
            here /= "retrain"
        names |= {_name(run)} if done(here) else set()
    return names


def _of_a_seed(out: Path, images: Images, plan: Plan, distribution: str, seed: int) -> Iterator[Job]:
    def place(name: str) -> Place:
        return Place(distribution, seed, name)

    for method, settings in plan.searches.items():
        run = place(method)
        work = partial(search, run.within(out), images, distribution, replace(settings, seed=seed))
        yield Job(_search_name(run), work)
    training = replace(plan.training, seed=seed)
    for control in plan.controls:
        run = place(control)
        yield Job(_name(run), partial(train, run.within(out), control, images, distribution, training))
    found = {method: place(method).within(out) for method in plan.searches}
    for method, path in found.items():
        run, own = place(method), training
        if method == "ssf-nas":
            own = replace(training, pretrain_epochs=plan.pretrain_epochs)
        work = partial(train, path / "retrain", path, images, distribution, own)
        yield Job(_name(run), work, frozenset({_search_name(run)}))
    for k in range(plan.random):
        run = place(f"random-{k}")
        work = partial(train_random, run.within(out), k, tuple(found.values()), images, distribution, training)
        yield Job(_name(run), work, frozenset(_search_name(place(method)) for method in plan.searches))


def _name(run: Place) -> str:
    title = f"random genotype {run.name.removeprefix('random-')}" if run.title == RANDOM else run.title
    return f"{title}, {DISTRIBUTIONS[run.distribution].title}, seed {run.seed}"


def _search_name(run: Place) -> str:
    return f"{_name(run)}: search"


def search(out: Path, images: Images, distribution: str, settings: SearchSettings, follow: Follow) -> str:
    """Search cells; where FairDARTS' threshold leaves none, they are read by the rule top2, and genotype.json says so.

    What came out, in words.
    """
    data = images.load(distribution, settings.seed)
    try:
        found = run_search(data, settings, out, True, follow("search"))
    except EmptyCellError:
        found = run_search(data, replace(settings, rule="top2"), out, True, follow("search"))
    tested = found.history[-1].get("test_accuracy")
    return "found" if tested is None else f"supernet {100 * tested:.1f} %"


def train(
    out: Path, what: str | Path | Genotype, images: Images, distribution: str, settings: RetrainSettings, follow: Follow
) -> str:
    """Train a control by name, the genotype of a search by its directory, or a genotype; its accuracy in words."""
    chosen = Genotype.load(what / "genotype.json") if isinstance(what, Path) else what
    data = images.load(distribution, settings.seed)
    trained = run_retrain(chosen, data, settings, out, True, follow("training"))
    return f"top-1 {100 * trained.metrics['top1']:.1f} %"


def train_random(
    out: Path,
    k: int,
    searches: Sequence[Path],
    images: Images,
    distribution: str,
    settings: RetrainSettings,
    follow: Follow,
) -> str:
    """Train the k-th random genotype of the seed that is about as large as the networks of these searches."""
    found = [Genotype.load(path / "genotype.json") for path in searches]
    drawn = about_as_large(found, settings)[k]
    return train(out, drawn, images, distribution, settings, follow)


def about_as_large(found: Sequence[Genotype], settings: RetrainSettings) -> list[Genotype]:
    """Random genotypes of the settings' seed: first those whose parameters are as many as those of the found ones.

    The range goes from 20 % below the smallest to 20 % above the largest; the others follow by their distance to it.
    """
    sizes = [_parameters(genotype, settings) for genotype in found]
    low, high = (1 - ABOUT_AS_LARGE) * min(sizes), (1 + ABOUT_AS_LARGE) * max(sizes)

    def distance(genotype: Genotype) -> float:
        size = _parameters(genotype, settings)
        return max(low - size, size - high, 0.0)

    return sorted(islice(random_genotypes(settings.seed), DRAWS), key=distance)


def _parameters(genotype: Genotype, settings: RetrainSettings) -> int:
    channels, layers = SIZES[settings.size]
    return genotype_param_count(genotype, settings.channels or channels, settings.layers or layers)
