"""Which image comes next: the five re-sampling rules as one function, and as a sampler for any `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from lt_nas_ext.errors import UserError

SamplerName = Literal["instance", "class_uniform", "reverse", "sqrt", "under_sampling"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)


def class_probabilities(counts: Sequence[int] | torch.Tensor, kind: str) -> torch.Tensor:
    """Probability p_c that a drawn image is of class c [paper: Kang et al. 2020; reverse: BBN, Zhou et al. 2020].

    `instance`: p_c ∝ n_c. `class_uniform` and `under_sampling`: p_c = 1/C. `reverse`: p_c ∝ n_max/n_c. `sqrt`:
    p_c ∝ √n_c.

    Args:
        counts: C numbers of images, all ≥ 1.
        kind: one of `SAMPLERS`.

    Returns:
        (C,) float64 that sums to 1.

    Raises:
        UserError: an unknown kind, or a class without images.

    >>> class_probabilities([75, 25], "instance")
    tensor([0.7500, 0.2500], dtype=torch.float64)
    >>> class_probabilities([75, 25], "reverse")
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    n = check_counts(counts)
    if kind == "instance":
        weights = n
    elif kind in ("class_uniform", "under_sampling"):
        weights = torch.ones_like(n)
    elif kind == "reverse":
        weights = n.max() / n
    elif kind == "sqrt":
        weights = n.sqrt()
    else:
        raise UserError(f"sampler: got {kind!r}; wanted one of {', '.join(map(repr, SAMPLERS))}")
    return weights / weights.sum()


def epoch_length(labels: torch.Tensor, kind: str) -> int:
    """Images in an epoch: N of (N,) labels, but C · n_min where classes are under-sampled.

    Raises:
        UserError: no images, an unknown kind, or a class without images.

    >>> epoch_length(torch.tensor([0, 0, 0, 1]), "sqrt"), epoch_length(torch.tensor([0, 0, 0, 1]), "under_sampling")
    (4, 2)
    """
    counts = torch.bincount(_checked(labels))
    if kind != "instance":
        class_probabilities(counts, kind)
    return len(counts) * int(counts.min()) if kind == "under_sampling" else len(labels)


