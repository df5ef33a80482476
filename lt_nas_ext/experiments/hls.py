"""DARTS + BBN and HLS on long-tailed CIFAR-10: supernets at search time, their figures, and what they found, trained.

[paper] CIFAR-10, exponential μ = 0.01, 80/20, batches of 128 (a stream), both learning rates .02: DARTS 64.56,
+ re-sampling 61.20, + BBN 52.14, HLS 65.12, HLS + reverse sigmoid 61.85, HLS + continuous training 63.12. These are
supernets at the end of their searches, one run each, at the test-time mixing ratio that is best on the test images.

[ours] 50 epochs, and 10 more at a tenth of the rates where training continues; the test-time ratio is chosen on
validation images. DARTS + re-weighting, which its abstract names. And beyond the paper, every genotype found is
trained from the start on all training images: as a BBN network, and as a plain one of the backbone's cells.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.engine.retrain_presets import retrain_preset
from lt_nas_ext.experiments.board import Board
from lt_nas_ext.experiments.hls_page import write_page
from lt_nas_ext.experiments.networks import Plan
from lt_nas_ext.experiments.sections import PaperStudy
from lt_nas_ext.experiments.series import run_series
from lt_nas_ext.experiments.settings import HLS, StudySettings
from lt_nas_ext.experiments.table1 import TRAINING
from lt_nas_ext.methods import preset
from lt_nas_ext.methods.bbn import CONTINUATIONS
from lt_nas_ext.methods.settings import overridden

PRESETS = {
    "darts": "paper-hls-darts",
    "darts+resampling": "paper-hls-resampling",
    "darts+reweighting": "paper-hls-reweighting",
    "darts+bbn": "paper-hls-bbn",
    "hls": "paper-hls",
    "hls-reverse-sigmoid": "paper-hls-reverse-sigmoid",
}
"""Row -> the preset of its search. Behind them come the ways to continue HLS."""

CONTINUED = {f"hls-then-{variant}": variant for variant in CONTINUATIONS}
"""Row -> how it continues HLS, from the state in which that ends."""

TRAINED = ("retrain-bbn", "retrain-plain")

EPOCHS = 150
"""[ours] Of training what was found, as in table 1."""

DIGITS_DISTRIBUTION = "exp-0.1"

# [ours] Digits of 8×8 pixels, in minutes: 120 steps of w and of α, whose rate lets a gate decide in them.
DIGITS_SEARCH: dict[str, Any] = {
    "epochs": 20, "continuous_epochs": 5, "layers": 3, "channels": 8, "batch_size": 64, "alpha_lr": 0.03, "w_lr": 0.05,
}  # fmt: skip
DIGITS_TRAINING = RetrainSettings(
    epochs=40, channels=8, layers=3, lr=0.1, weight_decay=3e-3, drop_path=0.0, test_every=10
)


def hls_plan(settings: StudySettings) -> Plan:
    """Every number of the study at scale 1."""
    digits = settings.data == "digits"
    changed = {"test_every": 1, **(DIGITS_SEARCH if digits else {})}
    searches = {row: overridden(preset(name), changed) for row, name in PRESETS.items()}
    for row, variant in CONTINUED.items():
        searches[row] = overridden(searches["hls"], {"preset": "paper-hls-continuous", "continuous": variant})
    # The auxiliary classifier of DARTS' own training has no place in a network with two heads.
    training = replace(retrain_preset(TRAINING[settings.size]), epochs=EPOCHS, auxiliary=0.0)
    return Plan(
        searches=searches,
        training=DIGITS_TRAINING if digits else training,
        trainings=TRAINED,
        branches={row: "hls" for row in CONTINUED},
    )


def run_hls(
    out: str | Path = "runs/hls", settings: StudySettings = HLS, plan: Plan | None = None, board: Board | None = None
) -> PaperStudy:
    """Run the study, or what is missing of it.

    Args:
        out: directory of the runs (`exp-0.01/seed-0/hls`, …), of report.html, table.md, results.json and the pictures.
        settings: on which images, how much, where. Digits are too few for μ = 0.01: of them it takes μ = 0.1.
        plan: every other number, at scale 1; by default `hls_plan`.
        board: what follows it; by default bars on a terminal, log lines elsewhere.

    Raises:
        UserError: images that are not there or too few, or an `out` that holds another study.
        QueueInterrupted: Ctrl-C, or the minutes are over; call again to continue.
    """
    if settings.data == "digits" and settings.distributions == HLS.distributions:
        settings = replace(settings, distributions=(DIGITS_DISTRIBUTION,))
    return write_page(run_series("hls", settings, plan or hls_plan(settings), out, board))
