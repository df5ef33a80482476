"""`lt-nas search`, `retrain`, `baseline` and `evaluate`: the settings of the Python API as flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lt_nas_ext import api
from lt_nas_ext.commands.following import Following
from lt_nas_ext.commands.images import DataOptions, OptionalPath, data_of_run
from lt_nas_ext.commands.printing import bars, percent, say
from lt_nas_ext.commands.showing import print_table
from lt_nas_ext.data import Dataset
from lt_nas_ext.engine import (
    Progress,
    RetrainSettings,
    evaluate,
    load_classifier,
    read_config,
    retrain_preset,
    run_consensus,
    run_retrain,
    run_search,
)
from lt_nas_ext.engine.classifier import trained_run
from lt_nas_ext.engine.processes import asked
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.seeds import in_a_queue
from lt_nas_ext.experiments.spread import Spread
from lt_nas_ext.longtail import Calibration, Metrics
from lt_nas_ext.methods import SearchSettings
from lt_nas_ext.report.runs import read_run
from lt_nas_ext.space import AnyGenotype, load_genotype, multiply_adds, param_count

NetworkName = Literal["resnet32", "small-conv-net", "darts-v2", "fair-darts-a", "random"]


@dataclass(frozen=True)
class Search:
    """Search the cells of a network. Afterwards: lt-nas retrain --run OUT.

    Ctrl-C ends it cleanly after the step in hand; the same command with --resume continues where it was.
    """

    data: DataOptions = field(default_factory=DataOptions)
    """Which images."""
    settings: SearchSettings = field(default_factory=SearchSettings)
    """Every number of the search; the preset gives the defaults."""
    out: OptionalPath = None
    """Run directory to write; by default runs/METHOD-DATA-SEED."""
    following: Following = field(default_factory=Following)
    """What the run tells while it lasts."""
    seeds: int = 1
    """Search with so many seeds, from --seed on, in OUT/seed-SEED; OUT gets the genotype of their mean gates."""
    spread: Spread = field(default_factory=Spread)
    """Where the searches of --seeds are started."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run in OUT; where there is none, begin it."""

    def run(self) -> None:
        """Search, and say what was found and where it lies."""
        out = self.out or Path("runs", f"{self.settings.method}-{self.data.data}-{self.settings.seed}")
        if self.seeds == 1 and self.spread != Spread():
            raise UserError("jobs: got --jobs or --cluster for one search; wanted --seeds 2 or more with it")
        board = self.following.board()
        with self.following.of(out) as progress:
            self._search(out, progress) if self.seeds == 1 else self._agree(out, progress, board)

    def _search(self, out: Path, progress: Progress) -> None:
        found = run_search(self.data.load(), self.settings, out, self.resume, progress)
        health = found.health
        say(str(found.genotype))
        if "stopped" in found.metrics:
            say(f"stopped after {len(found.history)} of {found.settings.epochs} epochs: {found.metrics['stopped']}")
        decided = f"{health['polarised_gates']} of {health['gates']} gates decided, " if health["gates"] else ""
        say(f"{decided}{health['skip_share']:.0%} of the operations are skip connections")
        contest = found.metrics.get("ranking", found.metrics).get("candidates")
        if contest:
            say(f"validation macro accuracy of candidates: {', '.join(percent(one['val_macro']) for one in contest)}")
        say(f"next: lt-nas retrain --run {out}")

    def _agree(self, out: Path, progress: Progress, board: Board) -> None:
        queue = in_a_queue(self.spread, self.data.load, board, self.following.tensorboard)
        found = run_consensus(self.data.load(), self.settings, self.seeds, out, self.resume, progress, queue)
        say(str(found.genotype))
        say(f"two of the {self.seeds} seeds agree on {percent(found.metrics['agreement'])} of the edges on average")
        say(f"next: lt-nas retrain --run {out}")


@dataclass(frozen=True)
class Retrain:
    """Train a network on its own and measure its last weights on the test images.

    One of --run, --genotype and --network says which; with --run the images are those of the search.
    """

    source: Annotated[Path | None, tyro.conf.arg(name="run", metavar="PATH", help_behavior_hint="")] = None
    """Run directory of a finished search: its genotype, its images."""
    genotype: OptionalPath = None
    """Genotype file, json or the text Genotype(normal=[...], ...) of DARTS."""
    network: Annotated[NetworkName | None, tyro.conf.arg(help_behavior_hint="")] = None
    """A network that no search made, to compare with."""
    data: DataOptions = field(default_factory=DataOptions)
    """Which images."""
    settings: RetrainSettings = field(default_factory=RetrainSettings)
    """Every number of the training; the preset gives the defaults."""
    following: Following = field(default_factory=Following)
    """What the run tells while it lasts."""
    out: OptionalPath = None
    """Run directory to write; by default RUN/retrain, or runs/NETWORK-DATA-SEED."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run in OUT; where there is none, begin it."""

    def run(self) -> None:
        """Train, and print the figures."""
        what, data, out = self._what()
        with self.following.of(out) as progress:
            run_retrain(what, data, self.settings, out, self.resume, progress)
            if not asked().rank:  # where other processes are, the files may not be
                print_table([self.source if self.source and self.out is None else out])

    def _what(self) -> tuple[AnyGenotype | str, Dataset, Path]:
        given = [x for x in (self.source, self.genotype, self.network) if x is not None]
        if len(given) != 1:
            raise UserError(f"run: got {len(given)} of --run, --genotype and --network; wanted one of them")
        if self.source is not None:
            if replace(self.data, root=None) != DataOptions():
                raise UserError("data: with --run the images are those of the search; leave out --data, --imbalance, …")
            found = self.source / "genotype.json"
            read_config(self.source)
            if not found.exists():
                raise UserError(f"run: {self.source} holds no genotype yet; finish the search first (--resume)")
            data = data_of_run(self.source, self.data.root)
            return load_genotype(found), data, self.out or self.source / "retrain"
        if self.genotype is not None:
            name, what = self.genotype.stem, load_genotype(self.genotype)
            return what, self.data.load(), self.out or self._default_out(name)
        assert self.network is not None
        return self.network, self.data.load(), self.out or self._default_out(self.network)

    def _default_out(self, name: str) -> Path:
        return Path("runs", f"{name}-{self.data.data}-{self.settings.seed}")


