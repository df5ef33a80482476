"""Random search: the control that every search must beat on the same budget."""

from __future__ import annotations

from lt_nas_ext import nn as lt_nn
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.base import Problem
from lt_nas_ext.methods.contest import Contest
from lt_nas_ext.methods.settings import SearchSettings
from lt_nas_ext.space import random_genotype


class RandomSearch(Contest):
    """Genotypes drawn at random, as many as `epochs` have room for at `candidate_epochs` each; the best wins [ours].

    See `Contest` for the training. The preset's budget is that of DARTS in processor time: see `presets.RANDOM`.
    """

    name = "random"
    paper_preset = "random"

    def __init__(self, settings: SearchSettings, problem: Problem) -> None:
        count, rest = divmod(settings.epochs, settings.candidate_epochs)
        if rest:
            raise UserError(
                f"epochs: got {settings.epochs} for method 'random'; wanted a multiple of candidate_epochs="
                f"{settings.candidate_epochs}, the epochs of each genotype"
            )
        primitives = lt_nn.DARTS if settings.primitives == "darts" else lt_nn.FAIR_DARTS
        # Seeds that follow each other draw no genotype twice.
        seeds = range(settings.seed * count, (settings.seed + 1) * count)
        super().__init__(settings, problem, [random_genotype(seed, primitives, settings.nodes) for seed in seeds])
