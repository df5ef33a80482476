"""Which images: the flags of every command that loads some, and `lt-nas data describe` and `data check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lt_nas_ext import data as lt_data
from lt_nas_ext.commands.printing import bars, say
from lt_nas_ext.data import Dataset
from lt_nas_ext.engine import read_config
from lt_nas_ext.errors import UserError

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]
"""Flags that need not be given: without tyro's `{None}|` and `(default: None)`."""


@dataclass(frozen=True)
class DataOptions:
    """Which images."""

    data: str = "digits"
    """digits (scikit-learn's 1797, at hand), cifar10 or cifar100 (need torchvision), folder (see --root), or a set of
    MedMNIST such as bloodmnist (needs medmnist)."""
    imbalance: Literal["balance", "exp", "step"] = "balance"
    """Images a class, as LDAM-DRW: all, or an exponential tail, or n_max for one half and n_min for the other."""
    factor: OptionalFloat = None
    """Imbalance factor n_min / n_max in (0, 1]; 0.1 is an imbalance ratio of 10. Needed with exp and step."""
    data_seed: int = 0
    """Random seed of the choice of images within each class; the test images do not depend on it."""
    root: OptionalPath = None
    """Directory of a folder (ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/test/CLASS/*), or where CIFAR or
    MedMNIST lies; without it they are downloaded into the user's cache."""
    image_size: OptionalInt = None
    """Side in pixels to which images are resized and cropped; by default as they are, or their median side."""
    n_max: OptionalInt = None
    """Training images of the largest class; by default the most that every class can follow."""
    class_order: Names = ()
    """Class names from head to tail; by default the data set's own order."""
    data_name: OptionalText = None
    """What results call these images, such as "CIFAR-10 JPEG-Q75" for a folder; by default the name of --data."""

    def load(self) -> Dataset:
        """The data set."""
        if self.factor is None and self.imbalance != "balance":
            raise UserError(f"factor: --imbalance {self.imbalance} needs it; give --factor 0.1, say (n_min / n_max)")
        return lt_data.load(
            self.data,
            self.imbalance,
            1.0 if self.factor is None else self.factor,
            self.data_seed,
            list(self.class_order) or None,
            self.root,
            self.image_size,
            self.n_max,
            title=self.data_name,
        )


@dataclass(frozen=True)
class Describe:
    """What a data set holds, before anything is trained on it."""

    data: DataOptions = field(default_factory=DataOptions)
    """Which images."""
    out: OptionalPath = None
    """Page to write, named *.html: counts, groups, samples of every class, and the two views of Barlow Twins."""

    def run(self) -> None:
        """Print sizes and groups, and a bar for each class; the page's path comes last."""
        if self.out is None:
            _print(self.data.load())
            return
        from lt_nas_ext.report.data_page import check_page, write_data_page

        check_page(self.out)
        data = self.data.load()
        _print(data)
        print(write_data_page(data, self.out))


def _print(data: Dataset) -> None:
    sizes, *more = data.describe().splitlines()
    say("\n".join([sizes, *more[:-1]]))
    most = max(data.counts)
    order = sorted(range(data.num_classes), key=lambda c: -data.counts[c])
    bars([(data.class_names[c], data.counts[c] / most, f"{data.counts[c]:,}") for c in order])


@dataclass(frozen=True)
class Check:
    """Name every image file that a training would stumble over, and every one that is there twice.

    Each is read as a training would read it; nothing is trained. Exit code 0: nothing is wrong, or there are warnings
    only; 2: a training on all of these images would fail.
    """

    root: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Directory of the images, as for --data folder: ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/test/CLASS/*."""

    def run(self) -> None:
        """A line for each finding, errors first, then how many images there are."""
        with _reading() as follow:
            found = lt_data.check_folder(self.root, follow)
        if not found.classes:  # there is nothing to go through
            raise UserError(found.findings[0].text)
        console = Console(soft_wrap=True)
        for finding in found.findings:
            word, style = ("error  ", "bold red") if finding.fatal else ("warning", "yellow")
            console.print(Text.assemble((word, style), " ", finding.text))
        parts = " and ".join(f"{count:,} {part}" for part, count in found.images.items())
        say(f"{found.classes} classes, {parts or 'no'} images, {len(found.findings) - found.fatal} warnings")
        if found.fatal:
            raise UserError(f"root: a training on {self.root} would fail; {found.fatal} error(s), named above")


@contextmanager
def _reading() -> Iterator[Callable[[int, int], None]]:
    """A bar of images read, where standard error is a terminal."""
    columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


_ABOUT = ("name", "imbalance", "factor", "seed", "class_order", "image_shape", "class_names", "counts")


def data_of_run(path: Path, root: Path | None = None) -> Dataset:
    """The images of a run, loaded again and checked against what it wrote down.

    Args:
        path: run directory of a search or a retraining.
        root: where the images lie, if they moved since.

    Raises:
        UserError: it is no run, its images are not there, or they are not the same any more.
    """
    about = read_config(path).get("data")
    if not isinstance(about, dict) or not set(_ABOUT) <= set(about):
        raise UserError(
            f"run: {path}/config.json does not say which images it was made from; wanted {', '.join(_ABOUT)}"
        )
    name, shape, counts = about["name"], tuple(about["image_shape"]), tuple(about["counts"])
    if name not in lt_data.DATA:
        raise UserError(
            f"run: {path} was made from images of your own ({name!r}); use lt.retrain and lt.evaluate in Python"
        )
    cut = (about["imbalance"], about["factor"], about["seed"], about["class_order"], root or about.get("root"))
    equal = len(set(counts)) == 1
    n_max = max(counts) if equal or about["imbalance"] != "balance" else None
    more = (n_max, shape[0] if name == "folder" else None, about.get("title"))
    data = lt_data.load(name, *cut, None, *more)
    if data.image_shape != shape:
        data = lt_data.load(name, *cut, shape[1], *more)
    if data.image_shape != shape or data.counts != counts or list(data.class_names) != about["class_names"]:
        raise UserError(
            f"run: {path} was made from {sum(counts)} training images of {len(counts)} classes, {shape}; now "
            f"{name} has {len(data.train)} of {data.num_classes}, {data.image_shape}. Point --root at the same images"
        )
    return data
