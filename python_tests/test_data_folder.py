"""Any directory of images: layouts, every mode that Pillow reads, sizes, order, and what is wrong with a folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lt_nas_ext import data
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import class_counts, subset_indices


def paint(path, colour=(200, 100, 50), size=(12, 12), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)


@pytest.fixture
def plain(tmp_path):
    """Two classes of ten images, without train and test folders; image i of class c has the colour (10·i, c, 0)."""
    for c, name in enumerate(("cat", "dog")):
        for i in range(10):
            paint(tmp_path / name / f"img{i}.png", (10 * i, c, 0))
    return tmp_path


def test_a_folder_without_test_images_is_split_stratified(plain):
    found = data.load("folder", root=plain)
    assert found.class_names == ("cat", "dog")
    assert found.counts == (8, 8)
    assert found.test.counts(2) == (2, 2)
    assert not set(found.train.files) & set(found.test.files)
    assert sorted((*found.train.files, *found.test.files)) == sorted(
        f"{c}/img{i}.png" for c in found.class_names for i in range(10)
    )
    assert data.load("folder", root=plain, seed=5).test.files == found.test.files  # no seed changes the test set
    for file, image, label in zip(found.train.files, found.train.images, found.train.labels.tolist(), strict=True):
        assert image[:, 0, 0].tolist() == [10 * int(file[7:-4]), label, 0]


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation"])
def test_train_and_test_folders(tmp_path, held_out):
    for part, n in (("train", 3), (held_out, 2)):
        for name in ("a", "b"):
            for i in range(n):
                paint(tmp_path / part / name / f"{i}.png")
    found = data.load("folder", root=str(tmp_path))
    assert found.counts == (3, 3)
    assert found.test.counts(2) == (2, 2)
    assert found.test.files[0] == f"{held_out}/a/0.png"


def test_validation_beside_test_is_not_used_and_said_so(tmp_path):
    for part in ("train", "val", "test"):
        paint(tmp_path / part / "a" / "1.png")
        paint(tmp_path / part / "b" / "1.png")
    with pytest.warns(UserWarning, match="val/ not used; test/ is the test set"):
        found = data.load("folder", root=tmp_path)
    assert all(file.startswith("test/") for file in found.test.files)


def test_only_a_train_folder_and_a_class_called_train(tmp_path):
    for name in ("car", "train"):
        for i in range(5):
            paint(tmp_path / "toys" / name / f"{i}.png")
            paint(tmp_path / "parted" / "train" / name / f"{i}.png")
    assert data.load("folder", root=tmp_path / "toys").class_names == ("car", "train")
    parted = data.load("folder", root=tmp_path / "parted")
    assert parted.class_names == ("car", "train")
    assert (parted.counts, parted.test.counts(2)) == ((4, 4), (1, 1))


def test_natural_order_and_what_is_passed_over(tmp_path):
    for name in ("class10", "class2"):
        for i in (10, 9, 1):
            paint(tmp_path / "train" / name / f"{i}.JPG")
        paint(tmp_path / "train" / name / "deeper" / "0.png")
        paint(tmp_path / "train" / name / ".hidden.png")
        (tmp_path / "train" / name / "notes.txt").write_text("no image")
        paint(tmp_path / "test" / name / "1.png")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "__MACOSX").mkdir()
    source = data.load("folder", root=tmp_path, n_max=4)
    assert source.class_names == ("class2", "class10")
    in_order = sorted(source.train.subset([0, 1, 2, 3]).files)
    assert in_order == sorted(f"train/class2/{n}" for n in ("1.JPG", "9.JPG", "10.JPG", "deeper/0.png"))


def test_the_choice_of_images_follows_the_order_of_names(tmp_path):
    """File k of a class is image k of LDAM-DRW's selection: the recipe survives the way through a folder."""
    for c in range(3):
        for i in range(30):
            paint(tmp_path / "train" / f"class{c}" / f"{i:04d}.png", (c, i, 0), (4, 4))
        paint(tmp_path / "test" / f"class{c}" / "0000.png", (c, 0, 0), (4, 4))
    found = data.load("folder", root=tmp_path, imbalance="exp", factor=0.1, seed=0)
    counts = class_counts("exp", 0.1, 3, 30)
    assert found.counts == counts
    expected = subset_indices(torch.arange(3).repeat_interleave(30), counts, seed=0)
    assert found.train.images[:, 1, 0, 0].tolist() == (expected % 30).tolist()
    assert [int(file[-8:-4]) for file in found.train.files] == (expected % 30).tolist()


