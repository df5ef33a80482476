"""CIFAR through torchvision: only when asked for, and one clear error where torchvision is missing or does not fit."""

from __future__ import annotations

import hashlib
import importlib.machinery
import pickle
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from lt_nas_ext import data
from lt_nas_ext.errors import UserError


class FakeCIFAR10:
    """What is used of torchvision's class, with its way of checking and downloading: 20 images a class, 4 to test."""

    base_folder, filename = "cifar-10-batches-py", "cifar-10-python.tar.gz"
    train_list = tuple((name, hashlib.md5(name.encode()).hexdigest()) for name in ("data_batch_1", "data_batch_2"))
    test_list = (("test_batch", hashlib.md5(b"test_batch").hexdigest()),)
    meta: ClassVar = {"filename": "batches.meta", "md5": hashlib.md5(b"batches.meta").hexdigest()}
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    online, per_class, side = True, (4, 20), 32

    def __init__(self, root, train=True, download=False):
        self.base = Path(root) / self.base_folder
        if download and not self.whole():
            self.download()
        if not self.whole():
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        random = np.random.RandomState(train)
        self.targets = random.permutation(np.repeat(np.arange(10), self.per_class[train])).tolist()
        self.data = random.randint(0, 256, (len(self.targets), self.side, self.side, 3), dtype=np.uint8)

    @classmethod
    def names(cls):
        return [*(name for name, _ in cls.train_list + cls.test_list), cls.meta["filename"]]

    def whole(self):
        return all((self.base / n).is_file() and (self.base / n).read_text() == n for n in self.names())

    def download(self):
        if not self.online:
            raise OSError("no route to host")
        self.base.mkdir(exist_ok=True)
        for name in self.names():
            (self.base / name).write_text(name)


class FakeCIFAR100(FakeCIFAR10):
    base_folder, filename = "cifar-100-python", "cifar-100-python.tar.gz"
    meta: ClassVar = {"filename": "meta", "md5": hashlib.md5(b"meta").hexdigest()}


@pytest.fixture
def fake(monkeypatch, tmp_path):
    module = types.ModuleType("torchvision.datasets")
    module.CIFAR10, module.CIFAR100 = FakeCIFAR10, FakeCIFAR100
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return module


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(FakeCIFAR10, "online", False)


def test_pixels_and_names(fake, root):
    cifar = data.load("cifar10", imbalance="exp", factor=0.1, root=root)
    whole = FakeCIFAR10(root, train=True)
    assert cifar.counts == (20, 15, 11, 9, 7, 5, 4, 3, 2, 2)
    assert (cifar.image_shape, cifar.views, cifar.augment) == ((3, 32, 32), "barlow-cifar", "cifar")
    assert cifar.class_names == FakeCIFAR10.classes
    chosen = [int(file.removeprefix("train/")) for file in cifar.train.files]
    np.testing.assert_array_equal(cifar.train.images.permute(0, 2, 3, 1).numpy(), whole.data[chosen])


@pytest.mark.parametrize(("imbalance", "factor"), [("exp", 0.01), ("exp", 0.1), ("step", 0.02)])
def test_the_canonical_images_are_those_of_the_recipe(fake, monkeypatch, root, imbalance, factor):
    """All 50 000 training images, of one pixel each: seed 0 chooses what LDAM-DRW's few lines choose."""
    monkeypatch.setattr(FakeCIFAR10, "per_class", (4, 5000))
    monkeypatch.setattr(FakeCIFAR10, "side", 1)
    cifar = data.load("cifar10", imbalance=imbalance, factor=factor, root=root)
    targets, recipe = np.array(FakeCIFAR10(root, train=True).targets), []
    np.random.seed(0)
    for c in range(10):
        tail = c / 9 if imbalance == "exp" else c // 5
        members = np.where(targets == c)[0]
        np.random.shuffle(members)
        recipe += [f"train/{i:05d}" for i in members[: int(5000 * factor**tail)]]
    assert list(cifar.train.files) == recipe


def test_it_is_downloaded_once_into_the_users_cache(fake, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "lt_nas_ext")
    data.load("cifar10")
    assert caplog.messages == [f"downloading cifar10 into {tmp_path / 'cache' / 'lt_nas_ext'}"]
    monkeypatch.setattr(FakeCIFAR10, "online", False)
    data.load("cifar10")
    assert len(caplog.messages) == 1
    monkeypatch.setattr(FakeCIFAR10, "online", True)
    assert data.load("cifar100").name == "cifar100"  # beside the other one: the cache is ours


def test_a_download_that_was_cut_off_is_made_again(fake, root):
    (root / "cifar-10-python.tar.gz").write_text("half")
    assert len(data.load("cifar10", root=root).train) == 200
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    assert len(data.load("cifar10", root=root).train) == 200


