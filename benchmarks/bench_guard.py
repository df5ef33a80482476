"""What it costs to look at every number of a search: steps of α and w with the engine's guard and without it, in turns.

The guard looks at each part of the loss and at the norm of the gradient of every step, and keeps a copy of the state at
the beginning of an epoch; its share is of the time of a step, at a size where a step takes little and the guard weighs
most: the demo's (3 cells, C=8, 8×8 images, batch 64). The goal is at most 2 %, by the upper end of the bootstrap
interval of the median difference over at least 300 pairs of steps. A step with the guard and the same step without it
are a pair: nothing that lasts longer than the two falls on one of them alone.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from dataclasses import dataclass, field, replace
from unittest import mock

import torch
from harness import Comparison, Harness, OthersWatch, Timing, percentile, timed
from torch import nn

from lt_nas_ext.engine.capture import recorder_for
from lt_nas_ext.engine.loop import copied
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.methods import Epoch, Labelled, Problem, TwoViews, method_class, preset

GOAL = 0.02
TURNS = 400
"""Of a pair of α steps and a pair of w steps each."""

STEPS_AN_EPOCH = 8
"""The fewest that settings fitted to few images leave: the copy of the state is shared by so many."""


class NoGuard:
    """Lets everything pass."""

    skips = False

    def begin(self) -> None: ...

    def keep(self) -> None: ...

    def read(self) -> None: ...

    def lets(self, step: str, figures: object) -> bool:
        return True

    def saw(self, step: str, figures: object) -> None: ...


@dataclass
class Search:
    """A search in the midst of an epoch, and the milliseconds that its steps of α and of w took."""

    preset: str
    device: torch.device
    guarded: bool
    times: dict[str, list[float]] = field(default_factory=lambda: {"α": [], "w": []})

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        settings = replace(preset(self.preset), channels=8, layers=3)
        method = method_class(settings.method)(settings, Problem(10, (1, 8, 8), (50,) * 10))
        networks = method.build().to(self.device, memory_format=torch.channels_last).train()
        self.steps = Steps(method, networks, recorder_for(self.device))
        self.steps.begin(Epoch(settings.epochs // 2, settings.epochs))
        if not self.guarded:
            self.steps.guard = NoGuard()
        images = torch.randn(2, 64, 1, 8, 8, device=self.device)
        labels = torch.randint(10, (64,), device=self.device)
        self.batch = TwoViews(*images) if method.label_free else Labelled(images[0], labels)

    def take(self, step: str) -> None:
        """Without a guard nobody asks for the norm of α's gradient."""
        if step == "w":
            self.steps.weight(self.batch)
            return
        unasked = mock.patch.object(nn.utils, "get_total_norm", lambda gradients: gradients[0].new_zeros(()))
        with contextlib.nullcontext() if self.guarded else unasked:
            self.steps.arch(self.batch, self.batch)

    def timed(self, step: str) -> None:
        self.times[step].append(timed(lambda: self.take(step), self.device))


def compare(bench: Harness, name: str, turns: int) -> Comparison:
    """Steps in turns, with the guard and without, and what the copy of an epoch adds to each."""
    searches = [Search(name, bench.device, guarded) for guarded in (True, False)]
    guarded, without = searches
    for search in searches:
        for step in list(search.times) * 10:
            search.take(step)
    watch = OthersWatch()
    for turn in range(turns):
        for step in search.times:
            for one in searches if turn % 2 else reversed(searches):
                one.timed(step)
    others = watch.cores()
    copies = [timed(lambda: copied(guarded.steps.state_dict()), bench.device) for _ in range(21)]
    copy_ms = statistics.median(copies) / STEPS_AN_EPOCH
    plain = {step: statistics.median(times) for step, times in without.times.items()}
    of_copy = copy_ms / sum(plain.values())  # a batch is a step of each
    shares = [
        (a - b) / plain[step] + of_copy
        for step in plain
        for a, b in zip(guarded.times[step], without.times[step], strict=True)
    ]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(shares, k=len(shares))) for _ in range(1000))
    low, high = percentile(medians, 0.025), percentile(medians, 0.975)
    middle = statistics.median(shares)
    title = (
        f"guard, {name}: steps of α and of w, 64 images, 3 cells, C=8, 8×8, {len(shares)} pairs   "
        f"[others: {others:.2f} cores]"
    )
    taken = ", ".join(f"{ms:.2f} ms a step of {step}" for step, ms in plain.items())
    print(f"\n{title}\n  {taken} without; the guard costs {100 * middle:+.2f} % (median), 95 % interval "
          f"{100 * low:+.2f} … {100 * high:+.2f} %; the goal is at most {100 * GOAL:g} %")  # fmt: skip
    timings = tuple(
        Timing(f"{step}, {key}", *(percentile(sorted(times), q) for q in (0.2, 0.5, 0.8)), turns,
               torch.get_num_threads(), None)
        for key, search in zip(("guarded", "without"), searches, strict=True)
        for step, times in search.times.items()
    )  # fmt: skip
    figures = {"share": middle, "interval": [low, high], "copy_ms_a_batch": copy_ms}
    return Comparison(title, "w, without", timings, {}, round(others, 2), also=figures)


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    if bench.device.type == "cpu":
        torch.set_num_threads(1)  # so small a net gains nothing by more, and they would wait for each other
    for name in ("demo-darts", "demo-ssf"):
        bench.comparisons.append(compare(bench, name, 30 if bench.quick else TURNS))
    bench.finish()


if __name__ == "__main__":
    main()
