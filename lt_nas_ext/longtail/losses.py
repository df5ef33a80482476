"""Losses for long-tailed training sets, one module each, for anyone's loop.

All take logits (N, C) and (N,) labels, or what `mixup` and `remix` make of labels; all return the weighted mean over
the batch, Σ w_y · e / Σ w_y, w the class weights (1 unless given), as `torch.nn.CrossEntropyLoss` does. They compute in
float32 at least, and in float64 for float64 logits, on the device of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.mixed import MixedTargets
from lt_nas_ext.longtail.samplers import check_counts
from lt_nas_ext.longtail.weights import class_balanced_weights, inverse_frequency_weights

LossName = Literal[
    "cross_entropy", "class_balanced", "inverse_frequency", "focal", "ldam", "balanced_softmax", "logit_adjustment"
]
LOSSES: tuple[str, ...] = get_args(LossName)

Counts = Sequence[int] | torch.Tensor
ClassWeights = Sequence[float] | torch.Tensor


class LongTailLoss(nn.Module):
    """What all losses here share: checks, class weights, mixed targets. A subclass says what `errors` are.

    Args:
        num_classes: C; None takes it from the logits.
        weights: C class weights, all > 0; None weighs all alike.
    """

    weights: torch.Tensor | None

    def __init__(self, num_classes: int | None, weights: ClassWeights | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        # none of its tensors is part of a checkpoint: they come from the data, not from training
        self.register_buffer("weights", None, persistent=False)
        self.reweight(weights)

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The unweighted error of each image: (N, C) logits and (N,) labels -> (N,)."""
        raise NotImplementedError

    def reweight(self, weights: ClassWeights | None) -> None:
        """Take other class weights from now on, such as `DeferredReweighting.weights(epoch)`; None weighs all alike.

        Raises:
            UserError: not C weights, or one that is not above 0.
        """
        if weights is None:
            self.weights = None
            return
        w = torch.as_tensor(weights, dtype=torch.float64).detach()
        wrong = self.num_classes is not None and len(w.flatten()) != self.num_classes
        if w.ndim != 1 or not len(w) or wrong or not (torch.isfinite(w) & (w > 0)).all():
            wanted = "C" if self.num_classes is None else self.num_classes
            raise UserError(f"weights: got {w.tolist()!r}; wanted {wanted} finite numbers above 0, one a class")
        self.weights = w if self.weights is None else w.to(self.weights.device)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor | MixedTargets) -> torch.Tensor:
        """The loss, a scalar, of (N, C) logits against (N,) int64 labels or `MixedTargets`.

        Raises:
            UserError: shapes that do not fit, or (on the CPU, where looking costs nothing) labels that are no class.
        """
        z = self._checked(logits)
        if not isinstance(targets, MixedTargets):
            return self._mean([(targets, None)], z)
        share = targets.share.to(z)
        return self._mean([(targets.labels, share), (targets.others, 1.0 - share)], z)

    def _mean(self, parts: list[tuple[torch.Tensor, torch.Tensor | None]], z: torch.Tensor) -> torch.Tensor:
        total = whole = torch.zeros((), dtype=z.dtype, device=z.device)
        for labels, share in parts:
            self._check_labels(labels, z)
            errors = self.errors(z, labels)
            weight = torch.ones_like(errors) if self.weights is None else self._like("weights", z)[labels]
            weight = weight if share is None else weight * share
            total, whole = total + (weight * errors).sum(), whole + weight.sum()
        return total / whole

    def _like(self, name: str, z: torch.Tensor) -> torch.Tensor:
        """A tensor of the loss in the type of the logits, on their device."""
        value: torch.Tensor = getattr(self, name)
        if value.device != z.device:  # for good: a copy to the device in every step would wait for it
            value = value.to(z.device)
            setattr(self, name, value)
        return value.to(z.dtype)

    def _checked(self, logits: torch.Tensor) -> torch.Tensor:
        columns = self.num_classes if self.weights is None else len(self.weights)
        fits = logits.ndim == 2 and len(logits) > 0 and (columns is None or logits.shape[1] == columns)
        if not fits or not logits.is_floating_point():
            wanted = "C" if columns is None else columns
            raise UserError(
                f"logits: got {logits.dtype} of shape {tuple(logits.shape)}; wanted floats of shape (N, {wanted}), "
                "at least one row, one column a class"
            )
        # float32 inside: log n_c of a large class is rounded away in bf16
        return logits if logits.dtype == torch.float64 else logits.float()

    @staticmethod
    def _check_labels(labels: torch.Tensor, z: torch.Tensor) -> None:
        if labels.dtype != torch.int64 or tuple(labels.shape) != (len(z),):
            raise UserError(
                f"targets: got {labels.dtype} of shape {tuple(labels.shape)}; wanted ({len(z)},) int64 labels, "
                "or what mixup or remix returned"
            )
        if not labels.is_cuda and (int(labels.min()) < 0 or int(labels.max()) >= z.shape[1]):
            raise UserError(
                f"targets: found class {int(labels.min())} … {int(labels.max())}; with {z.shape[1]} columns of logits "
                f"wanted 0 … {z.shape[1] - 1}"
            )

    def extra_repr(self) -> str:
        return "" if self.num_classes is None else f"num_classes={self.num_classes}"