def test_offline(fake, offline, root):
    message = (
        r"data: cifar10 is not in .*/data and could not be downloaded \(no route to host\); .*copy cifar-10-batches-"
    )
    with pytest.raises(UserError, match=message):
        data.load("cifar10", root=root)


def test_half_of_it_offline(fake, root, monkeypatch):
    FakeCIFAR10(root, download=True)
    monkeypatch.setattr(FakeCIFAR10, "online", False)
    (root / "cifar-10-batches-py" / "data_batch_2").write_text("half")
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    message = (
        r"data/cifar-10-batches-py is not whole \(data_batch_2 is damaged, test_batch is missing\) and cifar10 could"
    )
    with pytest.raises(UserError, match=message):
        data.load("cifar10", root=root)


def test_a_directory_that_is_not_there_is_not_made(fake, root):
    with pytest.raises(
        UserError, match=r"root: .*/gone is not a directory; wanted the one that holds cifar-10-batches-py"
    ):
        data.load("cifar10", root=root / "gone")
    assert not (root / "gone").exists()


def test_a_directory_of_another_set(fake, root):
    FakeCIFAR100(root, download=True)
    with pytest.raises(UserError, match="data holds cifar-100-python and no cifar-10-batches-py; wanted"):
        data.load("cifar10", root=root)
    with pytest.raises(UserError, match=r"cifar-100-python is the set's own folder; wanted the .*: .*/data$"):
        data.load("cifar100", root=root / "cifar-100-python")
    for name in "abcd":
        (root / "pictures" / name).mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"pictures holds a, b, c, … and no cifar-10-batches-py; .* are data='folder'\)"
    ):
        data.load("cifar10", root=root / "pictures")
    assert not (root / "cifar-10-batches-py").exists()


def test_torchvisions_own_class(root, monkeypatch):
    """torchvision's own loader over a set of its format, made tiny; its checks find a byte that changed."""
    datasets = pytest.importorskip("torchvision.datasets")
    base = root / "cifar-10-batches-py"
    base.mkdir()
    random = np.random.RandomState(0)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = random.randint(0, 256, (20, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(20)]}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(FakeCIFAR10.classes)}))
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in base.iterdir()}
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(datasets.CIFAR10, part, [[n, md5[n]] for n, _ in getattr(datasets.CIFAR10, part)])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5["batches.meta"]})
    cifar = data.load("cifar10", root=root)
    assert (cifar.counts, len(cifar.test), cifar.class_names) == ((10,) * 10, 20, FakeCIFAR10.classes)
    stored = pickle.loads((base / "test_batch").read_bytes())["data"]
    np.testing.assert_array_equal(
        cifar.test.images.flatten(1).numpy(), stored[[int(f.removeprefix("test/")) for f in cifar.test.files]]
    )

    def unreachable(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
    (base / "data_batch_3").write_bytes(b"half")
    with pytest.raises(UserError, match=r"not whole \(data_batch_3 is damaged\) .*\(no route to host\)"):
        data.load("cifar10", root=root)


class Broken:
    """A finder for torchvision whose import fails as a build for another PyTorch does."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] == "torchvision" else None

    def create_module(self, spec):
        raise self.error

    def exec_module(self, module):
        raise self.error


@pytest.fixture
def no_torchvision(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("error", "requirement"),
    [
        (RuntimeError("operator torchvision::nms does not exist\nmore lines"), "torch==1.12.1"),
        (ImportError("undefined symbol: _ZN3c10"), "torch (==1.12.1)"),
        (OSError("libtorch.so: cannot open shared object file"), "torch==1.12.1 ; python_version > '3'"),
    ],
)
def test_a_torchvision_of_another_pytorch_is_named_with_both_versions(no_torchvision, monkeypatch, error, requirement):
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    monkeypatch.setattr(metadata, "version", lambda package: "0.13.1")
    monkeypatch.setattr(metadata, "requires", lambda package: ["numpy", requirement])
    with pytest.raises(UserError) as caught:
        data.load("cifar100")
    message = str(caught.value)
    assert "torchvision 0.13.1 does not fit the running PyTorch " + torch.__version__ in message
    assert "(it was built for torch 1.12.1)" in message
    assert str(error).splitlines()[0] in message
    assert "\n" not in message


def test_no_torchvision(no_torchvision, monkeypatch):
    error = ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    with pytest.raises(UserError, match=r"not installed; pip install 'lt_nas_ext\[vision\]'"):
        data.load("cifar10")


def test_nothing_else_imports_torchvision(tmp_path):
    code = (
        "import sys, lt_nas_ext.data as data, lt_nas_ext.longtail; data.load('digits'); data.two_views('barlow');"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'torchvision']"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path)
