"""One step of a DARTS search (8 cells, C=16, 32×32 images): ours against the per-edge supernet in pure PyTorch.

w step: forward, backward, clipping and SGD with α frozen. α step: forward, backward and Adam with w frozen. Ours runs
as it is and with recomputation; the pure PyTorch supernet as shipped (NCHW) and in channels_last, and its α step also
as the code of the papers takes it: with w not frozen, so that gradients are computed which nobody uses. Then, in a
fresh process each, what it holds in memory and how soon its first step is done; what recomputation costs; where the
time of ours goes. Last the pure PyTorch supernet under torch.compile, which is ended after LT_NAS_EXT_COMPILE_LIMIT
seconds (300; 0 leaves it out).

On CUDA ours also runs recorded (`engine.capture`), in TF32 and bfloat16 too (the vendor's float32 convolutions take
TF32 everywhere, as PyTorch has it), torch.compile with graphs too, and the share of a step's time is told in which the
device computes.

At batch 32 every way runs at one and at all threads of a CPU and its faster one counts; at 64 only channels_last does.
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
from harness import Comparison, Harness, Run, Variant

import lt_nas_ext as lt
from lt_nas_ext.engine.capture import Captured, recorder_for
from lt_nas_ext.engine.device import autocast
from lt_nas_ext.engine.optimisers import device_options
from lt_nas_ext.methods.settings import Precision

Wrap = Callable[..., object] | None
COMPILE_LIMIT = int(os.environ.get("LT_NAS_EXT_COMPILE_LIMIT", "300"))


@dataclass(frozen=True)
class Case:
    batch: int
    channels: int = 16
    layers: int = 8
    size: int = 32
    primitives: tuple[str, ...] = lt.nn.DARTS


def step(
    case: Case,
    part: str,
    device: torch.device,
    layout: torch.memory_format,
    cell: type[torch.nn.Module],
    wrap: Wrap = None,
    recompute: bool = False,
    freeze: bool = True,
    precision: Precision = "float32",
) -> Run:
    """A closure that takes one whole step and returns the loss. freeze: only what is trained requires gradients."""
    torch.manual_seed(0)
    net = lt.space.Supernet(
        case.channels, layers=case.layers, primitives=case.primitives, cell=cell, recompute=recompute
    ).to(device, memory_format=layout)
    images = torch.randn(case.batch, 3, case.size, case.size).to(device).contiguous(memory_format=layout)
    labels = torch.randint(10, (case.batch,), device=device)
    weights, alphas = net.weight_parameters(), net.arch_parameters()
    trained, frozen = (weights, alphas) if part == "w" else (alphas, weights)
    for parameter in frozen:
        parameter.requires_grad_(not freeze)
    if part == "w":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(
            weights, 0.025, momentum=0.9, weight_decay=3e-4, **device_options(weights)
        )
    else:
        fused = device_options(alphas)
        optimiser = torch.optim.Adam(
            alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3, capturable=bool(fused), **fused
        )
    forward = wrap(net) if wrap else net

    def run() -> torch.Tensor:
        net.zero_grad()
        with autocast(device, precision):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        if part == "w":
            torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        return loss.detach()

    return run


def ours(case: Case, part: str, device: torch.device, recompute: bool = False, precision: Precision = "float32") -> Run:
    return step(case, part, device, torch.channels_last, lt.space.FusedCell, recompute=recompute, precision=precision)


def captured(case: Case, part: str, device: torch.device, precision: Precision = "float32") -> Run:
    """Ours, recorded once and replayed."""
    run = Captured(ours(case, part, device, precision=precision), recorder_for(device), f"the {part} step")
    for _ in range(5):  # warm, recorded, replayed
        run()
    if run.reason is not None:
        raise RuntimeError(run.reason)
    return run


def eager(
    case: Case,
    part: str,
    device: torch.device,
    layout: torch.memory_format,
    wrap: Wrap = None,
    freeze: bool = True,
    precision: Precision = "float32",
) -> Run:
    """The per-edge supernet in pure PyTorch."""
    run = step(case, part, device, layout, lt.space.PerEdgeCell, wrap, freeze=freeze, precision=precision)

    def on_the_twins() -> object:
        with lt.ops.eager():
            return run()

    return on_the_twins


WAYS: dict[str, Callable[..., Run]] = {
    "ours": ours,
    "ours, recomputed": partial(ours, recompute=True),
    "eager, channels_last": partial(eager, layout=torch.channels_last),
    "eager, as shipped": partial(eager, layout=torch.contiguous_format),
}

UNFROZEN: dict[str, Callable[..., Run]] = {
    "channels_last, w too": partial(eager, layout=torch.channels_last, freeze=False),
    "as shipped, w too": partial(eager, layout=torch.contiguous_format, freeze=False),
}

ON_CUDA: dict[str, Callable[..., Run]] = {
    "ours, captured": captured,
    "ours, captured, tf32": partial(captured, precision="tf32"),
    "ours, captured, bf16": partial(captured, precision="bf16"),
    **WAYS,
    "channels_last, bf16": partial(eager, layout=torch.channels_last, precision="bf16"),
}


def _compiled(
    case: Case, part: str, device: str, mode: str | None, answer: multiprocessing.connection.Connection
) -> None:
    run = eager(case, part, torch.device(device), torch.channels_last, partial(torch.compile, mode=mode))
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


def report_compiled(
    case: Case, part: str, device: torch.device, limit: int, mode: str | None = None
) -> dict[str, float] | None:
    """torch.compile of the channels_last supernet: seconds to the first step, milliseconds of a later one; or None."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_compiled, args=(case, part, str(device), mode, there))
    process.start()
    there.close()  # the end of the process is then the end of the pipe
    title = f"  torch.compile ({mode or 'default'}), channels_last, {part} step, batch {case.batch}:"
    found = None
    if not here.poll(limit):
        print(f"{title} still compiling after {limit} s, ended")
    else:
        try:
            first, median = here.recv()
        except EOFError:
            print(f"{title} failed, as above")
        else:
            print(f"{title} first step after {first:.0f} s, then {median * 1e3:.0f} ms (median)")
            found = {"first_step_s": first, "median": median * 1e3}
    process.kill()
    process.join()
    return found


