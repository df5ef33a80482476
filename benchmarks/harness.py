"""One harness for every benchmark: variants of one computation, timed in turns, compared percentile against percentile.

    variants = [
        Variant("fused", lambda: step(fused)),        # make() builds its inputs and returns the function to time
        Variant("eager", lambda: step(eager)),
    ]
    bench = Harness.from_command_line(__doc__)
    bench.compare("N=256 D=8192, both", variants, baseline="eager", work={"flop": 4.3e9})
    bench.finish()

Turns go round all variants, so that a disturbance meets every one of them; the ratio is p20 against p20 (and median
against median). On a CPU a baseline runs at one and at all threads and its faster one counts. Where another process
used a core meanwhile no ratio is printed (--loaded prints it all the same, marked).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

Run = Callable[[], object]

# Share of one core that other processes may have used over a comparison before its ratio is worth nothing.
QUIET = 0.15


@dataclass(frozen=True)
class Variant:
    """One way to compute the same thing.

    Attributes:
        name: what the table calls it.
        make: builds inputs and whatever is compiled, and returns the function to time.
        threads: thread counts to try on a CPU, the fastest of which counts; None: all, and for a baseline one too.
    """

    name: str
    make: Callable[[], Run]
    threads: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one variant at its fastest thread count; `peak_mb` is what one run allocates at most."""

    name: str
    p20: float
    median: float
    p80: float
    runs: int
    threads: int
    peak_mb: float | None  # None: not measured


@dataclass(frozen=True)
class Comparison:
    """The timings of one set of variants; `ratios` (p20, median) of the baseline over each, empty under load.

    `also` takes what else a benchmark measures of them, for the file that `Harness.finish` writes.
    """

    title: str
    baseline: str
    timings: tuple[Timing, ...]
    ratios: dict[str, tuple[float, float]]
    others: float  # cores that other processes used meanwhile
    work: dict[str, float] = field(default_factory=dict)
    also: dict[str, Any] = field(default_factory=dict)

    def timing(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)


def percentile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


# ---- the machine ----------------------------------------------------------------------------------------------------


