"""Run directories, read back: all that tables, curves and the page know. Nothing here trains or imports the engine.

A file that is missing or half written (a run still at work, or killed) is no error: what is there is shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.bbn_genotype import AnyGenotype, load_genotype

TITLES = {
    "darts": "DARTS",
    "fair-darts": "FairDARTS",
    "ssf-nas": "SSF-NAS",
    "ssnas": "SSNAS",
    "darts+bbn": "DARTS + BBN",
    "darts+resampling": "DARTS + re-sampling",
    "darts+reweighting": "DARTS + re-weighting",
    "imb-nas": "IMB-NAS",
    "hls": "HLS",
    "hls-reverse-sigmoid": "HLS + reverse sigmoid",
    "hls-then-class-head": "HLS + continuous: r = 0",
    "hls-then-half": "HLS + continuous: r = ½",
    "hls-then-reverse-sigmoid": "HLS + continuous: reverse sigmoid",
    "hls-then-frozen-backbone": "HLS + continuous: frozen backbone",
    "resnet32": "ResNet-32",
    "small-conv-net": "SmallConvNet",
    "darts-v2": "DARTS_V2",
    "fair-darts-a": "FairDARTS-a",
    "random": "random genotype",
}
"""What methods, baselines and the rows of studies are called in reports."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: where it lies.
        config: config.json.
        history: one mapping an epoch.
        metrics: metrics.json, empty while the run is at work.
        genotype: the cells found (of a search) or trained (of a retraining), where there are any.
    """

    path: Path
    config: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    genotype: AnyGenotype | None = None

    @property
    def kind(self) -> str:
        """ "search", "adapt" or "retrain"."""
        return str(self.config.get("kind", "search"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every setting of the run, by name."""
        return self.config.get("settings") or {}

    @property
    def data(self) -> Mapping[str, Any]:
        """Name, imbalance, factor, counts, class_names, … of the images."""
        return self.config.get("data") or {}

    @property
    def title(self) -> str:
        """What the images are called."""
        return str(self.data.get("title") or self.data.get("name", "unknown images"))

    @property
    def about(self) -> str:
        """Which images, in a few words: what they are called, and their distribution."""
        balanced = self.data.get("imbalance", "balance") == "balance"
        return self.title if balanced else f"{self.title}, {self.data['imbalance']} μ = {self.data.get('factor')}"

    @property
    def counts(self) -> tuple[int, ...]:
        """Training images of each class; empty where unknown."""
        return tuple(self.data.get("counts") or ())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return tuple(map(str, self.data.get("class_names") or range(len(self.counts))))

    @property
    def finished(self) -> bool:
        """Whether its final figures are there."""
        return bool(self.metrics)

    @property
    def seconds(self) -> float | None:
        """Time of all epochs in seconds, resumed parts included."""
        spent = [row["seconds"] for row in self.history if row.get("seconds") is not None]
        return float(sum(spent)) if spent else None

    def series(self, *names: str, phase: str = "train") -> tuple[list[int], list[float]]:
        """Epochs (from 1) and values of the first of `names` that the history knows; what is no number is left out.

        `phase` chooses the epochs of a training, "pretrain" or "train"; each phase counts its own.
        """
        rows = [row for row in self.history if row.get("phase", "train") == phase]
        for name in names:
            pairs = [(i + 1, float(row[name])) for i, row in enumerate(rows) if _is_number(row.get(name))]
            if pairs:
                return [x for x, _ in pairs], [y for _, y in pairs]
        return [], []


@dataclass(frozen=True)
class Network:
    """What stands in one line of the table: a search and its retraining, or a training without a search."""

    name: str
    search: Run | None = None
    training: Run | None = None

    @property
    def run(self) -> Run:
        """The run that says on which images and with which versions: the training where there is one."""
        run = self.training or self.search
        assert run is not None
        return run

    @property
    def searched(self) -> bool:
        """Whether a search found it."""
        return self.search is not None

    @property
    def label_free(self) -> bool | None:
        """Whether the search read no label: then only a probe gave it an accuracy. None before its first epoch."""
        if self.search is None or not self.search.history:
            return None
        return bool(self.search.series("probe_accuracy")[0])

    @property
    def seed(self) -> int | None:
        """Random seed of the search, or of the training where there was none."""
        return (self.search or self.run).settings.get("seed")

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Final figures of the trained network; empty before."""
        return self.training.metrics if self.training else {}

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Accuracy of each class in [0, 1]; None for a class without test images."""
        return tuple(v if _is_number(v) else None for v in self.metrics.get("per_class") or ())

    @cached_property
    def genotype(self) -> AnyGenotype | None:
        """The cells."""
        return next((run.genotype for run in (self.search, self.training) if run and run.genotype), None)