def epoch_order(
    labels: torch.Tensor, kind: str, seed: int = 0, epoch: int = 0, num_samples: int | None = None
) -> torch.Tensor:
    """The images of one epoch, in order: a pure function of its arguments.

    `instance` visits every image once, shuffled. `under_sampling` visits n_min images of each class once, shuffled,
    others in every epoch [ours: others every epoch; paper: He and Garcia 2009, section 3.1.1]. Either begins anew where
    `num_samples` exceeds that. The others draw a class by `class_probabilities`, then an image uniformly from that
    class, with replacement.

    Args:
        labels: (N,) class of each image; every class in 0 … max must occur unless `kind` is "instance".
        kind: one of `SAMPLERS`.
        seed: random seed, ≥ 0.
        epoch: which epoch, ≥ 0; consecutive epochs are independent.
        num_samples: length of the order; `epoch_length` by default.

    Returns:
        (num_samples,) int64 indices, on the CPU.

    Raises:
        UserError: no images, an unknown kind, a class without images, or a negative number.

    >>> epoch_order(torch.tensor([0, 0, 1]), "instance", seed=0, epoch=0).sort().values
    tensor([0, 1, 2])
    >>> epoch_order(torch.tensor([0, 0, 1]), "class_uniform", num_samples=1000).eq(2).float().mean() > 0.4
    tensor(True)
    """
    labels = _checked(labels)
    whole = epoch_length(labels, kind)
    total = whole if num_samples is None else num_samples
    if total < 1 or seed < 0 or epoch < 0:
        raise UserError(
            f"num_samples, seed, epoch: got {num_samples}, {seed}, {epoch}; wanted num_samples ≥ 1 and the others ≥ 0"
        )
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    if kind in ("instance", "under_sampling"):
        keep = int(torch.bincount(labels).min()) if kind == "under_sampling" else None
        rounds = [_one_pass(labels, keep, generator) for _ in range(-(-total // whole))]
        return torch.cat(rounds)[:total]
    counts = torch.bincount(labels)
    drawn = torch.multinomial(class_probabilities(counts, kind), total, replacement=True, generator=generator)
    by_class = torch.argsort(labels, stable=True)
    first = torch.cumsum(counts, 0) - counts
    # float64: a float32 draw would reach only 2²⁴ images of a class, and could round up to the next class
    within = (torch.rand(total, generator=generator, dtype=torch.float64) * counts[drawn]).long()
    return by_class[first[drawn] + within]


def _one_pass(labels: torch.Tensor, keep: int | None, generator: torch.Generator) -> torch.Tensor:
    """All images in random order, or of each class the first `keep` in that order."""
    order = torch.randperm(len(labels), generator=generator)
    if keep is None:
        return order
    by_class = torch.argsort(labels[order], stable=True)
    counts = torch.bincount(labels)
    first = torch.cumsum(counts, 0) - counts
    places = by_class[(first[:, None] + torch.arange(keep)).flatten()]
    return order[places.sort().values]


class ImageSampler(Sampler[int]):
    """A re-sampling rule as a PyTorch sampler, for any `DataLoader` over images with these labels.

    Call `set_epoch(e)` before each epoch, as with PyTorch's `DistributedSampler`. Of several processes each takes every
    num_replicas-th place of one common order, so no place is served twice; what does not divide is left out (another
    part each epoch), so all processes take the same number of steps. `instance` and `under_sampling` serve no image
    twice in an epoch, whichever process; the others draw with replacement.

    Args:
        labels: (N,) class of each image of the data set.
        kind: one of `SAMPLERS`.
        num_samples: images an epoch over all processes; `epoch_length` by default.
        seed: random seed, ≥ 0; the same in all processes.
        num_replicas: number of processes; by default those of `group`.
        rank: this process, 0 ≤ rank < num_replicas; by default its rank in `group`.
        group: a process group of `torch.distributed`; by default the default one where it is initialised, else this
            process stands alone.

    Raises:
        UserError: as `epoch_order`, a rank outside its range, or fewer images than processes.

    >>> sampler = ImageSampler([0, 0, 0, 1], kind="class_uniform", seed=0)
    >>> sampler.set_epoch(3)
    >>> len(list(sampler)) == len(sampler) == 4
    True
    """

    def __init__(
        self,
        labels: torch.Tensor | Sequence[int],
        kind: str = "instance",
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.labels = _checked(labels)
        self.kind, self.seed, self.epoch = kind, seed, 0
        self.num_samples = epoch_length(self.labels, kind) if num_samples is None else num_samples
        if (num_replicas is None) != (rank is None):
            raise UserError(f"rank: got {rank} of num_replicas={num_replicas}; wanted both, or neither")
        if num_replicas is None or rank is None:
            parallel = dist.is_available() and dist.is_initialized()
            num_replicas = dist.get_world_size(group) if parallel else 1
            rank = dist.get_rank(group) if parallel else 0
        if not 0 <= rank < num_replicas:
            raise UserError(f"rank: got {rank} of num_replicas={num_replicas}; wanted 0 ≤ rank < num_replicas")
        if 0 < self.num_samples < num_replicas:
            raise UserError(
                f"num_samples: got {self.num_samples} for {num_replicas} processes; wanted one each at least"
            )
        self.num_replicas, self.rank = num_replicas, rank
        epoch_order(self.labels, kind, seed, 0, self.num_samples)  # every bad argument is told now, not in a worker

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration serves."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        order = epoch_order(self.labels, self.kind, self.seed, self.epoch, self.num_samples)
        mine = order[self.rank :: self.num_replicas][: len(self)]
        return iter(mine.tolist())


def check_counts(counts: Sequence[int] | torch.Tensor) -> torch.Tensor:
    """`counts` as (C,) float64 on the CPU; `UserError` where they are no numbers or a class has no image.

    >>> check_counts([3, 1])
    tensor([3., 1.], dtype=torch.float64)
    """
    try:
        n = torch.as_tensor(counts).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"counts: got {counts!r}; wanted (C,) images per class") from None
    if n.ndim != 1 or not len(n):
        raise UserError(f"counts: got shape {tuple(n.shape)}; wanted (C,) images per class")
    if (n < 1).any():
        empty = (n < 1).nonzero().flatten().tolist()
        raise UserError(f"counts: no images of class {', '.join(map(str, empty))}; every class needs at least one")
    if not torch.isfinite(n).all():
        raise UserError(f"counts: got {n.tolist()}; wanted finite numbers, the images of each class")
    return n


def _checked(labels: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """(N,) int64 on the CPU."""
    try:
        classes = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"labels: got {type(labels).__name__}; wanted (N,) whole numbers, the class of each image"
        ) from None
    if classes.ndim != 1 or not len(classes):
        raise UserError(f"labels: got shape {tuple(classes.shape)}; wanted (N,) with at least one image")
    if classes.is_floating_point() or classes.is_complex() or int(classes.min()) < 0:
        raise UserError(f"labels: got {classes.dtype} from {classes.min()} on; wanted whole numbers from 0 on")
    return classes.long()


def _mix(seed: int, epoch: int) -> int:
    """One generator seed from two numbers, without the overlaps of seed + epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
