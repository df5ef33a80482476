"""The command that repeats a run, from what the run wrote down."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import AdaptSettings, SearchSettings, preset
from lt_nas_ext.report.runs import Network, Run


def reproduce(network: Network) -> list[str]:
    """The commands that make this network again: the search, the training, or both."""
    commands = []
    if network.search:
        commands.append(_adapt(network.search) if network.search.kind == "adapt" else _search(network.search))
    if network.training:
        commands.append(_retrain(network.training, network.search))
    return commands


def flags(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """What must be typed so that settings with these `defaults` get these `values`.

    >>> flags({"epochs": 3, "stratify": False, "projector": [8, 8], "seed": 0}, {"seed": 0})
    ['--epochs', '3', '--no-stratify', '--projector', '8', '8']
    """
    words: list[str] = []
    for name, value in values.items():
        if name in defaults and _plain(defaults[name]) == _plain(value):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return words


def _search(run: Run) -> str:
    settings = dict(run.settings)
    try:
        defaults = _values(preset(str(settings.get("preset"))))
    except UserError:  # a preset of another version: then every number is written out
        defaults = {"method": settings.pop("method", None)}
    method = ["--method", str(settings.pop("method", "darts")), "--preset", str(settings.pop("preset", "darts"))]
    return _line("lt-nas", "search", *method, *_data(run), *flags(settings, defaults), "--out", str(run.path))


def _adapt(run: Run) -> str:
    source = str((run.config.get("source") or {}).get("run") or "SOURCE")  # a supernet from memory has no run
    words = flags(run.settings, _values(AdaptSettings()))
    return _line("lt-nas", "adapt", "--run", source, *_data(run), *words, "--out", str(run.path))


def _retrain(run: Run, search: Run | None) -> str:
    words = ["lt-nas", "retrain"]
    if search is not None:
        words += ["--run", str(search.path)]
    else:
        architecture = run.config.get("architecture") or {}
        name = str(architecture.get("name", "genotype"))
        named = ["--genotype", str(run.path / "genotype.json")] if name == "genotype" else ["--network", name]
        words += [*named, *_data(run)]
    words += flags(run.settings, _values(RetrainSettings()))
    return _line(*words, *([] if search is not None else ["--out", str(run.path)]))


def _data(run: Run) -> list[str]:
    data, counts, names = run.data, run.counts, run.class_names
    words = ["--data", str(data.get("name")), "--imbalance", str(data.get("imbalance"))]
    if data.get("title"):
        words += ["--data-name", str(data["title"])]
    if data.get("root"):
        words += ["--root", str(data["root"])]
    if data.get("imbalance") != "balance":
        words += ["--factor", f"{data.get('factor', 1.0):g}", "--n-max", str(max(counts, default=0))]
    if data.get("seed"):
        words += ["--data-seed", str(data["seed"])]
    order = data.get("class_order") or []
    return words + (["--class-order", *(names[c] for c in order)] if order != sorted(order) else [])


def _values(settings: SearchSettings | RetrainSettings | AdaptSettings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _line(*words: str) -> str:
    return " ".join(map(shlex.quote, words))
