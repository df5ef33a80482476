"""The online linear probe: what accuracy a label-free search would have, without the search seeing a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lt_nas_ext.engine.processes import ALONE, Group


class LinearProbe:
    """A linear classifier on features that are detached: labels reach it and nothing else.

    It learns online, a step beside each step of w, on the features that step computed anyway. Features are
    standardised over the images at hand, in learning and in use: their scale and mean change all through a search, and
    running averages would lag behind it.

    Args:
        features: width F of the features.
        num_classes: C.
        lr: learning rate of its Adam.
        device: where the features are.
        group: the processes, each with features of its own and all with the same classifier.
    """

    def __init__(self, features: int, num_classes: int, lr: float, device: torch.device, group: Group = ALONE) -> None:
        self._group = group
        self._head = nn.Linear(features, num_classes).to(device)
        self._optimiser = torch.optim.Adam(self._head.parameters(), lr=lr)

    def learn(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """One step on (N, F) features and (N,) labels, N at least 2."""
        F.cross_entropy(self._head(_standardised(features.detach())), labels).backward()
        self._group.average_gradients(list(self._head.parameters()))
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(N, F), all images of the set at once -> (N, C)."""
        logits: torch.Tensor = self._head(_standardised(features))
        return logits

    def state_dict(self) -> dict[str, Any]:
        return {"head": self._head.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])


def _standardised(features: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(features, None, None, training=True)
