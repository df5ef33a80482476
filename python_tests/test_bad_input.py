"""One table of what users get wrong: each is one message that names what came and what is wanted, and damages nothing.

A case is a name, the mistake (a call, or the words after `lt-nas`) and its whole message, in which ⋯ stands for what is
another program's wording or a list of everything. Calls raise `UserError`; commands end with code 2, print nothing else
and no traceback. All paths lie in one directory with a finished run, which is the same to the byte afterwards.

What only one operator or room can be given wrongly stands in its own test.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, Silent, tiny_data
from torch import nn
from torch.utils.data import TensorDataset

import lt_nas_ext as lt
from lt_nas_ext import cli
from lt_nas_ext.data import ImageSet
from lt_nas_ext.errors import UserError
from lt_nas_ext.report.page import write_report

SETTINGS = {**TINY, "epochs": 1, "batch_size": 4}
TRAINING = {"epochs": 1, "batch_size": 8, "channels": 2, "layers": 3, "device": "cpu"}
ADAPTING = {"epochs": 1, "batch_size": 8, "subnets": 2, "device": "cpu"}


def paint(directory: Path, **counts: int) -> None:
    """A folder of grey 8×8 images, so many of each class."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (directory / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(directory / name / f"{i}.png")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a search of them with its retraining, and much that is neither."""
    top = tmp_path_factory.mktemp("workplace")
    paint(top / "pictures", cat=12, dog=8, eel=6)
    paint(top / "hollow", cat=3, dog=3, eel=0)
    paint(top / "torn", cat=3, dog=3)
    paint(top / "single", cat=3, dog=1)
    paint(top / "lonely" / "train", cat=3, dog=6, eel=1)
    paint(top / "lonely" / "test", cat=1, dog=1, eel=1)
    (top / "torn" / "cat" / "1.png").write_text("no image")
    (top / "notes.txt").write_text("no run, no genotype, no image")
    (top / "other.html").write_text("<p>somebody's page</p>")
    for name, config in (
        ("broken", "{"),
        ("bare", '{"kind": "search", "settings": {}}'),
        ("listed", '{"settings": []}'),
    ):
        (top / name).mkdir()
        (top / name / "config.json").write_text(config)
    (top / "bare" / "genotype.json").write_text('{"normal": {}}')
    (top / "empty").mkdir()
    pictures = lt.data.load("folder", root=top / "pictures")
    found = lt.search(pictures, preset="demo-darts", out=top / "run", progress=Silent(), **SETTINGS)
    lt.retrain(found, pictures, out=top / "run" / "retrain", progress=Silent(), **TRAINING)
    lt.search(pictures, preset="demo-darts", out=top / "begun", progress=Silent(), **SETTINGS)
    for name in ("genotype.json", "metrics.json"):
        (top / "begun" / name).unlink()
    for name in ("mixed", "lost"):
        shutil.copytree(top / "run", top / name, ignore=shutil.ignore_patterns("retrain"))
    mixed = json.loads((top / "mixed" / "config.json").read_text())
    mixed["settings"]["primitives"] = "fair-darts"
    (top / "mixed" / "config.json").write_text(json.dumps(mixed))
    (top / "lost" / "checkpoint.pt").unlink()
    return top


DATA = tiny_data()
PAIR, EMBEDDINGS = [torch.ones(2), torch.ones(2)], torch.rand(4, 3)
ALL = "none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, dil_conv_5x5"
DENSE = "(dense; float16, bfloat16, float32 or float64)"
FACTOR = "wanted μ = n_min / n_max in (0, 1] (an imbalance ratio of 100 is factor=0.01)"
DEVICE = "wanted 'auto', 'cpu', 'cuda' or 'cuda:<number>'"
ORDER = "wanted every class once, from head to tail: a permutation of 0 … 9, or the names"
NETWORKS = "resnet32, small-conv-net, darts-v2, fair-darts-a, random"
BASELINES = f"wanted a Genotype, a module, or a baseline: there are: {NETWORKS}"
HOLDS = "already holds a run; continue it with resume=True (--resume), or name another directory"
NO_RUN = "holds no run (no config.json); wanted the out of a search or retraining"


def pairs(labels: list[int]) -> TensorDataset:
    """A user's own Dataset of blank images."""
    return TensorDataset(torch.zeros(len(labels), 1, 8, 8), torch.tensor(labels))


def backbone(channels: int) -> lt.space.Supernet:
    return lt.space.Supernet(channels=channels, num_classes=None, layers=3)


def head_of(channels: int) -> lt.space.SupernetHead:
    return lt.space.SupernetHead(backbone(channels).head_place, 3)


def search(**arguments: object) -> object:
    return lt.search(**{"data": DATA, "preset": "demo-darts", "progress": Silent(), **SETTINGS, **arguments})  # type: ignore[arg-type]


def retrain(genotype: object, **arguments: object) -> object:
    return lt.retrain(genotype, **{"data": DATA, "progress": Silent(), **TRAINING, **arguments})  # type: ignore[arg-type]


def adapt(source: object, **arguments: object) -> object:
    return lt.adapt(source, **{"data": DATA, "progress": Silent(), **ADAPTING, **arguments})  # type: ignore[arg-type]


def evaluate(model: object, images: object = DATA.test, **arguments: object) -> object:
    return lt.evaluate(model, images, **arguments)  # type: ignore[arg-type]


def trained() -> nn.Module:
    return lt.engine.load_classifier("run")