def test_manifest_of_a_folder(plain, tmp_path):
    found = data.load("folder", root=plain, imbalance="step", factor=0.5)
    found.write_manifest(tmp_path / "manifest.csv")
    again = data.from_manifest(tmp_path / "manifest.csv", "folder", root=plain)
    assert torch.equal(again["train"].images, found.train.images)
    assert again["test"].files == found.test.files


MODES = [
    ("palette.png", "P", {}, (200, 100, 50)),
    ("cmyk.jpg", "CMYK", {"quality": 100}, (200, 100, 50)),
    ("grey.png", "L", {}, (124, 124, 124)),
    ("colour.bmp", "RGB", {}, (200, 100, 50)),
    ("colour.webp", "RGB", {"lossless": True}, (200, 100, 50)),
    ("animation.gif", "P", {}, (200, 100, 50)),
    ("alpha.png", "RGBA", {}, (200, 100, 50)),
]


@pytest.mark.parametrize(("file", "mode", "options", "expected"), MODES)
def test_modes(tmp_path, file, mode, options, expected):
    image = Image.new("RGB", (9, 9), (200, 100, 50))
    if mode == "P":
        image = image.quantize(4)
    image.convert(mode).save(tmp_path / file, **options)
    (pixels,) = data.read_images([tmp_path / file], size=9, channels=3)
    assert pixels.dtype == torch.uint8
    np.testing.assert_allclose(pixels[:, 4, 4].numpy(), expected, atol=3)
    (grey,) = data.read_images([tmp_path / file], size=9, channels=1)
    assert abs(int(grey[0, 4, 4]) - 124) <= 3


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "b.png")
    Image.new("P", (4, 4), 0).save(tmp_path / "c.png", transparency=0)
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "d.png")
    corner = data.read_images([tmp_path / f"{n}.png" for n in "abcd"], 4, 1)[:, 0, 0, 0].tolist()
    assert corner == [255, 255, 255, 127]


def test_sixteen_bits_become_eight(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(ramp).save(tmp_path / "ramp.tif")
    for pixels in data.read_images([tmp_path / "ramp.png", tmp_path / "ramp.tif"], 16, 1):
        np.testing.assert_array_equal(pixels[0].numpy().ravel(), np.arange(256))


def test_exif_rotation(tmp_path):
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 4, 8))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise: then the upper half is
    image.save(tmp_path / "turned.png", exif=exif)
    (pixels,) = data.read_images([tmp_path / "turned.png"], 8, 1)
    assert (pixels[0, :4] == 255).all()
    assert (pixels[0, 4:] == 0).all()


def test_shorter_side_is_resized_and_the_centre_cut_out(tmp_path):
    wide = np.zeros((20, 60), dtype=np.uint8)
    wide[:, 20:40] = 255  # the centre square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.T.copy()).save(tmp_path / "high.png")
    for pixels in data.read_images([tmp_path / "wide.png", tmp_path / "high.png"], 10, 1):
        assert pixels.shape == (1, 10, 10)
        assert (pixels[0, 1:-1, 1:-1] == 255).all()


