"""Every number of a search, in one flat frozen dataclass: the Python API and the command line both read it."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.losses import LossName
from lt_nas_ext.longtail.mixing import Mixing, check_ratio, schedule

Primitives = Literal["darts", "fair-darts"]
AlphaInit = Literal["noise", "zeros"]
Rule = Literal["top2", "per_edge", "threshold_sparse", "threshold_edge"]
ZeroOne = Literal["l1", "l2"]
Order = Literal["first", "second", "exact"]
Scale = Literal["none", "dim"]
Precision = Literal["float32", "tf32", "bf16"]
OnNonFinite = Literal["rollback", "skip", "stop"]
Hls = Literal["none", "hls", "constant", "freeze"]
HlsScope = Literal["arch", "arch+weights"]
Continuous = Literal["none", "class-head", "half", "reverse-sigmoid", "frozen-backbone"]

SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True)
class SearchSettings:
    """All settings of one search. The defaults are DARTS' own (arXiv:1806.09055) [paper].

    Start from a preset and replace what differs; every field is checked when the object is made.

    Raises:
        UserError: a value is out of range or of the wrong type; the message names the field.

    >>> from lt_nas_ext.methods import preset
    >>> preset("paper-ssf").epochs
    40
    >>> SearchSettings(epochs=0)
    Traceback (most recent call last):
        ...
    lt_nas_ext.errors.UserError: epochs: got 0; wanted a whole number, at least 1
    """

    method: str = "darts"
    """The system to run: darts, fair-darts, ssf-nas, ssnas, darts+bbn, darts+resampling, darts+reweighting, or random
    (genotypes drawn at random)."""
    preset: str = "darts"
    """The preset that these numbers started from: a record; on the command line it gives all other defaults."""
    epochs: int = 50
    """Search epochs; an epoch is one pass over the half that trains w."""
    batch_size: int = 64
    """Images in a step, on either half; in each of the two streams of darts+bbn. Several processes share them."""
    channels: int = 16
    """Channels C of the supernet's first cell; they double at each reduction."""
    layers: int = 8
    """Cells of the supernet; those at layers//3 and 2*layers//3 reduce."""
    nodes: int = 4
    """Nodes inside a cell."""
    primitives: Primitives = "darts"
    """Candidate operations: the 8 of DARTS, or the 7 of the FairDARTS code (without none)."""
    alpha_init: AlphaInit = "noise"
    """Start of the architecture parameters: 1e-3 * randn (DARTS) or zeros (FairDARTS)."""
    w_lr: float = 0.025
    """Learning rate of the weights (SGD) in the first epoch; cosine schedule over the epochs."""
    w_lr_min: float = 0.001
    """Where the cosine schedule of w_lr ends."""
    w_momentum: float = 0.9
    """Momentum of the weights' SGD."""
    w_weight_decay: float = 3e-4
    """Weight decay of the weights."""
    grad_clip: float = 5.0
    """Largest norm of the weights' whole gradient; a longer one is shortened to it."""
    loss: LossName = "cross_entropy"
    """Loss of w and of alpha on labelled images (darts, fair-darts), class counts those of either half; ldam brings its
    cosine classifier."""
    alpha_lr: float = 3e-4
    """Learning rate of the architecture parameters (Adam): also about the most that a gate's alpha moves a step."""
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    """Adam's two decay rates for the architecture parameters."""
    alpha_weight_decay: float = 1e-3
    """Weight decay of the architecture parameters (added to their gradient, as torch.optim.Adam does)."""
    alpha_frozen: float = 0.0
    """Share of the epochs, from the first on, in which alpha stays as it is (PC-DARTS: 0.3, the first 15 of 50)."""
    beta_decay: float = 0.0
    """Weight, times the epoch, of the mean logsumexp of an edge's alpha (beta-DARTS: 0.5; softmax gates)."""
    auxiliary_skip: bool = False
    """A skip connection beside every edge, of strength 1 at the start and towards 0 at the end (DARTS-)."""
    partial_channels: int = 1
    """One channel in so many goes through an edge's candidates, the others past them, and edges have weights of their
    own (PC-DARTS: 4); 1: all do, and they have none."""
    candidates: int = 0
    """Genotypes of the last epochs and next to the derived one that a short training on labels chooses among, by macro
    accuracy on the half that trains alpha; 0: the derived one is taken."""
    candidate_epochs: int = 25
    """Epochs of that training, for each genotype (also of method random, whose epochs are a multiple of it)."""
    stop_at_skips: int = 0
    """End the search after the epoch in which the normal cell has so many skip connections (DARTS+: 2); 0: never."""
    order: Order = "first"
    """Gradient of alpha at the present weights (first), or through their next step: by a finite difference (second, as
    in DARTS) or by double backward (exact). It serves every method whose alpha loss goes through the weights."""
    rule: Rule = "top2"
    """How a genotype is read from the gates: top2 (DARTS), per_edge (SSF-NAS, eq. 4), threshold_* (FairDARTS)."""
    threshold: float = 0.85
    """Gate that an edge needs under the two threshold rules."""
    lambda_01: float = 10.0
    """Weight of the zero-one loss, a mean over ALL gates of both cell types (sigmoid gates: fair-darts, ssf-nas)."""
    lambda_01_ramp: bool = False
    """Let lambda_01 grow linearly from 0 in the first epoch to its value in the last."""
    zero_one: ZeroOne = "l2"
    """Form of the zero-one loss: l2 (FairDARTS' code) or l1 (its text, eq. 6)."""
    lambda_bt: float = 5e-3
    """Weight of the off-diagonal terms of the Barlow Twins loss (ssf-nas)."""
    bt_scale: Scale = "none"
    """Barlow Twins as the plain sum over dimensions (none), or divided by the embedding's width (dim)."""
    projector: tuple[int, ...] = (512, 512, 512)
    """Widths of the Barlow Twins projector's linear layers (ssf-nas); the last one is the embedding's."""
    label_free: bool = True
    """Read no label (ssf-nas); off, balanced-softmax cross-entropy is added to Barlow Twins in both losses."""
    views: str = "default"
    """Augmentation that makes the two views (ssf-nas), by name; default: the data set's own."""
    augment: str = "default"
    """Augmentation of labelled images, by name; default: the data set's own."""
    mixing: Mixing = "parabolic"
    """Mixing ratio r over the epochs (darts+bbn): parabolic, 1 - (t/T)^2; reverse-sigmoid; or constant. In Python also
    any function of the progress t/T."""
    mixing_beta: float = 10.0
    """Steepness of the reverse sigmoid, 1 / (1 + exp(beta * (t/T - 1/2)))."""
    mixing_constant: float = 0.5
    """The mixing ratio where it is constant."""
    hls: Hls = "none"
    """Learning rate of the backbone's architecture parameters against the heads' (darts+bbn): the same (none), times
    g(r) = exp(-k (1/r - 1)) (hls), times hls_constant (constant), or 0 (freeze)."""
    hls_k: float = 1.0
    """k of g(r)."""
    hls_constant: float = 1.0
    """The factor where it is constant."""
    hls_scope: HlsScope = "arch"
    """What the factor acts on: the backbone's architecture parameters (arch), or its weights too (arch+weights)."""
    continuous: Continuous = "none"
    """Continuous training after the main schedule (darts+bbn): the class head alone learns, r = 0 (class-head); r = 1/2
    (half); reverse-sigmoid; or the class head alone over a backbone frozen with its statistics (frozen-backbone)."""
    continuous_epochs: int = 10
    """Epochs of the continuous training, always extra."""
    continuous_lr: float = 0.1
    """Factor on all learning rates in those epochs; the cosine schedule of w_lr begins anew."""
    split: float = 0.5
    """Share of the training images that trains w; the rest trains the architecture parameters."""
    one_level: bool = False
    """Train the weights and the architecture parameters on the same images, all of them, in place of a split."""
    stratify: bool = True
    """Split class by class. Off, the split reads no label (label-free searches)."""
    probe_lr: float = 0.02
    """Learning rate of the detached linear probe that gives a label-free search an accuracy to show."""
    test_every: int = 0
    """Test the supernet (or probe) every so many epochs and after the last, for curves only. 0: never."""
    min_steps: int = 0
    """Take as many epochs as make so many steps of the weights, if those are more than epochs."""
    fit: bool = False
    """Fit the numbers to the images: batch_size halved until an epoch has 8 steps (16 at least), projector widths at
    most 8 * batch_size, alpha_lr at least 8 / steps of alpha, one_level where a class has fewer than 10 images."""
    seed: int = 0
    """Random seed of initial weights, split, order of the images and augmentation."""
    precision: Precision = "float32"
    """What the supernet computes in during a step: float32, tf32 (CUDA: products of factors rounded to 10 bits), or
    bf16 where that loses little. Tests and sums: float32."""
    deterministic: bool = False
    """On CUDA take only algorithms that give the same bits every time, at some speed; on a CPU all do."""
    on_non_finite: OnNonFinite = "rollback"
    """A loss or gradient that is not finite: begin the epoch again with other draws, once, then stop (rollback); leave
    the step out, for which every step waits for the device and runs as written (skip); or stop."""
    capture: bool = True
    """On CUDA, record each step as a graph and replay it: the same numbers with one launch a step. Not in several
    processes."""
    global_batch: bool = True
    """In several processes (torchrun) take Barlow Twins over the whole batch, as one process would; off, each takes it
    over its share. Batch norms take their share's statistics either way, averaged after every epoch."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, ..."""
    recompute: bool = False
    """Run each cell again in backward instead of keeping what it made: less memory, more time, the same result."""

    def __post_init__(self) -> None:
        check_whole(self, "epochs", "channels", "layers", "nodes", "partial_channels", least=1)
        check_whole(self, "candidate_epochs", least=1)
        check_whole(self, "batch_size", least=2)
        check_whole(self, "seed", "stop_at_skips", "test_every", "candidates", "min_steps", least=0)
        check_number(self, "w_lr", "alpha_lr", "grad_clip", "probe_lr", above=0.0)
        check_number(self, "w_lr_min", "w_weight_decay", "alpha_weight_decay", "lambda_01", "lambda_bt", least=0.0)
        check_number(self, "beta_decay", least=0.0)
        check_number(self, "alpha_frozen", least=0.0, below=1.0)
        check_number(self, "w_momentum", least=0.0, below=1.0)
        check_number(self, "threshold", "split", above=0.0, below=1.0)
        check_choice(self, "primitives", get_args(Primitives))
        check_choice(self, "alpha_init", get_args(AlphaInit))
        check_choice(self, "order", get_args(Order))
        check_choice(self, "rule", get_args(Rule))
        check_choice(self, "loss", get_args(LossName))
        check_choice(self, "zero_one", get_args(ZeroOne))
        check_choice(self, "bt_scale", get_args(Scale))
        check_choice(self, "precision", get_args(Precision))
        check_choice(self, "on_non_finite", get_args(OnNonFinite))
        check_widths(self, "projector")
        check_switch(self, "stratify", "recompute", "capture", "auxiliary_skip", "lambda_01_ramp", "label_free")
        check_switch(self, "one_level", "fit", "deterministic", "global_batch")
        self._check_mixing()
        if self.one_level and self.candidates > 1:
            came = f"got {self.candidates} with one_level"
            raise UserError(f"candidates: {came}, which leaves no images to judge them on; wanted 0")
        betas = self.alpha_betas
        pair = isinstance(betas, tuple) and len(betas) == 2
        if not pair or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
            raise UserError(f"alpha_betas: got {betas!r}; wanted two numbers, each at least 0 and below 1")

    def _check_mixing(self) -> None:
        schedule(self.mixing)  # a name or a function
        check_number(self, "mixing_beta", "hls_k", "hls_constant", "continuous_lr", above=0.0)
        check_ratio("mixing_constant", self.mixing_constant)
        check_choice(self, "hls", get_args(Hls))
        check_choice(self, "hls_scope", get_args(HlsScope))
        check_choice(self, "continuous", get_args(Continuous))
        check_whole(self, "continuous_epochs", least=1)


