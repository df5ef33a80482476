"""What one w step of a DARTS search costs as it grows: in images, in cells, in candidates.

Ours and the per-edge supernet of pure PyTorch in channels_last, C=16, 32×32 images, in turns at every point, at all
threads of a CPU. One number grows at a time, the others stay at batch 32, 8 cells, 8 candidates. Leaves a picture and
its figures in benchmarks/results/cost_of_a_step.{svg,json}, or where --json says (the picture beside it); with --quick
(a small net, two points of each sweep) only there.

Candidates come in this order: 2 of them are the first two, and so on; `none` is the last and costs nothing.
    sep_conv_3x3, skip_connect, dil_conv_3x3, max_pool_3x3, sep_conv_5x5, dil_conv_5x5, avg_pool_3x3, none
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from bench_search_step import WAYS, Case
from harness import Comparison, Harness, Variant
from matplotlib.axes import Axes

from lt_nas_ext.report.figure import WIDTH, legend, open_figure, to_svg
from lt_nas_ext.report.palette import BLUE, CONTROLS, MUTED, PAPER

OURS, EAGER = "ours", "eager, channels_last"
COLOURS = {OURS: BLUE, EAGER: CONTROLS[1]}
LABELS = {OURS: "fused cells", EAGER: "per-edge cells, pure PyTorch, channels_last"}
ORDER = (
    "sep_conv_3x3", "skip_connect", "dil_conv_3x3", "max_pool_3x3",
    "sep_conv_5x5", "dil_conv_5x5", "avg_pool_3x3", "none",
)  # fmt: skip
RESULTS = Path(__file__).resolve().parent / "results"

Points = Mapping[int, Comparison]


def with_batch(case: Case, count: int) -> Case:
    return replace(case, batch=count)


def with_cells(case: Case, count: int) -> Case:
    return replace(case, layers=count)


def with_candidates(case: Case, count: int) -> Case:
    return replace(case, primitives=ORDER[:count])


SWEEPS: dict[str, tuple[Callable[[Case, int], Case], Sequence[int]]] = {
    "images in a batch": (with_batch, (8, 16, 32, 64)),
    "cells": (with_cells, (4, 6, 8, 12)),
    "candidates on an edge": (with_candidates, (2, 4, 6, 8)),
}


def measure(bench: Harness, base: Case) -> dict[str, dict[int, Comparison]]:
    """A comparison at every point of every sweep; the point that they share is measured once."""
    done: dict[Case, Comparison] = {}
    threads = (torch.get_num_threads(),)
    longest, fewest = (2, 1) if bench.quick else (None, 5)
    sweeps: dict[str, dict[int, Comparison]] = {}
    for axis, (vary, counts) in SWEEPS.items():
        sweeps[axis] = {}
        for count in counts[:longest]:
            case = vary(base, count)
            if case not in done:
                title = f"w step, batch {case.batch}, {case.layers} cells, {len(case.primitives)} candidates"
                ways = [Variant(name, partial(WAYS[name], case, "w", bench.device), threads) for name in (OURS, EAGER)]
                done[case] = bench.compare(title, ways, EAGER, {"images": case.batch}, fewest)
            done[case].also.setdefault("on the axis", {})[axis] = count
            sweeps[axis][count] = done[case]
    return sweeps


def draw(sweeps: Mapping[str, Points]) -> str:
    """Seconds above, memory below, a column for each number that grows; the ratio to ours stands above every point."""
    with open_figure(WIDTH, 5.6) as figure:
        figure.set_facecolor(PAPER)
        rows = figure.subplots(2, len(sweeps), sharex="col", sharey="row")
        entries = {}
        for column, (axis, points) in enumerate(sweeps.items()):
            time, memory = rows[0][column], rows[1][column]
            for name in (EAGER, OURS):
                timings = [comparison.timing(name) for comparison in points.values()]
                medians = [timing.median / 1e3 for timing in timings]
                (line,) = time.plot(list(points), medians, "o-", color=COLOURS[name], markersize=4.5)
                fastest = [timing.p20 / 1e3 for timing in timings]
                time.plot(list(points), fastest, ":", color=COLOURS[name], linewidth=1)
                peaks = [timing.peak_mb / 1024 for timing in timings]
                memory.plot(list(points), peaks, "o-", color=COLOURS[name], markersize=4.5)
                entries[LABELS[name]] = line
            for count, comparison in points.items():
                ours, eager = comparison.timing(OURS), comparison.timing(EAGER)
                if comparison.ratios:
                    note(time, count, eager.median / 1e3, comparison.ratios[OURS][1])
                note(memory, count, eager.peak_mb / 1024, eager.peak_mb / ours.peak_mb)
            for axes in (time, memory):
                axes.set_xticks(list(points))
                axes.margins(x=0.1, y=0.18)
                axes.set_ylim(bottom=0)
            memory.set_xlabel(axis)
        rows[0][0].set_title("Seconds of a w step (median; dotted: p20)")
        rows[1][0].set_title("Peak memory of a w step (GB)")
        legend(figure, dict(reversed(entries.items())))
        return to_svg(figure, "Cost of a search step against batch size, cells and candidates", "cost")


def note(axes: Axes, x: float, y: float, ratio: float) -> None:
    """How many times as much as ours, above a point."""
    axes.annotate(f"{ratio:.1f}×", (x, y), (0, 6), textcoords="offset points", ha="center", color=MUTED, fontsize=8.5)


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    if bench.json_path is None and not bench.quick:
        bench.json_path = RESULTS / "cost_of_a_step.json"
    base = Case(8, 4, layers=4, size=8, primitives=ORDER) if bench.quick else Case(32, primitives=ORDER)
    sweeps = measure(bench, base)
    bench.finish()
    if bench.json_path is not None:
        picture = bench.json_path.with_suffix(".svg")
        picture.write_text(draw(sweeps) + "\n", encoding="utf-8")
        print(f"drawn to {picture}")


if __name__ == "__main__":
    main()
