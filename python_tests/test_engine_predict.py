"""Prediction: new images go the way of the test images, and what cannot be used is named."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from report_runs import search_run, training_run
from tiny_runs import Silent

from lt_nas_ext import data
from lt_nas_ext.data.sources import resize
from lt_nas_ext.engine import (
    RetrainSettings,
    UnreadableImages,
    evaluate,
    load_classifier,
    predict,
    run_retrain,
)
from lt_nas_ext.engine.evaluate import predict_logits
from lt_nas_ext.errors import UserError

NAMES = ("cat", "dog", "eel")
SAVED = [  # every mode that a folder may hold, and sizes that must be resized and cut
    ("RGB", "jpg", (14, 9)),
    ("RGBA", "png", (12, 12)),
    ("P", "gif", (9, 21)),
    ("LA", "png", (30, 30)),
    ("I;16", "png", (12, 16)),
    ("L", "bmp", (7, 5)),
]


def paint(path: Path, mode: str, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    if mode == "I;16":
        Image.fromarray(random.integers(0, 65536, size[::-1], dtype=np.uint16)).save(path)
    else:
        Image.fromarray(random.integers(0, 256, (*size[::-1], 4), dtype=np.uint8)).convert(mode).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(directory of pictures, their data set, run directory inside that of a search)."""
    top = tmp_path_factory.mktemp("predict")
    for label, name in enumerate(NAMES):
        for i in range(12):
            mode, suffix, size = SAVED[i % len(SAVED)]
            paint(top / "pictures" / name / f"{i}.{suffix}", mode, size, 100 * label + i)
    pictures = data.load("folder", root=top / "pictures")
    settings = RetrainSettings(epochs=2, channels=4, batch_size=8, device="cpu", seed=1)
    run_retrain("small-conv-net", pictures, settings, search_run(top / "run") / "retrain", progress=Silent())
    return top / "pictures", pictures, top / "run" / "retrain"


def files_of(root: Path, images: data.ImageSet) -> list[Path]:
    return [root / file for file in images.files]


def test_files_are_predicted_as_evaluate_sees_them(trained):
    root, pictures, run = trained
    model = load_classifier(run)
    for part in (pictures.test, pictures.train):
        found = predict(run, files_of(root, part), top=3)
        expected = predict_logits(model, part.images).softmax(1)
        by_class = torch.tensor([[p.probabilities[p.classes.index(name)] for name in NAMES] for p in found])
        assert torch.equal(by_class, expected)
        assert [p.path for p in found] == files_of(root, part)
        right = [p.classes[0] == NAMES[label] for p, label in zip(found, part.labels.tolist(), strict=True)]
        assert sum(right) / len(right) == pytest.approx(evaluate(model, part).top1)


def test_the_likeliest_classes_come_first(trained):
    root, pictures, run = trained
    (found,) = predict(run, files_of(root, pictures.test)[0])
    assert set(found.classes) == set(NAMES) and list(found.probabilities) == sorted(found.probabilities, reverse=True)
    assert sum(found.probabilities) == pytest.approx(1)
    for top in (1, 2, 3, 9):
        (fewer,) = predict(run, files_of(root, pictures.test)[0], top=top)
        assert fewer.classes == found.classes[:top] and fewer.probabilities == found.probabilities[:top]


def test_a_run_its_search_its_file_and_its_model_are_one(trained):
    root, pictures, run = trained
    files = files_of(root, pictures.test)
    expected = predict(run, files)
    model = load_classifier(run).train()
    for same in (str(run), run.parent, run / "model.pt", model):
        assert predict(same, files) == expected
    assert model.training


def test_a_tensor_is_predicted_as_the_files_it_was_read_from(trained):
    root, pictures, run = trained
    expected = [(p.classes, p.probabilities) for p in predict(run, files_of(root, pictures.test))]
    pixels = pictures.test.images
    for images in (pixels, pixels / 255, pixels.double() / 255):
        found = predict(run, images)
        assert [p.classes for p in found] == [classes for classes, _ in expected]
        np.testing.assert_allclose([p.probabilities for p in found], [p for _, p in expected], rtol=1e-6)
        assert {p.path for p in found} == {None}


def test_tensors_of_another_size_are_resized_as_a_data_set_is(trained):
    _, pictures, run = trained
    wide = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 30, 50), dtype=np.uint8))
    expected = predict(run, resize(wide, pictures.image_shape[1]))
    assert predict(run, wide) == expected
    for found, close in zip(predict(run, wide / 255), expected, strict=True):
        np.testing.assert_allclose(found.probabilities, close.probabilities, atol=0.02)  # not rounded to 8 bits


def test_directories_are_walked_in_natural_order_beside_files(trained):
    root, _, run = trained
    found = predict(run, [root / "dog", root / "cat" / "1.png"])
    assert [p.path.stem for p in found] == [*map(str, range(12)), "1"]
    assert [p.path for p in predict(run, str(root))] == [p.path for p in predict(run, [root / name for name in NAMES])]
    assert [p.path.name for p in predict(run, (root / "cat").glob("1.*"))] == ["1.png"]


def test_an_unreadable_image_stops_no_other(trained, tmp_path):
    root, pictures, run = trained
    good = files_of(root, pictures.test)
    broken, text = tmp_path / "broken.png", tmp_path / "notes.txt"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    text.write_text("no image")
    with pytest.raises(UnreadableImages) as caught:
        predict(run, [good[0], broken, *good[1:], text])
    assert caught.value.predictions == predict(run, good)
    first, *others = str(caught.value).splitlines()
    assert first == f"images: 2 of {len(good) + 2} cannot be read"
    assert [re.sub(r" \(.*\)", "", line) for line in others] == [
        f"  image: {path} cannot be read; repair or remove it" for path in (broken, text)
    ]
    with pytest.raises(UnreadableImages, match="1 of 1 cannot be read") as caught:
        predict(run, broken)
    assert caught.value.predictions == ()


