"""What methods over one supernet share: DARTS, FairDARTS and SSF-NAS differ in gates and losses only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from lt_nas_ext import nn as lt_nn
from lt_nas_ext import ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import cosine_classifier, make_loss
from lt_nas_ext.methods.base import Batch, Derived, Epoch, Labelled, Loss, Method, ParameterGroup, Problem
from lt_nas_ext.methods.beta_decay import beta_decay
from lt_nas_ext.methods.contest import Contest, contest
from lt_nas_ext.methods.fit import frozen_epochs
from lt_nas_ext.methods.settings import SearchSettings
from lt_nas_ext.space import AuxiliarySkipCell, Genotype, PartialSupernet, Supernet, distinct, from_gates, runners_up

# [ours] Under the rules without a threshold a gate must at least be able to stand apart: two candidates moving
# in opposite directions then differ by 1 in alpha, a factor e in a softmax.
APART = 0.5

RECENT = 5
"""Epochs at the end whose genotypes are candidates of a contest [ours]."""


class SupernetMethod(Method):
    """One supernet with two groups of cells, (14, K) architecture parameters each [paper: DARTS]."""

    gate: str = "softmax"
    takes_loss: ClassVar[bool] = False
    """Whether it has labelled losses that `settings.loss` chooses."""

    def __init__(self, settings: SearchSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        if settings.beta_decay and self.gate != "softmax":
            raise UserError(
                f"beta_decay: got {settings.beta_decay:g} for {self.name}, whose gates are not a softmax; wanted 0"
            )
        if settings.partial_channels > 1 and settings.rule != "top2":
            raise UserError(
                f"rule: got {settings.rule!r} with partial_channels={settings.partial_channels}; wanted 'top2': what "
                "is compared is gates times the shares of edges"
            )
        if settings.partial_channels > 1 and settings.auxiliary_skip:
            raise UserError("auxiliary_skip: got True with partial_channels above 1; wanted one of the two")
        if settings.loss != "cross_entropy" and not self.takes_loss:
            raise UserError(
                f"loss: got {settings.loss!r} for {self.name}, whose losses are its own; wanted 'cross_entropy'"
            )
        self._criteria = {
            half: make_loss(settings.loss, (share * torch.tensor(problem.class_counts)).clamp_min(1.0))
            for half, share in (("weights", settings.split), ("alpha", 1.0 - settings.split))
        }

    @property
    def losses_follow_epoch(self) -> bool:
        settings = self.settings
        return bool(settings.beta_decay or settings.auxiliary_skip or settings.lambda_01_ramp)

    def supernet(self, networks: nn.Module) -> Supernet:
        """The supernet among the networks; here it is the networks."""
        return cast(Supernet, networks)

    @property
    def primitives(self) -> tuple[str, ...]:
        """The candidates' names, in the order of alpha's columns."""
        return lt_nn.DARTS if self.settings.primitives == "darts" else lt_nn.FAIR_DARTS

    def build_supernet(self, classifier: bool = True) -> Supernet:
        """The supernet of the settings, for the images and classes of the problem."""
        settings, problem = self.settings, self.problem
        arguments: dict[str, Any] = {
            "channels": settings.channels,
            "num_classes": problem.num_classes if classifier else None,
            "layers": settings.layers,
            "gate": self.gate,
            "primitives": self.primitives,
            "in_channels": problem.image_shape[0],
            "nodes": settings.nodes,
            "alpha_init": settings.alpha_init,
            "recompute": settings.recompute,
        }
        if settings.auxiliary_skip:
            arguments["cell"] = AuxiliarySkipCell
        partial = settings.partial_channels
        supernet = PartialSupernet(partial, **arguments) if partial > 1 else Supernet(**arguments)
        return cosine_classifier(supernet) if settings.loss == "ldam" else supernet

    def build(self) -> nn.Module:
        return self.build_supernet()

    def begin(self, networks: nn.Module, epoch: Epoch) -> None:
        """The auxiliary skips fade linearly [paper: DARTS−]."""
        if self.settings.auxiliary_skip:
            for cell in self.supernet(networks).cells:
                cell.strength = 1.0 - epoch.index / epoch.count  # type: ignore[assignment]

    def alpha_factor(self, epoch: Epoch) -> float:
        """0 while α is frozen, then 1."""
        return float(epoch.index >= frozen_epochs(self.settings.alpha_frozen, epoch.count))

    @property
    def undecayed(self) -> tuple[int, ...]:
        """Columns of α that weight decay leaves alone."""
        return ()

    def alpha_groups(self, networks: nn.Module) -> list[ParameterGroup]:
        normal, reduce, *edges = self.supernet(networks).arch_parameters()
        groups = [ParameterGroup("alpha", (normal, reduce), self.alpha_factor, self.undecayed)]
        return [*groups, *([ParameterGroup("edges", tuple(edges), self.alpha_factor)] if edges else [])]

    def matrices(self, networks: nn.Module) -> Sequence[torch.Tensor]:
        """α of the normal and of the reduction cells, (E, K) each."""
        return self.supernet(networks).arch_parameters()[:2]

    def deciding_gates(self, networks: nn.Module) -> torch.Tensor:
        gates = [ops.gate_weights(alpha.detach(), self.gate) for alpha in self.matrices(networks)]
        return torch.cat([without(gate, self.undecayed).flatten() for gate in gates])

    def labelled_loss(self, networks: nn.Module, batch: Batch, half: Literal["weights", "alpha"]) -> Loss:
        """The loss that the settings name, of a labelled batch of either half."""
        assert isinstance(batch, Labelled)
        logits, name = networks(batch.images), self.settings.loss
        if name == "cross_entropy":
            error = F.cross_entropy(logits, batch.labels)
        else:
            error = self._criteria[half](logits, batch.labels)
        return Loss({name: error}, logits=logits.detach())

    def regularised(self, loss: Loss, networks: nn.Module, epoch: Epoch) -> Loss:
        """α's loss with the regulariser that the settings add, if any."""
        rate = self.settings.beta_decay
        if not rate:
            return loss
        decay = beta_decay(self.matrices(networks), rate, epoch.index)
        return Loss({**loss.parts, "beta_decay": decay}, loss.logits, loss.features)

    def logits(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.supernet(networks)(images))

    def features(self, networks: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return self.supernet(networks).features(images)

    def alphas(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        normal, reduce, *edges = (parameter.detach() for parameter in self.supernet(networks).arch_parameters())
        names = ("normal_edges", "reduce_edges")
        return {"normal": normal, "reduce": reduce, **dict(zip(names, edges, strict=False))}

    def gates(self, networks: nn.Module) -> dict[str, torch.Tensor]:
        return {name: gate.detach() for name, gate in self.supernet(networks).gates().items()}

    def edges_to_none(self, networks: nn.Module) -> float | None:
        if self.gate != "softmax" or "none" not in self.primitives:
            return None
        gates = [gate for gate in self.gates(networks).values() if gate.dim() == 2]
        largest = torch.cat([gate.argmax(1) for gate in gates])
        return float((largest == self.primitives.index("none")).float().mean())

    def derive(self, networks: nn.Module) -> Genotype:
        return self.supernet(networks).genotype(rule=self.settings.rule, threshold=self.settings.threshold)

    @property
    def agrees(self) -> bool:
        return True

    def derive_gates(self, gates: Mapping[str, torch.Tensor]) -> Derived:
        return from_gates(gates, self.primitives, self.settings.rule, self.settings.threshold)

    def stop_reason(self, genotype: Derived | None, epoch: Epoch) -> str | None:
        """So many skip connections in the normal cell that it is about to collapse [paper: DARTS+, criterion 1]."""
        most = self.settings.stop_at_skips
        if not most or not isinstance(genotype, Genotype) or not self.alpha_factor(epoch):
            return None
        skips = sum(edge.op == "skip_connect" for edge in genotype.normal.edges)
        return f"{skips} skip connections in the normal cell (stop_at_skips={most})" if skips >= most else None

    def second_stage(self, networks: nn.Module, history: Sequence[Mapping[str, Any]]) -> Contest | None:
        """A contest of `candidates` genotypes [ours].

        Up to half of them are the derived one and those of the last epochs, newest first; the others undo one decision
        of the derived one each, the closest first.
        """
        settings = self.settings
        if settings.candidates < 2:
            return None
        rows = [row["genotype"] for row in history[-RECENT:]][::-1]
        recent = [Genotype.from_json(json.dumps(content)) for content in rows if content is not None]
        found = distinct([self.derive(networks), *recent])[: (settings.candidates + 1) // 2]
        gates = self.supernet(networks).gates()
        near = runners_up(gates, self.primitives, settings.candidates, settings.rule, settings.threshold)
        found = distinct([*found, *near])[: settings.candidates]
        return contest(found, settings, self.problem)

    def reachable_gate(self, travel: float) -> float:
        """softmax: the best candidate goes up by `travel` while the K - 1 others go down by it."""
        others = len(self.primitives) - 1
        return 1.0 / (1.0 + others * math.exp(-2.0 * travel))

    def needed_travel(self) -> float:
        if not self.settings.rule.startswith("threshold"):
            return APART
        others, threshold = len(self.primitives) - 1, self.settings.threshold
        return max(0.0, 0.5 * math.log(others * threshold / (1.0 - threshold)))


def without(matrix: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """`matrix` (E, K) without some of its columns."""
    if not columns:
        return matrix
    # Not by a list of indices: on CUDA that would copy it to the device in every step.
    return torch.stack([matrix[..., k] for k in range(matrix.shape[-1]) if k not in columns], dim=-1)
