"""The supernet of DARTS: every candidate operation on every edge of every cell, weighed by α."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn as tnn

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.nn.primitives import check_primitives
from lt_nas_ext.ops.gates import check_gate
from lt_nas_ext.space import darts_checkpoint
from lt_nas_ext.space.derive import derive
from lt_nas_ext.space.fused_cell import FusedCell
from lt_nas_ext.space.genotype import Genotype
from lt_nas_ext.space.layout import (
    STEM_MULTIPLIER,
    check_images,
    check_sizes,
    head_place,
    make_classifier,
    make_stem,
    plan_cells,
)
from lt_nas_ext.space.recompute import recomputed

ALPHA_INITS = ("noise", "zeros")


class Supernet(tnn.Module):
    """The supernet of DARTS (arXiv:1806.09055), for images of any size with any number of channels.

    A stem convolution; `layers` cells, of which those at layers//3 and 2·layers//3 halve the image and double the
    channels; a global average; a linear classifier. All normal cells share one α, all reduction cells another. Batch
    norms have no weight and bias, but for the stem's [paper].

    Args:
        channels: C, channels of a node in the first cells.
        num_classes: outputs of the classifier; None for a backbone without one, whose `states` feed other heads.
        layers: number of cells.
        gate: how α become weights: "softmax" (DARTS), "sigmoid" (FairDARTS, SSF-NAS) or "identity".
        primitives: names of the candidates: `nn.DARTS` (8), `nn.FAIR_DARTS` (7, without `none`), or your own choice.
        in_channels: channels of an image.
        nodes: nodes of a cell.
        stem_multiplier: the stem has stem_multiplier · C channels.
        alpha_init: "noise", 1e-3 · randn (DARTS), or "zeros" (FairDARTS).
        cell: what makes a cell: `FusedCell`, or `PerEdgeCell` for custom candidates; or anything that takes their
            arguments and has their methods.
        recompute: backward runs every cell a second time instead of keeping what it made: less memory for more time,
            the same gradients and running statistics to the bit.

    Raises:
        UserError: an argument cannot be used; the message names it.

    >>> import torch, lt_nas_ext as lt
    >>> net = lt.space.Supernet(channels=4, num_classes=10, layers=3, in_channels=1)
    >>> net(torch.ones(2, 1, 8, 8)).shape, net.features(torch.ones(2, 1, 8, 8)).shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    >>> [tuple(alpha.shape) for alpha in net.arch_parameters()]
    [(14, 8), (14, 8)]
    """

    def __init__(
        self,
        channels: int = 16,
        num_classes: int | None = 10,
        layers: int = 8,
        gate: str = "softmax",
        primitives: Sequence[str] = nn.DARTS,
        in_channels: int = 3,
        nodes: int = 4,
        stem_multiplier: int = STEM_MULTIPLIER,
        alpha_init: str = "noise",
        cell: Callable[..., tnn.Module] = FusedCell,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, layers=layers, in_channels=in_channels)
        check_sizes(nodes=nodes, stem_multiplier=stem_multiplier)
        if num_classes is not None:
            check_sizes(num_classes=num_classes)
        check_gate(gate)
        check_primitives(tuple(primitives))
        check_alpha_init(alpha_init)
        if not isinstance(recompute, bool):
            raise UserError(f"recompute: got {recompute!r}; wanted True or False")
        self.gate = gate
        self.primitives = tuple(primitives)
        self.in_channels = in_channels
        self.recompute = recompute

        self.stem = make_stem(in_channels, stem_multiplier * channels)
        places, self.feature_dim = plan_cells(channels, layers, stem_multiplier * channels, nodes, nodes)
        self.cells = tnn.ModuleList(
            cell(**place._asdict(), gate=gate, primitives=self.primitives, nodes=nodes) for place in places
        )
        self.head_place = head_place(places[-1], self.feature_dim)
        self.classifier = make_classifier(self.feature_dim, num_classes)

        self.alphas_normal = initial_alpha(nodes, self.primitives, alpha_init)
        self.alphas_reduce = initial_alpha(nodes, self.primitives, alpha_init)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier sees: the last cell's output, averaged over the image.

        Args:
            x: (N, in_channels, H, W) in any layout; H and W may be odd, and differ.

        Returns:
            (N, feature_dim).

        Raises:
            UserError: x has another shape.
        """
        return self.states(x)[1].mean((2, 3))

    def states(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs of the last two cells, (N, …): what one more cell would take, at `head_place`."""
        check_images(x, self.in_channels)
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            given = (s0, s1, *self.cell_parameters(bool(cell.reduction)))
            s0, s1 = s1, recomputed(cell, *given) if self.recompute else cell(*given)
        return s0, s1

    def cell_parameters(self, reduction: bool) -> tuple[torch.Tensor, ...]:
        """What a cell of this kind takes beside its two inputs: α."""
        return (self.alphas_reduce if reduction else self.alphas_normal,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits

    def arch_parameters(self) -> list[tnn.Parameter]:
        """[α of the normal cells, α of the reduction cells], raw, each (E, K): the parameters of the α step."""
        return [self.alphas_normal, self.alphas_reduce]

    def weight_parameters(self) -> list[tnn.Parameter]:
        """Every parameter that is not an α: those of the w step."""
        return [weight for weight in self.parameters() if all(weight is not alpha for alpha in self.arch_parameters())]

    def gates(self) -> dict[str, torch.Tensor]:
        """{"normal": (E, K), "reduce": (E, K)}: the weights that α give now, differentiable.

        >>> Supernet(channels=4, layers=1, gate="sigmoid", alpha_init="zeros").gates()["normal"][0, 0].item()
        0.5
        """
        return {
            "normal": ops.gate_weights(self.alphas_normal, self.gate),
            "reduce": ops.gate_weights(self.alphas_reduce, self.gate),
        }

    def genotype(self, rule: str = "top2", threshold: float = 0.85) -> Genotype:
        """The genotype that α stand for now; rules, errors and warnings are those of `space.derive`."""
        return derive(self.alphas_normal, self.alphas_reduce, self.primitives, self.gate, rule, threshold)

    def darts_state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and running statistics under the names of the original DARTS code, for its `load_state_dict`.

        As there, α are not part of it: keep `arch_parameters()` beside it. `load_darts_state_dict` takes them too,
        under the names `alphas_normal` and `alphas_reduce`.
        """
        return darts_checkpoint.state_dict(self)

    def load_darts_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Load a checkpoint of the original DARTS supernet: with its α, the logits are the original's.

        Args:
            state_dict: what the original's `model.state_dict()` holds. `alphas_normal` and `alphas_reduce` are loaded
                where they are there (the original keeps them elsewhere) and left as they are where not. The counters
                `num_batches_tracked`, which batch norms did not have in its days, may be missing.

        Raises:
            UserError: an entry is missing, unknown or of another shape; the message names it. Nothing is loaded then.

        >>> a, b = Supernet(channels=4, layers=1), Supernet(channels=4, layers=1)
        >>> b.load_darts_state_dict(a.darts_state_dict())
        >>> torch.equal(a.stem[0].weight, b.stem[0].weight)
        True
        """
        darts_checkpoint.load(self, state_dict)


def initial_alpha(nodes: int, primitives: Sequence[str], alpha_init: str) -> tnn.Parameter:
    """(E, K) architecture parameters of one kind of cell: 1e-3 · randn ("noise", DARTS) or zeros (FairDARTS).

    >>> initial_alpha(4, nn.DARTS, "zeros").shape
    torch.Size([14, 8])
    """
    check_alpha_init(alpha_init)
    shape = (nodes * (nodes + 3) // 2, len(primitives))
    return tnn.Parameter(1e-3 * torch.randn(shape) if alpha_init == "noise" else torch.zeros(shape))


def check_alpha_init(alpha_init: str) -> None:
    """Raise `UserError` where this is no way to start α."""
    if alpha_init not in ALPHA_INITS:
        raise UserError(f"alpha_init: got {alpha_init!r}; wanted one of {', '.join(map(repr, ALPHA_INITS))}")
