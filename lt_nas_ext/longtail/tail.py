"""Stronger augmentation of rare classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.samplers import check_counts

Transform = Callable[..., torch.Tensor]


class TailAugment:
    """Augments an image of class c strongly with probability 1 − n_c/n_max, and weakly else [ours].

    So the largest class is never augmented strongly and a class of a hundredth of it nearly always: what is shown
    repeatedly is shown in more variants.

    Args:
        weak: (N, C, H, W) images -> images of the same shape, a draw for each sample, such as
            `lt.data.augment("cifar")`; any transform of a batch will do.
        strong: likewise, such as `lt.data.PhotoView()`.
        counts: C training images per class, all ≥ 1.

    Raises:
        UserError: a class without images, something that cannot be called, or, when called, labels that do not fit.

    >>> from lt_nas_ext.data import DigitView, augment
    >>> tail = TailAugment(augment("none"), DigitView(), counts=[1000, 1])
    >>> images, labels = torch.full((4, 1, 8, 8), 0.5), torch.tensor([0, 0, 1, 1])
    >>> (tail(images, labels, torch.Generator().manual_seed(0)) == images).all((1, 2, 3))
    tensor([ True,  True, False, False])
    """

    def __init__(self, weak: Transform, strong: Transform, counts: Sequence[int] | torch.Tensor) -> None:
        for name, transform in (("weak", weak), ("strong", strong)):
            if not callable(transform):
                raise UserError(f"{name}: got {type(transform).__name__}; wanted a transform of a batch of images")
        n = check_counts(counts)
        self.weak, self.strong = weak, strong
        self.probabilities = 1.0 - n / n.max()

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """The augmented batch.

        Args:
            images: (N, C, H, W).
            labels: (N,) int64.
            generator: the source of every draw, `weak`'s and `strong`'s too; PyTorch's global one by default.
        """
        if tuple(labels.shape) != tuple(images.shape[:1]) or labels.is_floating_point():
            raise UserError(
                f"labels: got {labels.dtype} of shape {tuple(labels.shape)} for {len(images)} images; "
                f"wanted one class an image"
            )
        classes = labels.cpu()
        if len(classes) and (int(classes.min()) < 0 or int(classes.max()) >= len(self.probabilities)):
            raise UserError(
                f"labels: found {int(classes.min())} … {int(classes.max())}; with {len(self.probabilities)} counts "
                f"wanted 0 … {len(self.probabilities) - 1}"
            )
        device = torch.device("cpu") if generator is None else generator.device
        draws = torch.rand(len(images), generator=generator, device=device, dtype=torch.float64).cpu()
        chosen = (draws < self.probabilities[classes]).nonzero().flatten().to(images.device)
        more: dict[str, Any] = {} if generator is None else {"generator": generator}
        augmented = self.weak(images, **more)
        if not len(chosen):
            return augmented
        return augmented.index_copy(0, chosen, self.strong(images[chosen], **more).to(augmented.dtype))
