"""What a retraining trains: a genotype's network or a baseline, as a value that config.json holds and rebuilds."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import cosine_classifier
from lt_nas_ext.methods.settings import nearest
from lt_nas_ext.space import (
    DARTS_V2,
    FAIR_DARTS_A,
    AnyGenotype,
    BbnGenotype,
    BbnNetwork,
    Genotype,
    Network,
    ResNet32,
    SmallConvNet,
    genotype_from_json,
    random_genotype,
    random_genotype_of_size,
)

SMALL_CONV_CHANNELS = 32
PUBLISHED = {"darts-v2": DARTS_V2, "fair-darts-a": FAIR_DARTS_A}
"""Cells that others found, by name."""

BASELINES = ("resnet32", "small-conv-net", *PUBLISHED, "random")
"""Networks by name: two designed by hand, published cells, and a genotype drawn from the run's seed."""

Architecture = dict[str, Any]


def describe(
    what: AnyGenotype | nn.Module | str,
    channels: int | None,
    layers: int | None,
    sizes: tuple[int, int],
    seed: int,
    parameters: int | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    test_ratio: float = 0.5,
) -> Architecture:
    """The description of what is to be trained.

    Args:
        what: a genotype, a module (described by its class alone), or a name of `BASELINES`.
        channels: of the network's first layers, or None: those of `sizes` (a genotype) or 32 (small-conv-net).
        layers: cells of a genotype's network, or None: those of `sizes`.
        sizes: (channels, layers) of the settings' size.
        seed: that draws a random genotype.
        parameters: about how many its network is to have; None: however many.
        num_classes: of that network.
        in_channels: of that network.
        test_ratio: mixing ratio at which the network of a `BbnGenotype` answers.

    Raises:
        UserError: a name that is no baseline, or a number of parameters for what is not drawn, or that none has.

    >>> describe("resnet32", None, None, (16, 8), 0)
    {'name': 'resnet32'}
    """
    if parameters is not None and what != "random":
        raise UserError(f"random_parameters: got {parameters} for what is not drawn; wanted it with 'random' only")
    if isinstance(what, nn.Module):
        return {"name": "module", "class": type(what).__name__}
    if what == "resnet32":
        return {"name": "resnet32"}
    if what == "small-conv-net":
        return {"name": "small-conv-net", "channels": channels or SMALL_CONV_CHANNELS}
    if isinstance(what, str) and what in PUBLISHED:
        return _described(PUBLISHED[what], what, channels, layers, sizes)
    if what == "random":
        size = (channels or sizes[0], layers or sizes[1], num_classes, in_channels)
        drawn = random_genotype(seed) if parameters is None else random_genotype_of_size(seed, parameters, *size)
        return _described(drawn, "random", channels, layers, sizes)
    if isinstance(what, Genotype):
        return _described(what, "genotype", channels, layers, sizes)
    if isinstance(what, BbnGenotype):
        return {**_described(what, "genotype", channels, layers, sizes), "test_ratio": test_ratio}
    came = repr(what) if isinstance(what, str) else type(what).__name__
    raise UserError(
        f"genotype: got {came}; wanted a Genotype, a module, or a baseline: {nearest(str(what), list(BASELINES))}"
    )


def genotype_of(architecture: Architecture) -> AnyGenotype | None:
    """The genotype of a description, where it has one."""
    content = architecture.get("genotype")
    return None if content is None else genotype_from_json(json.dumps(content))


def build_network(architecture: Architecture, num_classes: int, in_channels: int, auxiliary: bool = False) -> nn.Module:
    """The network of a description, freshly initialised; for its training with the auxiliary classifier, if it has one.

    Raises:
        UserError: the description is of a user's own module, which only the user can build.
    """
    network = _plain(architecture, num_classes, in_channels, auxiliary)
    return cosine_classifier(network) if architecture.get("classifier") == "cosine" else network


def _plain(architecture: Architecture, num_classes: int, in_channels: int, auxiliary: bool) -> nn.Module:
    """The network with its own linear classifier."""
    name = architecture["name"]
    if name == "resnet32":
        return ResNet32(num_classes=num_classes, in_channels=in_channels)
    if name == "small-conv-net":
        return SmallConvNet(num_classes=num_classes, in_channels=in_channels, channels=architecture["channels"])
    genotype = genotype_of(architecture)
    if genotype is None:
        raise UserError(
            f"network: the run trained a module of its own ({architecture.get('class', name)}); "
            "pass it as network= to lt_nas_ext.engine.load_classifier"
        )
    shape = (architecture["channels"], num_classes, architecture["layers"], in_channels)
    if isinstance(genotype, BbnGenotype):
        return BbnNetwork(genotype, *shape, test_ratio=architecture["test_ratio"])
    return Network(genotype, *shape, auxiliary=auxiliary)


def _described(
    genotype: AnyGenotype, name: str, channels: int | None, layers: int | None, sizes: tuple[int, int]
) -> Architecture:
    content = json.loads(genotype.to_json())
    return {"name": name, "channels": channels or sizes[0], "layers": layers or sizes[1], "genotype": content}
