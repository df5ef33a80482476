"""One step of a DARTS search (8 cells, C=16, 32×32 images): ours against the per-edge supernet in pure PyTorch.

w step: forward, backward, clipping and SGD with α frozen. α step: forward, backward and Adam with w frozen. The pure
PyTorch supernet runs as shipped (NCHW) and in channels_last; under torch.compile in a process of its own that is ended
after LT_NAS_EXT_COMPILE_LIMIT seconds (300; 0 leaves it out). Then what each holds in memory, in a fresh process each,
and where the time of ours goes.
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

Wrap = Callable[..., object] | None
COMPILE_LIMIT = int(os.environ.get("LT_NAS_EXT_COMPILE_LIMIT", "300"))


@dataclass(frozen=True)
class Case:
    batch: int
    channels: int = 16
    layers: int = 8
    size: int = 32


def step(
    case: Case,
    part: str,
    device: torch.device,
    layout: torch.memory_format,
    cell: type[torch.nn.Module],
    wrap: Wrap = None,
) -> Run:
    """A closure that takes one whole step and returns the loss."""
    torch.manual_seed(0)
    net = lt.space.Supernet(channels=case.channels, layers=case.layers, cell=cell).to(device, memory_format=layout)
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


def ours(case: Case, part: str, device: torch.device) -> Run:
    return step(case, part, device, torch.channels_last, lt.space.FusedCell)


def eager(case: Case, part: str, device: torch.device, layout: torch.memory_format, wrap: Wrap = None) -> Run:
    """The per-edge supernet in pure PyTorch."""
    run = step(case, part, device, layout, lt.space.PerEdgeCell, wrap)

    def on_the_twins() -> object:
        with lt.ops.eager():
            return run()

    return on_the_twins


WAYS: dict[str, Callable[..., Run]] = {
    "ours": ours,
    "eager, channels_last": partial(eager, layout=torch.channels_last),
    "eager, as shipped": partial(eager, layout=torch.contiguous_format),
}


def _compiled(case: Case, part: str, device: str, answer: multiprocessing.connection.Connection) -> None:
    run = eager(case, part, torch.device(device), torch.channels_last, torch.compile)
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


def _resident_mb(entry: str) -> float:
    """VmRSS (now) or VmHWM (at most) of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(entry))


def _held(name: str, case: Case, part: str, answer: multiprocessing.connection.Connection) -> None:
    run = WAYS[name](case, part, torch.device("cpu"))
    before, began = _resident_mb("VmRSS"), time.perf_counter()
    run()
    first = time.perf_counter() - began
    run()
    answer.send((_resident_mb("VmHWM") - before, first))


def report_memory(case: Case, part: str) -> dict[str, float]:
    """Growth of resident memory over two steps in a fresh process, and the seconds of its first step."""
    context = multiprocessing.get_context("spawn")
    grown = {}
    for name in WAYS:
        here, there = context.Pipe()
        process = context.Process(target=_held, args=(name, case, part, there))
        process.start()
        grown[name], first = here.recv()
        process.join()
        print(f"  {name:24}{grown[name]:8.0f} MB resident, first step {first:6.2f} s")
    share = grown["ours"] / grown["eager, channels_last"]
    print(f"  ours / channels_last: {share:.2f}")
    return grown


def report_profile(case: Case, part: str, device: torch.device, rows: int = 12) -> None:
    """Where the time of our step goes: each operator's own share."""
    run = ours(case, part, device)
    run()
    with torch.profiler.profile(acc_events=True) as profile:
        run()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    print(f"  share of each operator in our {part} step:")
    for event in events[:rows]:
        print(f"    {event.key:40}{100 * event.self_cpu_time_total / whole:6.1f} %  {event.count:5d} calls")


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    cases = [Case(8, channels=8, layers=4)] if bench.quick else [Case(32)]
    if bench.device.type == "cuda":
        cases = [Case(64), Case(256)]
    for case in cases:
        for part in ("w", "α"):
            title = f"{part} step, batch {case.batch}, {case.layers} cells, C={case.channels}, {case.size}×{case.size}"
            threads = tuple({1, torch.get_num_threads()}) if bench.device.type == "cpu" else None
            ways = [Variant(name, partial(make, case, part, bench.device), threads) for name, make in WAYS.items()]
            bench.compare(title, ways, baseline="eager, channels_last", fewest=3)
            if bench.device.type == "cpu":
                report_memory(case, part)
                report_profile(case, part, bench.device)
            if COMPILE_LIMIT and not bench.quick:
                report_compiled(case, part, bench.device, COMPILE_LIMIT)
    bench.finish()


if __name__ == "__main__":
    main()
