"""The networks of a study: what is searched, what is trained beside it, and the jobs that do both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lt_nas_ext.engine import RetrainSettings, run_retrain, run_search
from lt_nas_ext.engine.processes import asked
from lt_nas_ext.engine.retrain_settings import SIZES, Derivation
from lt_nas_ext.experiments.branch import branch_from
from lt_nas_ext.experiments.images import DISTRIBUTIONS, Images
from lt_nas_ext.experiments.worker import Follow, Job
from lt_nas_ext.methods import SearchSettings
from lt_nas_ext.report.runs import TITLES, Network, read_networks, read_run
from lt_nas_ext.space import AnyGenotype, EmptyCellError, Genotype, genotype_param_count, load_genotype
from lt_nas_ext.space.derive import random_genotypes

LEAST_EPOCHS = 2
"""A scale leaves at least so many."""

RANDOM = "random genotypes"

TRAININGS: dict[str, Derivation] = {"retrain": "found", "retrain-bbn": "bbn", "retrain-plain": "plain"}
"""Directory of a training, below that of its search -> as which network."""

TRAINED_AS: dict[Derivation, str] = {"found": "as found", "bbn": "as a BBN network", "plain": "as a plain network"}

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
        trainings: of each genotype found, by their directories (`TRAININGS`).
        branches: search -> the search whose epochs are its own first ones: it begins where that one ended.
    """

    searches: Mapping[str, SearchSettings]
    training: RetrainSettings
    controls: Sequence[str] = ()
    random: int = 0
    pretrain_epochs: int = 0
    trainings: Sequence[str] = ("retrain",)
    branches: Mapping[str, str] = field(default_factory=dict)

    def scaled(self, scale: float) -> Plan:
        """The plan with that share of its epochs."""
        return replace(
            self,
            searches={name: _shortened(s, scale) for name, s in self.searches.items()},
            training=replace(self.training, epochs=_share(self.training.epochs, scale)),
            pretrain_epochs=_share(self.pretrain_epochs, scale) if self.pretrain_epochs else 0,
        )


def _shortened(settings: SearchSettings, scale: float) -> SearchSettings:
    continued = settings.continuous_epochs
    if settings.continuous != "none":
        continued = _share(continued, scale)
    return replace(settings, epochs=_share(settings.epochs, scale), continuous_epochs=continued)


def _share(epochs: int, scale: float) -> int:
    return max(min(LEAST_EPOCHS, epochs), round(scale * epochs))


class Place(NamedTuple):
    """One network of a study: which one, on which distribution, by which seed; found by a search, in which training."""

    distribution: str
    seed: int
    name: str
    training: str = "retrain"

    @property
    def title(self) -> str:
        """As tables call the network."""
        return RANDOM if self.name.startswith("random-") else TITLES[self.name]

    def within(self, out: Path) -> Path:
        """The directory of its search, or of the training of what no search found."""
        return out / self.distribution / f"seed-{self.seed}" / self.name


def places(plan: Plan, distributions: Sequence[str], seeds: int) -> list[Place]:
    """All networks of a study, in the order of its tables."""
    names = [*plan.searches, *(f"random-{k}" for k in range(plan.random)), *plan.controls]
    return [
        Place(dist, seed, name, training)
        for dist in distributions
        for name in names
        for seed in range(seeds)
        for training in (plan.trainings if name in plan.searches else ["retrain"])
    ]


def read(out: Path, runs: Sequence[Place]) -> list[tuple[Place, Network]]:
    """The networks of these runs, each called as tables call it."""
    return [(run, replace(_read(run, run.within(out)), name=run.title)) for run in runs]


def _read(run: Place, path: Path) -> Network:
    (network,) = read_networks([path])
    return network if run.training == "retrain" else replace(network, training=read_run(path / run.training))


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
            here /= run.training
        names |= {_name(run)} if done(here) else set()
    return names


def needed(out: Path, plan: Plan, distributions: Sequence[str], seeds: int) -> set[Path]:
    """Directories of the searches with whose last state others are to begin that have not begun."""
    return {
        run._replace(name=plan.branches[run.name]).within(out)
        for run in places(plan, distributions, seeds)
        if run.name in plan.branches and not (run.within(out) / "config.json").exists()
    }


def _of_a_seed(out: Path, images: Images, plan: Plan, distribution: str, seed: int) -> Iterator[Job]:
    def place(name: str, training: str = "retrain") -> Place:
        return Place(distribution, seed, name, training)

    for method, settings in plan.searches.items():
        run = place(method)
        before = plan.branches.get(method)
        start = None if before is None else place(before).within(out)
        work = partial(search, run.within(out), images, distribution, replace(settings, seed=seed), begin=start)
        yield Job(_search_name(run), work, frozenset() if before is None else frozenset({_search_name(place(before))}))
    training = replace(plan.training, seed=seed)
    for control in plan.controls:
        run = place(control)
        yield Job(_name(run), partial(train, run.within(out), control, images, distribution, training))
    found = {method: place(method).within(out) for method in plan.searches}
    for method, path in found.items():
        for name in plan.trainings:
            run, own = place(method, name), replace(training, derived=TRAININGS[name])
            if method == "ssf-nas":
                own = replace(own, pretrain_epochs=plan.pretrain_epochs)
            work = partial(train, path / name, path, images, distribution, own)
            yield Job(_name(run), work, frozenset({_search_name(run)}))
    for k in range(plan.random):
        run = place(f"random-{k}")
        work = partial(train_random, run.within(out), k, tuple(found.values()), images, distribution, training)
        yield Job(_name(run), work, frozenset(_search_name(place(method)) for method in plan.searches))


def _name(run: Place) -> str:
    title = f"random genotype {run.name.removeprefix('random-')}" if run.title == RANDOM else run.title
    if run.training != "retrain":
        title += f" {TRAINED_AS[TRAININGS[run.training]]}"
    return _on(run, title)


def _on(run: Place, title: str) -> str:
    return f"{title}, {DISTRIBUTIONS[run.distribution].title}, seed {run.seed}"


def _search_name(run: Place) -> str:
    return f"{_on(run, run.title)}: search"


def search(
    out: Path, images: Images, distribution: str, settings: SearchSettings, follow: Follow, begin: Path | None = None
) -> str:
    """Search cells; where FairDARTS' threshold leaves none, they are read by the rule top2, and genotype.json says so.

    `begin` is the search whose epochs are the first ones of this one. What came out, in words.
    """
    if begin is not None and not asked().rank:  # of several processes the first alone looks into `out`
        branch_from(begin, out, settings)
    data = images.load(distribution, settings.seed)
    try:
        found = run_search(data, settings, out, True, follow("search"))
    except EmptyCellError:
        found = run_search(data, replace(settings, rule="top2"), out, True, follow("search"))
    tested = found.history[-1].get("test_accuracy")
    return "found" if tested is None else f"supernet {100 * tested:.1f} %"


def train(
    out: Path,
    what: str | Path | AnyGenotype,
    images: Images,
    distribution: str,
    settings: RetrainSettings,
    follow: Follow,
) -> str:
    """Train a control by name, the genotype of a search by its directory, or a genotype; its accuracy in words."""
    chosen = load_genotype(what / "genotype.json") if isinstance(what, Path) else what
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
