"""The control of every search: random genotypes, about as large as what the search found."""

from __future__ import annotations

from itertools import islice

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.cost import genotype_param_count
from lt_nas_ext.space.derive import random_genotypes
from lt_nas_ext.space.genotype import Genotype

DRAWS = 300
FARTHEST = 0.25


def random_genotype_of_size(
    seed: int, parameters: int, channels: int, layers: int, num_classes: int = 10, in_channels: int = 3
) -> Genotype:
    """Of a seed's first 300 random genotypes the one whose network comes nearest to a number of parameters.

    For most numbers that is within 1 %.

    Args:
        seed: the same seed gives the same genotype everywhere.
        parameters: wanted, as `param_count` counts.
        channels: C of its network's first cells.
        layers: its cells.
        num_classes: its classes.
        in_channels: channels of its images.

    Raises:
        UserError: the nearest is a quarter off; the message says which numbers there are.

    >>> found = random_genotype_of_size(0, 3_349_342, channels=36, layers=20)     # as DARTS_V2
    >>> abs(genotype_param_count(found, channels=36, layers=20) / 3_349_342 - 1) < 0.01
    True
    """
    drawn = list(islice(random_genotypes(seed), DRAWS))
    counts = [genotype_param_count(genotype, channels, layers, num_classes, in_channels) for genotype in drawn]
    nearest = min(range(DRAWS), key=lambda i: abs(counts[i] - parameters))
    if abs(counts[nearest] - parameters) > FARTHEST * parameters:
        raise UserError(
            f"random_parameters: got {parameters}; random genotypes at {channels} channels and {layers} layers have "
            f"{min(counts)} to {max(counts)}: wanted such a number, or other channels and layers"
        )
    return drawn[nearest]
