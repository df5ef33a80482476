"""A user's own PyTorch Dataset, of Pillow images, arrays or tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from lt_nas_ext import data
from lt_nas_ext.errors import UserError


class Own(Dataset):
    """Items as given; `classes` where names are."""

    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


PIXELS = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 3), dtype=np.uint8)
FORMS = {
    "pillow": lambda p: Image.fromarray(p),
    "array": lambda p: p,
    "uint8 tensor": lambda p: torch.from_numpy(p).permute(2, 0, 1),
    "float tensor": lambda p: torch.from_numpy(p).permute(2, 0, 1) / 255,
    "double tensor": lambda p: torch.from_numpy(p).permute(2, 0, 1).double() / 255,
}


def items(form=FORMS["array"], classes=2, pixels=PIXELS):
    return [(form(p), i % classes) for i, p in enumerate(pixels)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(form):
    own = data.from_dataset(Own(items(FORMS[form])), Own(items(FORMS[form])), class_names=["cat", "dog"])
    np.testing.assert_array_equal(own.test.images.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert own.test.labels.tolist() == [0, 1] * 10
    assert (own.name, own.class_names, own.counts) == ("own", ("cat", "dog"), (10, 10))
    assert own.test.files[:2] == ("test/00000", "test/00001")


@pytest.mark.parametrize("label", [np.int64(1), torch.tensor(1), 1])
def test_forms_of_labels(label):
    own = data.from_dataset(Own([(PIXELS[0], 0), (PIXELS[1], label)]), Own([(PIXELS[0], 0), (PIXELS[1], label)]))
    assert own.train.labels.sort().values.tolist() == [0, 1]


def test_grey_images_and_arrays():
    grey = [(Image.fromarray(p[..., 0]), i % 2) for i, p in enumerate(PIXELS)]
    assert data.from_dataset(Own(grey)).image_shape == (1, 8, 8)
    mixed = [*grey, *items()]
    assert data.from_dataset(Own(mixed)).image_shape == (3, 8, 8)
    assert data.from_dataset(Own([(p[..., 0], i % 2) for i, p in enumerate(PIXELS)])).image_shape == (1, 8, 8)


def test_without_test_set_a_fifth_is_split_off():
    own = data.from_dataset(Own(items(), classes=["a", "b"]), imbalance="exp", factor=0.5, seed=1)
    assert own.class_names == ("a", "b")
    assert own.counts == (8, 4)
    assert own.test.counts(2) == (2, 2)
    assert set(own.train.files).isdisjoint(own.test.files)


def test_load_takes_a_dataset():
    assert data.load(Own(items()), imbalance="step", factor=0.25).counts == (8, 2)


def test_several_sizes_need_size():
    odd = [*items(), (np.zeros((10, 12, 3), np.uint8), 0)]
    with pytest.raises(UserError, match="train: images of several sizes, such as 8×8 and 10×12; give size="):
        data.from_dataset(Own(odd))
    assert data.from_dataset(Own(odd), size=8).image_shape == (3, 8, 8)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(items())


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (Own([]), {}, "train: the Dataset is empty"),
        (Stream(), {}, "train: got Stream; wanted a Dataset with a length"),
        (Own([PIXELS[0]]), {}, r"train\[0\]: got ndarray; wanted a pair"),
        (Own([(PIXELS[0], "cat")]), {}, r"train\[0\]: label 'cat' is no integer"),
        (Own([("x.png", 0)]), {}, r"train\[0\]: image is str; wanted a Pillow image, a tensor or an array"),
        (Own([(torch.zeros(5, 8, 8), 0)]), {}, r"image has shape \(5, 8, 8\); wanted \(C, H, W\)"),
        (Own([(torch.full((3, 8, 8), -1.5), 0)]), {}, "values from -1.5 to -1.5; .*leave Normalize out"),
        (Own([(torch.full((3, 8, 8), float("nan")), 0)]), {}, "values from nan"),
        (Own([(torch.zeros(3, 8, 8, dtype=torch.int64), 0)]), {}, "image is torch.int64; wanted uint8"),
        (Own(items(classes=3)), {"class_names": ["a", "b"]}, "the training set has 0 … 2; with 2 class names"),
        (Own(items()), {"class_names": ["a", "b", "c"]}, "class 'c' has no images in the training set"),
        (Own([(p, -1) for p in PIXELS]), {"class_names": ["a"]}, "the training set has -1 … -1"),
        (Own(items()), {"test": Own([(PIXELS[0], 0)])}, "class '1' has no images in the test set"),
        (Own(items()), {"test": Own(items(pixels=PIXELS[:, :4, :4]))}, "test: images of shape .* give size="),
    ],
)
def test_bad_data_sets(train, options, message):
    with pytest.raises(UserError, match=message):
        data.from_dataset(train, **options)
