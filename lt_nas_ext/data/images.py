"""Image files to uint8 tensors, many at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps

from lt_nas_ext.data.sources import check_size
from lt_nas_ext.errors import UserError

T = TypeVar("T")
Path = str | os.PathLike[str]
_GREY = ("1", "L", "LA", "La", "I")
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
        images[i] = _open(files[i], lambda image: _pixels(image, size, channels))

    _in_threads(fill, len(files))
    return _planes(images)


def read_readable(files: Sequence[Path], size: int, channels: int) -> tuple[torch.Tensor, dict[int, UserError]]:
    """As `read_images`, but a file that is missing, broken or no image stops nothing.

    Returns:
        The M images that can be read, (M, channels, size, size) uint8, and the error of each other file by its place.
    """
    images, errors = _room(len(files), size, channels), dict[int, UserError]()

    def fill(i: int) -> None:
        try:
            images[i] = _open(files[i], lambda image: _pixels(image, size, channels))
        except UserError as error:
            errors[i] = error

    _in_threads(fill, len(files))
    return _planes(images[[i not in errors for i in range(len(files))]]), dict(sorted(errors.items()))


def probe(files: Sequence[Path]) -> list[tuple[tuple[int, int], bool]]:
    """((width, height), whether it is grey) of each file, from its header."""
    seen: list[tuple[tuple[int, int], bool]] = [((0, 0), False)] * len(files)

    def look(i: int) -> None:
        seen[i] = _open(files[i], lambda image: (_upright_size(image), _is_grey(image)))

    _in_threads(look, len(files))
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


def _pixels(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """(size, size, channels) uint8; all decoding happens in here, where its errors are caught."""
    image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size, never below twice ours
    if image.getexif():
        image = ImageOps.exif_transpose(image)
    image = to_grey_or_rgb(image, channels)
    w, h = image.size
    if (w, h) != (size, size):
        scaled = (max(round(w * size / min(w, h)), size), max(round(h * size / min(w, h)), size))
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        image = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(image).reshape(size, size, channels)


def _open(file: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(file) as image:
            return use(image)
    except FileNotFoundError as error:
        raise UserError(f"image: {os.fspath(file)} is not there") from error
    # Pillow's plugins raise all of these on broken files
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"image: {os.fspath(file)} cannot be read ({error}); repair or remove it") from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
    w, h = image.size
    return (h, w) if image.getexif().get(0x0112, 1) >= 5 else (w, h)  # EXIF orientations 5 … 8 are turned by 90°


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY or image.mode.startswith("I;16")


def _in_threads(work: Callable[[int], None], count: int) -> None:
    """Call `work(i)` for every i < count; Pillow releases the interpreter lock while it decodes."""

    def chunk(start: int) -> None:
        for i in range(start, min(start + _CHUNK, count)):
            work(i)

    pool = ThreadPoolExecutor(_cores())
    try:
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
