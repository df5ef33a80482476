"""Every bad file of a directory of images by name, before anything is trained on it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lt_nas_ext.data.cut import train_and_test
from lt_nas_ext.data.folder import SUFFIXES, class_folders, folder, images_of_class, layout, unknown_classes
from lt_nas_ext.data.images import in_threads, open_image, pixels_of
from lt_nas_ext.errors import UserError

TRAINING, TEST = "training", "test"
SIDE = 16
"""Pixels of the small copy that an image is read to."""
LONG = 4
"""Sides in such a ratio leave most of an image outside the centre square."""

Follow = Callable[[int, int], None]
"""What follows the reading: called with images read so far, and all."""


class Place(NamedTuple):
    """Where an image file belongs: its path, its part (`TRAINING` or `TEST`) and its class."""

    path: str
    part: str
    class_name: str


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a folder.

    Attributes:
        fatal: whether a training on all images would fail; otherwise it is a warning.
        text: what, naming the file or folder.
    """

    fatal: bool
    text: str


@dataclass(frozen=True)
class FolderCheck:
    """What `check_folder` found.

    Attributes:
        classes: how many there are.
        images: files of each part by name, "training" and "test"; no "test" where it is split from the training images.
        findings: what is wrong, the fatal ones first.
    """

    classes: int
    images: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def fatal(self) -> int:
        """How many findings would make a training fail."""
        return sum(finding.fatal for finding in self.findings)


def check_folder(root: str | os.PathLike[str], follow: Follow | None = None) -> FolderCheck:
    """Read every image of a folder as a training would, and compare the files with each other.

    Fatal are folders without images, classes that training and test do not share, and files that cannot be read.
    Warnings name files that are there twice (by their bytes): in training and test, under two labels, or within a
    class; and what a training takes only a part of, or passes over.

    Args:
        root: as of `lt.data.load("folder", root=…)`.
        follow: is told how many images have been read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("cat", "dog"):
    ...         Path(root, name).mkdir()
    ...         for i in range(3):
    ...             Image.new("L", (8, 8), 10 * i + len(os.listdir(root))).save(Path(root, name, f"{i}.png"))
    ...     _ = Path(root, "dog", "3.png").write_text("no image")
    ...     found = check_folder(root)
    >>> found.images, [(finding.fatal, "3.png cannot be read" in finding.text) for finding in found.findings]
    ({'training': 7}, [(True, True)])
    """
    try:
        top, train_dir, test_dir = layout(root)
        names = class_folders(train_dir)
    except UserError as error:
        return FolderCheck(0, {}, (Finding(True, str(error)),))
    places, wrong = list[Place](), list[str]()
    parts = {TRAINING: train_dir, **({TEST: test_dir} if test_dir else {})}
    for part, directory in parts.items():
        for name in names:
            try:
                places += [Place(path, part, name) for path in images_of_class(directory, name)]
            except UserError as error:
                wrong.append(str(error))
    wrong += map(str, unknown_classes(train_dir, test_dir) if test_dir else ())
    wrong += [text for text in _refused(root) if text not in wrong]
    seen = _look_at([place.path for place in places], follow)
    wrong += [one for one in seen if isinstance(one, str)]
    readable = [(place, one) for place, one in zip(places, seen, strict=True) if not isinstance(one, str)]
    doubtful = [
        *_repeated(readable, top, test_dir is None),
        *_in_part(readable, top),
        *_passed_over([directory / name for directory in parts.values() for name in names], top),
        *_few(places, names, test_dir is None),
    ]
    findings = (*(Finding(True, text) for text in wrong), *(Finding(False, text) for text in doubtful))
    return FolderCheck(len(names), dict(Counter(place.part for place in places)), findings)


def _refused(root: str | os.PathLike[str]) -> list[str]:
    """What a training says of the folder before it reads an image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said before
            train_and_test(folder(root, SIDE, 3))
    except UserError as error:
        return [str(error)]
    return []


class _Seen(NamedTuple):
    """What was seen of an image file."""

    digest: bytes
    size: tuple[int, int]
    frames: int


def _look_at(paths: Sequence[str], follow: Follow | None) -> list[_Seen | str]:
    """What each file holds, or what is wrong with it."""
    seen: list[_Seen | str] = [""] * len(paths)
    so_far = itertools.count(1)  # one step of it is never two threads'

    def look(i: int) -> None:
        try:
            size, frames = open_image(paths[i], _read)
            seen[i] = _Seen(_digest(paths[i]), size, frames)
        except UserError as error:
            seen[i] = str(error)
        if follow is not None:
            follow(next(so_far), len(paths))

    in_threads(look, len(paths))
    return seen


def _read(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Sides and number of frames of an image that can be decoded."""
    size, frames = image.size, 1
    pixels_of(image, SIDE, 3)
    with contextlib.suppress(Exception):  # a later frame may be damaged, which no training sees
        frames = getattr(image, "n_frames", 1)
    return size, frames


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def _repeated(readable: Sequence[tuple[Place, _Seen]], top: Path, split: bool) -> Iterator[str]:
    """Files of the same bytes as one before them."""
    first: dict[bytes, Place] = {}
    for place, seen in readable:
        other = first.setdefault(seen.digest, place)
        if other is place:
            continue
        same = f"{_shown(other.path, top)} and {_shown(place.path, top)} are the same file"
        if other.part != place.part:
            yield f"{same}: a test image to train on"
        elif other.class_name != place.class_name:
            yield f"{same} with two labels, {other.class_name!r} and {place.class_name!r}"
        else:
            yield f"{same}; one may be trained on and the other tested on" if split else same


def _in_part(readable: Sequence[tuple[Place, _Seen]], top: Path) -> Iterator[str]:
    for place, seen in readable:
        (w, h), name = seen.size, _shown(place.path, top)
        if max(w, h) > LONG * min(w, h):
            yield f"{name} has {w}×{h} pixels, of which the centre square is taken"
        if seen.frames > 1:
            yield f"{name} has {seen.frames} frames, of which the first is taken"


def _passed_over(directories: Sequence[Path], top: Path) -> Iterator[str]:
    """Files that no training reads, kind by kind, and folders that are links."""
    passed: dict[str, list[str]] = {}
    for directory in directories:
        for here, folders, files in os.walk(directory):
            folders[:] = [f for f in folders if not f.startswith((".", "__"))]
            for linked in (f for f in folders if os.path.islink(os.path.join(here, f))):
                yield f"{_shown(os.path.join(here, linked), top)} is a link to a folder, which is passed over"
            for file in (f for f in files if not f.startswith(".")):
                suffix = os.path.splitext(file)[1].lower()
                if suffix not in SUFFIXES:
                    passed.setdefault(suffix, []).append(_shown(os.path.join(here, file), top))
    for suffix, files in sorted(passed.items()):
        kind = f"end in {suffix}" if suffix else "have no suffix"
        yield f"{len(files)} file(s) that {kind} are passed over, such as {min(files)}"


def _few(places: Sequence[Place], names: Sequence[str], split: bool) -> Iterator[str]:
    """Classes that can be trained on but not searched on: a search needs an image on each side of its split."""
    counts = Counter(place.class_name for place in places if place.part == TRAINING)
    for name in names:
        if counts[name] == (2 if split else 1):
            yield f"class {name!r} has 1 image to train on; a search that reads labels needs 2"


def _shown(path: str, top: Path) -> str:
    """The path from the root on, printable whatever its bytes are."""
    return os.path.relpath(path, top).encode("utf-8", "backslashreplace").decode()
