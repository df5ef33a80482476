"""An adaptation of a supernet (IMB-NAS) against a search on the same images with the same number of epochs.

Whole runs, interleaved: DARTS on all training images (half for w, half for α, a validation pass an epoch); the frozen
backbone with a new head on four fifths of them, as it comes with augmentation, and without, where every image goes
through the backbone once and its features are kept. An adaptation is measured with one sub-network judged and with 30:
what it costs itself, and with its ranking, which does not depend on the epochs. The goals are at most 40 % of the
search, and at most 20 % with kept features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial

import torch
from harness import Harness, Run, Timing, Variant
from noise import noise

from lt_nas_ext.engine import run_adapt, run_search
from lt_nas_ext.methods import AdaptSettings, preset
from lt_nas_ext.space import Supernet

GOALS = {"cifar": 0.4, "none": 0.2}
SEARCH = "search"
SUBNETS = (1, 30)


@dataclass(frozen=True)
class Case:
    images: int
    batch: int
    epochs: int
    channels: int
    layers: int = 8
    size: int = 32


class Silent:
    """A progress that shows nothing."""

    def start(self, total_steps: int, description: str, done: int = 0) -> None: ...

    def step(self, figures: object) -> None: ...

    def epoch(self, row: object) -> None: ...

    def close(self) -> None: ...


def search(case: Case, device: torch.device) -> Run:
    settings = replace(
        preset("darts"), epochs=case.epochs, batch_size=case.batch, channels=case.channels, layers=case.layers,
        device=str(device), alpha_lr=1.0,
    )  # fmt: skip
    data = noise(case.images, case.size)
    return lambda: run_search(data, settings, progress=Silent())


def adaptation(case: Case, device: torch.device, augment: str, subnets: int) -> Run:
    torch.manual_seed(0)
    supernet = Supernet(channels=case.channels, layers=case.layers)
    settings = AdaptSettings(
        epochs=case.epochs, batch_size=case.batch, augment=augment, subnets=subnets, device=str(device)
    )
    data = noise(case.images, case.size)
    return lambda: run_adapt(supernet, data, settings, progress=Silent())


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    if bench.device.type == "cuda":
        case = Case(5120, 256, epochs=3 if bench.quick else 20, channels=16)
    else:
        case = Case(80, 16, epochs=20, channels=8) if not bench.quick else Case(80, 16, epochs=10, channels=4, layers=4)
    threads = (torch.get_num_threads(),)
    ways = [Variant(SEARCH, partial(search, case, bench.device), threads)]
    for augment, subnets in itertools.product(GOALS, SUBNETS):
        make = partial(adaptation, case, bench.device, augment, subnets)
        ways.append(Variant(named(augment, subnets), make, threads))
    title = (
        f"{case.epochs} epochs of {case.images} images, {case.layers} cells, C={case.channels}, {case.size}×{case.size}"
    )
    found = bench.compare(title, ways, baseline=SEARCH, fewest=3, whole=True)
    for augment, goal in GOALS.items():
        shares = {subnets: share(found.timing(named(augment, subnets)), found.timing(SEARCH)) for subnets in SUBNETS}
        what = "features kept" if augment == "none" else "frozen"
        print(
            f"  {what}: {shares[1]:.0%} of the search (the goal is at most {goal:.0%}); {shares[30]:.0%} with 30 "
            "sub-networks ranked"
        )
    bench.finish()


def named(augment: str, subnets: int) -> str:
    return f"{'kept' if augment == 'none' else 'frozen'}, {subnets} ranked"


def share(one: Timing, whole: Timing) -> float:
    return one.median / whole.median


if __name__ == "__main__":
    main()
