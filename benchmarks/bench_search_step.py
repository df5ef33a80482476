"""One step of a DARTS search (8 cells, C=16, 32×32 images): ours against the per-edge supernet in pure PyTorch.

w step: forward, backward, clipping and SGD with α frozen. α step: forward, backward and Adam with w frozen. The pure
PyTorch supernet runs as shipped (NCHW) and in channels_last; under torch.compile in a process of its own that is ended
after LT_NAS_EXT_COMPILE_LIMIT seconds (300; 0 leaves it out).
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from harness import Harness, Run, Variant

import lt_nas_ext as lt

COMPILE_LIMIT = int(os.environ.get("LT_NAS_EXT_COMPILE_LIMIT", "300"))


@dataclass(frozen=True)
class Case:
    batch: int
    channels: int = 16
    layers: int = 8
    size: int = 32


def step(
    case: Case, part: str, device: torch.device, layout: torch.memory_format, wrap: Callable[..., object] | None = None
) -> Run:
    """A closure that takes one whole step and returns the loss."""
    torch.manual_seed(0)
    net = lt.space.Supernet(channels=case.channels, layers=case.layers).to(device, memory_format=layout)
    images = torch.randn(case.batch, 3, case.size, case.size).to(device).contiguous(memory_format=layout)
    labels = torch.randint(10, (case.batch,), device=device)
    weights, alphas = net.weight_parameters(), net.arch_parameters()
    trained, frozen = (weights, alphas) if part == "w" else (alphas, weights)
    for parameter in frozen:
        parameter.requires_grad_(False)
    if part == "w":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4)
    else:
        optimiser = torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    forward = wrap(net) if wrap else net

    def run() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        if part == "w":
            torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        return loss

    return run


def in_eager(make: Callable[..., Run], *arguments: object) -> Run:
    """The step that `make` builds, on the eager twins."""
    run = make(*arguments)

    def eager() -> object:
        with lt.ops.eager():
            return run()

    return eager


def _compiled(case: Case, part: str, device: str, answer: multiprocessing.connection.Connection) -> None:
    run = in_eager(step, case, part, torch.device(device), torch.channels_last, torch.compile)
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    times = []
    for _ in range(5):
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    answer.send((first, sorted(times)[len(times) // 2]))


def report_compiled(case: Case, part: str, device: torch.device, limit: int) -> None:
    """torch.compile of the channels_last supernet: seconds to the first step, milliseconds of a later one."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_compiled, args=(case, part, str(device), there))
    process.start()
    done = here.poll(limit)
    if done:
        first, median = here.recv()
        print(f"  torch.compile, channels_last: first step after {first:.0f} s, then {median * 1e3:.0f} ms (median)")
    else:
        print(f"  torch.compile, channels_last: still compiling after {limit} s, ended")
    process.kill()
    process.join()


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    cases = [Case(8, channels=8, layers=4)] if bench.quick else [Case(32)]
    if bench.device.type == "cuda":
        cases = [Case(64), Case(256)]
    for case in cases:
        for part in ("w", "α"):
            take = partial(step, case, part, bench.device)
            steps: dict[str, Callable[[], Run]] = {
                "ours": partial(take, torch.channels_last),
                "eager, channels_last": partial(in_eager, take, torch.channels_last),
                "eager, as shipped": partial(in_eager, take, torch.contiguous_format),
            }
            title = f"{part} step, batch {case.batch}, {case.layers} cells, C={case.channels}, {case.size}×{case.size}"
            bench.compare(title, [Variant(n, make) for n, make in steps.items()], baseline="eager, channels_last")
            if COMPILE_LIMIT and not bench.quick:
                report_compiled(case, part, bench.device, COMPILE_LIMIT)
    bench.finish()


if __name__ == "__main__":
    main()
