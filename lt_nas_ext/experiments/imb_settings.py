"""What the study of adaptations is asked for: the Python API and the command line both read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.cluster_crew import Cluster
from lt_nas_ext.experiments.images import ALL, DATA
from lt_nas_ext.experiments.spread import Spread
from lt_nas_ext.methods.settings import check_choice, check_number, check_whole

SOURCE = "balance"
"""The distribution that the supernet to adapt is searched on."""

TARGETS = ("exp-0.1", "step-0.1", "exp-0.01", "step-0.01")
"""Exponential and step at an imbalance ratio of 10 and of 100."""

DIGITS_TARGETS = ("exp-0.1", "step-0.1", "exp-0.02", "step-0.02")
"""130 training images of a digit reach a ratio of 65: 50 stands in the place of 100."""


@dataclass(frozen=True)
class ImbSettings:
    """On which images, how much of the work, and where.

    Raises:
        UserError: a value is out of range or of the wrong type; the message names the field.
    """

    data: str = "cifar10"
    """cifar10 (through torchvision), folder (see --root), or digits (scikit-learn's, with settings of ours)."""
    root: Path | None = None
    """Directory of a folder (ROOT/train/CLASS/*, ROOT/test/CLASS/*), or where CIFAR lies."""
    targets: tuple[str, ...] = ()
    """Some of exp-0.1, step-0.1, exp-0.01, step-0.01, exp-0.02, step-0.02; by default the first four, on digits the
    first two and the last two, for 130 images of a class go no farther."""
    seeds: int = 1
    """How many random seeds; they count from 0. More of them add to what is there."""
    scale: float = 1.0
    """Share of the epochs (at least 2) and of the sub-networks (at least 8), and but for digits of all images."""
    jobs: int | None = None
    """Runs at work at the same time; by default one a core, each on one thread, or one a CUDA device, each on its own;
    on a cluster as many as it takes. Not with torchrun, whose processes do one run after the other, together."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, ..."""
    cluster: Cluster = "none"
    """Where the runs are started: in processes here (none), as jobs of Slurm (slurm), or as such jobs here, to try it
    (local). The last two need the package submitit."""
    cluster_options: tuple[str, ...] = ()
    """Of the jobs, as submitit calls them: slurm_partition=gpu gpus_per_node=1 timeout_min=240."""
    minutes: float | None = None
    """Stop cleanly before so many minutes are over; the same command continues. By default when all is done."""
    carry: Path | None = None
    """Directory that takes the state when it stops, in files of at most 16 MB, 48 MB in all: carried to another
    machine, the same command continues from it."""

    def __post_init__(self) -> None:
        check_choice(self, "data", DATA)
        check_whole(self, "seeds", least=1)
        Spread(self.jobs, self.cluster, self.cluster_options)  # which checks them
        check_number(self, "scale", *(["minutes"] if self.minutes is not None else []), above=0.0)
        if self.scale > 1.0:
            raise UserError(f"scale: got {self.scale:g}; wanted a share of the work, above 0 and at most 1")
        possible, named = [name for name in ALL if name != SOURCE], self.targets
        if not isinstance(named, tuple) or not set(named) <= set(possible) or len(set(named)) < len(named):
            raise UserError(f"targets: got {named!r}; wanted some of {', '.join(possible)}, each once")

    @property
    def spread(self) -> Spread:
        """Where the runs are started."""
        return Spread(self.jobs, self.cluster, self.cluster_options)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The targets, those of the data where none are named."""
        return self.targets or (DIGITS_TARGETS if self.data == "digits" else TARGETS)

    @property
    def distributions(self) -> tuple[str, ...]:
        """The source and the targets."""
        return (SOURCE, *self.chosen)

    @property
    def image_scale(self) -> float:
        """The share of the images: of digits all, there are few enough."""
        return 1.0 if self.data == "digits" else self.scale
