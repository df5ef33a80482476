"""What is reported about a classifier, from one pass over a balanced test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.distributed as dist

from lt_nas_ext.errors import UserError

MANY, FEW = 100, 20
ECE_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """Accuracies as fractions in [0, 1]. An empty group is NaN, never 0.

    Attributes:
        top1: share of all test images that are right.
        macro: mean of the per-class accuracies over the classes that have test images.
        longtailed_top1: top-1 on a test set distributed as the training set, Σ π_c · acc_c; NaN where a class that
            occurs in training has no test images.
        per_class: accuracy of each class; NaN for a class without test images.
        many, medium, few: mean per-class accuracy over classes with > 100, 20 … 100, < 20 training images.
        first, middle, last: the same over thirds of the classes by rank of their training images (equal counts rank
            by label); first and last have round(C/3) classes each.
        confusion: `confusion[true][predicted]`, numbers of test images.
        ece: expected calibration error, 15 equal bins of confidence; NaN where only predictions were given.
        images: number of test images.
    """

    top1: float
    macro: float
    longtailed_top1: float
    per_class: tuple[float, ...]
    many: float
    medium: float
    few: float
    first: float
    middle: float
    last: float
    confusion: tuple[tuple[int, ...], ...]
    ece: float
    images: int

    def to_json(self) -> dict[str, Any]:
        """A dictionary that strict JSON can hold: NaN becomes None, tuples become lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_json`; further keys are ignored, so a metrics.json can hold more.

        >>> m = evaluate_predictions(torch.tensor([0, 1]), torch.tensor([0, 1]), [200, 30])
        >>> Metrics.from_json(m.to_json()).macro
        1.0
        """
        missing = [f.name for f in fields(cls) if f.name not in values]
        if missing:
            raise UserError(f"metrics: {', '.join(missing)} missing; wanted what Metrics.to_json() wrote")
        return cls(**{f.name: _restore(values[f.name]) for f in fields(cls)})


def evaluate_predictions(
    outputs: torch.Tensor, labels: torch.Tensor, train_counts: Sequence[int] | torch.Tensor
) -> Metrics:
    """All figures from one pass over a test set.

    Args:
        outputs: (N, C) logits, or (N,) integer predictions (then `ece` is NaN).
        labels: (N,) true classes in 0 … C−1.
        train_counts: C training images per class; C is taken from here.

    Returns:
        `Metrics`.

    Raises:
        UserError: an empty test set, shapes that do not fit, labels out of range, or logits that are not finite.

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> m = evaluate_predictions(logits, torch.tensor([0, 1, 1]), train_counts=[500, 10])
    >>> m.many, m.few, m.macro, math.isnan(m.medium)
    (1.0, 0.5, 0.75, True)
    """
    running = RunningMetrics(train_counts)
    running.update(outputs, labels)
    return running.compute()


class RunningMetrics:
    """The same figures over batches, and over processes: they all come from two sums.

    Args:
        train_counts: C training images per class; C is taken from here.

    Raises:
        UserError: `train_counts` that are none; when used, as `evaluate_predictions`.

    >>> running = RunningMetrics([500, 10])
    >>> for logits, labels in [([[2.0, 0.0], [2.0, 0.0]], [0, 1]), ([[0.0, 2.0]], [1])]:     # a test set's batches
    ...     running.update(torch.tensor(logits), torch.tensor(labels))
    >>> running.compute().macro
    0.75
    """

    def __init__(self, train_counts: Sequence[int] | torch.Tensor) -> None:
        self.train_counts = _whole(train_counts)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self._confusion = torch.zeros((len(self.train_counts),) * 2, dtype=torch.int64)
        self._gaps = torch.zeros(ECE_BINS, dtype=torch.float64)
        self._confident = True

    def update(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch in: (N, C) logits or (N,) integer predictions, and (N,) true classes."""
        num_classes = len(self.train_counts)
        outputs, labels = outputs.detach().cpu(), labels.detach().cpu().long()
        _check(outputs, labels, num_classes)
        predicted = outputs.argmax(1) if outputs.ndim == 2 else outputs.long()
        pairs = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
        self._confusion += pairs.view(num_classes, num_classes)
        if outputs.ndim == 2:
            self._gaps += _calibration_gaps(outputs, labels)
        else:
            self._confident = False

    def reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Take in what every process of a group saw; by default the default group. All of them must call it, once."""
        seen: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(seen, (self._confusion, self._gaps, self._confident), group=group)
        self._confusion = torch.stack([confusion for confusion, _, _ in seen]).sum(0)
        self._gaps = torch.stack([gaps for _, gaps, _ in seen]).sum(0)
        self._confident = all(confident for *_, confident in seen)

    def compute(self) -> Metrics:
        """The figures of all that was seen."""
        counts, confusion = self.train_counts, self._confusion
        images = int(confusion.sum())
        if not images:
            raise UserError("metrics: no test images were seen; call update(logits, labels) first")
        per_class = (confusion.diagonal().double() / confusion.sum(1)).tolist()  # 0/0 is NaN: a class without images
        groups = class_groups(counts)

        def mean_of(classes: Sequence[int]) -> float:
            present = [per_class[c] for c in classes if not math.isnan(per_class[c])]
            return sum(present) / len(present) if present else math.nan

        return Metrics(
            top1=int(confusion.diagonal().sum()) / images,
            macro=mean_of(range(len(counts))),
            longtailed_top1=longtailed_top1(per_class, counts),
            per_class=tuple(per_class),
            many=mean_of(groups["many"]),
            medium=mean_of(groups["medium"]),
            few=mean_of(groups["few"]),
            first=mean_of(groups["first"]),
            middle=mean_of(groups["middle"]),
            last=mean_of(groups["last"]),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            ece=float(self._gaps.abs().sum() / images) if self._confident else math.nan,
            images=images,
        )


def class_groups(train_counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The classes of each group of `Metrics`: many, medium, few by count; first, middle, last by rank.

    Each from head to tail; classes of equal counts by label.

    >>> class_groups([500, 50, 5])
    {'many': (0,), 'medium': (1,), 'few': (2,), 'first': (0,), 'middle': (1,), 'last': (2,)}
    """
    ranked = sorted(range(len(train_counts)), key=lambda c: -train_counts[c])
    third = round(len(ranked) / 3)
    return {
        "many": tuple(c for c in ranked if train_counts[c] > MANY),
        "medium": tuple(c for c in ranked if FEW <= train_counts[c] <= MANY),
        "few": tuple(c for c in ranked if train_counts[c] < FEW),
        "first": tuple(ranked[:third]),
        "middle": tuple(ranked[third : len(ranked) - third]),
        "last": tuple(ranked[len(ranked) - third :]),
    }


def longtailed_top1(per_class: Sequence[float], train_counts: Sequence[int] | torch.Tensor) -> float:
    """Top-1 on a test set distributed as the training set: Σ π_c · acc_c, exact, from a balanced test set.

    Args:
        per_class: C accuracies on the balanced set.
        train_counts: C training images per class; π_c = n_c / Σ n.

    Returns:
        A fraction in [0, 1]; NaN where a class that occurs in training has no accuracy.

    Raises:
        UserError: the two do not have the same length, or there are no training images.

    >>> longtailed_top1([1.0, 0.5], [300, 100])
    0.875
    """
    counts = [float(n) for n in torch.as_tensor(train_counts).tolist()]
    if len(counts) != len(per_class) or not sum(counts):
        raise UserError(
            f"train_counts: got {len(counts)} counts with sum {sum(counts):g} for {len(per_class)} accuracies; "
            "wanted one count a class"
        )
    return sum(n * a for n, a in zip(counts, per_class, strict=True) if n) / sum(counts)


def _calibration_gaps(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Σ (right − confidence) of each bin of confidence; the error is Σ |·| / N [paper: Guo et al. 2017, eq. 3]."""
    confidence, predicted = logits.double().softmax(1).max(1)
    bins = (confidence * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1
    gaps = (predicted == labels).double() - confidence
    return torch.zeros(ECE_BINS, dtype=torch.float64).index_add_(0, bins, gaps)


def _whole(train_counts: Sequence[int] | torch.Tensor) -> list[int]:
    try:
        return [int(n) for n in train_counts]
    except (TypeError, ValueError):
        raise UserError(f"train_counts: got {train_counts!r}; wanted the training images of each class") from None


def _check(outputs: torch.Tensor, labels: torch.Tensor, num_classes: int) -> None:
    if labels.ndim != 1 or not len(labels):
        raise UserError(f"labels: got shape {tuple(labels.shape)}; wanted (N,) with at least one test image")
    wrong_columns = outputs.ndim == 2 and outputs.shape[1] != num_classes
    if outputs.ndim not in (1, 2) or len(outputs) != len(labels) or wrong_columns:
        raise UserError(
            f"outputs: got shape {tuple(outputs.shape)} for {len(labels)} labels; "
            f"wanted ({len(labels)}, {num_classes}) logits or ({len(labels)},) predictions"
        )
    if outputs.ndim == 1 and outputs.is_floating_point():
        raise UserError(
            f"outputs: got (N,) of {outputs.dtype}; wanted (N, {num_classes}) logits or integer predictions"
        )
    if outputs.ndim == 2 and not torch.isfinite(outputs).all():
        raise UserError("outputs: some logits are NaN or infinite; the network that gave them has diverged")
    for name, values in (("labels", labels), ("outputs", outputs if outputs.ndim == 1 else labels)):
        if values.min() < 0 or values.max() >= num_classes:
            raise UserError(
                f"{name}: found class {int(values.min())} … {int(values.max())}; "
                f"with {num_classes} train_counts wanted 0 … {num_classes - 1}"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _restore(value: Any) -> Any:
    if value is None:
        return math.nan
    return tuple(_restore(v) for v in value) if isinstance(value, list) else value
