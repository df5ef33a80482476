"""Settings by name. A paper's preset is literal and named for what it reproduces; the demo's are ours.

Where a preset cannot work on the data at hand (gates that cannot move in the steps there are), the search warns
before it begins and says what to change.
"""

from __future__ import annotations

from dataclasses import replace

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.settings import SearchSettings, nearest

# [paper] Everything is stated in DARTS (arXiv:1806.09055, appendix A.1) and its code.
DARTS = SearchSettings(method="darts", preset="darts")

# [paper] The FairDARTS authors' code: 7 candidates, the l2 zero-one loss of weight 10, alpha from zero.
AUTHORS_FAIR_DARTS = replace(
    DARTS,
    method="fair-darts",
    preset="authors-fairdarts",
    batch_size=128,
    primitives="fair-darts",
    alpha_init="zeros",
    w_lr=0.005,
    w_lr_min=0.001,
    alpha_lr=3e-3,
    alpha_betas=(0.9, 0.999),
    alpha_weight_decay=1e-3,
    rule="threshold_sparse",
    threshold=0.85,
    lambda_01=10.0,
    zero_one="l2",
)

# [paper] for the 8 candidates, the l1 loss (eq. 6) and the learning rate of alpha; the rest is the authors' code.
PAPER_FAIR_DARTS = replace(
    AUTHORS_FAIR_DARTS, preset="paper-fairdarts", primitives="darts", zero_one="l1", alpha_lr=3e-4
)

# [paper] epochs, batch, both learning rates, momentum, both weight decays, layers, channels.
# [ours] the rest, which the text does not state: zero-one weight, projector (D <= 8 * batch), lambda of Barlow
# Twins, Adam's betas, alpha from zero, clipping, threshold, views, the 7 candidates and the rule.
PAPER_SSF = replace(
    DARTS,
    method="ssf-nas",
    preset="paper-ssf",
    epochs=40,
    batch_size=64,
    primitives="fair-darts",
    alpha_init="zeros",
    alpha_lr=3e-4,
    alpha_betas=(0.9, 0.999),
    rule="top2",
    lambda_01=10.0,
    zero_one="l2",
    lambda_bt=5e-3,
    bt_scale="none",
    projector=(512, 512, 512),
    stratify=False,
)

# [paper: the authors' code] DARTS' numbers, its views, and the projector d, 128 with d = 256 features at C = 16.
# [ours] lambda of Barlow Twins (published as .0051), and that w and alpha see it in place of InfoNCE.
SSNAS = replace(DARTS, method="ssnas", preset="ssnas", views="ssnas", projector=(256, 128), stratify=False)

# [ours] All of it: the default for images of one's own, to be changed by what is measured. 7 candidates and sigmoid
# gates, because a softmax lets the first skip connection win; alpha frozen while weights are random (a quarter, as
# PC-DARTS); lambda_01 ramped, so that the task speaks first; Barlow Twins divided by its width, or its gradient on
# alpha drowns the zero-one loss; labels where there are any; 2000 steps and an alpha that can travel 8, or gates
# cannot decide on few images; 80/20, and a contest of 4, since the order of close gates is chance.
RECOMMENDED = replace(
    PAPER_SSF,
    preset="recommended",
    epochs=50,
    batch_size=256,
    alpha_init="noise",
    alpha_frozen=0.25,
    alpha_lr=3e-3,
    lambda_01=10.0,
    lambda_01_ramp=True,
    bt_scale="dim",
    label_free=False,
    projector=(2048, 2048, 2048),
    split=0.8,
    stratify=True,
    candidates=4,
    candidate_epochs=25,
    min_steps=2000,
    fit=True,
)

# [ours] The same images, batch and size of network as DARTS, and its budget: a step of w and one of alpha of its
# supernet take 6.8 times the processor time of a step of a random genotype (one thread, 32 x 32, batch 16: 3.4 s
# against 0.5 s), so 50 epochs of the one are 350 of the other, 14 genotypes of 25 epochs each.
RANDOM = replace(DARTS, method="random", preset="random", epochs=350, candidate_epochs=25)

# [ours] Minutes on two cores: a small supernet on the 527 digits of mu = 0.1, and an alpha learning rate with
# steps * lr >= 3, so that a gate can reach 0.95. Barlow Twins is divided by its width: the plain sum's gradient
# on alpha would drown the zero-one loss.
DEMO_DARTS = replace(DARTS, preset="demo-darts", epochs=7, channels=8, layers=4, alpha_lr=0.12)
DEMO_SSF = replace(
    PAPER_SSF,
    preset="demo-ssf",
    epochs=7,
    channels=8,
    layers=4,
    alpha_lr=0.12,
    lambda_01=5.0,
    bt_scale="dim",
    projector=(256, 256, 256),
)

# [paper] 8 cells, 80/20 split, batch 128 (a stream), both learning rates .02, cosine, weight decay 3e-4.
# [ours] what its text does not state or has lost: the epochs T, where the cosine ends, channels, momentum, clipping,
# Adam's betas and the weight decay of alpha (DARTS'), augmentation beyond crops (the data set's own).
PAPER_HLS_DARTS = replace(
    DARTS,
    preset="paper-hls-darts",
    epochs=50,
    batch_size=128,
    layers=8,
    w_lr=0.02,
    w_lr_min=0.0,
    w_weight_decay=3e-4,
    alpha_lr=0.02,
    split=0.8,
)
PAPER_HLS_RESAMPLING = replace(PAPER_HLS_DARTS, method="darts+resampling", preset="paper-hls-resampling")
PAPER_HLS_REWEIGHTING = replace(
    PAPER_HLS_DARTS, method="darts+reweighting", preset="paper-hls-reweighting", loss="class_balanced"
)
PAPER_HLS_BBN = replace(PAPER_HLS_DARTS, method="darts+bbn", preset="paper-hls-bbn", mixing="parabolic", hls="none")
# [ours] the formula behind "hls" and behind "reverse-sigmoid": the paper states properties, its equations are lost.
PAPER_HLS = replace(PAPER_HLS_BBN, preset="paper-hls", hls="hls", hls_k=1.0, hls_scope="arch")
PAPER_HLS_REVERSE_SIGMOID = replace(PAPER_HLS, preset="paper-hls-reverse-sigmoid", mixing="reverse-sigmoid")
# [ours] which of the four variants stands for the row, its epochs and its rate.
PAPER_HLS_CONTINUOUS = replace(PAPER_HLS, preset="paper-hls-continuous", continuous="class-head")

_HLS = (
    PAPER_HLS_DARTS,
    PAPER_HLS_RESAMPLING,
    PAPER_HLS_REWEIGHTING,
    PAPER_HLS_BBN,
    PAPER_HLS,
    PAPER_HLS_REVERSE_SIGMOID,
    PAPER_HLS_CONTINUOUS,
)
_PAPERS = (DARTS, AUTHORS_FAIR_DARTS, PAPER_FAIR_DARTS, PAPER_SSF, SSNAS, *_HLS)

PRESETS: dict[str, SearchSettings] = {
    settings.preset: settings for settings in (*_PAPERS, RECOMMENDED, RANDOM, DEMO_DARTS, DEMO_SSF)
}


def preset(name: str) -> SearchSettings:
    """The settings of a preset.

    Raises:
        UserError: no such preset; the message names the nearest one.

    >>> preset("authors-fairdarts").alpha_lr
    0.003
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise UserError(f"preset: got {name!r}; {nearest(str(name), list(PRESETS))}")
    return PRESETS[name]
