"""Settings of a retraining by name, as those of a search: a paper's is literal and named for what it reproduces."""

from __future__ import annotations

from dataclasses import replace

from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.settings import nearest

DEFAULT = RetrainSettings()

# [paper] Everything is stated in DARTS (arXiv:1806.09055, appendix A.1) and its code; a cutout of half the side is its
# 16 pixels on CIFAR's 32.
DARTS = RetrainSettings(
    preset="darts",
    epochs=600,
    batch_size=96,
    size="paper",
    lr=0.025,
    lr_min=0.0,
    momentum=0.9,
    weight_decay=3e-4,
    grad_clip=5.0,
    auxiliary=0.4,
    cutout=True,
    drop_path=0.2,
    drop_path_on="operations",
)

# [paper] The FairDARTS authors' code and the table beside it: DARTS' numbers, but that it drops whole nodes. (Their
# example command has a batch of 128, their table 96.)
AUTHORS_FAIR_DARTS = replace(DARTS, preset="authors-fairdarts", drop_path_on="nodes")

# [paper] 150 epochs, and Barlow Twins before them. [ours] how long before, and all else: the text states neither depth
# nor width nor regularisation, so these are DARTS' own.
PAPER_SSF = replace(DARTS, preset="paper-ssf", epochs=150, pretrain_epochs=30)

# [ours] for a user's own long-tailed images.
RECOMMENDED = replace(
    DEFAULT, preset="recommended", loss="balanced_softmax", ema_decay=0.999, mixup=0.2, val_fraction=0.1
)

RETRAIN_PRESETS: dict[str, RetrainSettings] = {
    settings.preset: settings for settings in (DEFAULT, DARTS, AUTHORS_FAIR_DARTS, PAPER_SSF, RECOMMENDED)
}


def retrain_preset(name: str) -> RetrainSettings:
    """The settings of a preset.

    Raises:
        UserError: no such preset; the message names the nearest one.

    >>> retrain_preset("darts").auxiliary
    0.4
    """
    if not isinstance(name, str) or name not in RETRAIN_PRESETS:
        raise UserError(f"preset: got {name!r}; {nearest(str(name), list(RETRAIN_PRESETS))}")
    return RETRAIN_PRESETS[name]
