"""Any directory with one sub-folder a class, read with Pillow."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low

import numpy as np

from lt_nas_ext.data.images import probe, read_images
from lt_nas_ext.data.sources import Part, Source, check_size
from lt_nas_ext.errors import UserError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
)
TRAIN, VALIDATION, TEST = "train", ("val", "valid", "validation"), "test"
LARGEST_DEFAULT_SIZE = 224
PROBED = 4096  # files whose headers decide the default size and grey or colour


def folder(root: str | os.PathLike[str] | None, size: int | None = None, channels: int | None = None) -> Source:
    """The images under `root`, one sub-folder a class, `root/CLASS/…` or `root/train/CLASS/…` and `root/test/CLASS/…`.

    Classes and files are sorted naturally (img2 before img10); deeper folders belong to their class; hidden files and
    files that are no images are passed over. The test set is `test/`, else `val/` (`valid/`, `validation/`), else a
    stratified 20 % of the images that no seed changes. With both `test/` and `val/` the latter is not used (a
    warning): searches split their own validation images from `train/`.

    Args:
        root: the directory.
        size: side of the images in pixels: each has its shorter side resized to it (bilinear, antialiased) and its
            centre cut out. By default the side that all images share where they are square and alike; otherwise the
            median shorter side, rounded to a multiple of 8, from 8 to 224.
        channels: 1 converts to grey, 3 to RGB. By default 1 where all images are grey. (Both defaults are decided on
            up to 4096 files, evenly spread.)

    Raises:
        UserError: no such directory, no classes, a class without images, classes of train and test that differ, or an
            image that cannot be read.
    """
    if size is not None:
        check_size(size)
    if channels not in (None, 1, 3):
        raise UserError(f"channels: got {channels!r}; wanted 1 (grey), 3 (RGB) or None (grey where all images are)")
    top, train_dir, test_dir = layout(root)
    class_names = tuple(class_folders(train_dir))
    train = _scan(train_dir, class_names)
    test = _scan(test_dir, class_names) if test_dir else None
    if test_dir and (extra := unknown_classes(train_dir, test_dir)):
        raise extra[0]
    everything = train[0] + (test[0] if test else [])
    if size is None or channels is None:
        seen = probe(_spread(everything, PROBED))
        size = size or _common_size([shape for shape, _ in seen])
        channels = channels or (1 if all(grey for _, grey in seen) else 3)
    return Source(
        name="folder",
        class_names=class_names,
        train=_part(train, top, size, channels),
        test=_part(test, top, size, channels) if test else None,
        views="barlow-cifar" if size < 64 else "barlow",
    )


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that counts: img2 before img10.

    >>> sorted(["img10", "img2", "Img1"], key=natural)
    ['Img1', 'img2', 'img10']
    """
    runs = re.findall(r"[0-9]+|[^0-9]+", text)
    pieces = tuple((0, int(run)) if run[0] in "0123456789" else (1, run.lower()) for run in runs)
    return (*pieces, (2, text))  # the text itself last: 01 and 1 always come in the same order


def layout(root: str | os.PathLike[str] | None) -> tuple[Path, Path, Path | None]:
    """A folder, where its training classes are, and where its test classes, if anywhere.

    Raises:
        UserError: no such directory, or one with parts but none to train on.
    """
    if root is None:
        raise UserError("root: data='folder' needs the directory of the images; give root=DIR (--root DIR)")
    top = Path(root)
    if not top.is_dir():
        raise UserError(f"root: {top} is not a directory; wanted one with a sub-folder of images a class")
    names = _subfolders(top)
    parts = {TRAIN, TEST, *VALIDATION}
    # a class may be called "train": the folder is a part only where nothing but parts lies beside it, and classes in it
    if TRAIN not in names or not set(names) <= parts or not _subfolders(top / TRAIN):
        if set(names) & parts and set(names) <= parts:
            raise UserError(f"root: {top} has {', '.join(names)} but no {TRAIN}/ with a sub-folder a class in it")
        return top, top, None
    held_out = [name for name in (TEST, *VALIDATION) if name in names]
    if len(held_out) > 1:
        unused = ", ".join(f"{name}/" for name in held_out[1:])
        warnings.warn(f"{top}: {unused} not used; {held_out[0]}/ is the test set", UserWarning, stacklevel=4)
    return top, top / TRAIN, top / held_out[0] if held_out else None


