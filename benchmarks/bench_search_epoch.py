"""One epoch of SSF-NAS on as many images as CIFAR-10-LT has at μ = 0.1 (20 431, 32×32, batch 64): seconds, and whose.

On CUDA the epoch runs twice from start to end after a first one, as a user's does (steps recorded, images resident),
and once more with the steps as written, where each part ends before the next begins: data (which images, and their
pixels from memory), views (augmenting and normalising), forward, backward, optimiser (clipping included). On a CPU,
where an epoch takes long, a few steps are taken, and the seconds are those of so many.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from harness import Comparison, Harness, OthersWatch, Timing
from noise import noise
from torch import nn

from lt_nas_ext.data import split
from lt_nas_ext.engine.capture import recorder_for
from lt_nas_ext.engine.device import place
from lt_nas_ext.engine.method_losses import MethodLosses
from lt_nas_ext.engine.optimisers import GroupedOptimiser
from lt_nas_ext.engine.resident import resident
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.methods import Problem, method_class, preset

IMAGES = 20431
PARTS = ("data", "views", "forward", "backward", "optimiser")
WHOLE = "data and views"


@dataclass(frozen=True)
class Case:
    images: int = IMAGES
    batch: int = 64
    channels: int = 16
    layers: int = 8
    size: int = 32


class Parts:
    """Seconds of each part, which ends when the device has done it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys((*PARTS, WHOLE), 0.0)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            synchronise(self.device)
            began = time.perf_counter()
            found = function(*arguments, **named)
            synchronise(self.device)
            self.seconds[part] += time.perf_counter() - began
            return found

        return run

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within this context the parts of steps are timed."""
        with contextlib.ExitStack() as stack:
            for part, owner, name in (
                ("views", Feed, "_draw"),
                ("forward", MethodLosses, "alpha"),
                ("forward", MethodLosses, "weight"),
                ("backward", torch.Tensor, "backward"),
                ("optimiser", GroupedOptimiser, "step"),
                ("optimiser", nn.utils, "clip_grad_norm_"),
            ):
                stack.enter_context(mock.patch.object(owner, name, self.timed(part, getattr(owner, name))))
            yield
        self.seconds["data"] = self.seconds[WHOLE] - self.seconds["views"]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Search:
    """A search in the midst, its images where the engine has them."""

    def __init__(self, case: Case, device: torch.device, recorded: bool) -> None:
        torch.manual_seed(0)
        settings = replace(preset("paper-ssf"), channels=case.channels, layers=case.layers, batch_size=case.batch)
        data = noise(case.images, case.size)
        method = method_class(settings.method)(settings, Problem(10, data.image_shape, tuple(data.counts)))
        networks = place(method.build(), device).train()
        self.device, self.at = device, method.at(settings.epochs // 2)
        self.steps = Steps(method, networks, recorder_for(device, recorded))
        halves = split(data.train, settings.split, settings.seed, settings.stratify, data.class_names)
        streams = ("weights", method.weight_stream), ("alpha", method.alpha_stream)
        self.feeds = [
            Feed(stream, resident(images, device), device, data, case.batch, 0, role)
            for (role, stream), images in zip(streams, halves, strict=True)
        ]

    def epoch(self, number: int, most: int | None = None, parts: Parts | None = None) -> float:
        """Seconds of an epoch, or of the first of its steps."""
        count = min(len(feed) for feed in self.feeds) if most is None else most
        draws = zip(*(feed.epoch(number, count) for feed in self.feeds), strict=True)
        drawn = parts.timed(WHOLE, lambda: next(draws)) if parts else lambda: next(draws)
        self.steps.begin(self.at)
        synchronise(self.device)
        began = time.perf_counter()
        for _ in range(count):
            weights, alpha = drawn()
            self.steps.arch(alpha.batch, weights.batch)
            self.steps.weight(weights.batch)
        synchronise(self.device)
        return time.perf_counter() - began


def measure(bench: Harness, case: Case, most: int | None) -> Comparison:
    watch = OthersWatch()
    search = Search(case, bench.device, recorded=True)
    search.epoch(0, 2 if most else None)  # recorded here
    taken = [search.epoch(number, most) for number in (1, 2)]
    written, parts = Search(case, bench.device, recorded=False), Parts(bench.device)
    written.epoch(0, 2)
    with parts.watched():
        in_parts = written.epoch(1, most, parts)
    steps = min(len(feed) for feed in search.feeds)
    others, seconds = watch.cores(), statistics.median(taken) * (steps / most if most else 1)
    of_how_many = "the whole epoch" if most is None else f"{most} of its {steps} pairs of steps"
    title = (
        f"an epoch of SSF-NAS, {case.images} images {case.size}×{case.size}, batch {case.batch}, {case.layers} cells, "
        f"C={case.channels}: α and w step each, two views   [others: {others:.2f} cores]"
    )
    print(f"\n{title}\n  {seconds:.1f} s, by {of_how_many}; {case.images / seconds:.0f} images/s")
    shares = {part: parts.seconds[part] / in_parts for part in PARTS}
    shares["rest"] = 1 - sum(shares.values())
    print("  as written, part by part: " + ", ".join(f"{part} {share:.1%}" for part, share in shares.items()))
    timings = (Timing("epoch", *(1e3 * seconds,) * 3, len(taken), torch.get_num_threads(), None),)
    return Comparison(title, "epoch", timings, {}, round(others, 2), also={"shares": shares, "by": of_how_many})


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    if bench.quick and bench.device.type == "cpu":
        case, most = Case(images=512, channels=4, layers=3), 2
    else:
        case, most = Case(), None if bench.device.type == "cuda" else 3
    bench.comparisons.append(measure(bench, case, most))
    bench.finish()


if __name__ == "__main__":
    main()
