"""Digits, image sets, statistics, manifests: what `load` promises."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lt_nas_ext import data
from lt_nas_ext.data import ImageSet
from lt_nas_ext.errors import UserError

DIGITS_EXP = (130, 100, 77, 60, 46, 36, 28, 21, 16, 13)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", imbalance="exp", factor=0.1, seed=0)


def test_digits_at_factor_a_tenth(digits):
    assert digits.counts == DIGITS_EXP
    assert len(digits.train) == 527
    assert digits.test.counts(10) == (44,) * 10
    assert (digits.num_classes, digits.image_shape, digits.class_names) == (10, (1, 8, 8), tuple("0123456789"))
    assert (digits.views, digits.augment) == ("digits", "digits")
    assert set(digits.train.files).isdisjoint(digits.test.files)


def test_digits_are_scikit_learns_images(digits):
    pixels, labels = load_digits(return_X_y=True)
    for part in (digits.train, digits.test):
        number = [int(file.removeprefix("digits/")) for file in part.files]
        np.testing.assert_array_equal(part.images.flatten(1).numpy(), np.rint(pixels[number] * 255 / 16))
        np.testing.assert_array_equal(part.labels.numpy(), labels[number])
    assert digits.train.images.max() == 255


@pytest.mark.parametrize(
    ("imbalance", "factor", "counts"),
    [("balance", 1.0, (130,) * 10), ("step", 0.1, (130,) * 5 + (13,) * 5), ("exp", 1.0, (130,) * 10)],
)
def test_digits_distributions(imbalance, factor, counts):
    assert data.load("digits", imbalance=imbalance, factor=factor).counts == counts


def test_the_seed_chooses_training_images_and_never_test_images(digits):
    other = data.load("digits", imbalance="exp", factor=0.1, seed=1)
    assert other.counts == digits.counts
    assert other.train.files != digits.train.files
    assert other.test.files == digits.test.files
    assert data.load("digits", imbalance="exp", factor=0.1, seed=0).train.files == digits.train.files


@pytest.mark.parametrize("order", [list(range(9, -1, -1)), ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"]])
def test_class_order_says_who_is_the_tail(order):
    tail_first = data.load("digits", imbalance="exp", factor=0.1, class_order=order)
    assert tail_first.counts == DIGITS_EXP[::-1]
    assert tail_first.class_order == tuple(range(9, -1, -1))


def test_n_max_and_size():
    small = data.load("digits", imbalance="exp", factor=0.1, n_max=20, size=16)
    assert small.counts[0] == 20
    assert small.counts[-1] == 2
    assert small.image_shape == (1, 16, 16)
    assert data.load("digits", n_max=5).counts == (5,) * 10


def test_mean_and_std_are_those_of_the_long_tailed_training_set(digits):
    values = digits.train.images.double() / 255
    assert digits.mean == pytest.approx((values.mean().item(),))
    assert digits.std == pytest.approx((values.std(unbiased=False).item(),))
    normalized = data.normalize(digits.train.images, digits.mean, digits.std)
    assert abs(normalized.mean().item()) < 1e-5
    assert normalized.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    constant = replace(
        digits, train=ImageSet(torch.full((3, 1, 8, 8), 7, dtype=torch.uint8), torch.arange(3), ("a",) * 3)
    )
    assert constant.std == (1.0,)


def test_a_data_set_of_ours_is_cut_again(digits):
    balanced = data.load("digits")
    again = data.load(balanced, imbalance="exp", factor=0.1, seed=0)
    assert again.counts == digits.counts
    assert set(again.train.files) <= set(balanced.train.files)
    assert again.test.files == digits.test.files


def test_devices(digits):
    moved = digits.to("meta")
    assert moved.train.images.device.type == "meta"
    assert moved.test.files == digits.test.files


def test_the_title_is_what_results_say(digits):
    named = data.load(digits, title="digits at μ = 0.1")
    assert (named.name, named.describe().split(":")[0]) == ("digits", "digits at μ = 0.1")
    assert data.load(named, "step", 0.5).title == "digits at μ = 0.1"
    assert data.load(torch.utils.data.TensorDataset(digits.test.images, digits.test.labels), title="own").title == "own"
    assert digits.title is None


def test_manifest_reproduces_a_split(digits, tmp_path):
    weights, alpha = data.split(digits.train, 0.5, seed=3)
    splits = {"weights": weights, "alpha": alpha, "test": digits.test}
    digits.write_manifest(tmp_path / "manifest.csv", splits)
    with (tmp_path / "manifest.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["file", "label", "split"]
    assert len(rows) == 1 + 527 + 440
    for source in ("digits", digits):
        again = data.from_manifest(tmp_path / "manifest.csv", source)
        assert list(again) == list(splits)
        for name, images in splits.items():
            assert again[name].files == images.files
            assert torch.equal(again[name].images, images.images)
            assert torch.equal(again[name].labels, images.labels)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "starts with ''; a manifest starts with 'file,label,split'"),
        ("name,label\n", "starts with 'name,label'"),
        ("file,label,split\ndigits/0000,0\n", r"line 2: got \['digits/0000', '0'\]; wanted file,label,split"),
        ("file,label,split\ndigits/0000,zero,train\n", "line 2: got"),
        ("file,label,split\ncats/1.jpg,0,train\n", "names 'cats/1.jpg', which digits does not have"),
        ("file,label,split\n{file},5,train\n", "the label 5; in digits it is 0"),
    ],
)
def test_bad_manifests(digits, tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text.format(file=digits.train.files[0]))
    with pytest.raises(UserError, match=message):
        data.from_manifest(tmp_path / "m.csv", digits)


def test_manifest_paths(digits, tmp_path):
    with pytest.raises(UserError, match="cannot read the manifest"):
        data.from_manifest(tmp_path / "none.csv", digits)
    with pytest.raises(UserError, match="cannot write the manifest"):
        digits.write_manifest(tmp_path / "none" / "m.csv")


def test_image_set():
    images = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    three = ImageSet(images, torch.tensor([2, 0, 2]), ("a", "b", "c"))
    assert three.counts(4) == (1, 0, 2, 0)
    assert three.subset(torch.tensor([2, 0])).files == ("c", "a")
    assert torch.equal(three.subset([1]).images, images[1:2])
    assert len(three.subset([])) == 0
    assert repr(three) == "ImageSet(3 images, 1×8×8, cpu)"


IMAGES, TWO = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: data.load("digit"),
            "data: got 'digit'; wanted one of digits, cifar10, cifar100, folder, .*bloodmnist, .* or a Dataset",
        ),
        (lambda: data.load("."), r"data: got '\.'; .* for a directory: data='folder', root='\.'"),
        (lambda: data.load("digits", imbalance="exp", factor=2), "factor: got 2"),
        (
            lambda: data.load("digits", imbalance="exp", factor=0.001),
            "factor: 0.001 of n_max=130 leaves the last class",
        ),
        (lambda: data.load("digits", factor=0.1), "factor: 0.1 has no effect with imbalance='balance'"),
        (lambda: data.load("digits", imbalance="long"), "imbalance: got 'long'"),
        (lambda: data.load("digits", seed=-3), "seed: got -3"),
        (lambda: data.load("digits", size=2), "size: got 2; wanted the side"),
        (lambda: data.load("digits", title=" "), "title: got ' '; wanted what results shall call it"),
        (lambda: data.load("digits", title=3), "title: got 3; wanted what results shall call it"),
        (
            lambda: data.load("digits", n_max=131),
            "n_max: 131 images of the head class ask for more of '0' than its 130",
        ),
        (lambda: data.load("digits", channels=3), "channels: got 3 for digits; it is for data='folder' only"),
        (lambda: data.load("digits", class_order=[0, 1]), "class_order: got .* a permutation of 0 … 9"),
        (lambda: data.load("digits", class_order=["ten"]), "class_order: no class is called 'ten'"),
        (lambda: ImageSet(IMAGES.float(), TWO, ("a", "b")), "images: got torch.float32 of shape"),
        (lambda: ImageSet(IMAGES.expand(2, 2, 8, 8), TWO, ("a", "b")), r"wanted uint8 \(N, C, H, W\) with C = 1 or 3"),
        (lambda: ImageSet(IMAGES, TWO[:1], ("a", "b")), "labels, files: got"),
        (lambda: ImageSet(IMAGES, TWO, ("a",)), "1 files for 2 images"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
