"""Bad data, one literal table: an input is read, and these are its pixels, or refused, and this is the message.

Every row is met three ways: by `read_images`, in a folder that is loaded, and by the scan, `lt-nas data check`, whose
exit code says whether loading fails. In messages ⋯ stands for another program's wording.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import shutil
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import Silent

import lt_nas_ext as lt
from lt_nas_ext import cli
from lt_nas_ext.data import check_folder, read_images
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.local_crew import LocalCrew
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.experiments.worker import Follow, Job

RED, BLUE, GREEN, YELLOW = (200, 100, 50), (20, 40, 160), (10, 180, 90), (240, 220, 30)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
PICTURE = np.empty((8, 8, 3), dtype=np.uint8)
PICTURE[:4, :4], PICTURE[:4, 4:], PICTURE[4:, :4], PICTURE[4:, 4:] = RED, BLUE, GREEN, YELLOW
COLOUR = (RED, BLUE, GREEN, YELLOW)
GREY = tuple((round(0.299 * r + 0.587 * g + 0.114 * b),) * 3 for r, g, b in COLOUR)

Write = Callable[[Path], object]
Corners = tuple[tuple[int, ...], ...]
"""Upper left, upper right, lower left, lower right."""


def picture() -> Image.Image:
    return Image.fromarray(PICTURE)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def with_alpha(left: int) -> Image.Image:
    alpha = np.full((8, 8, 1), 255, dtype=np.uint8)
    alpha[:, :4] = left
    return Image.fromarray(np.concatenate([PICTURE, alpha], 2))


def of_grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.kron(values, np.ones((4, 4))).astype(values.dtype))


def quadrants(*values: int, dtype: type = np.uint16) -> np.ndarray:
    return np.array(values, dtype=dtype).reshape(2, 2)


def lying(orientation: int) -> Image.Image:
    """The picture as a camera stores it that was held so."""
    stored = {
        1: PICTURE, 2: PICTURE[:, ::-1], 3: PICTURE[::-1, ::-1], 4: PICTURE[::-1], 5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE), 7: PICTURE[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PICTURE, -1),
    }[orientation]  # fmt: skip
    return Image.fromarray(np.ascontiguousarray(stored))


def exif(orientation: int) -> Image.Exif:
    notes = Image.Exif()
    notes[0x0112] = orientation
    return notes


def png(width: int, height: int, bits: int, colour: int, rows: bytes, crc: int = 0) -> bytes:
    """A PNG of raw rows, each with its filter byte; `crc` spoils the header's."""

    def chunk(name: bytes, content: bytes, spoilt: int = 0) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ spoilt)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header, crc)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wide_png() -> bytes:
    """16 bits a channel: the picture's in the upper 8, noise in the lower."""
    rows = (PICTURE.astype(">u2") * 256 + 99).astype(">u2")
    return png(8, 8, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8))
BITS = Image.fromarray(np.kron(quadrants(1, 0, 0, 1, dtype=np.uint8), np.ones((4, 4), np.uint8)) * 255).convert("1")
OTHER = Image.fromarray(255 - PICTURE)
HUGE = png(20_000, 20_000, 8, 0, b"\0")

