"""A user's own PyTorch `Dataset`, brought into memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from lt_nas_ext.data.images import to_grey_or_rgb
from lt_nas_ext.data.sources import Part, check_size, in_memory, resize
from lt_nas_ext.errors import UserError


def own_part(dataset: Any, part: str, size: int | None) -> Part:
    """Read all of a map-style `Dataset` of (image, label) pairs; files are named `part/00000`, ….

    Raises:
        UserError: an item is not such a pair, an image of another kind, images of several sizes without `size`.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UserError(f"{part}: got {type(dataset).__name__}; wanted a Dataset with a length and items by index")
    if not len(dataset):
        raise UserError(f"{part}: the Dataset is empty; wanted at least one image")
    if size is not None:
        check_size(size)
    images, labels = [], []
    for i in range(len(dataset)):
        image, label = _pair(dataset[i], part, i)
        images.append(image if size is None else resize(image[None], size)[0])
        labels.append(label)
    if len({image.shape[0] for image in images}) > 1:  # grey among colour
        images = [image.expand(3, -1, -1) for image in images]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        a, b = sorted(shapes)[:2]
        raise UserError(f"{part}: images of several sizes, such as {a[1]}×{a[2]} and {b[1]}×{b[2]}; give size=")
    files = tuple(f"{part}/{i:05d}" for i in range(len(images)))
    return in_memory(torch.stack(images), np.asarray(labels), files)


def class_names_of(dataset: Any, num_labels: int) -> tuple[str, ...]:
    """The Dataset's own `classes`, as torchvision's have them; else the label numbers."""
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if names is not None else tuple(str(c) for c in range(num_labels))


def _pair(item: Any, part: str, i: int) -> tuple[torch.Tensor, int]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise UserError(f"{part}[{i}]: got {type(item).__name__}; wanted a pair (image, label)")
    image, label = item
    try:
        number = int(label)
    except (TypeError, ValueError) as error:
        raise UserError(f"{part}[{i}]: label {label!r} is no integer; wanted the class as 0 … C−1") from error
    return _as_uint8(image, f"{part}[{i}]"), number


def _as_uint8(image: Any, where: str) -> torch.Tensor:
    """A Pillow image, an (H, W[, C]) array or a (C, H, W) tensor -> (C, H, W) uint8, C = 1 or 3."""
    if isinstance(image, Image.Image):
        grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        image = np.array(to_grey_or_rgb(image, 1 if grey else 3))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).copy())
    if not isinstance(image, torch.Tensor):
        raise UserError(f"{where}: image is {type(image).__name__}; wanted a Pillow image, a tensor or an array")
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(f"{where}: image has shape {tuple(image.shape)}; wanted (C, H, W) with C = 1 or 3")
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise UserError(
                f"{where}: values from {float(image.min()):.3g} to {float(image.max()):.3g}; wanted floats in [0, 1] "
                "(leave Normalize out of the transform: mean and std are taken from the long-tailed training set)"
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise UserError(f"{where}: image is {image.dtype}; wanted uint8 in 0 … 255 or floats in [0, 1]")
    return image.cpu()
