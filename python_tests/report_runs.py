"""Made-up run directories for the report's tests: what a search and a retraining leave on disk, no training needed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lt_nas_ext import nn
from lt_nas_ext.methods import preset
from lt_nas_ext.space.genotype import Genotype

COUNTS = (130, 100, 77, 60, 46, 36, 28, 21, 16, 13)
DATA = {
    "name": "digits",
    "imbalance": "exp",
    "factor": 0.1,
    "seed": 0,
    "class_order": list(range(10)),
    "root": None,
    "num_classes": 10,
    "image_shape": [1, 8, 8],
    "class_names": [str(c) for c in range(10)],
    "counts": list(COUNTS),
    "test_images": 440,
}
VERSIONS = {
    "lt_nas_ext": "0.1.0",
    "torch": "2.11.0+cpu",
    "cuda": None,
    "python": "3.11.2",
    "machine": "Linux-x86_64",
    "kernels": True,
}
GENOTYPE = Genotype.from_darts(
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1),"
    " ('dil_conv_3x3', 2), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_5x5', 2)], normal_concat=[2, 3, 4, 5],"
    " reduce=[('max_pool_3x3', 0), ('avg_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),"
    " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def write(path: Path, config: dict[str, Any], history: list[dict[str, Any]], **files: Any) -> Path:
    """Write one run directory; `files` are metrics=…, genotype=…."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    if files.get("metrics") is not None:
        (path / "metrics.json").write_text(json.dumps(files["metrics"]))
    if files.get("genotype") is not None:
        files["genotype"].save(path / "genotype.json")
    return path


def search_run(
    path: Path, method: str = "ssf-nas", epochs: int = 20, seed: int = 0, finished: bool = True, **data: Any
) -> Path:
    """A search of `epochs` epochs with gates that polarise towards `GENOTYPE`."""
    rng = np.random.default_rng(seed)
    label_free = method == "ssf-nas"
    candidates = nn.DARTS if method == "darts" else nn.FAIR_DARTS
    history = []
    drift = {cell: rng.normal(0, 0.06, (14, len(candidates))) for cell in ("normal", "reduce")}
    for cell in drift:
        for edge in getattr(GENOTYPE, cell).edges:
            node, first = edge.target - 2, 0
            first = sum(2 + n for n in range(node))
            drift[cell][first + edge.source, candidates.index(edge.op)] = 0.16
    for epoch in range(epochs):
        alpha = {cell: (epoch + 1) * d for cell, d in drift.items()}
        sigmoid = {cell: 1 / (1 + np.exp(-a)) for cell, a in alpha.items()}
        softmax = {cell: np.exp(a) / np.exp(a).sum(1, keepdims=True) for cell, a in alpha.items()}
        row = {
            "epoch": epoch,
            "seconds": 1.7,
            "w_lr": 0.001 + 0.012 * (1 + math.cos(math.pi * epoch / epochs)),
            "alpha_lr": 0.04,
            "train_loss": 2.3 * math.exp(-epoch / 6) + 0.1,
            "val_loss": 2.3 * math.exp(-epoch / 7) + 0.25,
            "losses": {},
            "alpha": {cell: a.tolist() for cell, a in alpha.items()},
            "gates": {cell: g.tolist() for cell, g in (softmax if method == "darts" else sigmoid).items()},
            "peak_memory_mb": 410.0,
        }
        accuracy = 0.92 - 0.8 * math.exp(-epoch / 5)
        row |= (
            {"probe_accuracy": accuracy}
            if label_free
            else {"train_accuracy": accuracy, "val_accuracy": accuracy - 0.04}
        )
        history.append(row)
    chosen = preset("demo-ssf" if label_free else "demo-darts")
    settings = asdict(chosen) | {"method": method, "epochs": epochs, "seed": seed}
    config = {"kind": "search", "settings": settings, "data": DATA | data, "versions": VERSIONS}
    metrics = {"parameters": 12345, "epochs": epochs, "seconds": 34.0} | {
        "health": {
            "alpha_steps": 100,
            "alpha_travel": 4.0,
            "reachable_gate": 0.96,
            "gates": 196,
            "polarised_gates": 61,
            "lowest_gate": 0.04,
            "highest_gate": 0.96,
            "skip_share": 0.3,
            "alpha_gradient_norms": {},
            "gradient_ratio": {"barlow_twins/zero_one": 12.5},
            "genotype_agreement": 0.97,
            "warnings": [],
        }
    }
    return write(path, config, history, metrics=metrics if finished else None, genotype=GENOTYPE if finished else None)


def training_run(
    path: Path, level: float = 0.95, epochs: int = 30, seed: int = 0, finished: bool = True, **config: Any
) -> Path:
    """A training of `epochs` epochs that ends near `level`."""
    history = [
        {
            "epoch": epoch,
            "phase": "train",
            "seconds": 0.9,
            "lr": 0.0125 * (1 + math.cos(math.pi * epoch / epochs)),
            "train_loss": 2.2 * math.exp(-epoch / 6),
            "train_accuracy": 1 - 0.8 * math.exp(-epoch / 5),
            "test_top1": level - 0.8 * math.exp(-epoch / 5),
            "test_macro": level - 0.8 * math.exp(-epoch / 5),
        }
        for epoch in range(epochs)
    ]
    settings = {"epochs": epochs, "batch_size": 96, "lr": 0.025, "channels": 12, "layers": 5, "seed": seed}
    return write(
        path,
        {"kind": "retrain", "settings": settings, "data": DATA, "versions": VERSIONS} | config,
        history,
        metrics=metrics_of(level, seed) if finished else None,
    )


def metrics_of(level: float, seed: int = 0) -> dict[str, Any]:
    """Final figures as engine writes them: fractions, None for NaN."""
    rng = np.random.default_rng(seed + round(1000 * level))
    per_class = np.clip(level + 0.04 - 0.012 * np.arange(10) + rng.normal(0, 0.02, 10), 0, 1)
    return {
        "top1": float(per_class.mean()), "macro": float(per_class.mean()), "per_class": per_class.tolist(),
        "many": float(per_class[0]), "medium": float(per_class[1:8].mean()), "few": float(per_class[8:].mean()),
        "first": None, "middle": None, "last": None, "confusion": [], "ece": None, "images": 440,
        "longtailed_top1": float((per_class * COUNTS).sum() / sum(COUNTS)), "parameters": 61234, "seconds": 27.0,
    }  # fmt: skip


def demo_runs(path: Path) -> list[Path]:
    """The four directories of the demo."""
    ssf, darts = search_run(path / "ssf-nas"), search_run(path / "darts", "darts", seed=1)
    training_run(ssf / "retrain", 0.955)
    training_run(darts / "retrain", 0.95, seed=1)
    return [
        ssf,
        darts,
        training_run(path / "random", 0.945, architecture={"name": "random"}),
        training_run(path / "small-convnet", 0.94, seed=2, architecture={"name": "small-conv-net"}),
    ]
