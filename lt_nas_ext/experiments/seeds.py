"""The searches of several seeds as a queue: each is a run of its own, below the directory of their consensus."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lt_nas_ext.data import Dataset
from lt_nas_ext.engine import Progress, Several, TensorBoard, run_search
from lt_nas_ext.engine.consensus import Elsewhere
from lt_nas_ext.experiments.board import Board, default_board
from lt_nas_ext.experiments.networks import done
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.experiments.spread import Spread
from lt_nas_ext.experiments.worker import Follow, Job
from lt_nas_ext.methods import SearchSettings


def in_a_queue(
    spread: Spread,
    load: Callable[[], Dataset] | None = None,
    board: Board | None = None,
    tensorboard: bool = False,
) -> Elsewhere:
    """What does the searches of `run_consensus` in processes of their own, or on a cluster.

    Where that comes to one at a time on this machine it does nothing: `run_consensus` then does them, on all threads.
    Workers are started afresh: a script that calls this needs its `if __name__ == "__main__"`.

    Args:
        spread: how many at a time, and where.
        load: what a job gets its images by, a function of a module; by default they are sent to it.
        board: what follows the queue; by default bars on a terminal, log lines elsewhere.
        tensorboard: whether each search writes its curves to `tensorboard` in its directory.

    >>> import lt_nas_ext as lt
    >>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
    >>> found = lt.search(digits, seeds=5, out="runs/five", elsewhere=in_a_queue(Spread(jobs=2)))  # doctest: +SKIP
    """

    def queued(data: Dataset, searches: Mapping[Path, SearchSettings]) -> None:
        device = next(iter(searches.values())).device
        if spread.cluster == "none" and spread.here(device) == 1:
            return
        images = load or partial(pickle.loads, pickle.dumps(data))
        jobs = [
            Job(f"seed {settings.seed}", partial(search_one, images, path, settings, tensorboard))
            for path, settings in searches.items()
        ]
        finished = {f"seed {settings.seed}" for path, settings in searches.items() if done(path)}
        out, shown = next(iter(searches)).parent, board or default_board()
        crew = spread.crew(out, device, shown)
        run_queue(jobs, out, crew, f"{len(jobs)} searches", shown, done=finished)

    return queued


def search_one(
    load: Callable[[], Dataset], out: Path, settings: SearchSettings, tensorboard: bool, follow: Follow
) -> str:
    """One of the searches, begun or continued; its genotype in words."""
    followers: list[Progress] = [follow("search")]
    if tensorboard:
        followers.append(TensorBoard(out / "tensorboard"))
    return str(run_search(load(), settings, out, True, Several(followers)).genotype)