def overridden(settings: SettingsT, overrides: Mapping[str, Any]) -> SettingsT:
    """A copy of a settings dataclass with some fields replaced.

    Raises:
        UserError: a name that is no field (the message names the nearest one), or a value out of range.

    >>> overridden(SearchSettings(), {"epochs": 3}).epochs
    3
    >>> overridden(SearchSettings(), {"epoch": 3})
    Traceback (most recent call last):
        ...
    lt_nas_ext.errors.UserError: epoch: SearchSettings has no such setting; did you mean 'epochs'?
    """
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    for name in overrides:
        if name not in names:
            raise UserError(f"{name}: {type(settings).__name__} has no such setting; {nearest(name, names)}")
    # A list (from json or a caller) stands for a tuple: the settings must stay hashable and comparable.
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def nearest(name: str, names: list[str]) -> str:
    """`did you mean ...?` with the closest of `names`, or all of them where none is close.

    >>> nearest("dart", ["darts", "ssf-nas"])
    "did you mean 'darts'?"
    """
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"


def check_whole(settings: Any, *fields: str, least: int) -> None:
    """Raise `UserError` unless each field is an int of at least `least`."""
    for field in fields:
        value = getattr(settings, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{field}: got {value!r}; wanted a whole number, at least {least}")


def check_number(
    settings: Any, *fields: str, least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise `UserError` unless each field is a finite number within the bounds."""
    bounds = [("at least", least), ("above", above), ("below", below)]
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    for field in fields:
        value = getattr(settings, field)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if (
            not number
            or (least is not None and value < least)
            or (above is not None and value <= above)
            or (below is not None and value >= below)
        ):
            raise UserError(f"{field}: got {value!r}; wanted a number {wanted}")


def check_switch(settings: Any, *fields: str) -> None:
    """Raise `UserError` unless each field is True or False."""
    for field in fields:
        value = getattr(settings, field)
        if not isinstance(value, bool):
            raise UserError(f"{field}: got {value!r}; wanted True or False")


def check_choice(settings: Any, field: str, choices: tuple[str, ...]) -> None:
    """Raise `UserError` unless the field is one of `choices`."""
    value = getattr(settings, field)
    if value not in choices:
        raise UserError(f"{field}: got {value!r}; wanted one of {', '.join(map(repr, choices))}")


def check_widths(settings: Any, field: str) -> None:
    """Raise `UserError` unless the field is a tuple of one or more widths."""
    value = getattr(settings, field)
    if not isinstance(value, tuple) or not value or not all(isinstance(w, int) and w >= 1 for w in value):
        raise UserError(f"{field}: got {value!r}; wanted the widths of one or more layers, such as (512, 512, 512)")