def _resident_mb(entry: str) -> float:
    """VmRSS (now) or VmHWM (at most) of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(entry))


def _held(name: str, case: Case, part: str, answer: multiprocessing.connection.Connection) -> None:
    before, began = _resident_mb("VmRSS"), time.perf_counter()
    run = WAYS[name](case, part, torch.device("cpu"))
    run()
    first = time.perf_counter() - began
    run()
    answer.send({"resident_mb": _resident_mb("VmHWM") - before, "first_step_s": first})


def report_fresh(case: Case, part: str) -> dict[str, dict[str, float]]:
    """In a fresh process: growth of resident memory over two steps, seconds to build the net and take the first."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in WAYS:
        here, there = context.Pipe()
        process = context.Process(target=_held, args=(name, case, part, there))
        process.start()
        there.close()
        found[name] = here.recv()
        process.join()
        print(f"  {name:24}{found[name]['resident_mb']:8.0f} MB resident, "
              f"first step done after {found[name]['first_step_s']:6.2f} s")  # fmt: skip
    share = found["ours"]["resident_mb"] / found["eager, channels_last"]["resident_mb"]
    print(f"  ours / channels_last: {share:.2f} of the resident memory")
    return found


def report_recomputation(comparison: Comparison) -> None:
    """What recomputation costs and saves."""
    kept, twice = (comparison.timing(name) for name in ("ours", "ours, recomputed"))
    print(
        f"  recomputation: {twice.median / kept.median:.2f} × the time (median), {twice.peak_mb / kept.peak_mb:.2f} × "
        "the peak memory"
    )


def report_profile(case: Case, part: str, device: torch.device, rows: int = 12) -> dict[str, float]:
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
    return {event.key: event.self_cpu_time_total / whole for event in events[:rows]}


def report_busy(case: Case, part: str, device: torch.device, steps: int = 5) -> dict[str, float]:
    """The share of a step's time in which the device computes."""
    shares = {}
    for name, make in ON_CUDA.items():
        run = make(case, part, device)
        run()
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - began
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
            for _ in range(steps):
                run()
            torch.cuda.synchronize()
        kernels = sum(event.self_device_time_total for event in profile.key_averages()) * 1e-6
        shares[name] = kernels / wall
        print(f"  {name:24}{100 * shares[name]:6.1f} % of the step the device computes")
    return shares


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    cases = [Case(4, channels=8, layers=3)] if bench.quick else [Case(32), Case(64)]
    if bench.device.type == "cuda":
        cases = [Case(64)] if bench.quick else [Case(64), Case(256), Case(1024)]
    made = ON_CUDA if bench.device.type == "cuda" else WAYS
    first = {}
    for case in cases:
        for part in ("w", "α"):
            title = f"{part} step, batch {case.batch}, {case.layers} cells, C={case.channels}, {case.size}×{case.size}"
            both = bench.device.type == "cpu" and case is cases[0]
            threads = tuple({1, torch.get_num_threads()}) if both else None
            taken = made | UNFROZEN if part == "α" else made
            ways = [Variant(name, partial(make, case, part, bench.device), threads) for name, make in taken.items()]
            work = {"images": case.batch}
            comparison = bench.compare(title, ways, baseline="eager, channels_last", work=work, fewest=3)
            report_recomputation(comparison)
            if bench.device.type == "cpu":
                comparison.also["fresh process"] = report_fresh(case, part)
                comparison.also["profile of ours"] = report_profile(case, part, bench.device)
            else:
                comparison.also["device busy"] = report_busy(case, part, bench.device)
            first.setdefault(part, comparison)
    # Last: a compiler that was ended may leave others running.
    for part, comparison in first.items():
        if COMPILE_LIMIT and not bench.quick:
            for mode in (None, "reduce-overhead") if bench.device.type == "cuda" else (None,):
                compiled = report_compiled(cases[0], part, bench.device, COMPILE_LIMIT, mode)
                comparison.also[f"torch.compile, {mode or 'default'}"] = compiled or f"none after {COMPILE_LIMIT} s"
    bench.finish()


if __name__ == "__main__":
    main()