class CrossEntropy(LongTailLoss):
    """Cross-entropy, −log softmax(z)_y: `torch.nn.CrossEntropyLoss` that also takes mixed targets and new weights.

    Args:
        weights: C class weights, all > 0; None weighs all alike.
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Raises:
        UserError: weights or ε out of range.

    >>> CrossEntropy(weights=[1.0, 3.0])(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(0.6931)
    """

    def __init__(self, weights: ClassWeights | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(None if weights is None else len(weights), weights)
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)


class ClassBalanced(CrossEntropy):
    """Cross-entropy with weights (1−β)/(1−β^n_c), normalised to sum C [paper: Cui et al. 2019, eq. 2].

    Args:
        counts: C training images per class, all ≥ 1.
        beta: β in [0, 1).
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Raises:
        UserError: a class without images, β or ε out of range.

    >>> ClassBalanced([5000, 50])(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
    tensor(3.9681)
    """

    def __init__(self, counts: Counts, beta: float = 0.9999, label_smoothing: float = 0.0) -> None:
        super().__init__(class_balanced_weights(counts, beta, torch.float64), label_smoothing)


class InverseFrequency(CrossEntropy):
    """Cross-entropy with weights 1/n_c, normalised to sum C.

    Args:
        counts: C training images per class, all ≥ 1.
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Raises:
        UserError: a class without images, or ε out of range.

    >>> InverseFrequency([30, 10])(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.6931)
    """

    def __init__(self, counts: Counts, label_smoothing: float = 0.0) -> None:
        super().__init__(inverse_frequency_weights(counts, torch.float64), label_smoothing)


class BalancedSoftmax(LongTailLoss):
    """Cross-entropy of z + log n_c [paper: Ren et al. 2020, eq. 4]: the training prior is inside the loss.

    The shift acts in training only: at test time the plain logits z are the balanced prediction.

    Args:
        counts: C training images per class, all ≥ 1: of the images trained on.
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Raises:
        UserError: a class without images, or ε out of range.

    >>> loss = BalancedSoftmax([90, 10])
    >>> loss(torch.zeros(1, 2), torch.tensor([1]))     # −log(10/100)
    tensor(2.3026)
    """

    shift: torch.Tensor

    def __init__(self, counts: Counts, label_smoothing: float = 0.0) -> None:
        n = check_counts(counts)
        super().__init__(len(n))
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.register_buffer("shift", n.log(), persistent=False)

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shifted = logits + self._like("shift", logits)
        return F.cross_entropy(shifted, labels, reduction="none", label_smoothing=self.label_smoothing)