def read_run(path: str | Path) -> Run:
    """Read one run directory.

    Raises:
        UserError: it is no run directory, or its config.json cannot be read.

    >>> read_run("no/where")
    Traceback (most recent call last):
        ...
    lt_nas_ext.errors.UserError: run: 'no/where' holds no config.json; wanted the --out of a search or a retraining
    """
    path = Path(path)
    if not _is_run(path):
        raise UserError(f"run: {str(path)!r} holds no config.json; wanted the --out of a search or a retraining")
    config = _json(path / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"run: {str(path / 'config.json')!r} is not valid JSON; the run cannot be read")
    for name in ("settings", "data"):
        if not isinstance(config.get(name), dict | None):
            raise UserError(
                f"run: {str(path / 'config.json')!r} has {name!r} that is no object; the run cannot be read"
            )
    metrics = _json(path / "metrics.json")
    return Run(path, config, _history(path), metrics if isinstance(metrics, dict) else {}, _genotype(path))


def read_networks(paths: Iterable[str | Path]) -> list[Network]:
    """The networks in these directories, in the order given.

    A path is a search (its retraining in `retrain/` belongs to it), a retraining, or a directory of such runs.

    Raises:
        UserError: a path that is not there, or that holds no run.
    """
    networks: list[Network] = []
    for path in dict.fromkeys(map(_as_path, paths)):
        if not path.is_dir():
            raise UserError(f"runs: {str(path)!r} is not a directory; wanted run directories, such as runs/*")
        found = [path] if _is_run(path) else sorted(child for child in path.iterdir() if _is_run(child))
        if not found:
            raise UserError(f"runs: {str(path)!r} holds no run (no config.json in it or in its sub-directories)")
        networks += [_network(run) for run in found]
    taken = {network.training.path for network in networks if network.search and network.training}
    return _named_apart([n for n in networks if n.search or n.run.path not in taken])


def about(networks: Sequence[Network]) -> str:
    """What these networks were run on, each data set once."""
    return "; ".join(dict.fromkeys(network.run.about for network in networks))


def _as_path(path: str | Path) -> Path:
    if not isinstance(path, str | Path):
        raise UserError(f"runs: got {type(path).__name__} among them; wanted run directories")
    return Path(path)


def _network(path: Path) -> Network:
    run = read_run(path)
    if run.kind in ("search", "adapt"):
        method = "imb-nas" if run.kind == "adapt" else str(run.settings.get("method", path.name))
        training = read_run(path / "retrain") if _is_run(path / "retrain") else None
        # A baseline of the same name trains one genotype that nothing chose.
        title = "random search" if method == "random" else TITLES.get(method, method)
        return Network(title, run, training)
    architecture = run.config.get("architecture") or {}
    # A genotype or a module of the user's own has no better name than its directory.
    own = path.absolute().parent.name if path.name == "retrain" else path.name
    return Network(TITLES.get(str(architecture.get("name")), own), None, run)


def _named_apart(networks: Sequence[Network]) -> list[Network]:
    """Runs of one name that differ only in their seed keep it: they are one row. Others take their directory's name."""
    settings: dict[str, set[str]] = {}
    for network in networks:
        settings.setdefault(network.name, set()).add(_identity(network))
    same = Counter((network.name, network.seed) for network in networks)
    return [
        replace(n, name=f"{n.name} ({(n.search or n.run).path.name})")
        if len(settings[n.name]) > 1 or same[n.name, n.seed] > 1
        else n
        for n in networks
    ]


def _identity(network: Network) -> str:
    run = network.search or network.run
    free = {"seed", "device"}
    settings = {k: v for k, v in run.settings.items() if k not in free}
    return json.dumps([settings, {k: v for k, v in run.data.items() if k != "seed"}], sort_keys=True, default=str)


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _history(path: Path) -> tuple[Mapping[str, Any], ...]:
    try:
        lines = (path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ()
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed while it wrote
        if isinstance(row, dict):
            rows.append(row)
    return tuple(rows)


def _genotype(path: Path) -> AnyGenotype | None:
    try:
        return load_genotype(path / "genotype.json")
    except UserError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
