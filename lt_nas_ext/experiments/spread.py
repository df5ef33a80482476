"""Where independent runs are started: the Python API and every command that has several read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lt_nas_ext.engine.device import choose_device
from lt_nas_ext.engine.processes import join
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.cluster_crew import Cluster, ClusterCrew
from lt_nas_ext.experiments.group_crew import GroupCrew
from lt_nas_ext.experiments.local_crew import LocalCrew, at_a_time
from lt_nas_ext.experiments.queue import Crew
from lt_nas_ext.methods.settings import check_choice, check_whole


@dataclass(frozen=True)
class Spread:
    """How many runs at a time, and where.

    Raises:
        UserError: a value is out of range or of the wrong type; the message names the field.
    """

    jobs: int | None = None
    """Runs at work at the same time; by default one a core, each on one thread, or one a CUDA device, each on its own;
    on a cluster as many as it takes."""
    cluster: Cluster = "none"
    """Where the runs are started: in processes here (none), as jobs of Slurm (slurm), or as such jobs here, to try it
    (local). The last two need the package submitit."""
    cluster_options: tuple[str, ...] = ()
    """Of the jobs, as submitit calls them: slurm_partition=gpu gpus_per_node=1 timeout_min=240."""

    def __post_init__(self) -> None:
        check_whole(self, *(["jobs"] if self.jobs is not None else []), least=1)
        check_choice(self, "cluster", get_args(Cluster))
        self.options()

    def options(self) -> dict[str, int | str]:
        """The cluster's options by name.

        >>> Spread(cluster="local", cluster_options=("timeout_min=240", "slurm_partition=gpu")).options()
        {'timeout_min': 240, 'slurm_partition': 'gpu'}
        """
        pairs = [option.partition("=") for option in self.cluster_options]
        for name, equals, value in pairs:
            if not (name and equals and value):
                raise UserError(
                    f"cluster_options: got {name + equals + value!r}; wanted NAME=VALUE, such as timeout_min=240"
                )
        if pairs and self.cluster == "none":
            raise UserError("cluster_options: got some with cluster='none'; wanted cluster='slurm' too, or no options")
        return {name: int(value) if value.isdigit() else value for name, _, value in pairs}

    def here(self, device: str) -> int:
        """How many at a time, where they are started on this machine.

        Raises:
            UserError: this machine has no such device.
        """
        return self.jobs or at_a_time(choose_device(device), device)

    def crew(self, out: Path, device: str, board: Board, until: float | None = None) -> Crew:
        """Those who do the runs.

        Args:
            out: directory of them all; a cluster's own files and logs go to `out`/submitit.
            device: what the runs compute on, as a setting calls it.
            board: what follows them.
            until: when they are to stop, by `time.monotonic()`.

        Raises:
            UserError: this machine has no such device, submitit is missing or refuses an option, or torchrun started
                processes and others are asked for.
        """
        group = join()
        if group.size > 1:
            if self != Spread():
                raise UserError(
                    f"jobs: got --jobs or --cluster in {group.size} processes (torchrun), which do one run after the "
                    "other, each together; wanted one or the other"
                )
            return GroupCrew(group, board, until)
        if self.cluster == "none":
            return LocalCrew(self.here(device))
        return ClusterCrew(self.cluster, out / "submitit", self.jobs, self.options())