PIXELS: list[tuple[str, str, bytes, Corners, int]] = [
    # (what, file, its bytes, its corners at 8×8 pixels in RGB, by how much they may be off)
    ("RGB", "a.png", saved(picture()), COLOUR, 0),
    ("grey", "a.png", saved(picture().convert("L")), GREY, 1),
    ("1 bit", "a.png", saved(BITS), (WHITE, BLACK, BLACK, WHITE), 0),
    ("2 bits", "a.png", png(4, 4, 2, 0, b"".join(b"\0" + bytes([r]) for r in (5, 5, 175, 175))),
     (BLACK, (85,) * 3, (170,) * 3, WHITE), 0),
    ("palette", "a.png", saved(picture().quantize(4)), COLOUR, 1),
    ("palette of a GIF", "a.gif", saved(picture().quantize(4), "GIF"), COLOUR, 1),
    ("palette, one colour transparent", "a.png",
     saved(picture().quantize(4), transparency=picture().quantize(4).getpixel((0, 0))), (WHITE, *COLOUR[1:]), 1),
    ("half transparent on the left", "a.png", saved(with_alpha(128)),
     ((227, 177, 152), BLUE, (132, 217, 172), YELLOW), 1),
    ("transparent on the left, WebP", "a.webp", saved(with_alpha(0), "WEBP", lossless=True),
     (WHITE, BLUE, WHITE, YELLOW), 1),
    ("grey, transparent on the left", "a.png", saved(with_alpha(0).convert("LA")),
     (WHITE, GREY[1], WHITE, GREY[3]), 1),
    ("RGB, one colour transparent", "a.png", saved(picture(), transparency=RED), (WHITE, *COLOUR[1:]), 0),
    ("CMYK JPEG", "a.jpg", saved(picture().convert("CMYK"), "JPEG", quality=100, subsampling=0), COLOUR, 8),
    ("CMYK TIFF", "a.tif", saved(picture().convert("CMYK"), "TIFF"), COLOUR, 2),
    ("YCbCr TIFF", "a.tif", saved(picture().convert("YCbCr"), "TIFF"), COLOUR, 4),
    ("JPEG", "a.jpg", saved(picture(), "JPEG", quality=100, subsampling=0), COLOUR, 8),
    ("progressive JPEG", "a.jpg", saved(picture(), "JPEG", quality=100, subsampling=0, progressive=True), COLOUR, 8),
    ("16-bit grey", "a.png", saved(of_grey(quadrants(0, 257, 51400, 65535))),
     (BLACK, (1,) * 3, (200,) * 3, WHITE), 0),
    ("16-bit grey TIFF", "a.tif", saved(of_grey(quadrants(0, 257, 51400, 65535)), "TIFF"),
     (BLACK, (1,) * 3, (200,) * 3, WHITE), 0),
    ("16-bit grey TIFF, big-endian", "a.tif", saved(of_grey(quadrants(0, 257, 51400, 65535).astype(">u2")), "TIFF"),
     (BLACK, (1,) * 3, (200,) * 3, WHITE), 0),
    ("16-bit RGB", "a.png", wide_png(), COLOUR, 0),
    ("32-bit integers", "a.tif", saved(of_grey(quadrants(-5, 257, 51400, 70000, dtype=np.int32)), "TIFF"),
     (BLACK, (1,) * 3, (200,) * 3, WHITE), 0),
    ("animated GIF", "a.gif",
     saved(picture().quantize(4), "GIF", save_all=True, append_images=[OTHER.quantize(4)]), COLOUR, 1),
    ("animated PNG", "a.png", saved(picture(), save_all=True, append_images=[OTHER]), COLOUR, 0),
    ("animated WebP", "a.webp",
     saved(picture(), "WEBP", save_all=True, append_images=[OTHER], lossless=True), COLOUR, 0),
    ("TIFF of two pages", "a.tif", saved(picture(), "TIFF", save_all=True, append_images=[OTHER]), COLOUR, 0),
    *((f"EXIF orientation {o}", "a.png", saved(lying(o), exif=exif(o)), COLOUR, 0) for o in range(1, 9)),
    ("EXIF orientation of a JPEG", "a.jpg", saved(lying(6), "JPEG", quality=100, subsampling=0, exif=exif(6)),
     COLOUR, 8),
    ("EXIF orientation that is none", "a.png", saved(picture(), exif=exif(9)), COLOUR, 0),
    ("EXIF that is none", "a.jpg", saved(picture(), "JPEG", quality=100, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff"),
     COLOUR, 8),
    ("JPEG called PNG", "a.png", saved(picture(), "JPEG", quality=100, subsampling=0), COLOUR, 8),
    ("PNG called JPEG", "a.jpg", saved(picture()), COLOUR, 0),
    ("suffix in capitals", "A.PNG", saved(picture()), COLOUR, 0),
    ("BMP", "a.bmp", saved(picture(), "BMP"), COLOUR, 0),
    ("PPM", "a.ppm", saved(picture(), "PPM"), COLOUR, 0),
    ("PGM of text", "a.pgm", b"P2 # a comment\n2 2\n255\n10 20\n30 40\n",
     ((10,) * 3, (20,) * 3, (30,) * 3, (40,) * 3), 3),
    ("1×1 pixel", "a.png", saved(Image.new("RGB", (1, 1), RED)), (RED,) * 4, 0),
    ("20000 pixels high, 1 wide", "a.png", saved(Image.new("RGB", (1, 20_000), RED)), (RED,) * 4, 0),
    ("20000 pixels wide, 2 high", "a.png", saved(Image.new("RGB", (20_000, 2), BLUE)), (BLUE,) * 4, 0),
    ("9 million pixels", "a.jpg", saved(picture().resize((3000, 3000), Image.Resampling.NEAREST), "JPEG"), COLOUR, 8),
    ("bytes after the end", "a.png", saved(picture()) + b"\0" * 99, COLOUR, 0),
    ("a space in the name", "a b .png", saved(picture()), COLOUR, 0),
    ("a name in several scripts", "Фото 猫 🐈 é.png", saved(picture()), COLOUR, 0),
    ("a line end in the name", "a\nb.png", saved(picture()), COLOUR, 0),
    ("commas and quotes in the name", 'a,"b".png', saved(picture()), COLOUR, 0),
    ("markup in the name", "[red]a<b>&.png", saved(picture()), COLOUR, 0),
    ("a name of 255 bytes", "a" * 251 + ".png", saved(picture()), COLOUR, 0),
]  # fmt: skip

BROKEN = "cannot be read (⋯); repair or remove it"
REFUSED: list[tuple[str, str, bytes, str]] = [
    # (what, file, its bytes, what is said after "image: PATH ")
    ("no bytes", "a.png", b"", "is empty, 0 bytes; copy it again or remove it"),
    ("text", "a.png", b"not a picture", BROKEN),
    ("a web page, as a failed download leaves it", "a.jpg", b"<!DOCTYPE html><html><body>404", BROKEN),
    ("a drawing", "a.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', BROKEN),
    ("a program", "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
     "cannot be read (it is PostScript, a program); repair or remove it"),
    ("random bytes", "a.jpg", np.random.RandomState(1).bytes(500), BROKEN),
    ("truncated PNG", "a.png", saved(NOISE)[:-2000], BROKEN),
    ("truncated JPEG", "a.jpg", saved(NOISE, "JPEG")[:-900], BROKEN),
    ("truncated progressive JPEG", "a.jpg", saved(NOISE, "JPEG", progressive=True)[:-900], BROKEN),
    ("truncated GIF", "a.gif", saved(NOISE.quantize(64), "GIF")[:900], BROKEN),
    ("truncated BMP", "a.bmp", saved(NOISE, "BMP")[:-900], BROKEN),
    ("truncated TIFF", "a.tif", saved(NOISE, "TIFF")[:-900], BROKEN),
    ("truncated WebP", "a.webp", saved(NOISE, "WEBP")[:-900], BROKEN),
    ("truncated PPM", "a.ppm", saved(NOISE, "PPM")[:-900], BROKEN),
    ("a PNG's header alone", "a.png", saved(NOISE)[:33], BROKEN),
    ("a JPEG's header alone", "a.jpg", saved(NOISE, "JPEG")[:200], BROKEN),
    ("8 bytes of a PNG", "a.png", saved(NOISE)[:8], BROKEN),
    ("a wrong checksum", "a.png", png(8, 8, 8, 0, b"\0" * 72, crc=1), BROKEN),
    ("no width", "a.png", png(0, 8, 8, 0, b"\0" * 8), BROKEN),
    ("no height, PPM", "a.ppm", b"P6 8 0 255\n", BROKEN),
    ("floating-point", "a.tif", saved(of_grey(quadrants(0, 1, 1, 0, dtype=np.float32)), "TIFF"),
     "cannot be read (a floating-point image has no fixed range of values; save it with 8 or 16 bits); "
     "repair or remove it"),
    ("400 million pixels", "a.png", HUGE,
     "is too large (⋯400000000 pixels⋯); shrink it to at most 178,956,970 pixels or remove it"),
]  # fmt: skip


def no_file(kind: str, path: Path) -> None:
    """What is no file, at `path`."""
    if kind == "link to nothing":
        path.symlink_to("nowhere.png")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # its name may have 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)


NO_FILES = [
    ("link to nothing", "is a link to nothing; repair or remove it"),
    ("link to itself", BROKEN),
    ("pipe", "is no file but a directory, a pipe or a device; remove it"),
    ("socket", "is no file but a directory, a pipe or a device; remove it"),
    ("link to a device", "is no file but a directory, a pipe or a device; remove it"),
]


def pattern(message: str) -> str:
    return "(?s:.+)".join(map(re.escape, message.split("⋯")))


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """A folder of two classes of four images, no two alike."""
    random = np.random.RandomState(2)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            pixels = random.randint(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def scan(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    """(exit code, errors, warnings) of `lt-nas data check`; what it says on standard error fits them."""
    capsys.readouterr()
    code = cli.main(["data", "check", "--root", str(root)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    if not out:  # no classes to go through
        assert code == 2 and err.startswith("lt-nas: error: ")
        return code, [err[len("lt-nas: error: ") : -1]], []
    found = re.findall(r"^(error  |warning) (.*?)(?=\n(?:error  |warning) |\n\d+ classes, )", out, re.S | re.M)
    errors, warned = ([text for kind, text in found if kind.strip() == word] for word in ("error", "warning"))
    assert code == (2 if errors else 0) and len(errors) + len(warned) == len(found)
    said = f"lt-nas: error: root: a training on {root} would fail; {len(errors)} error(s), named above\n"
    assert err.endswith(said) if errors else not err
    return code, errors, warned


@pytest.mark.parametrize(
    ("file", "content", "corners", "off"), [row[1:] for row in PIXELS], ids=[row[0] for row in PIXELS]
)
def test_these_are_the_pixels(
    healthy: Path, capsys: pytest.CaptureFixture[str], file: str, content: bytes, corners: Corners, off: int
) -> None:
    path = healthy / "cat" / file
    path.write_bytes(content)
    (pixels,) = read_images([path], size=8, channels=3)
    found = pixels[:, [1, 1, 6, 6], [1, 6, 1, 6]].T
    assert (found - torch.tensor(corners)).abs().max() <= off, found
    (grey,) = read_images([path], size=8, channels=1)
    luma = torch.tensor([[round(float(np.dot(c, (0.299, 0.587, 0.114))))] for c in corners])
    assert (grey[:, [1, 1, 6, 6], [1, 6, 1, 6]].T - luma).abs().max() <= off + 1
    loaded = lt.data.load("folder", root=healthy, size=8, channels=3)
    sets = [images for images in (loaded.train, loaded.test) if f"cat/{file}" in images.files]
    (inside,) = (images.images[images.files.index(f"cat/{file}")] for images in sets)
    assert torch.equal(inside, pixels)
    loaded.write_manifest(healthy.parent / "manifest.csv")
    again = lt.data.from_manifest(healthy.parent / "manifest.csv", loaded)
    assert again["train"].files == loaded.train.files
    assert scan(healthy, capsys)[0] == 0


@pytest.mark.parametrize(("file", "content", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_this_is_the_message(
    healthy: Path, capsys: pytest.CaptureFixture[str], file: str, content: bytes, message: str
) -> None:
    (healthy / "cat" / file).write_bytes(content)
    is_refused(healthy, healthy / "cat" / file, message, capsys)


@pytest.mark.parametrize(("kind", "message"), NO_FILES)
def test_what_is_no_file(healthy: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str) -> None:
    no_file(kind, healthy / "cat" / "a.png")
    is_refused(healthy, healthy / "cat" / "a.png", message, capsys)


def is_refused(root: Path, path: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = pattern(f"image: {path} {message}")
    for read in (lambda: read_images([path], 8, 3), lambda: lt.data.load("folder", root=root, size=8, channels=3)):
        with pytest.raises(UserError) as caught:
            read()
        assert re.fullmatch(wanted, str(caught.value)), str(caught.value)
    code, errors, _ = scan(root, capsys)
    assert code == 2 and len(errors) == 1 and re.fullmatch(wanted, errors[0])


# ---- folders

Build = Callable[[Path], object]


def copy(top: Path, source: str, target: str) -> None:
    (top / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(top / source, top / target)


def parted(top: Path) -> None:
    """The same images as train/ and test/, three and one of each class."""
    for name in ("cat", "dog"):
        for i in range(4):
            target = top / ("test" if i == 3 else "train") / name
            target.mkdir(parents=True, exist_ok=True)
            (top / name / f"{i}.png").rename(target / f"{i}.png")
        (top / name).rmdir()


def then(*builds: Build) -> Build:
    """All of them, one after the other."""
    return lambda top: [build(top) for build in builds]


def remove(*names: str) -> Build:
    def build(top: Path) -> None:
        for name in names:
            path = top / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return build


BOTH = {"cat": 3, "dog": 3}
FOLDERS: list[tuple[str, Build, Mapping[str, int] | str, list[str]]] = [
    # (what, how the folder is made of a healthy one, training images of each class or the message, the warnings)
    ("healthy", lambda top: None, BOTH, []),
    ("healthy, in parts", parted, BOTH, []),
    ("folders within a class", lambda top: copy(top, "cat/0.png", "cat/more/yet/9.png"), {"cat": 4, "dog": 3},
     ["cat/0.png and cat/more/yet/9.png are the same file; one may be trained on and the other tested on"]),
    ("a folder called like an image", then(lambda top: (top / "cat/x.png").mkdir(),
     lambda top: (top / "cat/0.png").rename(top / "cat/x.png/0.png")), BOTH, []),
    ("hidden files and folders",
     lambda top: [copy(top, "cat/0.png", f"cat/{name}") for name in (".0.png", "._1.png", ".cache/2.png", "__M/3.png")],
     BOTH, []),
    ("files that are no images",
     lambda top: [(top / name).write_text("x") for name in ("cat/Thumbs.db", "dog/a.HEIC", "dog/b.heic", "dog/notes")],
     BOTH, ["1 file(s) that have no suffix are passed over, such as dog/notes",
            "1 file(s) that end in .db are passed over, such as cat/Thumbs.db",
            "2 file(s) that end in .heic are passed over, such as dog/a.HEIC"]),
    ("a file beside the classes", lambda top: (top / "readme.png").write_text("x"), BOTH, []),
    ("classes in several scripts",
     lambda top: [(top / "cat").rename(top / "猫 кот"), (top / "dog").rename(top / "d, g")],
     {"d, g": 3, "猫 кот": 3}, []),
    ("a class that is a link", lambda top: [(top / "cat").rename(top.parent / "away"),
     (top / "cat").symlink_to(top.parent / "away")], BOTH, []),
    ("a file that is a link", lambda top: [(top / "cat/0.png").rename(top.parent / "0.png"),
     (top / "cat/0.png").symlink_to(top.parent / "0.png")], BOTH, []),
    ("a link to the folder that it lies in", lambda top: (top / "cat/loop").symlink_to(".."), BOTH,
     ["cat/loop is a link to a folder, which is passed over"]),
    ("twice in a class", lambda top: copy(top, "cat/0.png", "cat/9.png"), {"cat": 4, "dog": 3},
     ["cat/0.png and cat/9.png are the same file; one may be trained on and the other tested on"]),
    ("twice in a class, in parts", then(parted, lambda top: copy(top, "train/cat/0.png", "train/cat/9.png")),
     {"cat": 4, "dog": 3}, ["train/cat/0.png and train/cat/9.png are the same file"]),
    ("three times", lambda top: [copy(top, "cat/0.png", f"cat/{i}.png") for i in (8, 9)], {"cat": 5, "dog": 3},
     [f"cat/0.png and cat/{i}.png are the same file; one may be trained on and the other tested on" for i in (8, 9)]),
    ("under two labels", lambda top: copy(top, "cat/0.png", "dog/9.png"), {"cat": 3, "dog": 4},
     ["cat/0.png and dog/9.png are the same file with two labels, 'cat' and 'dog'"]),
    ("in training and test", then(parted, lambda top: copy(top, "train/cat/0.png", "test/cat/9.png")), BOTH,
     ["train/cat/0.png and test/cat/9.png are the same file: a test image to train on"]),
    ("in training and test under two labels",
     then(parted, lambda top: copy(top, "train/cat/0.png", "test/dog/9.png")), BOTH,
     ["train/cat/0.png and test/dog/9.png are the same file: a test image to train on"]),
    ("an animation", lambda top: picture().save(top / "cat/9.png", save_all=True, append_images=[OTHER]),
     {"cat": 4, "dog": 3}, ["cat/9.png has 2 frames, of which the first is taken"]),
    ("a panorama", lambda top: NOISE.resize((64, 8)).save(top / "cat/9.png"), {"cat": 4, "dog": 3},
     ["cat/9.png has 64×8 pixels, of which the centre square is taken"]),
    ("other sizes and modes", lambda top: [NOISE.resize((9, 7)).convert("L").save(top / "cat/8.png"),
     NOISE.resize((5, 11)).quantize(9).save(top / "cat/9.png")], {"cat": 5, "dog": 3}, []),
    ("two images of a class", remove("dog/1.png", "dog/2.png"), {"cat": 3, "dog": 1},
     ["class 'dog' has 1 image to train on; a search that reads labels needs 2"]),
    ("one training image of a class", then(parted, remove("train/dog/1.png", "train/dog/2.png")),
     {"cat": 3, "dog": 1}, ["class 'dog' has 1 image to train on; a search that reads labels needs 2"]),
    ("one image of a class", remove("dog/1.png", "dog/2.png", "dog/3.png"),
     "images: class 'dog' has 1 image and there is no test set, so it would have none to train or none to test on; "
     "add images of it, leave it out, or give a test set", []),
    ("no images of a class", remove(*(f"dog/{i}.png" for i in range(4))),
     "root: class 'dog' has no images in {top}/dog; wanted files that end in ⋯; add some or remove the folder", []),
    ("hidden images alone", then(lambda top: copy(top, "dog/0.png", "eel/.0.png")),
     "root: class 'eel' has no images in {top}/eel; wanted files that end in ⋯; add some or remove the folder", []),
    ("a class without test images", then(parted, remove("test/dog")),
     "root: class 'dog' has no images in {top}/test/dog; wanted files that end in ⋯; add some or remove the folder",
     []),
    ("a class without training images", then(parted, lambda top: copy(top, "test/dog/3.png", "test/eel/0.png")),
     "root: class 'eel' is in {top}/test and not in {top}/train; both need the same classes", []),
    ("no classes", remove("cat", "dog"),
     "root: {top} has no sub-folders; wanted one a class: {top}/cat/1.jpg, …/dog/1.jpg", []),
    ("no training images", then(parted, remove("train")),
     "root: {top} has test but no train/ with a sub-folder a class in it", []),
    ("no folder", lambda top: shutil.rmtree(top),
     "root: {top} is not a directory; wanted one with a sub-folder of images a class", []),
    ("a file for a folder", lambda top: [shutil.rmtree(top), top.write_text("x")],
     "root: {top} is not a directory; wanted one with a sub-folder of images a class", []),
    ("a class that links to nothing", lambda top: (top / "eel").symlink_to("nowhere"),
     "root: {top}/eel is a link that leads nowhere (No such file or directory); repair or remove it", []),
    ("a class that links to itself", lambda top: (top / "eel").symlink_to("eel"),
     "root: {top}/eel is a link that leads nowhere (Too many levels of symbolic links); repair or remove it", []),
    ("a class that links to all classes", lambda top: (top / "eel").symlink_to(top),
     "root: {top}/eel is a link to {top}, which it lies in itself; remove it", []),
    ("a class that links to above all classes", lambda top: (top / "eel").symlink_to("../.."),
     "root: {top}/eel is a link to ⋯, which it lies in itself; remove it", []),
    ("a name that is no text", lambda top: (top / os.fsdecode(b"cat/caf\xe9.png")).write_bytes(saved(NOISE)),
     "images: the name of b'{top}/cat/caf\\xe9.png' is no UTF-8; rename it", []),
    ("a class whose name is no text", lambda top: (top / "cat").rename(top / os.fsdecode(b"caf\xe9")),
     "images: the name of b'{top}/caf\\xe9' is no UTF-8; rename it", []),
    ("an unreadable test image", then(parted, lambda top: (top / "test/dog/3.png").write_text("no image")),
     "image: {top}/test/dog/3.png cannot be read (⋯); repair or remove it", []),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected", "warned"), [row[1:] for row in FOLDERS], ids=[row[0] for row in FOLDERS])
def test_folders(
    healthy: Path,
    capsys: pytest.CaptureFixture[str],
    build: Build,
    expected: Mapping[str, int] | str,
    warned: list[str],
) -> None:
    build(healthy)
    code, errors, warnings = scan(healthy, capsys)
    assert warnings == warned
    if isinstance(expected, str):
        wanted = pattern(expected.replace("{top}", str(healthy)))
        with pytest.raises(UserError) as caught:
            lt.data.load("folder", root=healthy)
        assert re.fullmatch(wanted, str(caught.value)), str(caught.value)
        assert code == 2 and len(errors) == 1 and re.fullmatch(wanted, errors[0])
    else:
        loaded = lt.data.load("folder", root=healthy)
        assert code == 0 and dict(zip(loaded.class_names, loaded.counts, strict=True)) == expected


def test_a_folder_that_may_not_be_listed(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Permissions do not stop the superuser, whom tests may run as."""
    (healthy / "cat" / "more").mkdir()
    listed = os.scandir

    def scandir(path: str = ".") -> Iterator[os.DirEntry[str]]:
        if os.fspath(path).endswith("more"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return listed(path)  # type: ignore[return-value]

    monkeypatch.setattr(os, "scandir", scandir)
    message = f"images: cannot list {healthy}/cat/more: Permission denied"
    with pytest.raises(UserError, match=message):
        lt.data.load("folder", root=healthy)
    assert scan(healthy, capsys)[1] == [message]


def test_all_that_is_wrong_is_said_at_once(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parted(healthy)
    (healthy / "train/eel").mkdir()
    (healthy / "test/fox").mkdir()
    for name in ("train/cat/0.png", "train/dog/1.png", "test/dog/3.png"):
        (healthy / name).write_text("no image")
    copy(healthy, "train/cat/1.png", "test/cat/1.png")
    _, errors, warnings = scan(healthy, capsys)
    starts = [f"root: class 'eel' has no images in {healthy}/{part}/eel" for part in ("train", "test")]
    starts += [f"root: class 'fox' is in {healthy}/test"]
    starts += [
        f"image: {healthy}/{name} cannot be read" for name in ("train/cat/0.png", "train/dog/1.png", "test/dog/3.png")
    ]
    assert len(errors) == len(starts) and all(e.startswith(s) for e, s in zip(errors, starts, strict=True))
    assert warnings == ["train/cat/1.png and test/cat/1.png are the same file: a test image to train on"]


def test_the_reading_is_followed_and_leaves_everything_as_it_was(healthy: Path) -> None:
    before = {path: path.read_bytes() for path in healthy.rglob("*.png")}
    told: list[tuple[int, int]] = []
    found = check_folder(healthy, lambda done, total: told.append((done, total)))
    assert sorted(told) == [(i + 1, 8) for i in range(8)]
    assert (found.classes, found.images, found.findings, found.fatal) == (2, {"training": 8}, (), 0)
    assert {path: path.read_bytes() for path in healthy.rglob("*.png")} == before


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_damaged_bytes_end_in_pixels_or_in_a_message(tmp_path: Path, format: str) -> None:
    """Whatever Pillow makes of a damaged file, nothing but a `UserError` that names it comes out."""
    image = NOISE.resize((16, 16)).quantize(16) if format == "GIF" else NOISE.resize((16, 16))
    whole, random, path = saved(image, format), np.random.RandomState(3), tmp_path / "a.png"
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for place in random.randint(0, len(content), random.randint(1, 6)):
            content[place] = random.randint(256)
        path.write_bytes(bytes(content[: random.randint(1, len(content) + 1)] if random.rand() < 0.3 else content))
        try:
            assert read_images([path], 8, 3).shape == (1, 3, 8, 8)
        except UserError as error:
            assert str(error).startswith(f"image: {path} ")
            refused += 1
    assert refused


# ---- disks


@pytest.fixture
def workplace(tmp_path: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained network of a folder's images, and the directory to write to."""
    pictures = lt.data.load("folder", root=healthy)
    settings = RetrainSettings(epochs=1, batch_size=4, channels=2, layers=1, device="cpu")
    lt.engine.run_retrain("small-conv-net", pictures, settings, tmp_path / "run", progress=Silent())
    monkeypatch.chdir(tmp_path)
    return tmp_path


FOLDER = "--data folder --root pictures"
SMALL = "--epochs 2 --batch-size 4 --channels 2 --layers 1"
SEARCH = f"search --method darts {FOLDER} {SMALL} --nodes 1 --out new"
BASELINE = f"baseline small-conv-net {FOLDER} --epochs 2 --batch-size 4 --channels 2 --out new"
FULL = "No space left on device"
MAKE_ROOM = f"{FULL}. What was saved before is whole: make room, or the directory writable, and resume"
DISKS: list[tuple[str, str, str, str]] = [
    # (what, the command, the file that the disk has no room for, or /: it is read-only; the message)
    ("search, read-only", SEARCH, "/", "out: cannot write to new: Read-only file system"),
    ("search, full at its first file", SEARCH, "config.json", f"out: cannot write to new: {FULL}"),
    ("search, full at a checkpoint", SEARCH, "checkpoint.pt", f"out: cannot write new/checkpoint.pt: {MAKE_ROOM}"),
    ("search, full at its end", SEARCH, "genotype.json", f"out: cannot write new/genotype.json: {MAKE_ROOM}"),
    ("baseline, read-only", BASELINE, "/", "out: cannot write to new: Read-only file system"),
    ("baseline, full at the manifest", BASELINE, "manifest.csv",
     f"path: cannot write the manifest new/manifest.csv: {FULL}"),
    ("baseline, full at the history", BASELINE, "history.jsonl$",
     f"out: cannot write new/history.jsonl: {MAKE_ROOM}"),
    ("baseline, full at the weights", BASELINE, "model.pt", f"out: cannot write new/model.pt: {MAKE_ROOM}"),
    ("baseline, full at the figures", BASELINE, "metrics.json", f"out: cannot write new/metrics.json: {MAKE_ROOM}"),
    ("predict, full at the table", "predict run pictures --csv a.csv", "a.csv", f"csv: cannot write a.csv: {FULL}"),
    ("predict, full at the list", "predict run pictures --json a.json", "a.json", f"json: cannot write a.json: {FULL}"),
    ("export, full", "export run --out a.pt", "a", f"out: cannot write a.pt: {FULL}"),
    ("report, full", "report run --out a.html", "a.html", f"out: the report cannot be written to ⋯/a.html: {FULL}"),
    ("data describe, full", f"data describe {FOLDER} --out a.html", "a.html",
     f"out: the page cannot be written to ⋯/a.html: {FULL}"),
    ("reproduce losses, read-only", "reproduce losses --out new", "/",
     "out: cannot write to new: Read-only file system"),
    ("reproduce tabular, read-only", "reproduce tabular --out new", "/",
     "out: cannot write to new: Read-only file system"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "file", "message"), [row[1:] for row in DISKS], ids=[row[0] for row in DISKS])
def test_disks(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    file: str,
    message: str,
) -> None:
    capsys.readouterr()
    fail_at(monkeypatch, file)
    code = cli.main(shlex.split(words))
    _, err = capsys.readouterr()
    assert re.search(f"^lt-nas: error: {pattern(message)}$", err, re.M) and "Traceback" not in err, err
    assert code == 2


def fail_at(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """A disk that is read-only, or full as soon as a file that begins as `file` (a pattern) is opened to be written."""
    opened = io.open

    def open_(path: object, mode: str = "r", *more: object, **options: object) -> object:
        name = os.path.basename(os.fspath(path)) if isinstance(path, str | os.PathLike) else ""
        if re.match(file, name) and set(mode) & set("wax+"):
            return opened("/dev/full", mode, *more, **options)  # type: ignore[call-overload]
        return opened(path, mode, *more, **options)  # type: ignore[call-overload]

    def mkdir(path: object, *more: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    if file == "/":
        monkeypatch.setattr(os, "mkdir", mkdir)
    else:
        monkeypatch.setattr("builtins.open", open_)
        monkeypatch.setattr(io, "open", open_)


def write_too_much(follow: Follow) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_study_on_a_full_disk(tmp_path: Path) -> None:
    message = f"out: cannot write what cells, seed 0 found: {FULL}; the others are kept"
    with pytest.raises(UserError, match=message):
        run_queue([Job("cells, seed 0", write_too_much)], tmp_path, LocalCrew(1))


def test_a_run_on_a_full_disk_resumes(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = "search --method darts {} --seed 3 --out whole".format(f"{FOLDER} {SMALL} --nodes 1")
    assert cli.main(shlex.split(whole)) == 0
    with pytest.MonkeyPatch.context() as full:
        fail_at(full, "genotype.json")
        assert cli.main(shlex.split(whole.replace("out whole", "out new"))) == 2
    assert cli.main(shlex.split(whole.replace("out whole", "out new --resume"))) == 0
    assert (workplace / "new/genotype.json").read_text() == (workplace / "whole/genotype.json").read_text()


def test_a_full_disk_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from lt_nas_ext import commands

    def run(name: str, words: list[str]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results.json")

    monkeypatch.setattr(commands, "run", run)
    assert cli.main(["doctor"]) == 2
    said = f"lt-nas: error: cannot write results.json: {FULL}; what was saved before is whole\n"
    assert capsys.readouterr().err == said
