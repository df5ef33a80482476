"""The network that a genotype stands for, to be trained on its own."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import nn as tnn
from torch.nn import functional as F

from lt_nas_ext import nn
from lt_nas_ext.errors import UserError
from lt_nas_ext.space.genotype import CellGenotype, Genotype
from lt_nas_ext.space.layout import (
    STEM_MULTIPLIER,
    CellPlace,
    check_images,
    check_sizes,
    head_place,
    make_classifier,
    make_stem,
    plan_cells,
    reduction_layers,
)

DropPathOn = Literal["operations", "nodes"]


class Network(tnn.Module):
    """The derived network (arXiv:1806.09055, section 3.2): the supernet's layout with the operations of a genotype.

    Every edge holds its one operation (or the several that FairDARTS found), ungated. Pools have no batch norm, batch
    norms have weight and bias [paper].

    Args:
        genotype: the two cells. A cell whose nodes vanished is narrower.
        channels: C, channels of a node in the first cells.
        num_classes: outputs of the classifier; None for a backbone without one, whose `states` feed other heads.
        layers: number of cells; those at layers//3 and 2·layers//3 are reduction cells.
        in_channels: channels of an image.
        drop_path: probability, in training, that an image loses what `drop_path_on` names; what is kept is scaled by
            1/(1 − p). May be set at any time.
        drop_path_on: "operations": drawn for each image and each operation but the identity [paper: DARTS]; "nodes":
            for each image and each node, whose whole sum it loses [paper: FairDARTS' code].
        auxiliary: add the second classifier that `forward_auxiliary` uses.

    Raises:
        UserError: an argument cannot be used; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> net = lt.space.Network(lt.space.DARTS_V2, channels=4, num_classes=10, layers=3, in_channels=1)
    >>> net(torch.ones(2, 1, 8, 8)).shape, net.features(torch.ones(2, 1, 8, 8)).shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        num_classes: int | None = 10,
        layers: int = 20,
        in_channels: int = 3,
        drop_path: float = 0.0,
        auxiliary: bool = False,
        drop_path_on: DropPathOn = "operations",
    ) -> None:
        super().__init__()
        if not isinstance(genotype, Genotype):
            raise UserError(
                f"genotype: got {type(genotype).__name__}; wanted a space.Genotype, for a file Genotype.load(path)"
            )
        check_sizes(channels=channels, layers=layers, in_channels=in_channels)
        if num_classes is not None:
            check_sizes(num_classes=num_classes)
        self.genotype = genotype
        self.in_channels = in_channels
        self.drop_path = drop_path
        self.drop_path_on = drop_path_on

        stem = STEM_MULTIPLIER * channels
        self.stem = make_stem(in_channels, stem)
        places, self.feature_dim = plan_cells(
            channels, layers, stem, len(genotype.normal.concat), len(genotype.reduce.concat)
        )
        self.cells = tnn.ModuleList(
            DerivedCell(genotype.reduce if place.reduction else genotype.normal, place) for place in places
        )
        self.head_place = head_place(places[-1], self.feature_dim)
        self.classifier = make_classifier(self.feature_dim, num_classes)
        # The auxiliary classifier reads the output of the second reduction cell.
        self._auxiliary_layer = reduction_layers(layers)[1]
        self.auxiliary_head: AuxiliaryHead | None = None
        if auxiliary and num_classes is not None:
            width = places[self._auxiliary_layer].channels * len(genotype.reduce.concat)
            self.auxiliary_head = AuxiliaryHead(width, num_classes)

    @property
    def drop_path(self) -> float:
        """Probability that an image loses an operation's output, or a node, in training."""
        return self._drop_path

    @drop_path.setter
    def drop_path(self, probability: float) -> None:
        if not 0 <= probability < 1:
            raise UserError(f"drop_path: got {probability}; wanted a probability, at least 0 and below 1")
        self._drop_path = float(probability)

    @property
    def drop_path_on(self) -> DropPathOn:
        """What is dropped: "operations" or "nodes"."""
        return self._drop_path_on

    @drop_path_on.setter
    def drop_path_on(self, name: DropPathOn) -> None:
        if name not in get_args(DropPathOn):
            raise UserError(f"drop_path_on: got {name!r}; wanted 'operations' or 'nodes'")
        self._drop_path_on = name

    def _outputs(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The outputs of the last two cells, and of the second reduction cell."""
        check_images(x, self.in_channels)
        s0 = s1 = middle = self.stem(x)
        drop_path = self.drop_path if self.training else 0.0
        for layer, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, drop_path, self.drop_path_on)
            if layer == self._auxiliary_layer:
                middle = s1
        return s0, s1, middle

    def states(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs of the last two cells, (N, …): what one more cell would take, at `head_place`."""
        s0, s1, _ = self._outputs(x)
        return s0, s1

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, (N, feature_dim): the last cell's output averaged over the image.

        Args:
            x: (N, in_channels, H, W) in any layout; H and W may be odd, and differ.

        Raises:
            UserError: x has another shape.
        """
        return self.states(x)[1].mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits

    def forward_auxiliary(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and those of the auxiliary classifier, for a training loss that adds 0.4 of the second's [paper].

        Raises:
            UserError: the network was made without `auxiliary=True`.

        >>> import torch, lt_nas_ext as lt
        >>> net = Network(lt.space.DARTS_V2, channels=4, layers=2, auxiliary=True)
        >>> [tuple(logits.shape) for logits in net.forward_auxiliary(torch.rand(2, 3, 9, 9))]
        [(2, 10), (2, 10)]
        """
        if self.auxiliary_head is None:
            raise UserError("auxiliary: the network has no auxiliary classifier; make it with auxiliary=True")
        _, last, middle = self._outputs(x)
        return self.classifier(last.mean((2, 3))), self.auxiliary_head(middle)


class DerivedCell(tnn.Module):
    """One cell of a derived network.

    >>> import torch, lt_nas_ext as lt
    >>> place = CellPlace(6, 8, 4, reduction=True, reduction_prev=False)
    >>> DerivedCell(lt.space.DARTS_V2.reduce, place)(torch.ones(2, 6, 8, 8), torch.ones(2, 8, 8, 8)).shape
    torch.Size([2, 16, 4, 4])
    """

    def __init__(self, genotype: CellGenotype, place: CellPlace) -> None:
        super().__init__()
        self.genotype = genotype
        self.preprocess0 = (
            nn.FactorizedReduce(place.channels_prev_prev, place.channels)
            if place.reduction_prev
            else nn.ReLUConvBN(place.channels_prev_prev, place.channels)
        )
        self.preprocess1 = nn.ReLUConvBN(place.channels_prev, place.channels)
        self.operations = tnn.ModuleList(
            # Never None: a CellGenotype holds no `none`.
            cast(
                tnn.Module,
                nn.make_primitive(edge.op, place.channels, 2 if place.reduction and edge.source < 2 else 1),
            )
            for edge in genotype.edges
        )

    def forward(
        self, s0: torch.Tensor, s1: torch.Tensor, drop_path: float = 0.0, drop_path_on: DropPathOn = "operations"
    ) -> torch.Tensor:
        """The concatenation of the genotype's `concat` nodes, (N, len(concat) · channels, H', W').

        Args:
            s0: (N, channels_prev_prev, …), output of the cell before the previous one.
            s1: (N, channels_prev, …), output of the previous cell.
            drop_path: probability that an image loses an operation's output, or a node's sum.
            drop_path_on: which of the two.
        """
        of_operations, of_nodes = (drop_path, 0.0) if drop_path_on == "operations" else (0.0, drop_path)
        states = {0: self.preprocess0(s0), 1: self.preprocess1(s1)}
        for node in self.genotype.nodes:
            arriving = [
                self._operate(operation, states[edge.source], of_operations)
                for edge, operation in zip(self.genotype.edges, self.operations, strict=True)
                if edge.target == node
            ]
            states[node] = _drop(sum(arriving[1:], start=arriving[0]), of_nodes)
        return torch.cat([states[node] for node in self.genotype.concat], dim=1)

    @staticmethod
    def _operate(operation: tnn.Module, x: torch.Tensor, drop_path: float) -> torch.Tensor:
        y = operation(x)
        # An identity is exempt, a skip connection of stride 2 is not: it has weights [paper: DARTS' code].
        return y if isinstance(operation, tnn.Identity) else _drop(y, drop_path)


def _drop(y: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero whole images of (N, C, H, W) with a probability; the others make up for it."""
    if probability == 0.0:
        return y
    keep = 1.0 - probability
    return y * y.new_empty((len(y), 1, 1, 1)).bernoulli_(keep).div_(keep)


class AuxiliaryHead(tnn.Module):
    """The second classifier of a derived network in training [paper: DARTS], for feature maps of any size [ours].

    The original averages windows of 5 pixels, 3 apart, out of 8x8 to 2x2. Here the two windows of a side of n pixels
    are n − 3n//8 long, which is the same at n = 8.

    >>> import torch
    >>> AuxiliaryHead(6, num_classes=10)(torch.rand(2, 6, 3, 1)).shape
    torch.Size([2, 10])
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.project = tnn.Sequential(tnn.Conv2d(channels, 128, 1, bias=False), tnn.BatchNorm2d(128))
        self.reduce = nn.ReLUConvBN(128, 768, kernel=2)
        self.classifier = tnn.Linear(768, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of features (N, channels, H, W)."""
        x = self.project(_two_by_two(F.relu(x)))
        return self.classifier(F.relu(self.reduce(x)).flatten(1))


def _two_by_two(x: torch.Tensor) -> torch.Tensor:
    """Averages of two windows a side, which reach both borders; a side of one pixel is seen by both."""
    x = x.expand(-1, -1, max(x.shape[2], 2), max(x.shape[3], 2))
    height, width = x.shape[2:]
    strides = (max(1, 3 * height // 8), max(1, 3 * width // 8))
    return F.avg_pool2d(x, (height - strides[0], width - strides[1]), strides)
