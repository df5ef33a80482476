"""Settings: every field checked, overrides by name, presets literal."""

from __future__ import annotations

import dataclasses
import re

import pytest

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import METHODS, PRESETS, SearchSettings, method_class, preset
from lt_nas_ext.methods.settings import overridden

BAD = [
    ({"epochs": 0}, "epochs: got 0; wanted a whole number, at least 1"),
    ({"epochs": 1.5}, "epochs: got 1.5"),
    ({"epochs": True}, "epochs: got True"),
    ({"epochs": "40"}, "epochs: got '40'"),
    ({"batch_size": 1}, "batch_size: got 1; wanted a whole number, at least 2"),
    ({"channels": -1}, "channels: got -1"),
    ({"layers": 0}, "layers: got 0"),
    ({"nodes": 0}, "nodes: got 0"),
    ({"test_every": -1}, "test_every: got -1; wanted a whole number, at least 0"),
    ({"seed": -1}, "seed: got -1; wanted a whole number, at least 0"),
    ({"w_lr": 0.0}, "w_lr: got 0.0; wanted a number above 0"),
    ({"w_lr": float("nan")}, "w_lr: got nan"),
    ({"alpha_lr": float("inf")}, "alpha_lr: got inf"),
    ({"w_lr_min": -1e-3}, "w_lr_min: got -0.001; wanted a number at least 0"),
    ({"w_momentum": 1.0}, "w_momentum: got 1.0; wanted a number at least 0 and below 1"),
    ({"split": 1.0}, "split: got 1.0; wanted a number above 0 and below 1"),
    ({"threshold": 0}, "threshold: got 0"),
    ({"lambda_01": -1}, "lambda_01: got -1"),
    ({"grad_clip": 0}, "grad_clip: got 0"),
    ({"probe_lr": None}, "probe_lr: got None"),
    ({"primitives": "pc-darts"}, "primitives: got 'pc-darts'; wanted one of 'darts', 'fair-darts'"),
    ({"alpha_init": "ones"}, "alpha_init: got 'ones'"),
    ({"order": "third"}, "order: got 'third'; wanted one of 'first', 'second', 'exact'"),
    ({"alpha_frozen": 1.0}, "alpha_frozen: got 1.0; wanted a number at least 0 and below 1"),
    ({"beta_decay": -0.5}, "beta_decay: got -0.5; wanted a number at least 0"),
    ({"auxiliary_skip": 1}, "auxiliary_skip: got 1; wanted True or False"),
    ({"partial_channels": 0}, "partial_channels: got 0; wanted a whole number, at least 1"),
    ({"stop_at_skips": -1}, "stop_at_skips: got -1; wanted a whole number, at least 0"),
    ({"candidates": -1}, "candidates: got -1; wanted a whole number, at least 0"),
    ({"candidate_epochs": 0}, "candidate_epochs: got 0; wanted a whole number, at least 1"),
    ({"label_free": None}, "label_free: got None; wanted True or False"),
    ({"fit": 1}, "fit: got 1; wanted True or False"),
    ({"one_level": "yes"}, "one_level: got 'yes'; wanted True or False"),
    ({"lambda_01_ramp": 0}, "lambda_01_ramp: got 0; wanted True or False"),
    ({"min_steps": -1}, "min_steps: got -1; wanted a whole number, at least 0"),
    ({"one_level": True, "candidates": 3}, "candidates: got 3 with one_level, which leaves no images"),
    ({"rule": "best"}, "rule: got 'best'"),
    ({"zero_one": "l3"}, "zero_one: got 'l3'"),
    ({"bt_scale": "N"}, "bt_scale: got 'N'"),
    ({"projector": ()}, "projector: got ()"),
    ({"projector": (8, 0)}, "projector: got (8, 0)"),
    ({"mixing": "linear"}, "mixing: got 'linear'; wanted one of 'parabolic', 'reverse-sigmoid', 'constant', or a"),
    ({"mixing_beta": 0}, "mixing_beta: got 0; wanted a number above 0"),
    ({"mixing_constant": 1.5}, "mixing_constant: got 1.5; wanted a mixing ratio in [0, 1]"),
    ({"hls": "on"}, "hls: got 'on'; wanted one of 'none', 'hls', 'constant', 'freeze'"),
    ({"hls_k": -1.0}, "hls_k: got -1.0; wanted a number above 0"),
    ({"hls_constant": 0.0}, "hls_constant: got 0.0; wanted a number above 0"),
    ({"hls_scope": "weights"}, "hls_scope: got 'weights'; wanted one of 'arch', 'arch+weights'"),
    ({"continuous": "frozen"}, "continuous: got 'frozen'; wanted one of 'none', 'class-head', 'half', 'reverse-sig"),
    ({"continuous_epochs": 0}, "continuous_epochs: got 0; wanted a whole number, at least 1"),
    ({"continuous_lr": 0.0}, "continuous_lr: got 0.0; wanted a number above 0"),
    ({"alpha_betas": (0.9,)}, "alpha_betas: got (0.9,)"),
    ({"alpha_betas": (0.9, 1.0)}, "alpha_betas: got (0.9, 1.0)"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_a_bad_value_is_named(fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        SearchSettings(**fields)


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(UserError, match="epoch: SearchSettings has no such setting; did you mean 'epochs'"):
        overridden(SearchSettings(), {"epoch": 3})
    with pytest.raises(UserError, match="there are: method, preset"):
        overridden(SearchSettings(), {"zzz": 3})


def test_lists_become_tuples():
    assert overridden(SearchSettings(), {"projector": [8, 8]}).projector == (8, 8)


def test_unknown_names():
    with pytest.raises(UserError, match="preset: got 'paper-sff'; did you mean 'paper-ssf'"):
        preset("paper-sff")
    with pytest.raises(UserError, match="method: got 'fairdarts'; did you mean 'fair-darts'"):
        method_class("fairdarts")


OURS = ("recommended", "random", "demo-darts", "demo-ssf")


def test_every_preset_has_its_name_and_every_method_its_preset():
    assert all(settings.preset == name for name, settings in PRESETS.items())
    assert all(PRESETS[method.paper_preset].method == name for name, method in METHODS.items())
    papers = {"darts", "authors-fairdarts", "paper-fairdarts", "paper-ssf", "ssnas"}
    hls = {"darts", "resampling", "reweighting", "bbn", "reverse-sigmoid", "continuous"}
    assert set(PRESETS) == {*papers, "paper-hls", *(f"paper-hls-{name}" for name in hls), *OURS}


DARTS = {  # arXiv:1806.09055, appendix A.1
    "method": "darts", "epochs": 50, "batch_size": 64, "channels": 16, "layers": 8, "nodes": 4, "primitives": "darts",
    "alpha_init": "noise", "w_lr": 0.025, "w_lr_min": 0.001, "w_momentum": 0.9, "w_weight_decay": 3e-4,
    "grad_clip": 5.0, "alpha_lr": 3e-4, "alpha_betas": (0.5, 0.999), "alpha_weight_decay": 1e-3, "rule": "top2",
    "split": 0.5, "stratify": True,
}  # fmt: skip
FAIR_DARTS = {
    "method": "fair-darts", "epochs": 50, "batch_size": 128, "primitives": "fair-darts", "alpha_init": "zeros",
    "w_lr": 0.005, "w_lr_min": 0.001, "alpha_lr": 3e-3, "alpha_betas": (0.9, 0.999), "alpha_weight_decay": 1e-3,
    "lambda_01": 10.0, "zero_one": "l2", "rule": "threshold_sparse", "threshold": 0.85,
}  # fmt: skip
HLS = {
    "epochs": 50, "batch_size": 128, "layers": 8, "w_lr": 0.02, "w_weight_decay": 3e-4, "alpha_lr": 0.02, "split": 0.8,
    "primitives": "darts", "rule": "top2",
}  # fmt: skip
BBN = {**HLS, "method": "darts+bbn", "mixing": "parabolic", "hls": "none", "continuous": "none"}
LITERAL = {
    "paper-hls-darts": {**HLS, "method": "darts"},
    "paper-hls-resampling": {**HLS, "method": "darts+resampling"},
    "paper-hls-reweighting": {**HLS, "method": "darts+reweighting", "loss": "class_balanced"},
    "paper-hls-bbn": BBN,
    "paper-hls": {**BBN, "hls": "hls", "hls_k": 1.0, "hls_scope": "arch"},
    "paper-hls-reverse-sigmoid": {**BBN, "hls": "hls", "mixing": "reverse-sigmoid", "mixing_beta": 10.0},
    "paper-hls-continuous": {**BBN, "hls": "hls", "continuous": "class-head"},
    "darts": DARTS,
    "authors-fairdarts": FAIR_DARTS,
    "paper-fairdarts": {**FAIR_DARTS, "primitives": "darts", "zero_one": "l1", "alpha_lr": 3e-4},
    "ssnas": {
        **DARTS,
        "method": "ssnas",
        "stratify": False,
        "views": "ssnas",
        "projector": (256, 128),
        "label_free": True,
    },
    "paper-ssf": {
        "method": "ssf-nas",
        "epochs": 40,
        "batch_size": 64,
        "channels": 16,
        "layers": 8,
        "w_lr": 0.025,
        "w_lr_min": 0.001,
        "w_momentum": 0.9,
        "w_weight_decay": 3e-4,
        "alpha_lr": 3e-4,
        "alpha_weight_decay": 1e-3,
        "lambda_bt": 5e-3,
        "rule": "top2",
        "stratify": False,
    },
}


@pytest.mark.parametrize(("name", "values"), LITERAL.items())
def test_paper_presets_are_literal(name, values):
    settings = dataclasses.asdict(preset(name))
    assert {field: settings[field] for field in values} == values


@pytest.mark.parametrize("name", ["demo-darts", "demo-ssf"])
def test_demo_presets_can_move_their_gates(name):
    """527 digits at mu = .1: 263 in the alpha half; steps * lr >= 3."""
    settings = preset(name)
    assert settings.epochs * (263 // settings.batch_size) * settings.alpha_lr >= 3
    assert settings.layers <= 4 and settings.channels == 8