def test_large_photos_are_averaged_not_sampled(tmp_path):
    """A fine checkerboard becomes grey, also through the fast path of large JPEGs."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    for name in ("board.png", "board.jpg"):
        Image.fromarray(board).save(tmp_path / name)
        pixels = data.read_images([tmp_path / name], 16, 1)
        assert pixels.float().sub(127.5).abs().max() < 6


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(20, 20)] * 4, 20),  # alike and square: as they are
        ([(30, 50), (31, 40), (90, 33), (32, 500)], 32),  # median shorter side, to a multiple of 8
        ([(600, 500)] * 4, 224),
        ([(5, 3)] * 4, 8),
    ],
)
def test_default_size(tmp_path, sizes, expected):
    for i, size in enumerate(sizes):
        paint(tmp_path / "a" / f"{i}.png", size=size)
        paint(tmp_path / "b" / f"{i}.png", size=size)
    found = data.load("folder", root=tmp_path)
    assert found.image_shape == (3, expected, expected)
    assert found.views == ("barlow" if expected >= 64 else "barlow-cifar")
    assert data.load("folder", root=tmp_path, size=6).image_shape == (3, 6, 6)


def test_grey_where_all_are_grey(tmp_path):
    for name in ("a", "b"):
        for i in range(3):
            paint(tmp_path / name / f"{i}.png", mode="L")
    assert data.load("folder", root=tmp_path).image_shape[0] == 1
    assert data.load("folder", root=tmp_path, channels=3).image_shape[0] == 3
    paint(tmp_path / "a" / "colour.png")
    assert data.load("folder", root=tmp_path).image_shape[0] == 3
    assert data.load("folder", root=tmp_path, channels=1).image_shape[0] == 1


def test_natural_distribution_stays_and_exp_takes_the_most_that_fits(tmp_path):
    for name, n in (("a", 40), ("b", 60), ("c", 20)):
        for i in range(n):
            paint(tmp_path / "train" / name / f"{i}.png", size=(4, 4))
        paint(tmp_path / "test" / name / "0.png", size=(4, 4))
    assert data.load("folder", root=tmp_path).counts == (40, 60, 20)
    assert data.load("folder", root=tmp_path, imbalance="exp", factor=0.25).counts == (40, 20, 10)
    ordered = data.load("folder", root=tmp_path, imbalance="exp", factor=0.25, class_order=["b", "a", "c"])
    assert ordered.counts == (30, 60, 15)
    limited = data.load("folder", root=tmp_path, imbalance="step", factor=0.5, class_order=["c", "b", "a"])
    assert limited.counts == (10, 10, 20)


class TestBadFolders:
    def test_no_root(self):
        with pytest.raises(UserError, match="root: data='folder' needs the directory"):
            data.load("folder")

    def test_not_a_directory(self, tmp_path):
        with pytest.raises(UserError, match="none is not a directory"):
            data.load("folder", root=tmp_path / "none")

    def test_no_classes(self, tmp_path):
        paint(tmp_path / "1.png")
        with pytest.raises(UserError, match="has no sub-folders; wanted one a class"):
            data.load("folder", root=tmp_path)

    def test_a_class_without_images(self, plain):
        (plain / "eel").mkdir()
        (plain / "eel" / "readme.txt").write_text("soon")
        with pytest.raises(UserError, match="class 'eel' has no images"):
            data.load("folder", root=plain)

    def test_a_class_with_one_image(self, plain):
        paint(plain / "eel" / "1.png")
        with pytest.raises(UserError, match=r"class .eel. has 1 image and there is no test set"):
            data.load("folder", root=plain)

    def test_an_unreadable_image(self, plain):
        (plain / "cat" / "img3.png").write_bytes(b"not a picture")
        with pytest.raises(UserError, match=r"image: .*cat.img3\.png cannot be read"):
            data.load("folder", root=plain)

    def test_a_truncated_image(self, plain):
        path = plain / "cat" / "img3.png"
        Image.fromarray(np.random.RandomState(0).randint(0, 255, (12, 12, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UserError, match=r"image: .*img3\.png cannot be read"):
            data.load("folder", root=plain)

    def test_a_floating_point_image(self, tmp_path):
        Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "f.tif")
        with pytest.raises(UserError, match=r"f\.tif cannot be read \(a floating-point image has no fixed range"):
            data.read_images([tmp_path / "f.tif"], 4, 1)

    def test_a_missing_image(self, tmp_path):
        with pytest.raises(UserError, match=r"image: .*gone\.png is not there"):
            data.read_images([tmp_path / "gone.png"], 4, 1)

    def test_classes_that_differ(self, plain, tmp_path):
        top = tmp_path / "parted"
        for part, names in (("train", "ab"), ("test", "abc")):
            for name in names:
                paint(top / part / name / "1.png")
        with pytest.raises(UserError, match=r"class 'c' is in .*test and not in .*train"):
            data.load("folder", root=top)
        paint(top / "train" / "d" / "1.png")
        with pytest.raises(UserError, match="class 'd' has no images"):
            data.load("folder", root=top)

    def test_test_without_train(self, tmp_path):
        paint(tmp_path / "test" / "a" / "1.png")
        with pytest.raises(UserError, match="has test but no train/ with a sub-folder a class"):
            data.load("folder", root=tmp_path)

    def test_train_without_classes(self, tmp_path):
        paint(tmp_path / "train" / "1.png")
        paint(tmp_path / "test" / "a" / "1.png")
        with pytest.raises(UserError, match="but no train/ with a sub-folder a class"):
            data.load("folder", root=tmp_path)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"size": 0}, "size: got 0"), ({"size": 7.5}, "size: got 7.5"), ({"channels": 2}, "channels: got 2")],
    )
    def test_sizes_and_channels(self, plain, arguments, message):
        with pytest.raises(UserError, match=message):
            data.load("folder", root=plain, **arguments)

    def test_more_than_the_memory(self):
        with pytest.raises(UserError, match=r"size: .* need .* GiB, this machine has .*; give a size of at most"):
            data.read_images(["x.png"] * 10**6, 4096, 3)