class LogitAdjustment(BalancedSoftmax):
    """Cross-entropy of z + τ log π_c, π the classes' shares of the training images [paper: Menon et al. 2021, eq. 10].

    The training-time form: predict with the plain logits z. τ = 1 is `BalancedSoftmax`. The post-hoc form, which
    subtracts τ log π from the logits of a network that was trained without it, is `calibrate` and `Calibration`.

    Args:
        counts: C training images per class, all ≥ 1: of the images trained on.
        tau: τ ≥ 0.
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Raises:
        UserError: a class without images, τ or ε out of range.

    >>> LogitAdjustment([90, 10], tau=2.0)(torch.zeros(1, 2), torch.tensor([1]))     # log(1 + 9²)
    tensor(4.4067)
    """

    def __init__(self, counts: Counts, tau: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__(counts, label_smoothing)
        self.tau = _checked_number("tau", tau, "τ ≥ 0, such as 1.0")
        n = check_counts(counts)
        self.shift = self.tau * (n / n.sum()).log()


class Focal(LongTailLoss):
    """(1 − p_y)^γ · (−log p_y) with p from the unweighted softmax [paper: Lin et al. 2017, eq. 4].

    Class weights multiply it afterwards; they are never inside p.

    Args:
        gamma: γ ≥ 0; 0 is cross-entropy.
        weights: C class weights, all > 0; None weighs all alike.

    Raises:
        UserError: γ or weights out of range.

    >>> Focal(gamma=2.0)(torch.zeros(1, 2), torch.tensor([1]))     # ¼ log 2
    tensor(0.1733)
    """

    def __init__(self, gamma: float = 2.0, weights: ClassWeights | None = None) -> None:
        super().__init__(None if weights is None else len(weights), weights)
        self.gamma = _checked_number("gamma", gamma, "γ ≥ 0, such as 2.0")

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        error = F.cross_entropy(logits, labels, reduction="none")
        # 1 − p by expm1 keeps its digits near p = 1; at p = 1 the gradient of 0^γ would be infinite for γ < 1
        wrong = (-torch.expm1(-error)).clamp_min(torch.finfo(error.dtype).tiny)
        return wrong**self.gamma * error


class LDAM(LongTailLoss):
    """Cross-entropy of s·(cos θ − Δ_y at the label's class), Δ_c ∝ n_c^(−1/4) [paper: Cao et al. 2019, section 3].

    The network's last layer is a `CosineClassifier` (`cosine_classifier` puts one there); its logits are s·cos θ, so
    the loss subtracts s·Δ_y. A layer that gives plain cosines, as the authors' own, needs its output times s.

    Args:
        counts: C training images per class, all ≥ 1.
        max_margin: the margin of the smallest class.
        scale: s, that of the classifier.
        weights: C class weights, all > 0; None weighs all alike. `DeferredReweighting` makes it LDAM-DRW.

    Raises:
        UserError: a class without images or a value out of range; in `forward`, logits that are no cosines times s.

    >>> loss = LDAM([160, 10], max_margin=0.5, scale=30.0)     # margins ¼ and ½
    >>> loss(torch.tensor([[7.5, 0.0]]), torch.tensor([0]))     # s·¼ above the other: on its margin, log 2
    tensor(0.6931)
    >>> loss(torch.tensor([[0.0, 7.5]]), torch.tensor([1]))     # s·¼ short of its margin: log(1 + exp(7.5))
    tensor(7.5006)
    """

    margins: torch.Tensor

    def __init__(
        self, counts: Counts, max_margin: float = 0.5, scale: float = 30.0, weights: ClassWeights | None = None
    ) -> None:
        n = check_counts(counts)
        super().__init__(len(n), weights)
        self.scale = _checked_number("scale", scale, "s > 0, such as 30.0", above=True)
        margin = _checked_number("max_margin", max_margin, "a margin ≥ 0 between cosines, such as 0.5")
        self.register_buffer("margins", margin * (n.min() / n) ** 0.25, persistent=False)
        self._seen = False

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not self._seen:  # once: it waits for the device, and a network does not change its last layer
            largest = float(logits.detach().abs().max())
            if largest > 1.01 * self.scale:
                raise UserError(
                    f"logits: got one of size {largest:.3g}; wanted {self.scale:g} times cosines, at most "
                    f"{self.scale:g}: give the network a CosineClassifier for its last layer"
                )
            self._seen = True
        margin = self.scale * self._like("margins", logits)[labels]
        return F.cross_entropy(logits.scatter_add(1, labels[:, None], -margin[:, None]), labels, reduction="none")


def make_loss(name: str, counts: Counts, label_smoothing: float = 0.0) -> LongTailLoss:
    """The loss of a name, with the numbers of its paper.

    Args:
        name: one of `LOSSES`.
        counts: C training images per class, all ≥ 1.
        label_smoothing: ε, for the losses that are cross-entropies.

    Raises:
        UserError: an unknown name, a class without images, or smoothing for focal or ldam, which have none.

    >>> make_loss("class_balanced", [30, 10])
    ClassBalanced(num_classes=2)
    """
    if name not in LOSSES:
        raise UserError(f"loss: got {name!r}; wanted one of {', '.join(map(repr, LOSSES))}")
    if name in ("focal", "ldam"):
        if _checked_smoothing(label_smoothing):
            raise UserError(f"label_smoothing: got {label_smoothing!r} with {name!r}, which knows none; wanted 0")
        return LDAM(counts) if name == "ldam" else Focal()
    if name == "cross_entropy":
        return CrossEntropy(label_smoothing=label_smoothing)
    kinds: dict[str, type[ClassBalanced | InverseFrequency | BalancedSoftmax | LogitAdjustment]] = {
        "class_balanced": ClassBalanced,
        "inverse_frequency": InverseFrequency,
        "balanced_softmax": BalancedSoftmax,
        "logit_adjustment": LogitAdjustment,
    }
    return kinds[name](counts, label_smoothing=label_smoothing)


def _checked_number(name: str, value: float, wanted: str, above: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (above and value == 0):
        raise UserError(f"{name}: got {value!r}; wanted {wanted}")
    return float(value)


def _checked_smoothing(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise UserError(f"label_smoothing: got {value!r}; wanted a share in [0, 1), such as 0.1")
    return float(value)
