"""The runs of the study of adaptations: what is searched, adapted and trained alone, and the jobs that do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lt_nas_ext import nn
from lt_nas_ext.engine import RetrainSettings, run_adapt, run_retrain, run_search
from lt_nas_ext.experiments.carry import SOURCE as SEARCH
from lt_nas_ext.experiments.images import ALL, Images
from lt_nas_ext.experiments.imb_settings import SOURCE
from lt_nas_ext.experiments.worker import Follow, Job
from lt_nas_ext.methods import AdaptSettings, SearchSettings, different_genotypes
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.space import Genotype

LEAST_EPOCHS = 2
LEAST_SUBNETS = 8
"""A scale leaves at least so many."""

FULL = "full search"
"""The control: the row of a search on the target itself."""


@dataclass(frozen=True)
class Strategy:
    """A row of the table: `name` is its directory."""

    name: str
    title: str
    changed: Mapping[str, Any]


STRATEGIES = (
    Strategy("as-is-keep", "as is, head kept", {"backbone": "as_is", "head": "keep"}),
    Strategy("frozen-keep", "frozen, head kept", {"backbone": "frozen", "head": "keep"}),
    Strategy("frozen-reinit", "frozen, new head", {"backbone": "frozen", "head": "reinit"}),
    Strategy(
        "frozen-reinit-cached",
        "frozen, new head, no augmentation",
        {"backbone": "frozen", "head": "reinit", "augment": "none"},
    ),
    Strategy(
        "frozen-reinit-plain",
        "frozen, new head, plain cross-entropy",
        {"backbone": "frozen", "head": "reinit", "loss": "cross_entropy"},
    ),
    Strategy("finetune-keep", "finetuned, head kept", {"backbone": "finetune", "head": "keep"}),
    Strategy("finetune-reinit", "finetuned, new head", {"backbone": "finetune", "head": "reinit"}),
    Strategy("scratch-keep", "from scratch, head kept", {"backbone": "scratch", "head": "keep"}),
    Strategy("scratch-reinit", "from scratch, new head", {"backbone": "scratch", "head": "reinit"}),
)
"""Every backbone × head but one: as is with a new head is frozen with a new head, to the bit."""

DEFAULT = STRATEGIES[2]


@dataclass(frozen=True)
class ImbPlan:
    """Every number of the study but its seeds and images.

    Attributes:
        search: of the source and, with `target_loss`, of the control on each target.
        adapt: of every strategy, for as many epochs as the search.
        training: how every sub-network is trained alone.
        target_loss: the loss of the control, that of the strategies.
    """

    search: SearchSettings
    adapt: AdaptSettings
    training: RetrainSettings
    target_loss: str = "class_balanced"

    def scaled(self, scale: float) -> ImbPlan:
        """The plan with that share of its epochs and sub-networks."""
        epochs = _share(self.search.epochs, scale, LEAST_EPOCHS)
        return replace(
            self,
            search=replace(self.search, epochs=epochs),
            adapt=replace(self.adapt, epochs=epochs, subnets=_share(self.adapt.subnets, scale, LEAST_SUBNETS)),
            training=replace(self.training, epochs=_share(self.training.epochs, scale, LEAST_EPOCHS)),
        )

    def on(self, device: str) -> ImbPlan:
        """The plan on a device."""
        parts = {name: replace(getattr(self, name), device=device) for name in ("search", "adapt", "training")}
        return replace(self, **parts)

    def genotypes(self, seed: int) -> list[Genotype]:
        """The sub-networks of a seed, the same for all its supernets."""
        primitives = nn.DARTS if self.search.primitives == "darts" else nn.FAIR_DARTS
        return different_genotypes(primitives, self.search.nodes, self.adapt.subnets, seed)


def _share(whole: int, scale: float, least: int) -> int:
    return max(min(least, whole), round(scale * whole))


class Place(NamedTuple):
    """One run: on which distribution, by which seed, and its name. Together its directory."""

    distribution: str
    seed: int
    name: str

    def within(self, out: Path) -> Path:
        """The run directory."""
        return out / self.distribution / f"seed-{self.seed}" / self.name

    @property
    def title(self) -> str:
        """As the queue shows it."""
        return f"{self.name}, {ALL[self.distribution].title}, seed {self.seed}"


def source_of(seed: int) -> Place:
    """The search that is adapted."""
    return Place(SOURCE, seed, SEARCH)


def net(distribution: str, seed: int, name: str | int) -> Place:
    """A sub-network trained alone: a drawn one by number, or "searched" (on the source), "full" (on the target)."""
    return Place(distribution, seed, f"net-{name:02d}" if isinstance(name, int) else f"net-{name}")


def jobs(out: Path, images: Images, plan: ImbPlan, targets: Sequence[str], seeds: int) -> list[Job]:
    """What is to be done, seed by seed: what others wait for first."""
    return [job for seed in range(seeds) for job in _of_a_seed(out, images, plan, targets, seed)]


def finished(out: Path, queue: Sequence[Job], places: Sequence[Place]) -> set[str]:
    """Names of the jobs whose runs are done."""
    names = {job.name for job in queue}
    return {place.title for place in places if (place.within(out) / "metrics.json").exists()} & names


def places(plan: ImbPlan, targets: Sequence[str], seeds: int) -> list[Place]:
    """All runs."""
    found = []
    for seed in range(seeds):
        found.append(source_of(seed))
        for distribution in (SOURCE, *targets):
            found += [net(distribution, seed, k) for k in range(plan.adapt.subnets)]
            found.append(net(distribution, seed, "searched"))
        for target in targets:
            found += [Place(target, seed, name) for name in (SEARCH, "full", *(s.name for s in STRATEGIES))]
            found.append(net(target, seed, "full"))
    return found


def _of_a_seed(out: Path, images: Images, plan: ImbPlan, targets: Sequence[str], seed: int) -> Iterator[Job]:
    source = source_of(seed)
    search, adapt = replace(plan.search, seed=seed), replace(plan.adapt, seed=seed)
    training = replace(plan.training, seed=seed)
    yield Job(source.title, partial(searched, source.within(out), images, SOURCE, search))
    control = overridden(search, {"loss": plan.target_loss})
    for target in targets:
        place = Place(target, seed, SEARCH)
        yield Job(place.title, partial(searched, place.within(out), images, target, control))
    for k, genotype in enumerate(plan.genotypes(seed)):
        for distribution in (SOURCE, *targets):
            place = net(distribution, seed, k)
            yield Job(place.title, partial(trained, place.within(out), genotype, images, distribution, training))
    for target in targets:
        for strategy in STRATEGIES:
            place, settings = Place(target, seed, strategy.name), overridden(adapt, dict(strategy.changed))
            work = partial(adapted, place.within(out), source.within(out), images, target, settings)
            yield Job(place.title, work, frozenset({source.title}))
        full, own = Place(target, seed, "full"), Place(target, seed, SEARCH)
        untouched = overridden(adapt, {"backbone": "as_is", "head": "keep"})
        work = partial(adapted, full.within(out), own.within(out), images, target, untouched)
        yield Job(full.title, work, frozenset({own.title}))
        place = net(target, seed, "full")
        work = partial(trained, place.within(out), own.within(out), images, target, training)
        yield Job(place.title, work, frozenset({own.title}))
    for distribution in (SOURCE, *targets):
        place = net(distribution, seed, "searched")
        work = partial(trained, place.within(out), source.within(out), images, distribution, training)
        yield Job(place.title, work, frozenset({source.title}))


def searched(out: Path, images: Images, distribution: str, settings: SearchSettings, follow: Follow) -> str:
    """Search on a distribution; the supernet's accuracy in words."""
    found = run_search(images.load(distribution, settings.seed), settings, out, True, follow("search"))
    return f"validation {100 * found.metrics['val_accuracy']:.1f} %"


def adapted(out: Path, source: Path, images: Images, distribution: str, settings: AdaptSettings, follow: Follow) -> str:
    """Adapt a supernet and rank its sub-networks; its accuracy in words."""
    data = images.load(distribution, settings.seed)
    found = run_adapt(source, data, settings, out, True, follow("adaptation"))
    return f"supernet's macro {100 * found.metrics['supernet']['macro']:.1f} %"


def trained(
    out: Path, what: Path | Genotype, images: Images, distribution: str, settings: RetrainSettings, follow: Follow
) -> str:
    """Train a genotype, or that of a search by its directory, alone; its accuracy in words."""
    genotype = Genotype.load(what / "genotype.json") if isinstance(what, Path) else what
    done = run_retrain(genotype, images.load(distribution, settings.seed), settings, out, True, follow("training"))
    return f"macro {100 * done.metrics['macro']:.1f} %"