def class_folders(directory: Path) -> list[str]:
    """Names of the classes under the training (or test) directory, in natural order.

    Raises:
        UserError: there are none, or a folder cannot be used.
    """
    names = _subfolders(directory)
    if not names:
        raise UserError(f"root: {directory} has no sub-folders; wanted one a class: {directory}/cat/1.jpg, …/dog/1.jpg")
    return names


def unknown_classes(train_dir: Path, test_dir: Path) -> list[UserError]:
    """What is wrong with each class that only the test images have."""
    return [
        UserError(f"root: class {name!r} is in {test_dir} and not in {train_dir}; both need the same classes")
        for name in sorted(set(_subfolders(test_dir)) - set(_subfolders(train_dir)), key=natural)
    ]


def images_of_class(directory: Path, name: str) -> list[str]:
    """Image files of a class, in natural order.

    Raises:
        UserError: there are none, or a folder cannot be listed.
    """
    found = images_under(directory / name)
    if not found:
        raise UserError(
            f"root: class {name!r} has no images in {directory / name}; wanted files that end in "
            f"{', '.join(sorted(SUFFIXES))}; add some or remove the folder"
        )
    return found


def _subfolders(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            names = [e.name for e in entries if not e.name.startswith((".", "__")) and _is_folder(e)]
    except OSError as error:
        raise UserError(f"root: cannot list {directory}: {error.strerror}") from error
    for name in names:
        _check_name(os.path.join(directory, name))
    return sorted(names, key=natural)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_dir()
    try:
        target = os.path.realpath(entry.path, strict=True)
    except OSError as error:  # a class that nobody would miss
        raise UserError(
            f"root: {entry.path} is a link that leads nowhere ({error.strerror}); repair or remove it"
        ) from error
    if os.path.commonpath([target, os.path.realpath(os.path.dirname(entry.path))]) == target:
        raise UserError(f"root: {entry.path} is a link to {target}, which it lies in itself; remove it")
    return os.path.isdir(target)


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:  # neither a manifest nor a page could hold it
        raise UserError(f"images: the name of {os.fsencode(path)!r} is no UTF-8; rename it") from None


def _scan(directory: Path, class_names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Image files of every class, in natural order, and their labels."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = images_of_class(directory, name)
        files += found
        labels += [label] * len(found)
    return files, np.asarray(labels, dtype=np.int64)


def images_under(directory: Path) -> list[str]:
    """Image files of a directory and its sub-folders, in natural order, but no hidden ones and none in linked folders.

    Raises:
        UserError: a folder cannot be listed, or a name is no text.
    """
    found = []
    for here, folders, names in os.walk(directory, onerror=_refuse):
        folders[:] = [f for f in folders if not f.startswith((".", "__"))]
        found += [
            os.path.join(here, name)
            for name in names
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
        ]
    for path in found:
        _check_name(path)
    return sorted(found, key=natural)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a class without a folder is one without images
        raise UserError(f"images: cannot list {error.filename}: {error.strerror}") from error


def _part(scanned: tuple[list[str], np.ndarray], top: Path, size: int, channels: int) -> Part:
    paths, labels = scanned
    files = tuple(Path(os.path.relpath(path, top)).as_posix() for path in paths)
    return Part(labels, files, lambda chosen: read_images([paths[i] for i in chosen], size, channels))


def _spread(files: list[str], most: int) -> list[str]:
    return [files[i * len(files) // most] for i in range(most)] if len(files) > most else files


def _common_size(shapes: list[tuple[int, int]]) -> int:
    short = [min(shape) for shape in shapes]
    if len(set(shapes)) == 1 and shapes[0][0] == shapes[0][1] and short[0] <= LARGEST_DEFAULT_SIZE:
        return max(short[0], 4)
    return min(max(round(median_low(short) / 8) * 8, 8), LARGEST_DEFAULT_SIZE)