Mistake = Callable[[], object] | str
CASES: list[tuple[str, Mistake, str]] = [
    # ---- ops
    (
        "mixed_sum, candidates from a generator",
        lambda: lt.ops.mixed_sum((x for x in PAIR), torch.zeros(2)),
        "candidates: got generator; wanted a list or tuple of tensors (or None), one a candidate",
    ),
    (
        "mixed_sum, a candidate too few",
        lambda: lt.ops.mixed_sum(PAIR, torch.zeros(3)),
        "candidates: got 2 for alpha of shape (3,); wanted 3, row by row",
    ),
    (
        "mixed_sum, a complex candidate",
        lambda: lt.ops.mixed_sum([torch.ones(2, dtype=torch.cfloat)], torch.zeros(1)),
        f"candidates[0]: got torch.complex64; wanted a floating-point tensor or None {DENSE}",
    ),
    (
        "mixed_sum, an 8-bit candidate",
        lambda: lt.ops.mixed_sum([torch.ones(2).to(torch.float8_e4m3fn)], torch.zeros(1)),
        f"candidates[0]: got torch.float8_e4m3fn; wanted a floating-point tensor or None {DENSE}",
    ),
    (
        "mixed_sum, a sparse candidate",
        lambda: lt.ops.mixed_sum([torch.eye(2).to_sparse()], torch.zeros(1)),
        f"candidates[0]: got torch.float32 in torch.sparse_coo; wanted a floating-point tensor or None {DENSE}",
    ),
    (
        "mixed_sum, a gate that is none",
        lambda: lt.ops.mixed_sum(PAIR, torch.zeros(2), gate=None),  # type: ignore[arg-type]
        "gate: got None; wanted one of 'softmax', 'sigmoid', 'identity'",
    ),
    (
        "gate_weights, a list",
        lambda: lt.ops.gate_weights([0.0], "softmax"),  # type: ignore[arg-type]
        f"alpha: got list; wanted a floating-point tensor of shape (K,) or (E, K) {DENSE}",
    ),
    (
        "barlow_twins_loss, a sparse embedding",
        lambda: lt.ops.barlow_twins_loss(EMBEDDINGS.to_sparse(), EMBEDDINGS),
        f"za: got torch.float32 in torch.sparse_coo; wanted a floating-point tensor of shape (N, D) {DENSE}",
    ),
    (
        "barlow_twins_loss, two shapes",
        lambda: lt.ops.barlow_twins_loss(EMBEDDINGS, EMBEDDINGS[:3]),
        "zb: got shape (3, 3); wanted (4, 3), as za: a row for each of its rows",
    ),
    (
        "barlow_twins_loss, a number as text",
        lambda: lt.ops.barlow_twins_loss(EMBEDDINGS, EMBEDDINGS, lambd="5e-3"),  # type: ignore[arg-type]
        "lambd: got '5e-3'; wanted a finite number ≥ 0, such as 5e-3",
    ),
    (
        "barlow_twins_loss, no scale",
        lambda: lt.ops.barlow_twins_loss(EMBEDDINGS, EMBEDDINGS, scale=None),  # type: ignore[arg-type]
        "scale: got None; wanted a finite number, such as 1.0 or 1 / D",
    ),
    (
        "barlow_twins_loss, a group by name",
        lambda: lt.ops.barlow_twins_loss(EMBEDDINGS, EMBEDDINGS, group="world"),  # type: ignore[arg-type]
        "group: got str; wanted a process group of torch.distributed, or None",
    ),
    # ---- nn
    (
        "MixedOp, channels as text",
        lambda: lt.nn.MixedOp("16"),  # type: ignore[arg-type]
        "channels: got '16'; wanted the channels of the input, at least 1",
    ),
    (
        "MixedOp, one primitive",
        lambda: lt.nn.MixedOp(4, primitives="sep_conv_3x3"),
        "primitives: got 'sep_conv_3x3'; wanted several names, such as ('skip_connect', 'sep_conv_3x3')",
    ),
    (
        "MixedOp, one candidate",
        lambda: lt.nn.MixedOp(candidates=nn.Identity()),  # type: ignore[arg-type]
        "candidates: got Identity; wanted a list of torch.nn.Module (or None)",
    ),
    (
        "MixedOp, images of other channels",
        lambda: lt.nn.MixedOp(4)(torch.ones(2, 3, 8, 8), torch.ones(8)),
        "x: got torch.float32 of shape (2, 3, 8, 8); wanted floating-point (N, 4, H, W)",
    ),
    (
        "MixedOp, images of bytes",
        lambda: lt.nn.MixedOp(4)(torch.ones(2, 4, 8, 8, dtype=torch.uint8), torch.ones(8)),
        "x: got torch.uint8 of shape (2, 4, 8, 8); wanted floating-point (N, 4, H, W)",
    ),
    (
        "BarlowTwinsLoss, a projector that is none",
        lambda: lt.nn.BarlowTwinsLoss([512, 512]),  # type: ignore[arg-type]
        "projector: got list; wanted a module, such as lt.nn.projector((512, 2048, 2048, 2048)), or None",
    ),
    (
        "BarlowTwinsLoss, a group that is none",
        lambda: lt.nn.BarlowTwinsLoss(group=8),  # type: ignore[arg-type]
        "group: got int; wanted a process group of torch.distributed, or None",
    ),
    (
        "BarlowTwinsLoss, a projector of another width",
        lambda: lt.nn.BarlowTwinsLoss(lt.nn.projector((5, 8)))(EMBEDDINGS, EMBEDDINGS),
        "za: got shape (4, 3); wanted (N, 5), what the projector takes",
    ),
    (
        "BarlowTwinsLoss, a list of features",
        lambda: lt.nn.BarlowTwinsLoss(lt.nn.projector((3, 8)))(EMBEDDINGS, [1.0]),
        "zb: got list; wanted a tensor of features, a row an image",
    ),
    (
        "projector, one number",
        lambda: lt.nn.projector(512),  # type: ignore[arg-type]
        "sizes: got 512; wanted two or more positive integers: features, hidden widths, D",
    ),
    (
        "make_primitive, an unknown name",
        lambda: lt.nn.make_primitive("sep_conv_7x7", 4, 1),
        f"name: got 'sep_conv_7x7'; wanted one of {ALL}",
    ),
    (
        "make_primitive, no channels",
        lambda: lt.nn.make_primitive("skip_connect", 0, 1),
        "channels: got 0; wanted the channels of the input, at least 1",
    ),
    (
        "make_primitive, a third stride",
        lambda: lt.nn.make_primitive("skip_connect", 4, 3),
        "stride: got 3; wanted 1 or 2",
    ),
    # ---- data
    (
        "load, a list of names",
        lambda: lt.data.load(["digits"]),  # type: ignore[arg-type]
        "data: got ['digits']; wanted one of digits, cifar10, cifar100, folder, ⋯, or a Dataset",
    ),
    ("load, a factor of 0", lambda: lt.data.load("digits", "exp", 0.0), f"factor: got 0.0; {FACTOR}"),
    ("load, a factor above 1", lambda: lt.data.load("digits", "exp", 100), f"factor: got 100; {FACTOR}"),
    ("load, a factor as text", lambda: lt.data.load("digits", "exp", "0.1"), f"factor: got '0.1'; {FACTOR}"),  # type: ignore[arg-type]
    (
        "load, a class that vanishes",
        lambda: lt.data.load("digits", "step", 0.001),
        "factor: 0.001 of n_max=130 leaves the last class without an image; "
        "give a factor of at least 1/n_max = 0.0077, or more images per class",
    ),
    (
        "load, half an image",
        lambda: lt.data.load("digits", "exp", 0.1, n_max=50.5),  # type: ignore[arg-type]
        "n_max: got 50.5; wanted at least one image in the largest class",
    ),
    (
        "load, more images than there are",
        lambda: lt.data.load("digits", "exp", 0.1, n_max=1000),
        "n_max: 1000 images of the head class ask for more of '0' than its 130 training images; "
        "give a smaller n_max, another class_order, or none for the most that fits",
    ),
    (
        "load, an order that is none",
        lambda: lt.data.load("digits", class_order=5),  # type: ignore[arg-type]
        f"class_order: got 5; {ORDER}",
    ),
    (
        "load, an order of fractions",
        lambda: lt.data.load("digits", class_order=[0.2] * 10),  # type: ignore[list-item]
        f"class_order: got 0.2 in it; {ORDER}",
    ),
    (
        "load, a root that is no path",
        lambda: lt.data.load("folder", root=3),  # type: ignore[arg-type]
        "root: got int; wanted the path of a directory",
    ),
    (
        "load, CIFAR in a directory that is not there",
        lambda: lt.data.load("cifar10", root="no/where"),
        "root: no/where is not a directory; wanted the one that holds cifar-10-batches-py, or an empty one to download "
        "it into; without root it is downloaded into ⋯",
    ),
    (
        "load, a class without images",
        lambda: lt.data.load("folder", root="hollow"),
        "root: class 'eel' has no images in hollow/eel; wanted files that end in ⋯; add some or remove the folder",
    ),
    (
        "load, an unreadable image",
        lambda: lt.data.load("folder", root="torn"),
        "image: torn/cat/1.png cannot be read (⋯); repair or remove it",
    ),
    (
        "load, a Dataset without images",
        lambda: lt.data.load(pairs([])),
        "train: the Dataset is empty; wanted at least one image",
    ),
    (
        "load, a Dataset that misses a class",
        lambda: lt.data.load(pairs([0, 2] * 5)),
        "labels: class '1' has no images in the training set; every class needs some",
    ),
    (
        "from_dataset, names that are none",
        lambda: lt.data.from_dataset(pairs([0, 1] * 5), class_names=2),  # type: ignore[arg-type]
        "class_names: got 2; wanted a list with the name of each class",
    ),
    (
        "ImageSet, lists",
        lambda: ImageSet([1], [2], ("a.png",)),  # type: ignore[arg-type]
        "images: got list; wanted a tensor",
    ),
    (
        "load, a class of one image to train and to test on",
        lambda: lt.data.load("folder", root="single"),
        "images: class 'dog' has 1 image and there is no test set, so it would have none to train or none to test on; "
        "add images of it, leave it out, or give a test set",
    ),
    (
        "split, a share that is none",
        lambda: lt.data.split(DATA.train, "half"),  # type: ignore[arg-type]
        "fraction: got 'half'; wanted the share of the first part, in (0, 1)",
    ),
    (
        "Batches, a size that is none",
        lambda: lt.data.Batches(DATA.train, 0.5),  # type: ignore[arg-type]
        "batch_size: got 0.5; wanted a whole number, at least 1",
    ),
    (
        "from_manifest, another file",
        lambda: lt.data.from_manifest("notes.txt", "digits"),
        "path: notes.txt starts with 'no run, no genotype, no image'; a manifest starts with 'file,label,split'",
    ),
    # ---- search
    (
        "search, images that are none",
        lambda: search(data=[1]),
        "data: got list; wanted what lt_nas_ext.data.load returns, or a name such as 'digits'",
    ),
    (
        "search, a directory for a name",
        lambda: search(data="pictures"),
        "data: got 'pictures'; wanted one of digits, cifar10, cifar100, folder, ⋯, or a Dataset; "
        "for a directory: data='folder', root='pictures'",
    ),
    (
        "search, a typo in the method",
        lambda: search(preset=None, method="dart"),
        "method: got 'dart'; did you mean 'darts'?",
    ),
    (
        "search, a method that is no name",
        lambda: search(preset=None, method=["darts"]),
        "method: got ['darts']; did you mean 'darts'?",
    ),
    ("search, a preset that is no name", lambda: search(preset=3), "preset: got 3; there are: ⋯"),
    (
        "search, a method and another's preset",
        lambda: search(method="darts", preset="demo-ssf"),
        "preset: 'demo-ssf' is a preset of 'ssf-nas', not of 'darts'; name one of the two",
    ),
    (
        "search, an unknown setting",
        lambda: search(epoch=3),
        "epoch: SearchSettings has no such setting; did you mean 'epochs'?",
    ),
    ("search, no epochs", lambda: search(epochs=0), "epochs: got 0; wanted a whole number, at least 1"),
    (
        "search, one beta",
        lambda: search(alpha_betas=0.5),
        "alpha_betas: got 0.5; wanted two numbers, each at least 0 and below 1",
    ),
    (
        "search, a half without a class",
        lambda: search(data=lt.data.load("folder", root="lonely"), stratify=False),
        "stratify: got False, which leaves class 'eel' without an image for ⋯; wanted True, or a method that reads no "
        "labels",
    ),
    (
        "search, an order of DARTS that is none",
        lambda: search(order=2),
        "order: got 2; wanted one of 'first', 'second', 'exact'",
    ),
    (
        "search, an option that two heads do not have",
        lambda: search(preset="paper-hls", auxiliary_skip=True),
        "auxiliary_skip: got True for darts+bbn, which has no such option; wanted False",
    ),
    (
        "search, more partial channels than there are",
        lambda: search(channels=2, partial_channels=4),
        "partial_channels: got 4 for 2 channels of a node; wanted a divisor of them",
    ),
    (
        "search, the regulariser of softmax gates for sigmoid ones",
        lambda: search(preset="demo-ssf", beta_decay=0.5),
        "beta_decay: got 0.5 for ssf-nas, whose gates are not a softmax; wanted 0",
    ),
    (
        "search, partial channels and a rule of thresholds",
        lambda: search(partial_channels=2, rule="per_edge"),
        "rule: got 'per_edge' with partial_channels=2; wanted 'top2': ⋯",
    ),
    (
        "search, partial channels and auxiliary skips",
        lambda: search(partial_channels=2, auxiliary_skip=True),
        "auxiliary_skip: got True with partial_channels above 1; wanted one of the two",
    ),
    ("search, an unknown loss", lambda: search(loss="crossentropy"), "loss: got 'crossentropy'; wanted one of ⋯"),
    (
        "search, a loss of labels where none are read",
        lambda: search(preset="demo-ssf", loss="focal"),
        "loss: got 'focal' for ssf-nas, whose losses are its own; wanted 'cross_entropy'",
    ),
    ("search, a share of epochs as a number of them", lambda: search(alpha_frozen=15), "alpha_frozen: got 15; ⋯"),
    (
        "search, random genotypes that do not fit the epochs",
        lambda: search(preset="random", epochs=7, candidate_epochs=2),
        "epochs: got 7 for method 'random'; wanted a multiple of candidate_epochs=2, the epochs of each genotype",
    ),
    (
        "search, candidates and no images to judge them on",
        lambda: search(one_level=True, candidates=3),
        "candidates: got 3 with one_level, which leaves no images to judge them on; wanted 0",
    ),
    ("search, no seed", lambda: search(seeds=0), "seeds: got 0; wanted a whole number, at least 2 for a consensus"),
    (
        "search, one seed elsewhere",
        lambda: search(elsewhere=print),
        "elsewhere: got it with one seed; wanted seeds=2 or more, for searches to spread",
    ),
    (
        "search, seeds elsewhere that leave nothing",
        lambda: search(seeds=2, elsewhere=print),
        "elsewhere: got it without out; wanted out=DIR, where the searches leave what they find",
    ),
    (
        "search, a consensus of random genotypes",
        lambda: search(preset="random", epochs=2, candidate_epochs=1, seeds=2),
        "seeds: got 2 for method 'random', which has no gates to agree on; wanted 1",
    ),
    (
        "search, a mixing schedule that is none",
        lambda: search(preset="paper-hls", mixing="linear"),
        "mixing: got 'linear'; wanted one of 'parabolic', 'reverse-sigmoid', 'constant', or a function of the progress "
        "t/T",
    ),
    (
        "search, a mixing ratio above 1",
        lambda: search(preset="paper-hls", mixing=lambda progress: 1.5),
        "mixing: the schedule returns 1.5 in epoch 0 of 1; wanted r in [0, 1]",
    ),
    (
        "search, a mixing ratio that is no number",
        lambda: search(preset="paper-hls", mixing=lambda progress: float("nan")),
        "mixing: the schedule returns nan in epoch 0 of 1; wanted r in [0, 1]",
    ),
    (
        "search, a class without images in the class-uniform stream",
        lambda: search(preset="paper-hls", data=replace(DATA, train=DATA.train.subset(range(38)))),
        "data: class 'right' has no images for weights, and the class_uniform sampler draws every class; wanted at "
        "least one of each class on either side (stratify=True), or the class left out",
    ),
    (
        "search, an unknown way to continue",
        lambda: search(preset="paper-hls", continuous="frozen"),
        "continuous: got 'frozen'; wanted one of 'none', 'class-head', 'half', 'reverse-sigmoid', 'frozen-backbone'",
    ),
    (
        "BbnSupernet, a head of another backbone",
        lambda: lt.space.BbnSupernet(backbone(4), head_of(4), head_of(8)),
        "class_head: channels_prev_prev is 64, and the backbone's last two cells want 32",
    ),
    (
        "BbnSupernet, heads of different classes",
        lambda: lt.space.BbnSupernet(backbone(4), head_of(4), lt.space.SupernetHead(backbone(4).head_place, 5)),
        "class_head: has 5 classes, and instance_head 3; wanted as many, to mix their logits",
    ),
    ("search, stratify as text", lambda: search(stratify="no"), "stratify: got 'no'; wanted True or False"),
    ("search, recompute as a number", lambda: search(recompute=1), "recompute: got 1; wanted True or False"),
    ("search, global_batch as text", lambda: search(global_batch="on"), "global_batch: got 'on'; wanted True or False"),
    ("search, an unknown device", lambda: search(device="tpu"), f"device: got 'tpu'; {DEVICE}"),
    ("search, no device", lambda: search(device=None), f"device: got None; {DEVICE}"),
    (
        "search, unknown views",
        lambda: search(preset="demo-ssf", views="rotate"),
        "views: got 'rotate'; wanted one of ⋯",
    ),
    (
        "search, a progress that is none",
        lambda: search(progress="bar"),
        "progress: got str; wanted an object with start, step, epoch and close, or None",
    ),
    ("search, out is no path", lambda: search(out=3), "out: got int; wanted the path of a directory, or None"),
    (
        "search, out is a file",
        lambda: search(out="notes.txt"),
        "out: notes.txt is a file; wanted a directory for the run",
    ),
    (
        "search, resume of nothing",
        lambda: search(resume=True),
        "resume: got True without out; wanted out=DIR, the directory of the run to continue",
    ),
    ("search, out holds a run", lambda: search(out="run"), f"out: run {HOLDS}"),
    (
        "search, out holds a run with other settings",
        lambda: search(data=lt.data.load("folder", root="pictures"), out="run", resume=True, epochs=9),
        "out: run holds a run with other settings: epochs (was 1, now 9). "
        "Resume with the settings it was begun with, or name another directory",
    ),
    # ---- retrain
    ("retrain, no genotype", lambda: retrain(3), f"genotype: got int; {BASELINES}"),
    (
        "retrain, a genotype that is not there",
        lambda: retrain("no/where"),
        f"genotype: got 'no/where'; no such file, and no baseline: {NETWORKS}",
    ),
    (
        "retrain, a name longer than any file's",
        lambda: retrain("x" * 300),
        f"genotype: got '{'x' * 300}'; no such file, and no baseline: {NETWORKS}",
    ),
    (
        "retrain, a directory without a genotype",
        lambda: retrain("empty"),
        "genotype: empty holds no genotype.json; wanted the run directory of a finished search",
    ),
    (
        "retrain, another file for a genotype",
        lambda: retrain("notes.txt"),
        "notes.txt: genotype: not of the form Genotype(normal=[…], …): ⋯",
    ),
    (
        "retrain, a picture for a genotype",
        lambda: retrain("pictures/cat/0.png"),
        "pictures/cat/0.png: cannot be read as a genotype: ⋯",
    ),
    (
        "retrain, an unknown setting",
        lambda: retrain("resnet32", learning_rate=1.0),
        "learning_rate: RetrainSettings has no such setting; there are: ⋯",
    ),
    (
        "retrain, an unknown preset",
        lambda: retrain("resnet32", preset="drats"),
        "preset: got 'drats'; did you mean 'darts'?",
    ),
    (
        "retrain, a precision that is none",
        lambda: retrain("resnet32", precision="fp16"),
        "precision: got 'fp16'; wanted one of 'float32', 'tf32', 'bf16'",
    ),
    (
        "retrain, nothing left to train on",
        lambda: retrain("resnet32", val_fraction=1.0),
        "val_fraction: got 1.0; wanted a number at least 0 and below 1",
    ),
    (
        "retrain, a class that cannot be held out",
        lambda: retrain("resnet32", data=lt.data.load("digits", "exp", 0.01), val_fraction=0.1),
        "val_fraction: class '9' has 1 training image(s); wanted at least 2 of every class, one to train on and one to "
        "hold out, or val_fraction=0",
    ),
    (
        "retrain, parameters of what is not drawn",
        lambda: retrain("resnet32", random_parameters=9000),
        "random_parameters: got 9000 for what is not drawn; wanted it with 'random' only",
    ),
    (
        "retrain, parameters that no random genotype has",
        lambda: retrain("random", random_parameters=9),
        "random_parameters: got 9; random genotypes at 2 channels and 3 layers have ⋯ to ⋯: wanted such a number, or "
        "other channels and layers",
    ),
    (
        "retrain, an unknown loss",
        lambda: retrain("resnet32", loss="focl"),
        "loss: got 'focl'; wanted one of 'cross_entropy', 'class_balanced', ⋯",
    ),
    (
        "retrain, a module for other images",
        lambda: retrain(nn.Conv2d(3, 3, 3)),
        "genotype: Conv2d fails on the training images (⋯); wanted a module from (N, 1, 8, 8) to logits (N, 3)",
    ),
    (
        "retrain, a module for other classes",
        lambda: retrain(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))),
        "genotype: Sequential makes (2, 2) of two images; wanted a module from (N, 1, 8, 8) to logits (N, 3)",
    ),
    (
        "retrain, a module without weights",
        lambda: retrain(nn.Flatten()),
        "genotype: Flatten has no parameters to train; wanted a module from images to logits",
    ),
    (
        "retrain, a mixing ratio out of range",
        lambda: retrain("resnet32", test_mixing=2),
        "test_mixing: got 2; wanted a mixing ratio in [0, 1]",
    ),
    (
        "retrain, heads of what has no cells",
        lambda: retrain("resnet32", derived="bbn"),
        "derived: got 'bbn' for 'resnet32'; wanted it with a genotype, whose normal cell makes the heads",
    ),
    ("retrain, out holds a run", lambda: retrain("run", out="run/retrain"), f"out: run/retrain {HOLDS}"),
    (
        "retrain, out holds a search",
        lambda: retrain("run", out="run", resume=True),
        "out: run holds a run with other settings: kind (was 'search', now 'retrain'). "
        "Resume with the settings it was begun with, or name another directory",
    ),
    # ---- evaluate, predict, report
    ("evaluate, a path", lambda: evaluate("run"), "model: got str; wanted what retrain returned, or a module"),
    (
        "evaluate, a whole data set",
        lambda: evaluate(trained(), DATA),
        "images: got Dataset; wanted an ImageSet, such as data.test",
    ),
    (
        "evaluate, no images",
        lambda: evaluate(trained(), DATA.test.subset([])),
        "images: the set is empty; wanted at least one image to evaluate on",
    ),
    (
        "evaluate, colour for grey",
        lambda: evaluate(
            trained(), ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1).long(), ("a",))
        ),
        "images: got 3 channel(s); wanted 1, as the training images",
    ),
    (
        "evaluate, images of other classes",
        lambda: evaluate(trained(), lt.data.load("digits").test),
        "labels: found class 0 … 9; with 3 train_counts wanted 0 … 2",
    ),
    (
        "evaluate, counts that are none",
        lambda: evaluate(trained(), train_counts=3),
        "train_counts: got 3; wanted the training images of each class",
    ),
    (
        "predict, a run that is none",
        lambda: lt.predict(None, "pictures"),  # type: ignore[arg-type]
        "run: got NoneType; wanted a run directory, its model.pt, or what retrain returned",
    ),
    (
        "predict, another file for a model",
        lambda: lt.predict("notes.txt", "pictures"),
        "run: notes.txt cannot be read as a trained model (⋯); wanted the model.pt of a retraining",
    ),
    (
        "predict, bytes for a path",
        lambda: lt.predict("run", b"pictures"),  # type: ignore[arg-type]
        "images: got bytes; wanted files, directories, or a tensor (N, C, H, W)",
    ),
    (
        "predict, a device that is no name",
        lambda: lt.predict("run", "pictures", device=0),  # type: ignore[arg-type]
        f"device: got 0; {DEVICE}",
    ),
    (
        "predict, an unreadable image",
        lambda: lt.predict("run", "torn"),
        "images: 1 of 6 cannot be read\n  image: torn/cat/1.png cannot be read (⋯); repair or remove it",
    ),
    (
        "report, one path",
        lambda: write_report("run", "page.html"),
        "runs: got 'run'; wanted a list of run directories",
    ),
    (
        "report, a number for a path",
        lambda: write_report([3], "page.html"),  # type: ignore[list-item]
        "runs: got int among them; wanted run directories",
    ),
    (
        "report, over a file of the run",
        lambda: write_report(["run"], "run/config.json"),
        "out: got config.json; wanted a page to write, a name that ends in .html",
    ),
    (
        "report, a config that is none",
        lambda: write_report(["listed"], "page.html"),
        "run: 'listed/config.json' has 'settings' that is no object; the run cannot be read",
    ),
    (
        "export, an unknown format",
        lambda: lt.export("run", "cells.pt", format="torchscript"),  # type: ignore[arg-type]
        "format: got 'torchscript'; wanted one of 'state', 'torch-export', 'onnx'",
    ),
    (
        "export, a module for a run",
        lambda: lt.export(nn.Identity(), "cells.pt"),  # type: ignore[arg-type]
        "run: got Identity; wanted a run directory, its model.pt, or what retrain returned",
    ),
    (
        "export, another format's name",
        lambda: lt.export("run", "cells.pt", format="torch-export"),
        "out: got cells.pt; wanted a file to write, for torch-export a name that ends in .pt2",
    ),
    (
        "export, over the run",
        lambda: lt.export("run", "run/retrain/model.pt"),
        "out: run/retrain/model.pt belongs to the run in run/retrain; wanted another file to write",
    ),
    # ---- lt.adapt
    (
        "adapt, a module for a supernet",
        lambda: adapt(nn.Identity()),
        "source: got Identity; wanted a Supernet, or the run directory of a finished search",
    ),
    (
        "adapt, a search that kept nothing",
        lambda: adapt(lt.engine.SearchResult(None, lt.methods.preset("darts"), [], {}, {}, None)),
        "source: the search kept its supernet in no run directory; wanted one with out=DIR, or a Supernet",
    ),
    (
        "adapt, a supernet without a head",
        lambda: adapt(backbone(2)),
        "source: got a supernet without a classifier; wanted one with num_classes",
    ),
    (
        "adapt, a supernet of another space or size than its settings",
        lambda: adapt("mixed"),
        "run: mixed/checkpoint.pt holds a supernet of another space or size than mixed/config.json says: "
        "alphas_normal is (2, 8), and wanted (2, 7)",
    ),
    (
        "adapt, no checkpoint",
        lambda: adapt("lost"),
        "run: lost holds no supernet (checkpoint.pt); wanted the run directory of one search, with its seed",
    ),
    (
        "adapt, colour for grey",
        lambda: adapt(lt.space.Supernet(channels=2, layers=1)),
        "data: got images of 1 channel(s); wanted 3, as the supernet was searched on",
    ),
    (
        "adapt, labels that are no class",
        lambda: adapt("run", data=dataclasses.replace(DATA, class_names=("left", "right"))),
        "data: its labels go up to 2, and there are 2 class names; wanted labels 0 … 1",
    ),
    (
        "adapt, a kept head of other classes",
        lambda: adapt("run", head="keep"),
        "head: got 'keep', and where the source's classes have 'cat' the target's have 'left'; wanted head='reinit', "
        "or a target of the same classes in the same order",
    ),
    (
        "adapt, a kept head and ldam",
        lambda: adapt(lt.space.Supernet(channels=2, layers=1, num_classes=3, in_channels=1), head="keep", loss="ldam"),
        "loss: got 'ldam' with head='keep', and the head is no CosineClassifier; wanted head='reinit', which makes one",
    ),
    (
        "adapt, a typo",
        lambda: adapt("run", backbon="frozen"),
        "backbon: AdaptSettings has no such setting; did you mean 'backbone'?",
    ),
    (
        "adapt, an unknown backbone",
        lambda: adapt("run", backbone="thawed"),
        "backbone: got 'thawed'; wanted one of 'as_is', 'frozen', 'finetune', 'scratch'",
    ),
    (
        "adapt, weights twice",
        lambda: adapt("run", drw=True),
        "drw: got True with loss 'class_balanced', which weighs classes from the start; wanted one of them, such as "
        "loss='cross_entropy' with drw=True",
    ),
    (
        "adapt, everything held out",
        lambda: adapt("run", val_fraction=1.0),
        "val_fraction: got 1.0; wanted a number above 0 and below 1",
    ),
    (
        "adapt, more sub-networks than there are",
        lambda: adapt(lt.space.Supernet(2, 3, 1, in_channels=1, nodes=1, primitives=("skip_connect",)), subnets=2),
        "subnets: got 2; 1 operations on 1 node(s) make about 1",
    ),
    ("adapt, out holds a run", lambda: adapt("run", out="run"), f"out: run {HOLDS}"),
    # ---- lt-nas: commands
    ("lt-nas, a typo", "serch", "command: got 'serch'; did you mean 'search'?"),
    (
        "lt-nas, an unknown command",
        "xyz",
        "command: got 'xyz'; there are: search, adapt, retrain, baseline, evaluate, ⋯",
    ),
    ("lt-nas, half a command", "data", "command: got 'data'; wanted 'data check' or 'data describe'"),
    (
        "lt-nas, no such study",
        "reproduce xyz",
        "command: got 'reproduce xyz'; wanted 'reproduce digits' or 'reproduce imb' or 'reproduce losses' or "
        "'reproduce table1' or 'reproduce tabular' or 'reproduce verification' or 'reproduce hls'",
    ),
    # ---- lt-nas reproduce
    (
        "lt-nas reproduce, no root",
        "reproduce table1 --data folder",
        "root: data='folder' needs the directory of the images; give root=DIR (--root DIR)",
    ),
    (
        "lt-nas reproduce, too few images for a distribution",
        "reproduce verification --data digits",
        "distributions: exp-0.01 at scale 1 leaves 1 image of some class, and a search needs one on each side of its "
        "split; wanted other distributions",
    ),
    (
        "lt-nas reproduce, a scale too small",
        "reproduce table1 --data digits --scale 0.1",
        "distributions: exp-0.1 at scale 0.1 leaves 1 image ⋯; wanted a scale of at least 0.16, or others",
    ),
    (
        "lt-nas reproduce, too few images for two heads",
        "reproduce hls --data digits --scale 0.1",
        "distributions: exp-0.1 at scale 0.1 leaves 1 image ⋯; wanted a scale of at least 0.16, or others",
    ),
    (
        "lt-nas reproduce, no root for two heads",
        "reproduce hls --data folder",
        "root: data='folder' needs the directory of the images; give root=DIR (--root DIR)",
    ),
    ("lt-nas reproduce, no device", "reproduce table1 --data digits --device tpu", f"device: got 'tpu'; {DEVICE}"),
    (
        "lt-nas reproduce, less than no epochs",
        "reproduce table1 --data digits --pretrain-epochs -1",
        "pretrain_epochs: got -1; wanted a whole number, at least 0",
    ),
    # ---- lt-nas: images
    (
        "lt-nas data, no factor",
        "data describe --imbalance exp",
        "factor: --imbalance exp needs it; give --factor 0.1, say (n_min / n_max)",
    ),
    ("lt-nas data, a factor above 1", "data describe --imbalance exp --factor 2", f"factor: got 2.0; {FACTOR}"),
    (
        "lt-nas data, an unknown data set",
        "data describe --data mnist",
        "data: got 'mnist'; wanted one of digits, cifar10, cifar100, folder, ⋯, or a Dataset",
    ),
    (
        "lt-nas data, no root",
        "data describe --data folder",
        "root: data='folder' needs the directory of the images; give root=DIR (--root DIR)",
    ),
    (
        "lt-nas data, a root that is not there",
        "data describe --data folder --root no/where",
        "root: no/where is not a directory; wanted one with a sub-folder of images a class",
    ),
    (
        "lt-nas data, an unknown class",
        "data describe --class-order ten",
        "class_order: no class is called 'ten'; the classes are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ),
    (
        "lt-nas data, a picture for a page",
        "data describe --out pictures/cat/0.png",
        "out: got 0.png; wanted a page to write, a name that ends in .html",
    ),
    (
        "lt-nas data, a page over another",
        "data describe --out other.html",
        "out: other.html is there and is no page of data describe; wanted another name, to spare it",
    ),
    (
        "lt-nas data check, a folder that is not there",
        "data check --root no/where",
        "root: no/where is not a directory; wanted one with a sub-folder of images a class",
    ),
    # ---- lt-nas search
    (
        "lt-nas search, no images",
        "search --data folder --root empty",
        "root: empty has no sub-folders; wanted one a class: empty/cat/1.jpg, …/dog/1.jpg",
    ),
    (
        "lt-nas search, a class without images",
        "search --data folder --root hollow",
        "root: class 'eel' has no images in hollow/eel; wanted files that end in ⋯; add some or remove the folder",
    ),
    (
        "lt-nas search, an unreadable image",
        "search --data folder --root torn",
        "image: torn/cat/1.png cannot be read (⋯); repair or remove it",
    ),
    (
        "lt-nas search, a class that vanishes",
        "search --data folder --root pictures --imbalance exp --factor 0.01",
        "factor: 0.01 of n_max=10 leaves the last class without an image; "
        "give a factor of at least 1/n_max = 0.1, or more images per class",
    ),
    (
        "lt-nas search, a class for one half only",
        "search --method darts --data folder --root lonely",
        "images: class 'eel' has 1 image, which cannot be on both sides of a split; "
        "add images, drop the class, or use stratify=False",
    ),
    (
        "lt-nas search, CIFAR in a directory that is not there",
        "search --data cifar100 --root no/where",
        "root: no/where is not a directory; wanted the one that holds cifar-100-python, or an empty one to download "
        "it into; without root it is downloaded into ⋯",
    ),
    ("lt-nas search, a typo in the method", "search --method dart", "method: got 'dart'; did you mean 'darts'?"),
    (
        "lt-nas search, an unknown preset",
        "search --preset x",
        "preset: got 'x'; there are: darts, authors-fairdarts, ⋯",
    ),
    (
        "lt-nas search, a method and another's preset",
        "search --method darts --preset paper-ssf",
        "preset: 'paper-ssf' is a preset of 'ssf-nas', not of 'darts'; name one of the two",
    ),
    (
        "lt-nas search, jobs of one search",
        "search --jobs 2",
        "jobs: got --jobs or --cluster for one search; wanted --seeds 2 or more with it",
    ),
    ("lt-nas search, an unknown device", "search --device tpu", f"device: got 'tpu'; {DEVICE}"),
    ("lt-nas search, out holds a run", "search --preset demo-darts --out run", f"out: run {HOLDS}"),
    (
        "lt-nas search, out holds a run with other settings",
        "search --preset demo-darts --data folder --root pictures --out run --resume",
        "out: run holds a run with other settings: alpha_lr (was 0.3, now 0.12); ⋯. "
        "Resume with the settings it was begun with, or name another directory",
    ),
    (
        "lt-nas search, out below a file",
        "search --preset demo-darts --out notes.txt/run",
        "out: cannot write to notes.txt/run: Not a directory",
    ),
    # ---- lt-nas adapt
    ("lt-nas adapt, a run that is not there", "adapt --run no/where", f"run: no/where {NO_RUN}"),
    (
        "lt-nas adapt, a search that is not finished",
        "adapt --run begun",
        "run: begun holds no genotype yet; finish the search first (--resume)",
    ),
    (
        "lt-nas adapt, a retraining for a search",
        "adapt --run run/retrain",
        "run: run/retrain is no search ('retrain'); wanted the run directory of a search",
    ),
    (
        "lt-nas adapt, more classes than the head",
        "adapt --run run --head keep",
        "head: got 'keep' for a head of 3 classes and a target of 10; wanted head='reinit', or a target of the same "
        "classes",
    ),
    (
        "lt-nas adapt, a class of one image",
        "adapt --run run --data folder --root lonely",
        "val_fraction: class 'eel' has 1 training image(s); wanted at least 2 of every class, one to train on and one "
        "to rank sub-networks by",
    ),
    # ---- lt-nas retrain
    (
        "lt-nas retrain, nothing to train",
        "retrain",
        "run: got 0 of --run, --genotype and --network; wanted one of them",
    ),
    (
        "lt-nas retrain, two things to train",
        "retrain --network random --genotype x",
        "run: got 2 of --run, --genotype and --network; wanted one of them",
    ),
    (
        "lt-nas retrain, an unknown preset",
        "retrain --network random --preset paper-sff",
        "preset: got 'paper-sff'; did you mean 'paper-ssf'?",
    ),
    ("lt-nas retrain, a run that is not there", "retrain --run no/where", f"run: no/where {NO_RUN}"),
    ("lt-nas retrain, a file for a run", "retrain --run notes.txt", f"run: notes.txt {NO_RUN}"),
    ("lt-nas retrain, a damaged run", "retrain --run broken", "broken/config.json: cannot be read: ⋯"),
    (
        "lt-nas retrain, a run that tells no images",
        "retrain --run bare",
        "run: bare/config.json does not say which images it was made from; wanted name, imbalance, factor, seed, ⋯",
    ),
    (
        "lt-nas retrain, a search that is not finished",
        "retrain --run begun",
        "run: begun holds no genotype yet; finish the search first (--resume)",
    ),
    (
        "lt-nas retrain, other images for a run",
        "retrain --run run --imbalance step --factor 0.1",
        "data: with --run the images are those of the search; leave out --data, --imbalance, …",
    ),
    (
        "lt-nas retrain, a genotype that is not there",
        "retrain --genotype no/where.json",
        "no/where.json: cannot be read as a genotype: ⋯",
    ),
    (
        "lt-nas retrain, a config for a genotype",
        "retrain --genotype run/config.json",
        "run/config.json: normal: got None; wanted an object with 'edges' and 'concat'",
    ),
    (
        "lt-nas retrain, half a genotype",
        "retrain --genotype bare/genotype.json",
        "bare/genotype.json: normal: 'edges' is missing; wanted a list",
    ),
    ("lt-nas retrain, trained before", "retrain --run run", f"out: run/retrain {HOLDS}"),
    (
        "lt-nas retrain, out holds a search",
        "retrain --network small-conv-net --out run --resume",
        "out: run holds a run with other settings: kind (was 'search', now 'retrain'). "
        "Resume with the settings it was begun with, or name another directory",
    ),
    # ---- lt-nas evaluate, predict, report, demo
    (
        "lt-nas evaluate, a run that is not there",
        "evaluate --run no/where",
        "run: no/where is not there; wanted the run directory of a finished retraining, or its model.pt",
    ),
    (
        "lt-nas evaluate, a file for a run",
        "evaluate --run run/retrain/model.pt",
        "run: run/retrain/model.pt is a file; wanted the run directory of a finished retraining",
    ),
    (
        "lt-nas evaluate, a search alone",
        "evaluate --run begun",
        "run: begun is a search, which leaves a genotype and no trained network; train one first: "
        "lt-nas retrain --run begun",
    ),
    (
        "lt-nas evaluate, other images",
        "evaluate --run run --root empty",
        "root: empty has no sub-folders; wanted one a class: empty/cat/1.jpg, …/dog/1.jpg",
    ),
    ("lt-nas predict, nothing", "predict", "run: got none; wanted lt-nas predict RUN IMAGE ..."),
    (
        "lt-nas predict, no images",
        "predict run",
        "images: got none; wanted one or more image files, or directories of them",
    ),
    (
        "lt-nas predict, an image that is not there",
        "predict run gone.png",
        "images: gone.png is not there; wanted image files, or directories of them",
    ),
    ("lt-nas predict, no run", "predict empty pictures", f"run: empty {NO_RUN}"),
    (
        "lt-nas predict, no classes",
        "predict run pictures --top 0",
        "top: got 0; wanted how many classes to name, at least 1",
    ),
    (
        "lt-nas predict, a table over an image",
        "predict run pictures --csv pictures/cat/0.png",
        "csv: got pictures/cat/0.png; wanted a file to write, a name that ends in .csv",
    ),
    (
        "lt-nas predict, a table over a file of the run",
        "predict run pictures --csv run/manifest.csv",
        "csv: run/manifest.csv belongs to the run in run; wanted another file to write",
    ),
    (
        "lt-nas predict, a list over a file of the run",
        "predict run pictures --json run/retrain/metrics.json",
        "json: run/retrain/metrics.json belongs to the run in run/retrain; wanted another file to write",
    ),
    (
        "lt-nas export, a search alone",
        "export begun --out cells.pt",
        "run: begun is a search, which leaves a genotype and no trained network; train one first: "
        "lt-nas retrain --run begun",
    ),
    (
        "lt-nas export, below a file",
        "export run --out notes.txt/cells.pt",
        "out: cannot write notes.txt/cells.pt: ⋯",
    ),
    ("lt-nas report, no runs", "report", "runs: got none; wanted one or more run directories, such as runs/*"),
    (
        "lt-nas report, a run that is not there",
        "report no/where",
        "runs: 'no/where' is not a directory; wanted run directories, such as runs/*",
    ),
    (
        "lt-nas report, no run",
        "report empty",
        "runs: 'empty' holds no run (no config.json in it or in its sub-directories)",
    ),
    (
        "lt-nas report, over a file of the run",
        "report run --out run/genotype.json",
        "out: got genotype.json; wanted a page to write, a name that ends in .html",
    ),
    ("lt-nas demo, a negative seed", "demo --seed -1", "seed: got -1; wanted an integer in 0 … 4294967295"),
]

