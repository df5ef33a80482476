"""What the studies of the paper are asked for: the Python API and the command line both read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lt_nas_ext.engine.retrain_settings import Size
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.cluster_crew import Cluster
from lt_nas_ext.experiments.images import DATA, DISTRIBUTIONS
from lt_nas_ext.experiments.spread import Spread
from lt_nas_ext.methods.settings import check_choice, check_number, check_whole


@dataclass(frozen=True)
class StudySettings:
    """On which images, how much of the paper's work, and where.

    Raises:
        UserError: a value is out of range or of the wrong type; the message names the field.
    """

    data: str = "cifar10"
    """cifar10 (through torchvision), folder (see --root), or digits (scikit-learn's, with settings of ours)."""
    root: Path | None = None
    """Directory of a folder (ROOT/train/CLASS/*, ROOT/test/CLASS/*), or where CIFAR lies."""
    distributions: tuple[str, ...] = ("exp-0.1",)
    """Of figure 6: balance, exp-0.1, exp-0.01, step-0.01."""
    seeds: int = 3
    """How many random seeds; they count from 0. More of them add to what is there."""
    scale: float = 1.0
    """Share of the study's epochs (at least 2 of each kind) and of all images (at least 10 of the largest class)."""
    size: Size = "small"
    """Trained networks: small (8 cells, C = 16) or paper (DARTS' 20 cells, C = 36). Digits have a size of their own."""
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
        check_choice(self, "size", get_args(Size))
        check_whole(self, "seeds", least=1)
        check_number(self, "scale", above=0.0)
        if self.scale > 1.0:
            raise UserError(f"scale: got {self.scale:g}; wanted a share of the paper's work, above 0 and at most 1")
        check_number(self, *(["minutes"] if self.minutes is not None else []), above=0.0)
        Spread(self.jobs, self.cluster, self.cluster_options)  # which checks them
        named = self.distributions
        if not isinstance(named, tuple) or not named or not set(named) <= set(DISTRIBUTIONS):
            raise UserError(f"distributions: got {named!r}; wanted some of {', '.join(DISTRIBUTIONS)}")
        if len(set(named)) < len(named):
            raise UserError(f"distributions: got {named!r}; wanted each once")

    @property
    def spread(self) -> Spread:
        """Where the runs are started."""
        return Spread(self.jobs, self.cluster, self.cluster_options)


VERIFICATION = StudySettings(distributions=tuple(DISTRIBUTIONS))
"""What `reproduce verification` is asked for by default: all four distributions."""

HLS = StudySettings(distributions=("exp-0.01",))
"""What `reproduce hls` is asked for by default."""
