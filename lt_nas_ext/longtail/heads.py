"""The last layer of a network: finding it, and its cosine form."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from lt_nas_ext.errors import UserError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class CosineClassifier(nn.Module):
    """s · cos of the angle between features and each class's weights; no bias [paper: Cao et al. 2019, section 3].

    The authors' own layer gives plain cosines and their loss multiplies by s; here the layer does, so that a softmax of
    its logits is what the training saw, at test time too.

    Args:
        in_features: F.
        num_classes: C.
        scale: s; that of `LDAM`.

    Raises:
        UserError: a size below 1, or s that is not above 0.

    >>> layer = CosineClassifier(4, num_classes=3, scale=30.0)
    >>> [round(logit, 3) for logit in layer(5 * layer.weight).diagonal().tolist()]
    [30.0, 30.0, 30.0]
    """

    def __init__(self, in_features: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("num_classes", num_classes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name}: got {value!r}; wanted a whole number, at least 1")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise UserError(f"scale: got {scale!r}; wanted s > 0, such as 30.0")
        self.in_features, self.out_features, self.scale = in_features, num_classes, float(scale)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw directions anew, uniformly on the unit sphere."""
        with torch.no_grad():
            self.weight.copy_(F.normalize(torch.randn_like(self.weight), dim=1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N, C), in [−s, s]."""
        with torch.autocast(features.device.type, enabled=False):  # a cosine in bf16 has two digits, times 30
            x = features if features.dtype == torch.float64 else features.float()
            return self.scale * F.linear(F.normalize(x, dim=1), F.normalize(self.weight.to(x.dtype), dim=1))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.out_features}, scale={self.scale:g}"


def last_linear(network: nn.Module, layer: str | None = None) -> tuple[str, nn.Linear | CosineClassifier]:
    """Name and module of the layer that makes the logits.

    Args:
        network: any module.
        layer: its name in `network.named_modules()`; by default the last `nn.Linear` or `CosineClassifier` that the
            network has.

    Raises:
        UserError: there is none, or the layer named is no such.

    >>> last_linear(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
    ('2', Linear(in_features=4, out_features=3, bias=True))
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"network: got {type(network).__name__}; wanted a torch.nn.Module")
    found = {
        name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | CosineClassifier)
    }
    if layer is None and not found:
        raise UserError(
            f"network: {type(network).__name__} has no torch.nn.Linear; wanted one as its last layer, which makes the "
            "logits"
        )
    name = list(found)[-1] if layer is None else layer
    if name not in found:
        raise UserError(f"layer: got {layer!r}; wanted the name of a torch.nn.Linear: {', '.join(found) or 'none'}")
    return name, found[name]


def cosine_classifier(network: ModuleT, scale: float = 30.0, layer: str | None = None) -> ModuleT:
    """Put a fresh `CosineClassifier` in the place of a network's last linear layer; returns the network itself.

    Args:
        network: any module but a lone `nn.Linear`; it is changed.
        scale: s.
        layer: the layer's name, where it is not the last `nn.Linear`.

    Raises:
        UserError: as `last_linear`.

    >>> cosine_classifier(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))[2]
    CosineClassifier(in_features=4, num_classes=3, scale=30)
    """
    name, linear = last_linear(network, layer)
    if not name:
        raise UserError("network: got a lone Linear, which cannot be replaced in itself; wanted a network around it")
    cosine = CosineClassifier(linear.in_features, linear.out_features, scale)
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, cosine.to(linear.weight))
    return network
