"""What a trained network sees on new images: files, read as those of the training were, or a tensor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lt_nas_ext.data.folder import SUFFIXES, images_under
from lt_nas_ext.data.images import read_readable
from lt_nas_ext.data.sources import resize
from lt_nas_ext.engine.classifier import Classifier, load_classifier
from lt_nas_ext.engine.evaluate import BATCH, predict_logits
from lt_nas_ext.errors import UserError

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, the likeliest first.

    Attributes:
        path: the file, or None for an image of a tensor.
        classes: their names.
        probabilities: the softmax of the logits, in [0, 1]; all classes together have 1. Where the run fitted a
            temperature on validation images, the logits are divided by it.
    """

    path: Path | None
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class UnreadableImages(UserError):
    """Some of the files cannot be read, and the message names each.

    Attributes:
        predictions: those of all other files.
    """

    def __init__(self, errors: Sequence[UserError], predictions: tuple[Prediction, ...]) -> None:
        self.predictions = predictions
        total = len(errors) + len(predictions)
        super().__init__("\n  ".join([f"images: {len(errors)} of {total} cannot be read", *map(str, errors)]))


def predict(
    run: PathLike | Classifier,
    images: PathLike | Iterable[PathLike] | torch.Tensor,
    top: int = 3,
    device: str = "auto",
) -> tuple[Prediction, ...]:
    """Name what is on images, in float32 and a batch at a time.

    Files of any size and mode become what a folder's become before a training: grey or RGB, the shorter side resized
    to the size of the training images, the centre cut out. Tensors of another size likewise.

    Args:
        run: run directory of a finished retraining, or of the search it belongs to; its model.pt; or what `retrain`
            returned.
        images: an image file, or a directory whose image files are taken, with those of its sub-folders, in natural
            order; or several of both; or (N, C, H, W), uint8 or floating point in [0, 1], C as the training images.
        top: how many classes to name; all where there are fewer.
        device: where to load the weights of a run: "auto", "cpu", "cuda", "cuda:1", …; what `retrain` returned
            computes where it is.

    Returns:
        A `Prediction` an image, in the order of the images.

    Raises:
        UserError: there is no trained network, a path is not there, a directory has no images, or a tensor is of
            another form.
        UnreadableImages: after all other images were predicted; it has their predictions.

    >>> import tempfile, lt_nas_ext as lt
    >>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
    >>> with tempfile.TemporaryDirectory() as run:
    ...     model = lt.retrain("small-conv-net", digits, epochs=1, channels=4, out=run)
    ...     found = lt.predict(run, digits.test.images[:5], top=2)
    >>> len(found), len(found[0].classes), found[0].path
    (5, 2, None)
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise UserError(f"top: got {top!r}; wanted how many classes to name, at least 1")
    files = [] if isinstance(images, torch.Tensor) else _files(images)
    model = _model(run, device)
    if isinstance(images, torch.Tensor):
        return tuple(_predictions(model, _fitting(images, model.image_shape), [None] * len(images), top))
    channels, height, width = model.image_shape
    if height != width:
        raise UserError(
            f"images: got files for a network trained on {height}×{width} pixels, and files become squares; "
            f"pass a tensor (N, {channels}, {height}, {width})"
        )
    found: list[Prediction] = []
    errors: list[UserError] = []
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        pixels, unreadable = read_readable(some, height, channels)
        found += _predictions(model, pixels, [file for i, file in enumerate(some) if i not in unreadable], top)
        errors += unreadable.values()
    if errors:
        raise UnreadableImages(errors, tuple(found))
    return tuple(found)


def _model(run: PathLike | Classifier, device: str) -> Classifier:
    if isinstance(run, Classifier):
        return run
    if not isinstance(run, str | os.PathLike):
        raise UserError(
            f"run: got {type(run).__name__}; wanted a run directory, its model.pt, or what retrain returned"
        )
    return load_classifier(Path(run), device=device)


def _files(images: PathLike | Iterable[PathLike]) -> list[Path]:
    """The image files, those of directories in natural order."""
    files: list[Path] = []
    for image in [images] if isinstance(images, str | bytes) or not isinstance(images, Iterable) else images:
        if not isinstance(image, str | os.PathLike):
            raise UserError(f"images: got {type(image).__name__}; wanted files, directories, or a tensor (N, C, H, W)")
        path = Path(image)
        if not os.path.exists(path):  # unlike Path.exists, also where the name is longer than any file's
            raise UserError(f"images: {path} is not there; wanted image files, or directories of them")
        found = [Path(file) for file in images_under(path)] if path.is_dir() else [path]
        if not found:
            raise UserError(f"images: {path} has no images; wanted files that end in {', '.join(sorted(SUFFIXES))}")
        files += found
    if not files:
        raise UserError("images: got none; wanted one or more image files, or directories of them")
    return files


def _fitting(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """A batch of the user's with the height and width of the training images."""
    channels, height, width = shape
    came = f"{images.dtype} of shape {tuple(images.shape)}"
    if (
        images.dim() != 4
        or images.shape[1] != channels
        or not (images.is_floating_point() or images.dtype == torch.uint8)
    ):
        raise UserError(f"images: got {came}; wanted (N, {channels}, H, W), uint8 or floating point in [0, 1]")
    if not images.numel():
        raise UserError(f"images: got {came}; wanted at least one image")
    if images.is_floating_point() and not bool(((images >= 0) & (images <= 1)).all()):
        raise UserError(
            f"images: got values from {float(images.min()):.3g} to {float(images.max()):.3g}; wanted floats in [0, 1] "
            "(the run normalises them itself)"
        )
    if images.shape[2:] == (height, width):
        return images
    if height != width:
        raise UserError(f"images: got {came}; wanted (N, {channels}, {height}, {width}), as the training images")
    return torch.cat([resize(part, height) for part in images.split(BATCH)])


def _predictions(model: Classifier, images: torch.Tensor, paths: Sequence[Path | None], top: int) -> list[Prediction]:
    if not paths:
        return []
    logits = predict_logits(model, images)
    if model.calibration is not None:
        logits = model.calibration.calibrated(logits)
    if not bool(torch.isfinite(logits).all()):
        raise UserError("run: some logits are NaN or infinite; its network has diverged, train another")
    ranked = logits.float().softmax(1).sort(dim=1, descending=True, stable=True)
    chosen = zip(ranked.indices[:, :top].tolist(), ranked.values[:, :top].tolist(), strict=True)
    return [
        Prediction(path, tuple(model.class_names[c] for c in classes), tuple(probabilities))
        for path, (classes, probabilities) in zip(paths, chosen, strict=True)
    ]
