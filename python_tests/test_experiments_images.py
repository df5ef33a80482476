"""What a scale leaves of a data set, and what results call it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lt_nas_ext import data
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import images as lt_images
from lt_nas_ext.experiments.images import CIFAR10, DISTRIBUTIONS, survey


def write_folder(root: Path, classes: list[str], per_class: int, suffix: str, **options: int) -> Path:
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(per_class):
                pixels = random.randint(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i:04d}{suffix}", **options)
    return root


def test_the_scale_takes_a_share_of_each_class() -> None:
    names = ["balance", "exp-0.1"]
    whole = survey("digits", None, 1.0, names)
    for name in names:
        chosen = DISTRIBUTIONS[name]
        expected = data.load("digits", chosen.imbalance, chosen.factor, seed=3)
        found = whole.load(name, 3)
        assert whole.counts[name] == found.counts == expected.counts and found.train.files == expected.train.files
        assert found.test.files == expected.test.files
    half = survey("digits", None, 0.5, names)
    assert (max(half.counts["balance"]), max(half.counts["exp-0.1"]), half.test) == (65, 65, 22)
    found = half.load("exp-0.1", 0)
    assert found.counts == half.counts["exp-0.1"] and found.test.counts(10) == (22,) * 10
    assert set(found.test.files) < set(whole.load("exp-0.1", 0).test.files)
    least = survey("digits", None, 0.001, ["balance"])
    assert (least.counts["balance"], least.test) == ((10,) * 10, 10)
    assert half.figure_6 == whole.figure_6 and [*half.figure_6] == [*DISTRIBUTIONS]
    assert half.figure_6["exp-0.01"][::9] == (130, 1)  # for the picture alone: nothing is searched on it


def test_what_results_call_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not survey("digits", None, 1.0, ["balance"]).of_cifar10
    monkeypatch.setattr(lt_images, "CIFAR10_IMAGES", 20)
    for suffix, options, title in (
        (".jpg", {"quality": 75}, "CIFAR-10 JPEG-Q75"),
        (".jpg", {"quality": 90}, "CIFAR-10 JPEG-Q90"),
        (".png", {}, "CIFAR-10"),
    ):
        root = write_folder(tmp_path / title, CIFAR10, 20, suffix, **options)
        found = survey("folder", root, 1.0, ["exp-0.1"])
        assert (found.title, found.of_cifar10) == (title, True)
        assert found.load("exp-0.1", 0).title == title and found.load("exp-0.1", 0).root == str(root)
    pets = survey("folder", write_folder(tmp_path / "pets", ["cat", "dog"], 20, ".png"), 1.0, ["balance"])
    assert (pets.title, pets.of_cifar10) == ("folder pets", False)


def test_a_folder_without_a_test_set_gives_a_fifth(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", ["cat", "dog"], 30, ".png") / "train"
    found = survey("folder", root, 0.5, ["balance"])
    assert found.counts["balance"] == (12, 12) and found.load("balance", 0).test.counts(2) == (6, 6)


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(UserError, match="root: data='folder' needs the directory"):
        survey("folder", None, 1.0, ["balance"])