def test_no_more_files_than_a_batch_are_in_memory(trained, tmp_path, monkeypatch):
    root, pictures, run = trained
    files = files_of(root, pictures.train)
    expected = predict(run, files)
    module = importlib.import_module("lt_nas_ext.engine.predict")
    read, sizes = module.read_readable, []

    def counted(some, size, channels):
        sizes.append(len(some))
        return read(some, size, channels)

    monkeypatch.setattr(module, "read_readable", counted)
    monkeypatch.setattr(module, "BATCH", 4)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UnreadableImages) as caught:
        predict(run, [*files[:5], tmp_path / "a.png", *files[5:]])
    assert max(sizes) == 4 and sum(sizes) == len(files) + 1
    assert [(p.path, p.classes) for p in caught.value.predictions] == [(p.path, p.classes) for p in expected]


def test_images_that_are_not_square_need_a_tensor():
    pixels = torch.randint(0, 256, (20, 3, 8, 12), dtype=torch.uint8)
    oblong = data.from_dataset(torch.utils.data.TensorDataset(pixels, torch.arange(20) % 2))
    settings = RetrainSettings(epochs=1, channels=2, device="cpu")
    model = run_retrain("small-conv-net", oblong, settings, progress=Silent()).model
    assert len(predict(model, oblong.test.images)) == 4
    with pytest.raises(UserError, match=r"images: got files for a network trained on 8×12 pixels, .* \(N, 3, 8, 12\)"):
        predict(model, __file__)
    with pytest.raises(UserError, match=r"images: got .* \(1, 3, 8, 8\); wanted \(N, 3, 8, 12\)"):
        predict(model, torch.zeros(1, 3, 8, 8))


def test_a_network_that_diverged_is_no_answer(trained):
    _, pictures, run = trained
    model = load_classifier(run)
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="run: some logits are NaN or infinite"):
        predict(model, pictures.test.images)


@pytest.fixture
def runs(tmp_path):
    """Directories that hold something else than a trained network."""
    search_run(tmp_path / "search")
    training_run(search_run(tmp_path / "begun") / "retrain", finished=False)
    training_run(tmp_path / "unfinished", finished=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("gone", "run: {0} is not there; wanted the run directory of a finished retraining, or its model.pt"),
        ("empty", "run: {0} holds no run (no config.json)"),
        ("search", "run: {0} is a search, .*; train one first: lt-nas retrain --run {0}"),
        ("begun", "run: {0}/retrain has no weights yet (model.pt); finish the retraining first (--resume)"),
        ("unfinished", "run: {0} has no weights yet (model.pt); finish the retraining first (--resume)"),
        ("notes/a.txt", "run: {0} cannot be read as a trained model"),
    ],
)
def test_a_run_without_a_network_is_named(trained, runs, run, message):
    wanted = re.escape(message.format(runs / run)).replace(r"\.\*", ".*")
    with pytest.raises(UserError, match=wanted):
        predict(runs / run, trained[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("gone.png", "images: {0}/gone.png is not there; wanted image files, or directories of them"),
        ("x" * 300, "is not there"),
        ("empty", "images: {0}/empty has no images; wanted files that end in .bmp"),
        ("notes", "images: {0}/notes has no images"),
    ],
)
def test_paths_without_images_are_named(trained, runs, images, message):
    for given in (runs / images, [trained[0], runs / images]):
        with pytest.raises(UserError, match=re.escape(message.format(runs))):
            predict(trained[2], given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "images: got none; wanted one or more"),
        ((3,), "images: got int; wanted files, directories, or a tensor (N, C, H, W)"),
        ((np.zeros((2, 3, 8, 8)),), "images: got ndarray; wanted"),
        ((torch.zeros(3, 8, 8),), "images: got torch.float32 of shape (3, 8, 8); wanted (N, 3, H, W), uint8 or"),
        ((torch.zeros(2, 1, 8, 8),), "images: got torch.float32 of shape (2, 1, 8, 8); wanted (N, 3, H, W)"),
        ((torch.zeros(2, 3, 8, 8).long(),), "images: got torch.int64"),
        ((torch.zeros(0, 3, 8, 8),), "images: got torch.float32 of shape (0, 3, 8, 8); wanted at least one image"),
        ((torch.full((1, 3, 8, 8), 255.0),), "images: got values from 255 to 255; wanted floats in [0, 1]"),
        ((torch.full((1, 3, 8, 8), float("nan")),), "images: got values from nan"),
        ((torch.zeros(1, 3, 8, 8), 0), "top: got 0; wanted how many classes to name, at least 1"),
        ((torch.zeros(1, 3, 8, 8), 2.5), "top: got 2.5"),
        ((torch.zeros(1, 3, 8, 8), 3, "tpu"), "device: got 'tpu'; wanted 'auto', 'cpu', 'cuda'"),
    ],
)
def test_wrong_arguments_are_named(trained, arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        predict(trained[2], *arguments)


def test_a_run_that_is_none(trained):
    with pytest.raises(UserError, match=r"run: got Linear; wanted a run directory, its model\.pt, or what retrain ret"):
        predict(torch.nn.Linear(2, 2), trained[0])


@pytest.mark.cuda
def test_any_device(trained):
    root, _, run = trained
    here, there = predict(run, root, device="cpu"), predict(run, root, device="cuda")
    assert [p.path for p in here] == [p.path for p in there]
    np.testing.assert_allclose([p.probabilities[0] for p in here], [p.probabilities[0] for p in there], rtol=1e-3)
