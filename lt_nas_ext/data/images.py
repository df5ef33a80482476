"""Image files to uint8 tensors, many at a time."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from lt_nas_ext.data.sources import check_size
from lt_nas_ext.errors import UserError

T = TypeVar("T")
Path = str | os.PathLike[str]
_GREY = ("1", "L", "LA", "La", "I")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what makes it upright; from 5 on width and height change places
_LONGEST = 16  # times the shorter side: of what is longer, only the middle is resized before its centre is cut out
_CHUNK = 128  # files a task: the pool's own cost stays far below that of decoding


def read_images(files: Sequence[Path], size: int, channels: int) -> torch.Tensor:
    """Image files as one tensor: shorter side resized to `size` (bilinear, antialiased), then the centre.

    Files of any mode that Pillow reads become grey or RGB: palettes are looked up, CMYK converted, 16-bit grey scaled
    to 8 bits, transparency laid over white, EXIF rotation applied; of an animation the first frame is taken.

    Args:
        files: N paths.
        size: side of the square images, pixels.
        channels: 1 (grey, ITU-R 601 luma of colour images) or 3 (RGB).

    Returns:
        (N, channels, size, size) uint8.

    Raises:
        UserError: a file that is missing, broken or no image (it is named), or more pixels than memory.
    """
    images = _room(len(files), size, channels)

    def fill(i: int) -> None:
        images[i] = open_image(files[i], lambda image: pixels_of(image, size, channels))

    in_threads(fill, len(files))
    return _planes(images)


def read_readable(files: Sequence[Path], size: int, channels: int) -> tuple[torch.Tensor, dict[int, UserError]]:
    """As `read_images`, but a file that is missing, broken or no image stops nothing.

    Returns:
        The M images that can be read, (M, channels, size, size) uint8, and the error of each other file by its place.
    """
    images, errors = _room(len(files), size, channels), dict[int, UserError]()

    def fill(i: int) -> None:
        try:
            images[i] = open_image(files[i], lambda image: pixels_of(image, size, channels))
        except UserError as error:
            errors[i] = error

    in_threads(fill, len(files))
    return _planes(images[[i not in errors for i in range(len(files))]]), dict(sorted(errors.items()))


def probe(files: Sequence[Path]) -> list[tuple[tuple[int, int], bool]]:
    """((width, height), whether it is grey) of each file, from its header."""
    seen: list[tuple[tuple[int, int], bool]] = [((0, 0), False)] * len(files)

    def look(i: int) -> None:
        seen[i] = open_image(files[i], lambda image: (_upright_size(image), _is_grey(image)))

    in_threads(look, len(files))
    return seen


def to_grey_or_rgb(image: Image.Image, channels: int) -> Image.Image:
    """A Pillow image of any mode as "L" (1 channel) or "RGB" (3)."""
    if image.mode.startswith("I"):  # 16 bit; older Pillows open 16-bit PNG as 32-bit "I"
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("a floating-point image has no fixed range of values; save it with 8 or 16 bits")
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    if image.mode == wanted:
        return image
    if wanted == "L" and image.mode != "1":
        image = image.convert("RGB")  # CMYK, LAB, palettes: Pillow has no direct way to grey
    return image.convert(wanted)


def _room(count: int, size: int, channels: int) -> np.ndarray:
    """(count, size, size, channels) uint8 to be filled; every argument checked."""
    check_size(size)
    if channels not in (1, 3):
        raise UserError(f"channels: got {channels!r}; wanted 1 (grey) or 3 (RGB)")
    _check_memory(count, size, channels)
    return np.empty((count, size, size, channels), dtype=np.uint8)


def _planes(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def pixels_of(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """(size, size, channels) uint8 of an opened file; all decoding happens in here, where its errors are caught."""
    image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size, never below twice ours
    if image.format == "EPS":  # which Pillow would have another program run
        raise ValueError("it is PostScript, a program")
    if not min(image.size):
        raise ValueError(f"it has {image.width}×{image.height} pixels")
    image.load()
    orientation = _orientation(image)
    image = _middle(to_grey_or_rgb(image, channels))
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    w, h = image.size
    if (w, h) != (size, size):
        scaled = (max(round(w * size / min(w, h)), size), max(round(h * size / min(w, h)), size))
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        image = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(image).reshape(size, size, channels)


def open_image(file: Path, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of an image file.

    Raises:
        UserError: the file is missing, empty, too large, no image or a broken one; the message names it.
    """
    where = f"image: {os.fspath(file)}"
    try:
        found = os.stat(file)
    except FileNotFoundError as error:
        gone = "is a link to nothing; repair or remove it" if os.path.islink(file) else "is not there"
        raise UserError(f"{where} {gone}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read ({error}); repair or remove it") from error
    if not stat.S_ISREG(found.st_mode):  # to open a pipe would be to wait for its other end
        raise UserError(f"{where} is no file but a directory, a pipe or a device; remove it")
    if not found.st_size:
        raise UserError(f"{where} is empty, 0 bytes; copy it again or remove it")
    try:
        with Image.open(file) as image:
            return use(image)
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(f"{where} is too large ({error}); shrink it to at most {most:,} pixels or remove it") from error
    except Exception as error:  # on broken files Pillow's plugins raise nearly everything that there is
        said = str(error) or type(error).__name__
        raise UserError(f"{where} cannot be read ({said}); repair or remove it") from error


def _middle(image: Image.Image) -> Image.Image:
    """The middle of an image that is so long that all of it, resized, would fill the memory."""
    w, h = image.size
    most = _LONGEST * min(w, h)
    if max(w, h) <= most:
        return image
    left, top = max(w - most, 0) // 2, max(h - most, 0) // 2
    return image.crop((left, top, left + min(w, most), top + min(h, most)))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    w, h = image.size
    return (h, w) if _orientation(image) in (5, 6, 7, 8) else (w, h)


def _orientation(image: Image.Image) -> int:
    """What EXIF says of how the image lies; 1, as it should, where that is missing or damaged."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged notes about an image are no reason to refuse it
        return 1
    return found if isinstance(found, int) else 1


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY or image.mode.startswith("I;16")


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call `work(i)` for every i < count; Pillow releases the interpreter lock while it decodes."""

    def chunk(start: int) -> None:
        for i in range(start, min(start + _CHUNK, count)):
            work(i)

    pool = ThreadPoolExecutor(_cores())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's name no file
            for _ in pool.map(chunk, range(0, count, _CHUNK)):
                pass
    finally:
        pool.shutdown(cancel_futures=True)  # a broken file or Ctrl-C ends at once, not after the last image


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 16)


def _check_memory(count: int, size: int, channels: int) -> None:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return
    needed = 2 * count * channels * size**2  # twice: once as decoded, once as a tensor of planes
    if needed > memory:
        fits = int((memory / (4 * max(count, 1) * channels)) ** 0.5)
        raise UserError(
            f"size: {count} images of {size}×{size} need {needed / 2**30:.1f} GiB, this machine has "
            f"{memory / 2**30:.1f}; give a size of at most {fits}"
        )
