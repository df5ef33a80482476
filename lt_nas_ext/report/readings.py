"""What a search with two heads says at each test-time mixing ratio, read from its history.

A search without heads has one way to answer and no readings.
"""

from __future__ import annotations

from typing import Literal

from lt_nas_ext.report.runs import Run

Images = Literal["test", "val", "val_macro"]
"""The test images, or the half that trains α: all its images alike, or all its classes."""


def has_readings(run: Run) -> bool:
    """Whether there is more than one way to read a pass of its networks."""
    return bool(run.history and run.history[-1].get("val_readings"))


def chosen_ratio(run: Run) -> float | None:
    """The mixing ratio that was best at the end, by the mean over the classes of the validation images, or None."""
    reading = run.metrics.get("reading")
    return None if reading is None else float(reading)


def sweep(run: Run, images: Images = "test") -> dict[float, float]:
    """Mixing ratio -> accuracy at the end of the search, as a fraction; empty without readings."""
    readings = run.history[-1].get(f"{images}_readings") if run.history else None
    return {float(ratio): float(accuracy) for ratio, accuracy in (readings or {}).items()}


def final_accuracy(run: Run) -> float:
    """Of the test images at the end of the search: at the ratio chosen on validation images, where there is a choice.

    It is a fraction.
    """
    return float(run.history[-1]["test_accuracy"])


def accuracy_at(run: Run, ratio: float) -> tuple[list[int], list[float]]:
    """Search epochs (from 1) and the accuracy in % of the test images at this mixing ratio."""
    rows = [(i + 1, row["test_readings"]) for i, row in enumerate(run.history) if row.get("test_readings")]
    return [epoch for epoch, _ in rows], [100 * float(readings[f"{ratio:g}"]) for _, readings in rows]
