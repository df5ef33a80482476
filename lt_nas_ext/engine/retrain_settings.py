"""Every number of a retraining, in one flat frozen dataclass: the Python API and the command line both read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.losses import LossName, make_loss
from lt_nas_ext.longtail.mixing import Mixing, check_ratio, schedule
from lt_nas_ext.longtail.samplers import SamplerName
from lt_nas_ext.methods.settings import (
    OnNonFinite,
    Precision,
    Scale,
    check_choice,
    check_number,
    check_switch,
    check_whole,
    check_widths,
)
from lt_nas_ext.space.network import DropPathOn

Size = Literal["small", "paper"]
Derivation = Literal["found", "plain", "bbn"]

SIZES: dict[str, tuple[int, int]] = {"small": (16, 8), "paper": (36, 20)}
"""Size -> (channels, layers). paper: DARTS' [paper]; small: the supernet's own [ours]."""


@dataclass(frozen=True)
class RetrainSettings:
    """All settings of one retraining. The last weights are reported; nothing is selected on test images.

    Start from a preset (`retrain_preset`) and replace what differs; every field is checked when the object is made.

    Raises:
        UserError: a value is out of range or of the wrong type; the message names the field.
    """

    preset: str = "default"
    """The preset that these numbers started from: a record; on the command line it gives all other defaults."""
    epochs: int = 150
    """Supervised epochs, over all training images."""
    batch_size: int = 96
    """Images in a step. Several processes share them."""
    size: Size = "small"
    """Network of a genotype: small (8 cells, C = 16) or paper (20 cells, C = 36)."""
    channels: int | None = None
    """Channels of the first cell, in place of the size's."""
    layers: int | None = None
    """Cells, in place of the size's."""
    random_parameters: int | None = None
    """Of 300 random genotypes take the one nearest to this many parameters, such as those of what was found."""
    loss: LossName = "cross_entropy"
    """The loss, with its paper's numbers; ldam brings its cosine classifier."""
    drw: bool = False
    """Then class-balanced weights on the loss in the last fifth of the epochs (deferred re-weighting)."""
    sampler: SamplerName = "instance"
    """How images are drawn: every image once (instance), or classes by chance; under_sampling shortens the epochs."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes."""
    auxiliary: float = 0.0
    """Weight of the loss of a second classifier after two thirds of the cells (networks of a genotype); 0: none."""
    lr: float = 0.025
    """Learning rate of SGD in the first supervised epoch; cosine schedule."""
    lr_min: float = 0.0
    """Where the cosine schedule ends."""
    finetune_lr: float | None = None
    """Learning rate in place of lr after a pre-training; None: lr."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 3e-4
    """Weight decay."""
    grad_clip: float = 5.0
    """Largest norm of the whole gradient."""
    drop_path: float = 0.2
    """Drop-path probability at the end; it grows linearly from 0 (networks of a genotype)."""
    drop_path_on: DropPathOn = "operations"
    """What an image loses: operations but the identity (DARTS), or the whole sum of a node (FairDARTS)."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, such as 0.999; it is what is tested, reported and kept. 0: none."""
    augment: str = "default"
    """Augmentation, by name; default: the data set's own."""
    cutout: bool = False
    """Then cut a square of half the side out of each image, 16 of 32 pixels; nothing below 16 pixels."""
    mixup: float = 0.0
    """Strength of mixup (its Beta distribution's parameter) in all but the last tenth of the epochs. 0: none."""
    remix: bool = False
    """Then the target of a mixture is the rarer class's alone, where that is rare enough (Remix; with mixup)."""
    tail_augment: bool = False
    """Then images of rare classes are mostly augmented as the first of the two views, more strongly."""
    pretrain_epochs: int = 0
    """Barlow Twins epochs before the supervised ones, always extra."""
    pretrain_lr: float = 0.025
    """Learning rate of the pre-training; cosine schedule to 0."""
    views: str = "default"
    """Augmentation that makes the two views of the pre-training; default: the data set's own."""
    lambda_bt: float = 5e-3
    """Weight of the off-diagonal terms of the Barlow Twins loss."""
    bt_scale: Scale = "dim"
    """Barlow Twins as the plain sum over dimensions (none), or divided by the embedding's width (dim)."""
    projector: tuple[int, ...] = (512, 512, 512)
    """Widths of the pre-training's projector."""
    precision: Precision = "float32"
    """What the network computes in while it is trained: float32, tf32 (CUDA), or bf16 where that loses little. Tests:
    float32."""
    val_fraction: float = 0.0
    """Share of each class's training images to hold out; temperature and logit adjustment are fitted on them after."""
    derived: Derivation = "found"
    """Of a genotype: the network that its search was of (found); of what darts+bbn found that of the backbone's cells
    alone (plain); of what has no heads one with two, the normal cell in either (bbn)."""
    mixing: Mixing = "parabolic"
    """Mixing ratio r of a network with two heads: parabolic, 1 - (t/T)^2; reverse-sigmoid; or constant. In Python also
    any function of the progress t/T."""
    mixing_beta: float = 10.0
    """Steepness of the reverse sigmoid, 1 / (1 + exp(beta * (t/T - 1/2)))."""
    mixing_constant: float = 0.5
    """The mixing ratio where it is constant."""
    test_mixing: float = 0.5
    """The mixing ratio at which the trained heads answer: 0 is the class head alone, 1/2 BBN's own."""
    capture: bool = True
    """On CUDA, record each step as a graph and replay it: the same numbers with one launch a step. Not in several
    processes."""
    deterministic: bool = False
    """On CUDA take only algorithms that give the same bits every time, at some speed; on a CPU all do."""
    on_non_finite: OnNonFinite = "rollback"
    """A loss or gradient that is not finite: begin the epoch again with other draws, once, then stop (rollback); leave
    the step out (skip); or stop."""
    test_every: int = 1
    """Evaluate on the test set every so many epochs, for the curves only; the last epoch always."""
    seed: int = 0
    """Random seed of initial weights, order of the images and augmentation."""
    global_batch: bool = True
    """In several processes (torchrun) pre-train by Barlow Twins over the whole batch, as one process would; off, each
    takes it over its share. Batch norms take their share's statistics either way, averaged after every epoch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, ..."""

    def __post_init__(self) -> None:
        check_whole(self, "epochs", "test_every", least=1)
        check_whole(self, "batch_size", least=2)
        check_whole(self, "seed", "pretrain_epochs", least=0)
        check_whole(
            self,
            *[name for name in ("channels", "layers", "random_parameters") if getattr(self, name) is not None],
            least=1,
        )
        check_number(self, "lr", "pretrain_lr", "grad_clip", above=0.0)
        check_number(self, *(["finetune_lr"] if self.finetune_lr is not None else []), above=0.0)
        check_number(self, "lr_min", "weight_decay", "lambda_bt", "auxiliary", "mixup", least=0.0)
        check_number(
            self, "momentum", "drop_path", "label_smoothing", "ema_decay", "val_fraction", least=0.0, below=1.0
        )
        check_switch(self, "capture", "deterministic", "cutout", "drw", "remix", "tail_augment", "global_batch")
        check_choice(self, "size", get_args(Size))
        check_choice(self, "loss", get_args(LossName))
        check_choice(self, "sampler", get_args(SamplerName))
        check_choice(self, "bt_scale", get_args(Scale))
        check_choice(self, "drop_path_on", get_args(DropPathOn))
        check_choice(self, "precision", get_args(Precision))
        check_choice(self, "on_non_finite", get_args(OnNonFinite))
        check_widths(self, "projector")
        check_choice(self, "derived", get_args(Derivation))
        schedule(self.mixing)  # a name or a function
        check_number(self, "mixing_beta", above=0.0)
        check_ratio("mixing_constant", self.mixing_constant)
        check_ratio("test_mixing", self.test_mixing)
        self._check_loss()

    def _check_loss(self) -> None:
        make_loss(self.loss, (1, 1), self.label_smoothing)  # not every loss knows label smoothing
        if self.drw and self.loss in ("class_balanced", "inverse_frequency"):
            raise UserError(
                f"drw: got True with loss {self.loss!r}, which weighs classes from the start; wanted one of them"
            )
        if self.remix and not self.mixup:
            raise UserError("remix: got True with mixup=0, which mixes nothing; wanted mixup above 0, such as 1.0")
        if self.auxiliary and self.loss == "ldam":
            raise UserError(
                f"auxiliary: got {self.auxiliary:g} with loss 'ldam', whose classifier of cosines is one; wanted 0"
            )
