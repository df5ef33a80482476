"""Temperature and logit adjustment: known ones are found again, and what is found is where the objective is least."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import Calibration, calibrate

COUNTS = (6000, 2000, 600)


def posterior(per_class: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(y | x) under the training prior, exact, of points around three corners; and their classes."""
    draws = torch.Generator().manual_seed(seed)
    centres = 1.5 * torch.eye(3, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(per_class))
    points = centres[labels] + torch.randn(len(labels), 3, generator=draws, dtype=torch.float64)
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    return -0.5 * torch.cdist(points, centres).square() + (counts / counts.sum()).log(), labels


def objective(z, labels, log_t: float, tau: float) -> float:
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    z = (z - tau * (counts / counts.sum()).log()) / math.exp(log_t)
    errors = F.cross_entropy(z, labels, reduction="none")
    classes = [errors[labels == c].mean() for c in labels.unique()]
    return float(torch.stack(classes).mean()) + (log_t**2 + tau**2) / (2 * len(labels))


def test_the_posterior_of_a_long_tail_needs_tau_1_and_its_temperature_back():
    z, labels = posterior(COUNTS)
    exact = calibrate(z, labels, COUNTS)
    assert exact.tau == pytest.approx(1.0, abs=0.1) and exact.tau_temperature == pytest.approx(1.0, abs=0.1)
    sharp = calibrate(3 * z, labels, COUNTS)
    assert sharp.tau == pytest.approx(3.0, abs=0.3) and sharp.tau_temperature == pytest.approx(3.0, abs=0.3)


def test_a_balanced_posterior_needs_neither():
    z, labels = posterior((2000, 2000, 2000))
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    balanced = z - (counts / counts.sum()).log()
    fitted = calibrate(2 * balanced, labels, (5, 5, 5))
    assert fitted.temperature == pytest.approx(2.0, abs=0.15) and abs(fitted.tau) < 1e-9
    assert calibrate(balanced, labels, COUNTS).tau == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("per_class", [COUNTS, (40, 9, 1), (3, 0, 1)])
def test_what_is_found_is_where_the_objective_is_least(per_class):
    z, labels = posterior(per_class)
    found = calibrate(z.float(), labels, COUNTS)
    z, log_t, adjusted = z.float().double(), math.log(found.temperature), math.log(found.tau_temperature)
    for step in (-0.02, 0.02):
        assert objective(z, labels, log_t + step, 0.0) > objective(z, labels, log_t, 0.0)
        assert objective(z, labels, adjusted + step, found.tau) > objective(z, labels, adjusted, found.tau)
        assert objective(z, labels, adjusted, found.tau + step) > objective(z, labels, adjusted, found.tau)
    assert found.images == len(labels)


def test_images_that_are_all_right_leave_a_temperature_above_0():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    found = calibrate(20.0 * F.one_hot(labels, 3), labels, COUNTS)
    assert 0.05 < found.temperature < 20 and 0.05 < found.tau_temperature < 20 and abs(found.tau) < 5


def test_reading_logits():
    z = torch.tensor([[1.0, 0.5, 0.0]])
    calibration = Calibration(temperature=4.0, tau=0.5, tau_temperature=2.0, images=7)
    torch.testing.assert_close(calibration.calibrated(z), z / 4)
    expected = (z - 0.5 * torch.tensor([0.5, 0.3, 0.2]).log()) / 2
    torch.testing.assert_close(calibration.adjusted(z, (50, 30, 20)), expected)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), [], r"logits: got shape \(0, 3\) for 0 labels; wanted \(0, 3\), at least one row"),
        (torch.zeros(2, 4), [0, 1], r"logits: got shape \(2, 4\) for 2 labels; wanted \(2, 3\)"),
        (torch.tensor([[0.0, math.nan, 0.0]]), [0], "logits: some are NaN or infinite"),
    ],
)
def test_bad_logits_are_named(logits, labels, message):
    with pytest.raises(UserError, match=message):
        calibrate(logits, torch.tensor(labels, dtype=torch.int64), COUNTS)
