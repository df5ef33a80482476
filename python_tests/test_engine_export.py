"""A trained network as one file: the same logits from each format, for any number of images, with all that is known."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import torch
from test_engine_retrain import retrain
from tiny_runs import COUNTS, tiny_data
from torch import nn

from lt_nas_ext.engine import export, load_classifier
from lt_nas_ext.engine.export import metadata
from lt_nas_ext.errors import UserError
from lt_nas_ext.space import Network

DATA = tiny_data()
FLOATS = DATA.test.images.float() / 255
TRAINING = {"epochs": 1, "layers": 2, "auxiliary": 0.4, "ema_decay": 0.5, "val_fraction": 0.2}
ALONE = """
import sys
sys.modules["lt_nas_ext"] = None  # to import it would fail
import torch
program, images, out = sys.argv[1:]
run = torch.export.load(program).module()
images = torch.load(images)
torch.save([run(images[:n]) for n in (1, 2, 30)], out)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run directory of a genotype's network, trained with the options that must not be left behind."""
    directory = tmp_path_factory.mktemp("run")
    retrain(out=directory, **TRAINING)
    return directory


def test_state_is_the_plain_network(run, tmp_path):
    path = export(run, tmp_path / "sub" / "cells.pt")
    loaded, trained = load_classifier(path), load_classifier(run)
    assert path == tmp_path / "sub" / "cells.pt" and type(loaded.network) is Network
    assert torch.equal(loaded(FLOATS), trained(FLOATS)) and loaded.calibration == trained.calibration is not None
    assert metadata(loaded) == metadata(trained)
    assert [file.name for file in path.parent.iterdir()] == ["cells.pt"]


def test_torch_export_gives_the_logits_without_this_library(run, tmp_path):
    model = load_classifier(run)
    path = export(model, tmp_path / "cells.pt2", "torch-export")
    torch.save(FLOATS, tmp_path / "images.pt")
    words = [sys.executable, "-c", ALONE, path, tmp_path / "images.pt", tmp_path / "logits.pt"]
    subprocess.run([str(word) for word in words], check=True, cwd=tmp_path, capture_output=True, timeout=240)
    for logits in torch.load(tmp_path / "logits.pt"):
        torch.testing.assert_close(logits, model(FLOATS[: len(logits)]), rtol=0, atol=1e-5)
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    known = json.loads(extra["metadata.json"])
    assert known == json.loads(json.dumps(metadata(model)))
    assert (known["class_names"], known["mean"]) == (["left", "middle", "right"], list(model.mean))
    assert known["train_counts"] != list(COUNTS) and known["calibration"]["images"] > 0  # some were held out


def test_onnx_gives_the_logits_elsewhere(run, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import onnxruntime

    model = load_classifier(run)
    session = onnxruntime.InferenceSession(str(export(run, tmp_path / "cells.onnx", "onnx")))
    for count in (1, 2, 30):
        (logits,) = session.run(["logits"], {"images": FLOATS[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(FLOATS[:count]), rtol=0, atol=1e-5)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["class_names"]) == ["left", "middle", "right"]
    assert json.loads(known["mean"]) == list(model.mean) and json.loads(known["std"]) == list(model.std)


def test_onnx_without_its_packages_says_what_to_install(run, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else real(name))
    message = (
        "format: 'onnx' needs onnx and onnxscript, which are not installed: pip install 'lt_nas_ext[onnx]', or use "
        "torch-export"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        export(run, tmp_path / "cells.onnx", "onnx")
    assert not list(tmp_path.iterdir())


class Choosy(nn.Module):
    """What no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(x.flatten(1)) * (2 if float(x.sum()) > 0 else 1)


def test_a_module_that_cannot_be_exported(tmp_path):
    model = retrain(Choosy(), epochs=1).model
    with pytest.raises(
        UserError, match=r"run: PyTorch cannot export Choosy \(.*\); wanted a module that torch\.export"
    ):
        export(model, tmp_path / "choosy.pt2", "torch-export")
    assert not list(tmp_path.iterdir())
    again = load_classifier(export(model, tmp_path / "choosy.pt"), Choosy())
    assert torch.equal(again(FLOATS), model(FLOATS))
