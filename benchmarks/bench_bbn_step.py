"""One step of a DARTS + BBN search against one of a plain DARTS search of the same total batch, in the same run.

Both are what the engine does: a step of α, then a step of w, 8 cells, 32×32 images, 8 candidates. Plain DARTS sees 2N
images, BBN N instance-sampled and N class-uniform ones, which are one pass through its backbone; its two heads of one
cell are what it has more. The goal is at most 1.25 times the plain step. On CUDA both steps are recorded and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from harness import Harness, Run, Variant

from lt_nas_ext.engine.capture import recorder_for
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.methods import Epoch, Labelled, Paired, Problem, method_class, preset

GOAL = 1.25
PLAIN, BBN = "plain DARTS", "DARTS + BBN"
PRESETS = {PLAIN: "paper-hls-darts", BBN: "paper-hls"}


@dataclass(frozen=True)
class Case:
    total: int
    channels: int = 16
    layers: int = 8
    size: int = 32


def labelled(case: Case, images: int, device: torch.device) -> Labelled:
    pixels = torch.randn(images, 3, case.size, case.size, device=device)
    labels = torch.randint(10, (images,), device=device)
    return Labelled(pixels.contiguous(memory_format=torch.channels_last), labels)


def step(name: str, case: Case, device: torch.device) -> Run:
    """A closure that takes one whole search step, in the middle of a search."""
    torch.manual_seed(0)
    settings = replace(preset(PRESETS[name]), channels=case.channels, layers=case.layers)
    problem = Problem(10, (3, case.size, case.size), (5000,) * 10)
    method = method_class(settings.method)(settings, problem)
    networks = method.build().to(device, memory_format=torch.channels_last).train()
    steps = Steps(method, networks, recorder_for(device))
    steps.begin(Epoch(settings.epochs // 2, settings.epochs))
    half = case.total // 2
    batches = [
        Paired(labelled(case, half, device), labelled(case, half, device))
        if name == BBN
        else labelled(case, case.total, device)
        for _ in range(2)
    ]

    def run() -> object:
        steps.arch(batches[0], batches[1])
        return steps.weight(batches[1]).task

    return run


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    cases = [Case(16, channels=8)] if bench.quick else [Case(64)]
    if bench.device.type == "cuda":
        cases = [Case(256)]
    for case in cases:
        title = f"α and w step, {case.total} images, {case.layers} cells, C={case.channels}, {case.size}×{case.size}"
        threads = tuple({1, torch.get_num_threads()}) if bench.device.type == "cpu" else None
        ways = [Variant(name, partial(step, name, case, bench.device), threads) for name in PRESETS]
        found = {timing.name: timing for timing in bench.compare(title, ways, baseline=PLAIN, fewest=3).timings}
        p20, median = (getattr(found[BBN], at) / getattr(found[PLAIN], at) for at in ("p20", "median"))
        print(f"  BBN / plain: {p20:.2f} by p20, {median:.2f} by median; the goal is at most {GOAL}")
    bench.finish()


if __name__ == "__main__":
    main()
