"""Pictures of searches with two heads, from made-up histories of two seeds."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lt_nas_ext.report import hls_figures
from lt_nas_ext.report.gate_maps import _lines, gate_maps
from lt_nas_ext.report.palette import BLUE, ORANGE, PURPLE, SKY
from lt_nas_ext.report.readings import accuracy_at, chosen_ratio, has_readings, sweep
from lt_nas_ext.report.runs import Run

EPOCHS, EDGES, CANDIDATES = 4, 14, 8
RATIOS = [f"{step / 10:g}" for step in range(11)]
COLOURS = {"BBN": BLUE, "HLS": ORANGE, "DARTS": "#8a949e"}


def run(seed: int, heads: bool = True) -> Run:
    """A search of four epochs, of which two continue it."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for epoch in range(EPOCHS):
        row = {name: float(rng.uniform()) for name in ("train_loss", "val_loss", "val_accuracy", "test_accuracy")}
        groups = ("normal", "reduce", *(("instance_head", "class_head") if heads else ()))
        row["gates"] = {group: rng.dirichlet(np.ones(CANDIDATES), EDGES).tolist() for group in groups}
        if heads:
            row["mixing_ratio"] = 1 - epoch / EPOCHS
            row["lr_factors"] = {"alpha_normal": row["mixing_ratio"] ** 2}
            for images in ("val", "val_macro", "test"):
                row[f"{images}_readings"] = {ratio: float(rng.uniform()) for ratio in RATIOS}
        rows.append(row)
    settings = {"epochs": 2, "hls_k": 1.0, "seed": seed}
    return Run(Path("run"), {"settings": settings}, tuple(rows), {"reading": "0.3"} if heads else {})


def texts(svg: str) -> list[str]:
    ElementTree.fromstring(svg)
    return [re.sub(r"\s+", " ", text).strip() for text in re.findall(r"<text[^>]*>([^<]*)", svg)]


def curves(svg: str, colour: str) -> int:
    """Lines of a colour in the panels."""
    return len(re.findall(rf'clip-path="[^"]*" style="fill: none; stroke: {colour}', svg))


def test_readings() -> None:
    one, plain = run(0), run(0, heads=False)
    assert has_readings(one) and not has_readings(plain)
    assert chosen_ratio(one) == 0.3 and chosen_ratio(plain) is None
    assert list(sweep(one)) == [step / 10 for step in range(11)] and sweep(plain) == {}
    assert sweep(one, "val")[0.3] == one.history[-1]["val_readings"]["0.3"]
    epochs, accuracies = accuracy_at(one, 0.0)
    assert epochs == [1, 2, 3, 4] and accuracies[1] == 100 * one.history[1]["test_readings"]["0"]


def test_epochs_have_a_column_a_row_and_the_ratio_where_there_is_one() -> None:
    svg = hls_figures.epoch_curves({"DARTS": [run(0, heads=False)], "BBN": [run(0), run(1)]})
    words = texts(svg)
    assert {"DARTS:", "BBN:", "training", "validation", "test", "mixing ratio"} <= set(words)
    assert curves(svg, BLUE) == 2 + 2 * 3  # one seed: a line; two: a thin one each, and their mean


def test_ratios_lie_over_each_other_and_what_has_none_is_level() -> None:
    svg = hls_figures.ratio_curves({"DARTS": [run(0, False)], "BBN": [run(0), run(1)], "HLS": [run(2)]}, COLOURS)
    assert {"BBN", "HLS", "DARTS", "chosen on validation"} <= set(texts(svg))
    assert curves(svg, BLUE) == 2 * 3 and curves(svg, ORANGE) == 2 and curves(svg, COLOURS["DARTS"]) == 1


def test_what_continues_shows_both_heads() -> None:
    svg = hls_figures.continued_curves({"HLS + continuous: r = ½": [run(0)], "HLS + continuous: r = 0": [run(1)]})
    assert {"HLS + continuous:", "r = ½", "class head alone", "instance head alone"} <= set(texts(svg))
    assert curves(svg, PURPLE) == curves(svg, SKY) == 2


def test_factors_stand_against_ratio_and_epoch() -> None:
    svg = hls_figures.factor_curves({"BBN": [run(0)], "HLS": [run(1)]}, COLOURS)
    assert "g(r) = exp(−k(1/r − 1)), k = 1, and the epochs of the searches" in texts(svg)
    assert curves(svg, ORANGE) == 1


def test_a_map_has_a_line_a_candidate_and_edge() -> None:
    gates = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # 2 epochs, 3 edges, 4 candidates
    lines = _lines(gates.tolist())
    assert lines.shape == (12, 2)
    assert lines[2 * 3 + 1].tolist() == [gates[0, 1, 2], gates[1, 1, 2]]  # candidate 2 on edge 1

    svg = gate_maps({"without": run(0), "with": run(1)})
    maps = re.findall(r'xlink:href="data:image/png;base64,([^"]+)"', svg)
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in maps]
    assert sizes.count((EPOCHS, EDGES * CANDIDATES)) == 8  # two searches, four groups; the ninth is the scale
    words = texts(svg)
    assert {"without:", "with:", "backbone, normal", "class head", "sep 3×3", "skip"} <= set(words)


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_searches_are_drawn(epochs: int) -> None:
    short = run(0)
    short = Run(short.path, short.config, short.history[:epochs], short.metrics)
    for draw in (hls_figures.epoch_curves, hls_figures.continued_curves):
        texts(draw({"HLS": [short]}))
    texts(gate_maps({"HLS": short}))