def _busy_seconds() -> float | None:
    """CPU seconds that all processes have used since the start of the machine, or None where /proc does not say."""
    try:
        user, nice, system, _idle, _iowait, irq, softirq, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return None
    del rest  # stolen time is no one's here
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class OthersWatch:
    """Cores that other processes use: the machine's CPU time less our own, over the time that passed.

    >>> watch = OthersWatch()
    >>> watch.cores() >= 0
    True
    """

    def __init__(self) -> None:
        self._start = (time.perf_counter(), _busy_seconds(), time.process_time())

    def cores(self) -> float:
        clock, busy, own = self._start
        now = _busy_seconds()
        if busy is None or now is None:
            return 0.0
        passed = max(time.perf_counter() - clock, 1e-9)
        # /proc/stat counts in hundredths of a second: a short watch would see a whole tick as load.
        return max(0.0, (now - busy) - (time.process_time() - own) - 0.02) / passed


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure means nothing without: where, with what and when it was taken."""
    from lt_nas_ext import ops

    model = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    status = ops.status()
    about = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": status.reason,
        "isa": _isa() if status.active else None,
        "device": str(device),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {"gpu": properties.name, "cuda": torch.version.cuda, "gpu_gb": round(properties.total_memory / 2**30)}
    return about


def _isa() -> str:
    from lt_nas_ext import _C

    return str(_C.isa())


def copy_bandwidth(device: torch.device) -> float:
    """GB/s (read and written) of a copy too large for the last-level cache: the floor of whatever moves memory."""
    elements = 2**28 if device.type == "cuda" else 2**25
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    times = sorted(timed(lambda: target.copy_(source), device) for _ in range(9))
    return 2 * source.nbytes / percentile(times, 0.2) / 1e6


# ---- timing ---------------------------------------------------------------------------------------------------------


def timed(run: Run, device: torch.device) -> float:
    """Milliseconds of one run: by events on a GPU, by the clock on a CPU."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak_mb(run: Run, device: torch.device) -> float:
    """Megabytes that one run allocates at most, beyond what lay there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()  # every allocation and release, in the order of time
    held = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


class Harness:
    """Times sets of variants and prints a table for each; `finish` writes them all where --json says."""

    def __init__(
        self,
        device: str = "cpu",
        *,
        quick: bool = False,
        loaded: bool = False,
        json_path: Path | None = None,
        seconds: float | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.quick = quick
        self.loaded = loaded
        self.json_path = json_path
        self.seconds = seconds if seconds is not None else (1.0 if quick else 6.0)
        self.comparisons: list[Comparison] = []
        self.machine = machine(self.device)
        self.machine["copy_gb_s"] = round(copy_bandwidth(self.device), 1)
        for name, value in self.machine.items():
            print(f"  {name:10} {value}")

    @classmethod
    def from_command_line(cls, description: str | None = None) -> Harness:
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1 …")
        parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there, with the machine")
        parser.add_argument("--quick", action="store_true", help="fewer sizes, a second a table: does it run at all?")
        parser.add_argument("--loaded", action="store_true", help="print ratios although another process held a core")
        parser.add_argument("--seconds", type=float, help="time for each table (6)")
        given = parser.parse_args()
        return cls(given.device, quick=given.quick, loaded=given.loaded, json_path=given.json, seconds=given.seconds)

    def compare(
        self,
        title: str,
        variants: Sequence[Variant],
        baseline: str,
        work: dict[str, float] | None = None,
        fewest: int = 5,
        whole: bool = False,
    ) -> Comparison:
        """Time the variants in turns and print their table.

        Args:
            title: what is computed.
            variants: at least one, names distinct.
            baseline: the name of the variant that ratios are taken of.
            work: what one run must at least do, "flop" and "bytes", or how many "images" it takes: the table shows the
                rate that each reaches.
            fewest: turns to take even where they last longer than the time for a table.
            whole: a run is a training from its first step to its last: one is enough to warm up, and on a CPU, where a
                profile of all that it allocates would itself fill the memory, its peak is not measured.
        """
        runs = {variant.name: variant.make() for variant in variants}
        counts = {variant.name: self._thread_counts(variant, baseline) for variant in variants}
        for variant in variants:  # compilation, first allocations, lazy initialisation
            for count in counts[variant.name]:
                with _threads(count):
                    for _ in range(1 if whole else 2):
                        runs[variant.name]()
        times: dict[tuple[str, int], list[float]] = {(v.name, c): [] for v in variants for c in counts[v.name]}
        gc.collect()
        gc.disable()
        watch, start, turns = OthersWatch(), time.perf_counter(), 0
        try:
            while turns < fewest or (time.perf_counter() - start < self.seconds and turns < 2000):
                for (name, count), record in times.items():
                    with _threads(count):
                        record.append(timed(runs[name], self.device))
                turns += 1
        finally:
            gc.enable()
        others = watch.cores()
        by_count = {v.name: {c: times[v.name, c] for c in counts[v.name]} for v in variants}
        profiled = not whole or self.device.type == "cuda"
        timings = tuple(self._fastest(v.name, by_count[v.name], runs[v.name] if profiled else None) for v in variants)
        base = next(timing for timing in timings if timing.name == baseline)
        quiet = others <= QUIET
        ratios = {t.name: (base.p20 / t.p20, base.median / t.median) for t in timings} if quiet or self.loaded else {}
        comparison = Comparison(title, baseline, timings, ratios, round(others, 2), work or {})
        self.comparisons.append(comparison)
        self._print(comparison)
        return comparison

    def _thread_counts(self, variant: Variant, baseline: str) -> tuple[int, ...]:
        everything = torch.get_num_threads()
        if self.device.type != "cpu":
            return (everything,)
        if variant.threads is not None:
            return variant.threads
        return (everything,) if variant.name != baseline or everything == 1 else (1, everything)

    def _fastest(self, name: str, times: dict[int, list[float]], run: Run | None) -> Timing:
        ordered = {count: sorted(record) for count, record in times.items()}
        threads, fastest = min(ordered.items(), key=lambda item: percentile(item[1], 0.2))
        p20, median, p80 = (percentile(fastest, share) for share in (0.2, 0.5, 0.8))
        with _threads(threads):
            peak_mb = None if run is None else _peak_mb(run, self.device)
        return Timing(name, p20, median, p80, len(fastest), threads, peak_mb)

    def _print(self, comparison: Comparison) -> None:
        load = f"other processes: {comparison.others:.2f} cores"
        print(f"\n{comparison.title}   [{load}]")
        head = f"  {'':24}{'p20 ms':>10}{'median':>10}{'p80':>10}{'threads':>9}{'peak MB':>10}"
        head += "".join(f"{name:>10}" for name in self._rates(comparison.work, 1.0)) + f"{'× p20':>9}{'× median':>10}"
        print(head)
        for timing in comparison.timings:
            line = f"  {timing.name:24}{timing.p20:10.3f}{timing.median:10.3f}{timing.p80:10.3f}"
            line += f"{timing.threads:9d}"
            line += f"{'–':>10}" if timing.peak_mb is None else f"{timing.peak_mb:10.1f}"
            line += "".join(f"{rate:10.1f}" for rate in self._rates(comparison.work, timing.p20).values())
            ratio = comparison.ratios.get(timing.name)
            line += f"{ratio[0]:9.2f}{ratio[1]:10.2f}" if ratio else f"{'–':>9}{'–':>10}"
            print(line)
        if not comparison.ratios:
            print("  no ratio: another process held a core; try again on a quiet machine, or pass --loaded")
        elif comparison.others > QUIET:
            print("  taken under load: indicative only")

    def _rates(self, work: dict[str, float], milliseconds: float) -> dict[str, float]:
        rates = {}
        if "images" in work:
            rates["images/s"] = work["images"] / milliseconds * 1e3
        if "flop" in work:
            rates["GFLOP/s"] = work["flop"] / milliseconds / 1e6
        if "bytes" in work:
            rates["GB/s"] = work["bytes"] / milliseconds / 1e6
            rates["% of copy"] = 100 * rates["GB/s"] / self.machine["copy_gb_s"]
        return rates

    def finish(self) -> None:
        """Write everything to --json, where it was given."""
        if self.json_path is None:
            return
        self.json_path.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": self.machine, "comparisons": [asdict(c) for c in self.comparisons]}
        self.json_path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        print(f"\nwritten to {self.json_path}")
