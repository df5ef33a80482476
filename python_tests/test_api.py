"""The three calls of the front door: names resolved, overrides checked, results that fit each other."""

from __future__ import annotations

import pytest
from tiny_runs import TINY, Silent, tiny_data

import lt_nas_ext
from lt_nas_ext import api
from lt_nas_ext.engine import Classifier, read_config
from lt_nas_ext.methods import preset
from lt_nas_ext.space import Genotype, SmallConvNet

DATA = tiny_data()
SMALL = {"epochs": 1, "channels": 2, "layers": 3, "device": "cpu"}


def test_the_public_names_are_there_before_they_are_imported():
    assert set(lt_nas_ext.__all__) <= set(dir(lt_nas_ext))
    assert all(getattr(lt_nas_ext, name) is not None for name in lt_nas_ext.__all__)
    assert lt_nas_ext.search is api.search
    with pytest.raises(AttributeError, match="module 'lt_nas_ext' has no attribute 'serch'"):
        lt_nas_ext.serch  # noqa: B018


def test_search_retrain_evaluate(tmp_path):
    found = api.search(DATA, preset="demo-ssf", out=tmp_path / "run", progress=Silent(), **{**TINY, "epochs": 1})
    assert found.out == tmp_path / "run" and isinstance(found.genotype, Genotype)
    assert found.settings.method == "ssf-nas" and found.settings.preset == "demo-ssf"
    model = api.retrain(found.genotype, DATA, out=tmp_path / "run" / "retrain", progress=Silent(), **SMALL)
    assert isinstance(model, Classifier) and len(model.history) == 1
    assert api.evaluate(model, DATA.test).top1 == model.metrics["top1"]
    for what in (found, tmp_path / "run", str(tmp_path / "run")):
        assert api.retrain(what, DATA, progress=Silent(), **SMALL).metrics["top1"] == model.metrics["top1"]
    api.retrain(tmp_path / "run" / "genotype.json", DATA, progress=Silent(), **SMALL)


def test_settings_come_from_method_preset_and_overrides():
    assert api.search_settings(None, None, {}) == preset("paper-ssf")
    assert api.search_settings("darts", None, {}) == preset("darts")
    assert api.search_settings("fair-darts", None, {}) == preset("authors-fairdarts")
    assert api.search_settings(None, "demo-darts", {"seed": 3}).seed == 3
    assert api.search_settings("fair-darts", "paper-fairdarts", {}) == preset("paper-fairdarts")


def test_retrain_takes_a_preset_and_overrides_it(tmp_path):
    api.retrain("darts-v2", DATA, out=tmp_path, preset="darts", progress=Silent(), **SMALL)
    settings = read_config(tmp_path)["settings"]
    assert (settings["preset"], settings["auxiliary"], settings["cutout"], settings["epochs"]) == (
        "darts",
        0.4,
        True,
        1,
    )


def test_modules_are_trained_in_place():
    network = SmallConvNet(num_classes=3, in_channels=1, channels=2)
    model = api.retrain(network, DATA, progress=Silent(), **SMALL)
    assert model.network is network and model.metrics["architecture"] == "module"


def test_adapt_and_retrain_what_it_chose(tmp_path):
    api.search(DATA, preset="demo-darts", out=tmp_path / "run", progress=Silent(), **{**TINY, "epochs": 1})
    small = {"epochs": 1, "batch_size": 12, "subnets": 2, "device": "cpu"}
    found = api.adapt(tmp_path / "run", DATA, out=tmp_path / "adapted", progress=Silent(), **small)
    assert read_config(tmp_path / "adapted")["settings"]["backbone"] == "frozen"
    model = api.retrain(tmp_path / "adapted", DATA, progress=Silent(), **SMALL)
    assert model.metrics["top1"] == api.retrain(found.genotype, DATA, progress=Silent(), **SMALL).metrics["top1"]
