"""CIFAR through torchvision: only when asked for, and one clear error where torchvision is missing or does not fit."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import types
from importlib import metadata

import numpy as np
import pytest
import torch

from lt_nas_ext import data
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import subset_indices


class FakeCIFAR10:
    """The attributes of torchvision's class that are used, without a download: 20 images a class, 4 to test."""

    base_folder = "cifar-10-batches-py"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root, train=True, download=False):
        random = np.random.RandomState(train)
        self.targets = random.permutation(np.repeat(np.arange(10), 20 if train else 4)).tolist()
        self.data = random.randint(0, 256, (len(self.targets), 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def fake(monkeypatch):
    module = types.ModuleType("torchvision.datasets")
    module.CIFAR10 = FakeCIFAR10
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    return module


def test_pixels_names_and_the_canonical_choice(fake, tmp_path):
    cifar = data.load("cifar10", imbalance="exp", factor=0.1, root=tmp_path)
    whole = FakeCIFAR10(tmp_path, train=True)
    assert cifar.counts == (20, 15, 11, 9, 7, 5, 4, 3, 2, 2)
    assert (cifar.image_shape, cifar.views, cifar.augment) == ((3, 32, 32), "barlow-cifar", "cifar")
    assert cifar.class_names == FakeCIFAR10.classes
    expected = subset_indices(whole.targets, cifar.counts, seed=0)
    assert cifar.train.files == tuple(f"train/{i:05d}" for i in expected.tolist())
    np.testing.assert_array_equal(cifar.train.images.permute(0, 2, 3, 1).numpy(), whole.data[expected])


def test_the_default_folder_is_the_users_cache(fake, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(fake, "CIFAR10", lambda root, **options: seen.append(root) or FakeCIFAR10(root, **options))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data.load("cifar10")
    assert seen == [str(tmp_path / "lt_nas_ext")] * 2


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_no_download(fake, monkeypatch, tmp_path, error):
    class Offline(FakeCIFAR10):
        def __init__(self, *args, **options):
            raise error

    monkeypatch.setattr(fake, "CIFAR10", Offline)
    message = rf"cifar10 is not in .* could not be downloaded \({error}\); .*copy cifar-10-batches-py/ from another one"
    with pytest.raises(UserError, match=message):
        data.load("cifar10", root=tmp_path)


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
