"""Decoupled training: features from all images as they come, then the last layer anew [paper: Kang et al. 2020]."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail.heads import CosineClassifier, last_linear

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def tau_normalized(network: ModuleT, tau: float = 1.0, layer: str | None = None) -> ModuleT:
    """A copy of a trained network with class weights w_c / ‖w_c‖^τ and no bias [paper: Kang et al. 2020, section 4].

    Rare classes end a training with shorter weights. Nothing is trained; τ is to be chosen on validation images.

    Args:
        network: any trained module whose last layer is an `nn.Linear`; it is left as it is.
        tau: τ in [0, 1]; 0 removes the bias only, 1 makes all weights equally long.
        layer: the layer's name, where it is not the last `nn.Linear`.

    Raises:
        UserError: no such layer, τ out of range, or a class whose weights are all 0.

    >>> network = nn.Sequential(nn.Linear(2, 2))
    >>> with torch.no_grad():
    ...     _ = network[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.5]]))
    >>> tau_normalized(network)[0].weight
    Parameter containing:
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]], requires_grad=True)
    """
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau <= 1:
        raise UserError(f"tau: got {tau!r}; wanted τ in [0, 1], such as 0.7")
    network = copy.deepcopy(network)
    _, linear = last_linear(network, layer)
    if isinstance(linear, CosineClassifier):
        raise UserError("network: its last layer is a CosineClassifier, whose class weights are equally long already")
    with torch.no_grad():
        lengths = linear.weight.norm(dim=1, keepdim=True)
        if not (lengths > 0).all():
            raise UserError("network: a class of its last layer has no weight but 0 or NaN; wanted a trained one")
        linear.weight.div_(lengths**tau)
        if linear.bias is not None:
            linear.bias.zero_()
    return network


def retrain_classifier(
    network: ModuleT,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    epochs: int = 10,
    criterion: Criterion | None = None,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    layer: str | None = None,
    seed: int = 0,
) -> ModuleT:
    """cRT: a copy of a trained network with its last layer drawn and trained anew [paper: Kang et al. 2020, section 4].

    Everything before that layer is frozen: its parameters, and its batch norms in evaluation mode. SGD, learning rate
    by a cosine to 0; 10 epochs of class-uniform batches in the paper. The default learning rate is [ours].

    Args:
        network: any trained module whose output is that of an `nn.Linear`; it is left as it is.
        batches: (images, labels) of an epoch each time it is gone through, such as a `DataLoader` with an
            `ImageSampler(labels, "class_uniform")`, whose `set_epoch` is called.
        epochs: ≥ 1.
        criterion: logits and labels -> loss; cross-entropy by default.
        lr: learning rate of the first epoch.
        momentum: of SGD.
        weight_decay: of SGD.
        layer: the layer's name, where it is not the last `nn.Linear`.
        seed: of the new layer's weights.

    Returns:
        The copy, in evaluation mode.

    Raises:
        UserError: no such layer, a network whose output is not that layer's, no batches, labels that are no class of
            it, or a number out of range.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from lt_nas_ext.longtail import ImageSampler
    >>> images, labels = torch.randn(40, 8), torch.arange(40) // 30
    >>> trained = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> sampler = ImageSampler(labels, "class_uniform")
    >>> loader = DataLoader(TensorDataset(images, labels), batch_size=10, sampler=sampler)
    >>> again = retrain_classifier(trained, loader, epochs=2)
    >>> torch.equal(again[0].weight, trained[0].weight), torch.equal(again[2].weight, trained[2].weight)
    (True, False)
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"epochs: got {epochs!r}; wanted a whole number, at least 1")
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise UserError(f"lr: got {lr!r}; wanted a learning rate above 0, such as 0.1")
    network = copy.deepcopy(network).eval()
    _, linear = last_linear(network, layer)
    with torch.random.fork_rng(devices=[linear.weight.device] if linear.weight.is_cuda else []):
        torch.manual_seed(seed)
        linear.reset_parameters()
    device = linear.weight.device
    criterion = nn.CrossEntropyLoss() if criterion is None else criterion
    optimiser = torch.optim.SGD(linear.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        if set_epoch := getattr(getattr(batches, "sampler", None), "set_epoch", None):
            set_epoch(epoch)
        steps = 0
        for images, labels in batches:
            labels = labels.to(device)
            features = _features(network, linear, images.to(device))
            if not steps and int(labels.max()) >= linear.out_features:
                raise UserError(
                    f"batches: found class {int(labels.max())}; the network's last layer has {linear.out_features}: "
                    f"0 … {linear.out_features - 1}"
                )
            optimiser.zero_grad()
            criterion(linear(features), labels).backward()
            optimiser.step()
            steps += 1
        if not steps:
            raise UserError(f"batches: epoch {epoch} had none; wanted something to go through again in every epoch")
        schedule.step()
    optimiser.zero_grad()
    return network


def _features(network: nn.Module, linear: nn.Linear | CosineClassifier, images: torch.Tensor) -> torch.Tensor:
    """What comes into the layer, detached."""
    seen: list[torch.Tensor] = []
    made: list[torch.Tensor] = []

    def remember(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.append(args[0])
        made.append(output)

    handle = linear.register_forward_hook(remember)
    try:
        with torch.no_grad():
            output = network(images)
    finally:
        handle.remove()
    if len(made) != 1 or output is not made[0]:
        raise UserError(
            f"network: the output of {type(network).__name__} is not that of its layer {linear!r}; wanted a network "
            "whose last step is that layer, or the name of the one that is (layer=)"
        )
    return seen[0]