@dataclass(frozen=True)
class Baseline:
    """Train a network that no search made, on any images with any loss, so that a search has a row beside it.

    ResNet-32, a small convolutional network, the cells of DARTS_V2 or of FairDARTS-a, or random ones. The last weights
    are measured on the test images, as those of what a search found are. Afterwards: lt-nas report OUT OTHER.
    """

    network: tyro.conf.Positional[NetworkName]
    """Which: darts-v2 and fair-darts-a are cells found on CIFAR-10; --size says how large a network they become."""
    data: DataOptions = field(default_factory=DataOptions)
    """Which images."""
    settings: RetrainSettings = field(default_factory=RetrainSettings)
    """Every number of the training; the preset gives the defaults."""
    following: Following = field(default_factory=Following)
    """What the run tells while it lasts."""
    out: OptionalPath = None
    """Run directory to write; by default runs/NETWORK-DATA-SEED."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run in OUT; where there is none, begin it."""

    def run(self) -> None:
        """Train, and print the figures: what `lt-nas retrain --network` does."""
        Retrain(
            network=self.network,
            data=self.data,
            settings=self.settings,
            following=self.following,
            out=self.out,
            resume=self.resume,
        ).run()


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained network on the test images of its run."""

    source: Annotated[Path, tyro.conf.arg(name="run")]
    """Run directory of a retraining, or of the search that it belongs to."""
    root: OptionalPath = None
    """Where the images lie now, if they moved."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""

    def run(self) -> None:
        """Print every figure."""
        directory = trained_run(self.source)
        model = load_classifier(directory, device=self.device)
        data = data_of_run(directory, self.root)
        figures = evaluate(model, data.test)
        say(read_run(directory).about)
        columns = [_shown(figures)]
        if model.calibration is not None:
            say(_fitted(model.calibration))
            columns.append(_shown(evaluate(model, data.test, adjusted=True)))
        for title, *values in zip(columns[0], *(column.values() for column in columns), strict=True):
            say(f"{title:<12}{''.join(f'{value:<10}' for value in values).rstrip()}")
        say(f"{'parameters':<12}{param_count(model.network):,}")
        say(f"{'MACs':<12}{multiply_adds(model.network, model.image_shape):,} multiply-adds an image")
        order = sorted(range(data.num_classes), key=lambda c: -model.train_counts[c])
        bars(
            [
                (
                    data.class_names[c],
                    figures.per_class[c],
                    f"{percent(figures.per_class[c])}  n {model.train_counts[c]}",
                )
                for c in order
            ]
        )


_GROUPS = ("many", "medium", "few", "first", "middle", "last")
_FIGURES = {"top-1": "top1", "macro": "macro", "long-tailed": "longtailed_top1"} | {name: name for name in _GROUPS}


def _shown(metrics: Metrics) -> dict[str, str]:
    return {title: percent(getattr(metrics, name)) for title, name in _FIGURES.items()} | {"ECE": f"{metrics.ece:.3f}"}


def _fitted(calibration: Calibration) -> str:
    return (
        f"{'':<12}{'as it is':<10}adjusted: z - τ log π, τ = {calibration.tau:.2f}, fitted on {calibration.images} "
        "validation images"
    )


def search_defaults(words: Sequence[str]) -> Search:
    """`Search` with the numbers of the preset that the flags name, or of the method's paper preset.

    Where neither is named, a folder of the user's own images starts from what we recommend.
    """
    method, preset = _value(words, "--method"), _value(words, "--preset")
    if method is None and preset is None and _value(words, "--data") == "folder":
        preset = "recommended"
    return Search(settings=api.search_settings(method, preset, {}))


def retrain_defaults(words: Sequence[str]) -> Retrain:
    """`Retrain` with the numbers of the preset that the flags name, and the seed of the search that they name."""
    settings = retrain_preset(_value(words, "--preset") or "default")
    directory = _value(words, "--run")
    if directory is None:
        return Retrain(settings=settings)
    return Retrain(settings=replace(settings, seed=read_config(directory)["settings"].get("seed", 0)))


def baseline_defaults(words: Sequence[str]) -> Baseline:
    """`Baseline` with the numbers of the preset that the flags name."""
    return Baseline(network=tyro.MISSING, settings=retrain_preset(_value(words, "--preset") or "default"))


def _value(words: Sequence[str], flag: str) -> str | None:
    """What stands behind a flag, before the whole line is parsed."""
    for i, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word[len(flag) + 1 :]
        if word == flag and i + 1 < len(words):
            return words[i + 1]
    return None
