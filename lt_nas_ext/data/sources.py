"""Where images come from: labelled file names first, pixels only of the images that an experiment keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from lt_nas_ext.data.datasets import ImageSet
from lt_nas_ext.errors import UserError

Read = Callable[[np.ndarray], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Part:
    """Labelled images that may still lie on disk.

    Attributes:
        labels: (N,) int64.
        files: N names.
        read: (M,) indices -> (M, C, H, W) uint8.
    """

    labels: np.ndarray
    files: tuple[str, ...]
    read: Read

    def take(self, indices: np.ndarray) -> ImageSet:
        """The images at `indices`, in memory."""
        labels = torch.from_numpy(self.labels[indices])
        return ImageSet(self.read(indices), labels, tuple(self.files[i] for i in indices))

    def narrow(self, indices: np.ndarray) -> Part:
        """The same part with only `indices` in it, still unread."""
        files = tuple(self.files[i] for i in indices)
        return Part(self.labels[indices], files, lambda chosen: self.read(indices[chosen]))


@dataclass(frozen=True, eq=False)
class Source:
    """A named collection: everything there is to train on and to test on, before a long tail is cut.

    `test=None` asks for a stratified test split of the training images. `views` and `augment` name the augmentations
    that suit the images.
    """

    name: str
    class_names: tuple[str, ...]
    train: Part
    test: Part | None
    views: str = "barlow-cifar"
    augment: str = "cifar"


def in_memory(images: torch.Tensor, labels: np.ndarray, files: tuple[str, ...]) -> Part:
    """A `Part` over images (N, C, H, W) uint8 that are in memory already."""
    return Part(np.asarray(labels, dtype=np.int64), files, lambda chosen: images[torch.from_numpy(chosen)])


def of_set(images: ImageSet) -> Part:
    """A `Part` over an `ImageSet`."""
    return in_memory(images.images, images.labels.cpu().numpy(), images.files)


def digits() -> Source:
    """The 1 797 handwritten digits that scikit-learn ships, 1×8×8, their 17 grey levels stretched to 0 … 255.

    A fixed permutation of each digit's images gives 44 to the test set and the next 130 to training; the rest (at most
    9 a class) are not used, so that the full training set is balanced.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.rint(pixels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    everything = in_memory(images, labels, tuple(f"digits/{i:04d}" for i in range(len(labels))))
    random = np.random.RandomState(0)
    shuffled = [random.permutation(np.flatnonzero(labels == c)) for c in range(10)]
    test = np.sort(np.concatenate([members[:44] for members in shuffled]))
    train = np.sort(np.concatenate([members[44:174] for members in shuffled]))
    return Source(
        name="digits",
        class_names=tuple("0123456789"),
        train=everything.narrow(train),
        test=everything.narrow(test),
        views="digits",
        augment="digits",
    )


def resized(source: Source, size: int) -> Source:
    """`source` with images of `size`×`size`: shorter side resized (bilinear, antialiased), then centre crop."""
    check_size(size)

    def shrink(part: Part) -> Part:
        return replace(part, read=lambda chosen: resize(part.read(chosen), size))

    return replace(source, train=shrink(source.train), test=source.test and shrink(source.test))


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """(N, C, H, W) uint8 or floats -> (N, C, size, size) of the same type: shorter side to `size`, then the centre."""
    h, w = images.shape[-2:]
    if (h, w) == (size, size):
        return images
    scaled = (max(round(h * size / min(h, w)), size), max(round(w * size / min(h, w)), size))
    floats = F.interpolate(images.float(), scaled, mode="bilinear", antialias=True, align_corners=False)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    floats = floats[..., top : top + size, left : left + size]
    return floats.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else floats.to(images.dtype)


def check_size(size: int) -> None:
    """Raise `UserError` where `size` is no side that an image can have here."""
    if isinstance(size, bool) or not isinstance(size, int) or not 4 <= size <= 4096:
        raise UserError(f"size: got {size!r}; wanted the side of the square images in pixels, 4 … 4096")
