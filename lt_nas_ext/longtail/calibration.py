"""What is fitted on validation images after a training: a temperature, and a logit adjustment for balanced classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.samplers import check_counts


@dataclass(frozen=True)
class Calibration:
    """Two ways to read the logits z of a network that is trained: neither changes a weight.

    Attributes:
        temperature: T; softmax(z / T) is as sure as it is right [paper: Guo et al. 2017]. Top-1 stays.
        tau: τ of the post-hoc adjustment z − τ log π, π the classes' shares of the training images
            [paper: Menon et al. 2021, eq. 9]. Top-1 changes.
        tau_temperature: the temperature of the adjusted logits.
        images: validation images that all three were fitted on.
    """

    temperature: float
    tau: float
    tau_temperature: float
    images: int

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """z / T of (N, C) logits z."""
        return logits / self.temperature

    def adjusted(self, logits: torch.Tensor, train_counts: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """(z − τ log π) / T' of (N, C) logits z.

        >>> calibration = Calibration(temperature=2.0, tau=1.0, tau_temperature=1.0, images=10)
        >>> calibration.adjusted(torch.tensor([[1.0, 0.0]]), [90, 10]).argmax(1)
        tensor([1])
        """
        return (logits - self.tau * _log_prior(train_counts).to(logits)) / self.tau_temperature


def calibrate(logits: torch.Tensor, labels: torch.Tensor, train_counts: Sequence[int] | torch.Tensor) -> Calibration:
    """Fit temperature and adjustment on validation images.

    Both minimise the mean over classes of a class's negative log-likelihood: however few images a class has, it counts
    the same, for the adjustment is to serve balanced classes [ours: the paper tunes τ by balanced error, which moves in
    steps on a handful of tail images]. ½ (log²T + τ²) / N is added [ours]: a prior as strong as one image, without
    which T would go to 0 where every validation image is right.

    Args:
        logits: (N, C) of validation images.
        labels: (N,).
        train_counts: C images that the network was trained on, all ≥ 1.

    Raises:
        UserError: no validation images, shapes that do not fit, or logits that are not finite.

    >>> logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> calibrate(logits, torch.tensor([0, 0, 1, 1]), [90, 10]).tau > 0
    True
    """
    prior = _log_prior(train_counts)
    z, y = logits.detach().to("cpu", torch.float64), labels.detach().cpu().long()
    if z.ndim != 2 or z.shape != (len(y), len(prior)) or not len(y):
        raise UserError(
            f"logits: got shape {tuple(z.shape)} for {len(y)} labels; wanted ({len(y)}, {len(prior)}), at least one row"
        )
    if not torch.isfinite(z).all():
        raise UserError("logits: some are NaN or infinite; the network that gave them has diverged")
    temperature, _ = _fit(z, y, torch.zeros_like(prior))
    tau_temperature, tau = _fit(z, y, prior)
    return Calibration(temperature, tau, tau_temperature, len(y))


def _fit(z: torch.Tensor, y: torch.Tensor, prior: torch.Tensor) -> tuple[float, float]:
    """(T, τ) of (z − τ · prior) / T; τ is 0 where the prior is."""
    of_class = torch.bincount(y, minlength=len(prior))
    weights = 1.0 / (of_class[y] * (of_class > 0).sum())
    point = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # (log T, τ): T stays positive
    optimiser = torch.optim.LBFGS([point], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def objective() -> float:
        optimiser.zero_grad()
        log_t, tau = point
        errors = F.cross_entropy((z - tau * prior) / log_t.exp(), y, reduction="none")
        total = (weights * errors).sum() + point.square().sum() / (2 * len(y))
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    optimiser.step(objective)
    log_t, tau = point.detach()
    return float(log_t.exp()), float(tau)


def _log_prior(train_counts: Sequence[int] | torch.Tensor) -> torch.Tensor:
    counts = check_counts(train_counts)
    return (counts / counts.sum()).log()
