"""IMB-NAS: adapt a supernet from a balanced source to an imbalanced target (Duggal et al., arXiv:2210.00136).

[paper] What is known of it: accuracy on balanced images does not predict accuracy on imbalanced ones, and the most
effective cheap adaptation freezes the backbone of the supernet, trained on the balanced source, and retrains its linear
head with a re-weighted loss. Its tables are not available here, and nothing here reproduces them.

[ours] All else: the names of the strategies, every number, how sub-networks are drawn, restricted and judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.losses import LossName
from lt_nas_ext.longtail.samplers import SamplerName
from lt_nas_ext.methods.settings import OnNonFinite, check_choice, check_number, check_switch, check_whole
from lt_nas_ext.space import Genotype, Supernet, distinct
from lt_nas_ext.space.derive import random_genotypes

Backbone = Literal["as_is", "frozen", "finetune", "scratch"]
Head = Literal["keep", "reinit"]


@dataclass(frozen=True)
class AdaptSettings:
    """All settings of one adaptation [ours]; backbone × head × loss is its strategy.

    Architecture parameters stay as they were searched, whatever the strategy. Every field is checked when the object is
    made.

    Raises:
        UserError: a value is out of range or of the wrong type; the message names the field.

    >>> AdaptSettings().strategy
    'frozen, reinit, class_balanced'
    >>> AdaptSettings(backbone="thawed")
    Traceback (most recent call last):
        ...
    lt_nas_ext.errors.UserError: backbone: got 'thawed'; wanted one of 'as_is', 'frozen', 'finetune', 'scratch'
    """

    backbone: Backbone = "frozen"
    """Weights before the head: as they were searched, with their batch norms in evaluation mode (frozen); likewise, and
    a head that is kept is not trained either (as_is); trained on (finetune); drawn and trained anew (scratch)."""
    head: Head = "reinit"
    """The classifier: a fresh one for the target's classes (reinit), or the source's, for the same classes (keep)."""
    loss: LossName = "class_balanced"
    """The loss, with its paper's numbers; ldam brings its cosine classifier."""
    drw: bool = False
    """Then class-balanced weights on the loss in the last fifth of the epochs (deferred re-weighting)."""
    sampler: SamplerName = "instance"
    """How images are drawn: every image once (instance), or classes by chance; under_sampling shortens the epochs."""
    epochs: int = 20
    """Epochs over the target's training images, less val_fraction."""
    batch_size: int = 64
    """Images in a step. Several processes share them."""
    lr: float = 0.1
    """Learning rate of the head (SGD) in the first epoch; cosine schedule to 0."""
    backbone_lr: float = 0.025
    """The same of the backbone, where it is trained."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 3e-4
    """Weight decay."""
    grad_clip: float = 5.0
    """Largest norm of the whole gradient."""
    augment: str = "default"
    """Augmentation, by name; default: the data set's own. With none and a backbone that is not trained, the features of
    each image are computed once and kept."""
    recalibrate: bool = False
    """Take the supernet's running statistics anew from target images: before the head is trained, or after all training
    where the backbone is trained."""
    val_fraction: float = 0.2
    """Share of each class's training images to hold out: sub-networks are ranked on them."""
    subnets: int = 30
    """Sub-networks to draw at random and rank, beside the genotype that the source's search found."""
    recalibrate_subnets: bool = True
    """Give each sub-network running statistics of its own: the supernet's are those of all candidates mixed."""
    calibration_images: int = 512
    """Target images that running statistics are taken of, of all that train the head."""
    seed: int = 0
    """Random seed of new weights, hold-out, order of the images, augmentation and sub-networks."""
    deterministic: bool = False
    """On CUDA take only algorithms that give the same bits every time, at some speed; on a CPU all do."""
    on_non_finite: OnNonFinite = "rollback"
    """A loss or gradient that is not finite: begin the epoch again with other draws, once, then stop (rollback); leave
    the step out (skip); or stop."""
    capture: bool = True
    """On CUDA, record the step as a graph and replay it: the same numbers with one launch a step. Not in several
    processes."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, ..."""

    def __post_init__(self) -> None:
        check_choice(self, "backbone", get_args(Backbone))
        check_choice(self, "head", get_args(Head))
        check_choice(self, "loss", get_args(LossName))
        check_choice(self, "sampler", get_args(SamplerName))
        check_whole(self, "epochs", "subnets", least=1)
        check_whole(self, "batch_size", "calibration_images", least=2)
        check_whole(self, "seed", least=0)
        check_number(self, "lr", "backbone_lr", "grad_clip", above=0.0)
        check_number(self, "weight_decay", least=0.0)
        check_number(self, "momentum", least=0.0, below=1.0)
        check_number(self, "val_fraction", above=0.0, below=1.0)
        check_switch(self, "drw", "recalibrate", "recalibrate_subnets", "capture", "deterministic")
        check_choice(self, "on_non_finite", get_args(OnNonFinite))
        if self.drw and self.loss in ("class_balanced", "inverse_frequency"):
            raise UserError(
                f"drw: got True with loss {self.loss!r}, which weighs classes from the start; wanted one of them, such "
                "as loss='cross_entropy' with drw=True"
            )

    @property
    def strategy(self) -> str:
        """Backbone, head and loss in words."""
        return f"{self.backbone}, {self.head}, {self.loss}{' + DRW' if self.drw else ''}"

    @property
    def backbone_rests(self) -> bool:
        """No weight before the head changes."""
        return self.backbone in ("as_is", "frozen")

    @property
    def trains(self) -> bool:
        """Whether anything does: all but `as_is` with the head that is there."""
        return (self.backbone, self.head) != ("as_is", "keep")


def drawn_genotypes(supernet: Supernet, count: int, seed: int) -> list[Genotype]:
    """So many different genotypes of a supernet's operations and nodes, each as likely as any other.

    >>> found = drawn_genotypes(Supernet(channels=4, layers=1), count=3, seed=0)
    >>> len(found), found == drawn_genotypes(Supernet(channels=2, layers=3), count=3, seed=0)
    (3, True)
    """
    nodes: int = supernet.cells[0].nodes  # type: ignore[assignment]
    return different_genotypes(supernet.primitives, nodes, count, seed)


def different_genotypes(primitives: tuple[str, ...], nodes: int, count: int, seed: int) -> list[Genotype]:
    """The same for operations and nodes.

    Raises:
        UserError: there are not so many, or next to none beside them.

    >>> len(different_genotypes(("skip_connect", "max_pool_3x3"), 1, 16, seed=0))
    16
    """
    found: list[Genotype] = []
    stream = random_genotypes(seed, primitives, nodes)
    for _ in range(PATIENCE):
        found = distinct([*found, *islice(stream, count)])
        if len(found) >= count:
            return found[:count]
    raise UserError(f"subnets: got {count}; {len(primitives)} operations on {nodes} node(s) make about {len(found)}")


PATIENCE = 100
"""Rounds of as many draws as are wanted."""
