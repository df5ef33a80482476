"""The page of a data set: counts, groups, contact sheets, and no file of anyone's written over."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import tiny_data

from lt_nas_ext.data import Dataset, ImageSet, load
from lt_nas_ext.errors import UserError
from lt_nas_ext.report.contact_sheet import samples, views
from lt_nas_ext.report.data_page import render, write_data_page


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", "exp", 0.1)


def pixels(png: str) -> np.ndarray:
    head, content = png.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def constant(values: dict[int, int], side: int = 8, classes: int = 2) -> Dataset:
    """A data set of one-coloured images: grey level `values[i]` of image i, whose label is i modulo `classes`."""
    labels = torch.tensor([i % classes for i in values])
    levels = torch.tensor(list(values.values()), dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, side, side).contiguous()
    part = ImageSet(images, labels, tuple(map(str, values)))
    return Dataset("grey", part, part, tuple(f"class {c}" for c in range(classes)), views="digits")


def test_samples_are_the_first_images_of_each_class() -> None:
    strips = samples(constant({0: 10, 1: 200, 2: 30, 4: 50}))
    assert [(s.title, s.note) for s in strips] == [("class 0", "3"), ("class 1", "1")]
    row = pixels(strips[0].png)
    assert row.shape == (56, 3 * 56 + 2 * 4, 3)  # 8 pixels are magnified to 56, with gaps of 4
    assert [row[5, x, 0] for x in (5, 58, 65, 125)] == [10, 255, 30, 50]


@pytest.mark.parametrize(("side", "shown"), [(8, 56), (28, 56), (32, 64), (64, 64), (224, 96)])
def test_sizes(side: int, shown: int) -> None:
    assert pixels(samples(constant({0: 1, 1: 2}, side))[0].png).shape == (shown, shown, 3)


def test_views_are_two_draws_of_each_image(digits: Dataset) -> None:
    image, a, b = views(digits)
    rows = [pixels(strip.png) for strip in (image, a, b)]
    assert rows[0].shape == rows[1].shape == (56, 10 * 60 - 4, 3)
    assert not np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[1], rows[2])
    assert views(digits)[2].png == b.png  # the same draws again
    first = digits.train.images[digits.train.labels == 3][0, 0]  # the fourth column is of the fourth class
    np.testing.assert_array_equal(rows[0][3:56:7, 183:236:7, 0], first.numpy())


def test_of_very_many_classes_both_ends_are_shown() -> None:
    strips = samples(constant({i: 0 for i in range(120)}, 4, classes=120))
    assert len(strips) == 100 and strips[49].title == "class 49" and strips[50].title == "class 70"
    page = render(constant({i: 0 for i in range(120)}, 4, classes=120))
    assert "20 classes between are left out" in page


def test_the_page(digits: Dataset, tmp_path: Path) -> None:
    path = write_data_page(replace(digits, title="<digits>"), tmp_path / "new" / "digits.html")
    page = path.read_text()
    assert "<h1>&lt;digits&gt;</h1>" in page and "527 images (130 … 13 a class, imbalance ratio 10)" in page
    rows = [re.findall(r">([^<]*)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", page)]
    assert [row[:4] for row in rows] == [
        ["many", "1", "130", "44"],
        ["medium", "7", "368", "308"],
        ["few", "2", "29", "88"],
        ["first", "3", "307", "132"],
        ["middle", "4", "170", "176"],
        ["last", "3", "50", "132"],
    ]
    assert page.count("<img ") == 10 + 3 and "<svg" in page and "<script" not in page
    assert all(src.startswith("data:image/png;base64,") for src in re.findall(r'src="([^"]*)"', page))


def test_it_writes_over_its_own_pages_only(digits: Dataset, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_data_page(digits, page)
    write_data_page(tiny_data(), page)
    assert "<h1>tiny</h1>" in page.read_text()
    page.write_text("<h1>mine</h1>")
    with pytest.raises(UserError, match=r"page\.html is there and is no page of data describe; wanted another name"):
        write_data_page(digits, page)
    assert page.read_text() == "<h1>mine</h1>"


def test_paths_that_cannot_be_written(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    for path, message in (
        ("page.png", r"out: got page\.png; wanted a page to write, a name that ends in \.html"),
        ("file/page.html", "out: the page cannot be written"),
        ("folder.html", "is there and is no page of data describe"),
    ):
        with pytest.raises(UserError, match=message):
            write_data_page(digits, tmp_path / path)
