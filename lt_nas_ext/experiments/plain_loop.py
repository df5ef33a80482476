"""A training loop as anyone would write it, with the parts of `lt_nas_ext.longtail`: no search, no engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lt_nas_ext.data import Dataset, DigitView, augment, normalize
from lt_nas_ext.engine import Progress
from lt_nas_ext.engine.seeds import derived_seed, generator
from lt_nas_ext.longtail import (
    DeferredReweighting,
    ImageSampler,
    MixedTargets,
    TailAugment,
    cosine_classifier,
    make_loss,
    mixup,
    remix,
)
from lt_nas_ext.space import SmallConvNet

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Training:
    """What all trainings of a study share.

    Attributes:
        epochs: of as many images as the training set has, whatever the sampler.
        batch_size: images a step; a last, smaller batch is left out.
        channels: C of `SmallConvNet`.
        lr: learning rate of SGD in the first epoch; cosine to 0.
        momentum: of SGD.
        weight_decay: of SGD.
    """

    epochs: int = 60
    batch_size: int = 32
    channels: int = 32
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 3e-3


@dataclass(frozen=True)
class Recipe:
    """What one training does about the long tail.

    Attributes:
        loss: a name of `longtail.LOSSES`; ldam brings its cosine classifier.
        sampler: a name of `longtail.SAMPLERS`.
        drw: class-balanced weights from 80 % of the epochs on.
        mixing: images blended in pairs, or not.
        tail: rare classes augmented more strongly, by the digits' view for Barlow Twins.
    """

    loss: str = "cross_entropy"
    sampler: str = "instance"
    drw: bool = False
    mixing: Literal["none", "mixup", "remix"] = "none"
    tail: bool = False


class Epochs:
    """Normalised batches of the training images: an epoch each time it is gone through, that of `sampler.set_epoch`."""

    def __init__(self, data: Dataset, training: Training, recipe: Recipe, seed: int, purpose: str) -> None:
        self._data, self._size, self._purpose, self._seed = data, training.batch_size, purpose, seed
        order = derived_seed(seed, "order", purpose)
        # as many images an epoch for all: under-sampling alone would train for a twentieth of the steps
        self.sampler = ImageSampler(data.train.labels, recipe.sampler, num_samples=len(data.train), seed=order)
        weak = augment(data.augment)
        self._augment = TailAugment(weak, DigitView() if recipe.tail else weak, data.counts)

    def __len__(self) -> int:
        return len(self.sampler) // self._size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images, labels = self._data.train.images, self._data.train.labels
        draws = generator(CPU, self._seed, "augment", self._purpose, self.sampler.epoch)
        for chosen in torch.tensor(list(self.sampler)).split(self._size)[: len(self)]:
            augmented = self._augment(images[chosen], labels[chosen], draws)
            yield normalize(augmented, self._data.mean, self._data.std), labels[chosen]


def train_plainly(
    data: Dataset, training: Training, recipe: Recipe, seed: int, progress: Progress | None = None
) -> nn.Module:
    """A `SmallConvNet` trained on the training images, in evaluation mode; a pure function of its arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "network"))
        network = SmallConvNet(data.num_classes, data.image_shape[0], training.channels)
        if recipe.loss == "ldam":
            cosine_classifier(network)
    return fit_plainly(network, data, training, recipe, seed, progress)


def fit_plainly(
    network: nn.Module,
    data: Dataset,
    training: Training,
    recipe: Recipe,
    seed: int,
    progress: Progress | None = None,
) -> nn.Module:
    """The same network, its weights trained on the training images, in evaluation mode; `channels` are its own."""
    criterion = make_loss(recipe.loss, data.counts)
    drw = DeferredReweighting(data.counts, training.epochs)
    optimiser = torch.optim.SGD(
        network.parameters(), training.lr, momentum=training.momentum, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.epochs)
    batches = Epochs(data, training, recipe, seed, "train")
    if progress is not None:
        progress.start(training.epochs * len(batches), "")
    for epoch in range(training.epochs):
        batches.sampler.set_epoch(epoch)
        if recipe.drw:
            criterion.reweight(drw.weights(epoch))
        draws = generator(CPU, seed, "mixing", epoch)
        for images, labels in batches:
            targets: torch.Tensor | MixedTargets = labels
            if recipe.mixing == "mixup":
                images, targets = mixup(images, labels, generator=draws)
            elif recipe.mixing == "remix":
                images, targets = remix(images, labels, data.counts, generator=draws)
            optimiser.zero_grad()
            criterion(network(images), targets).backward()
            optimiser.step()
            if progress is not None:
                progress.step({})
        schedule.step()
    if progress is not None:
        progress.close()
    return network.eval()