FLAGS: list[tuple[str, str, str]] = [
    ("no number", "search --epochs x", "Error parsing --epochs: invalid literal for int() with base 10: 'x'"),
    ("out of range", "search --epochs 0", "epochs: got 0; wanted a whole number, at least 1"),
    ("a typo", "search --epoch 3", "Unrecognized options: --epoch"),
    ("no choice", "search --imbalance exq", "invalid choice 'exq' for argument '--imbalance'"),
    ("no value", "search --factor", "Missing value for argument '--factor'"),
    ("no ratio", "search --method darts+bbn --mixing-constant 2", "mixing_constant: got 2.0; wanted a mixing ratio in"),
    ("no schedule", "search --method darts+bbn --mixing linear", "invalid choice 'linear' for argument '--mixing'"),
    ("no network", "retrain --network vgg", "resnet32"),
    ("no such baseline", "baseline vgg", "invalid choice 'vgg'"),
    ("no baseline", "baseline --data digits", "resnet32"),
    ("no loss", "baseline resnet32 --loss focl", "invalid choice 'focl' for argument '--loss'"),
    ("no folder", "data check", "--root"),
    ("none of those needed", "evaluate", "--run"),
    ("no file to write", "export run", "--out"),
    ("no format", "export run --out x.pt --format pickle", "invalid choice 'pickle' for argument '--format'"),
    ("too much", "reproduce table1 --scale 2", "scale: got 2; wanted a share of the paper's work"),
    ("no scale", "reproduce hls --scale 0", "scale: got 0.0; wanted a number above 0"),
    ("no time", "reproduce table1 --minutes 0", "minutes: got 0.0; wanted a number above 0"),
    ("no distribution", "reproduce table1 --distributions exp", "wanted some of balance, exp-0.1, exp-0.01, step-0.01"),
    ("no backbone", "adapt --run run --backbone thawed", "invalid choice 'thawed' for argument '--backbone'"),
    ("none to adapt", "adapt", "--run"),
    ("too much of imb", "reproduce imb --scale 2", "scale: got 2; wanted a share of the work, above 0 and at most 1"),
    ("the source for a target", "reproduce imb --targets balance", "wanted some of exp-0.1, exp-0.01, step-0.01,"),
    ("no job at a time", "search --seeds 2 --jobs 0", "jobs: got 0; wanted a whole number, at least 1"),
    ("no such cluster", "search --seeds 2 --cluster sge", "invalid choice 'sge' for argument '--cluster'"),
    (
        "options of no cluster",
        "search --seeds 2 --cluster-options timeout_min=5",
        "cluster_options: got some with cluster='none'; wanted cluster='slurm' too, or no options",
    ),
    ("no cluster of imb", "reproduce imb --cluster sge", "invalid choice 'sge' for argument '--cluster'"),
    ("a word too many", "doctor now", "Unrecognized options: now"),
]


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


def pattern(message: str) -> str:
    return "(?s:.+)".join(map(re.escape, message.split("⋯")))


@pytest.mark.parametrize(("mistake", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_clear_message_and_nothing_damaged(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mistake: Mistake,
    message: str,
) -> None:
    monkeypatch.chdir(workplace)
    before = contents(workplace)
    if isinstance(mistake, str):
        code = cli.main(shlex.split(mistake))
        out, err = capsys.readouterr()
        assert re.fullmatch(f"lt-nas: error: {pattern(message)}\n", err), err
        assert (code, out, err.count("\n")) == (2, "", 1)
    else:
        with pytest.raises(UserError) as caught:
            mistake()
        assert re.fullmatch(pattern(message), str(caught.value)), str(caught.value)
    assert contents(workplace) == before


@pytest.mark.parametrize(("words", "message"), [case[1:] for case in FLAGS], ids=[case[0] for case in FLAGS])
def test_a_wrong_flag_is_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    monkeypatch.chdir(workplace)
    before = contents(workplace)
    assert cli.main(shlex.split(words)) == 2
    err = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in err and "Traceback" not in err
    assert contents(workplace) == before
