"""MedMNIST through a stand-in for its package, which reads and checks files as the real one does."""

from __future__ import annotations

import hashlib
import os
import sys
import types

import numpy as np
import pytest

from lt_nas_ext import data
from lt_nas_ext.commands.images import DataOptions, data_of_run
from lt_nas_ext.data.medmnist import MEDMNIST
from lt_nas_ext.engine import RetrainSettings, run_retrain
from lt_nas_ext.errors import UserError

COUNTS = {"bloodmnist": (3, (30, 12, 5)), "breastmnist": (1, (7, 20))}


class Stand:
    """The package's class of one set: an npz of images and (N, 1) labels, checked by md5 and never to be downloaded."""

    flag = ""

    def __init__(self, split, download=False, root=None):
        if not os.path.exists(root):
            raise RuntimeError("Failed to setup the default `root` directory.")
        file = os.path.join(root, f"{self.flag}.npz")
        if download and not (os.path.exists(file) and digest(file) == INFO[self.flag]["MD5"]):
            raise RuntimeError("\n  Automatic download failed! Please download the npz file manually.\n  1. ...")
        content = np.load(file)
        self.imgs, self.labels = content[f"{split}_images"], content[f"{split}_labels"]


class BloodMNIST(Stand):
    flag = "bloodmnist"


class BreastMNIST(Stand):
    flag = "breastmnist"


INFO = {
    "bloodmnist": {"python_class": "BloodMNIST", "label": {"0": "basophil", "1": "monocyte", "2": "platelet"}},
    "breastmnist": {"python_class": "BreastMNIST", "label": {"0": "malignant", "1": "normal, benign"}},
}


def digest(file):
    with open(file, "rb") as stream:
        return hashlib.md5(stream.read()).hexdigest()


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("medmnist")
    module.INFO, module.BloodMNIST, module.BreastMNIST, module.PathMNIST = INFO, BloodMNIST, BreastMNIST, Stand
    monkeypatch.setitem(sys.modules, "medmnist", module)


@pytest.fixture
def root(package, tmp_path):
    """Both sets, small."""
    random = np.random.RandomState(0)
    for name, (channels, counts) in COUNTS.items():
        shape = (28, 28, 3) if channels == 3 else (28, 28)
        arrays = {}
        for split in ("train", "val", "test"):
            labels = random.permutation(np.repeat(np.arange(len(counts)), counts))[:, None].astype(np.uint8)
            arrays[f"{split}_images"] = random.randint(0, 256, (len(labels), *shape), dtype=np.uint8)
            arrays[f"{split}_labels"] = labels
        np.savez(tmp_path / f"{name}.npz", **arrays)
        INFO[name]["MD5"] = digest(tmp_path / f"{name}.npz")
    return tmp_path


def test_a_set_in_colour_as_it_is(root):
    blood = data.load("bloodmnist", root=root)
    assert (blood.name, blood.image_shape, blood.counts) == ("bloodmnist", (3, 28, 28), (30, 12, 5))
    assert blood.class_names == ("basophil", "monocyte", "platelet")
    assert blood.test.counts(3) == (30, 12, 5)
    stored = np.load(root / "bloodmnist.npz")
    for part, images in (("train", blood.train), ("test", blood.test)):
        rows = [int(file.removeprefix(f"{part}/")) for file in images.files]
        np.testing.assert_array_equal(images.images.permute(0, 2, 3, 1), stored[f"{part}_images"][rows])
        np.testing.assert_array_equal(images.labels, stored[f"{part}_labels"][rows, 0])


def test_a_grey_set_with_a_longer_tail(root):
    breast = data.load("breastmnist", "exp", 0.25, root=root, class_order=["normal, benign", "malignant"])
    assert (breast.image_shape, breast.counts) == ((1, 28, 28), (5, 20))


def test_a_run_finds_its_set_again(root):
    images = DataOptions("bloodmnist", "step", 0.1, n_max=10, root=root).load()
    run_retrain("small-conv-net", images, RetrainSettings(epochs=1, channels=2, device="cpu"), root / "run")
    assert data_of_run(root / "run").train.files == images.train.files


def test_offline(package, tmp_path, caplog):
    caplog.set_level("INFO", "lt_nas_ext")
    message = (
        r"bloodmnist is not in .* could not be downloaded \(Automatic download failed! Please .* manually\.\); on a"
    )
    with pytest.raises(UserError, match=message):
        data.load("bloodmnist", root=tmp_path)
    assert caplog.messages == [f"downloading bloodmnist into {tmp_path}"]


def test_half_of_it_offline(root):
    whole = (root / "bloodmnist.npz").read_bytes()
    (root / "bloodmnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"data: .*/bloodmnist\.npz is not whole and could not be downloaded"):
        data.load("bloodmnist", root=root)


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"root: .*/gone is not a directory; wanted the one that holds bloodmnist\.npz"):
        data.load("bloodmnist", root=tmp_path / "gone")


def test_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(UserError, match=r"medmnist, which is not installed; pip install 'lt_nas_ext\[medmnist\]'"):
        data.load("pathmnist", root=tmp_path)


def test_installed_without_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "medmnist", types.ModuleType("medmnist"))
    with pytest.raises(UserError, match="medmnist lacks packages that it needs"):
        data.load("pathmnist", root=tmp_path)


@pytest.mark.parametrize("name", ["medmnist", "chestmnist", "organmnist3d"])
def test_what_is_no_set_of_images_with_one_label(name):
    with pytest.raises(UserError, match=f"got '{name}'; wanted one of .*{', '.join(MEDMNIST)}, or a Dataset"):
        data.load(name)
