"""A trained network with all that is needed to use it: normalisation, class names, and how to build it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lt_nas_ext.data import Dataset, normalize
from lt_nas_ext.engine.architecture import build_network
from lt_nas_ext.engine.checkpoint import write_state
from lt_nas_ext.engine.device import choose_device, place
from lt_nas_ext.engine.run_dir import read_config
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import Calibration

FORMAT = 1


class Classifier(nn.Module):
    """From images as they are, uint8 or in [0, 1], to logits.

    Args:
        network: from normalised images (N, C, H, W) to logits (N, num_classes).
        class_names: the name of each logit.
        train_counts: training images of each class.
        mean, std: normalisation of each channel.
        image_shape: (C, H, W) of the training images.
        architecture: how `build_network` makes the network again.
        calibration: how its logits are best read, where that was fitted on validation images; `forward` does not.

    Attributes:
        metrics: figures on the test set, once `retrain` has computed them.
        history: a dict an epoch, likewise.

    >>> import torch
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> model = Classifier(network, ("cat", "dog"), (9, 1), mean=(0.5,), std=(0.25,), image_shape=(1, 2, 2))
    >>> model(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        class_names: Sequence[str],
        train_counts: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        image_shape: tuple[int, int, int],
        architecture: dict[str, Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.class_names = tuple(class_names)
        self.train_counts = tuple(int(count) for count in train_counts)
        self.mean, self.std = tuple(mean), tuple(std)
        self.image_shape = image_shape
        self.architecture = architecture or {"name": "module", "class": type(network).__name__}
        self.calibration = calibration
        self.metrics: dict[str, Any] | None = None
        self.history: list[dict[str, Any]] = []

    @classmethod
    def of(cls, network: nn.Module, data: Dataset, architecture: dict[str, Any] | None = None) -> Classifier:
        """The network with normalisation, names and counts of the data it is trained on."""
        return cls(network, data.class_names, data.counts, data.mean, data.std, data.image_shape, architecture)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W), uint8 or floating point in [0, 1] -> logits (N, num_classes)."""
        logits: torch.Tensor = self.network(normalize(images, self.mean, self.std))
        return logits

    def save(self, path: str | Path) -> None:
        """Write weights and all else to one file, which `load_classifier` reads without executing code."""
        content = {
            "format": FORMAT,
            "network": self.network.state_dict(),
            "architecture": self.architecture,
            "class_names": list(self.class_names),
            "train_counts": list(self.train_counts),
            "mean": list(self.mean),
            "std": list(self.std),
            "image_shape": list(self.image_shape),
            "calibration": None if self.calibration is None else dataclasses.asdict(self.calibration),
        }
        write_state(Path(path), content)


def load_classifier(path: str | Path, network: nn.Module | None = None, device: str = "cpu") -> Classifier:
    """The trained network of a retraining run, in evaluation mode.

    Args:
        path: the run directory, that of the search it belongs to, or its model.pt.
        network: the module to load the weights into, where the run trained a module of yours; otherwise it is built.
        device: where to put it: "auto", "cpu", "cuda", "cuda:1", …

    Raises:
        UserError: there is no model, the file is none, or its weights do not fit the network.
    """
    path, where = Path(path), choose_device(device)
    file = path if path.is_file() else trained_run(path) / "model.pt"
    try:
        content = torch.load(file, map_location=where, weights_only=True)
    except Exception as error:  # damaged files fail in many ways
        raise UserError(
            f"run: {file} cannot be read as a trained model ({type(error).__name__}); "
            "wanted the model.pt of a retraining"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"run: {file} is no model of this library (format {FORMAT}); wanted the model.pt of a retraining"
        )
    channels, height, width = content["image_shape"]
    if network is None:
        network = build_network(content["architecture"], len(content["class_names"]), channels)
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as error:
        raise UserError(
            f"run: the weights in {file} do not fit the network: {str(error).splitlines()[-1].strip()}"
        ) from None
    model = Classifier(
        network,
        content["class_names"],
        content["train_counts"],
        content["mean"],
        content["std"],
        (channels, height, width),
        content["architecture"],
        Calibration(**fitted) if (fitted := content.get("calibration")) else None,
    )
    return place(model, where).eval()


def trained_run(path: Path) -> Path:
    """The run directory that has the weights: `path` itself, or the retraining in that of a search.

    Raises:
        UserError: it is no run, a search that was not retrained, or a retraining without weights yet.
    """
    if not path.is_dir():
        if path.exists():
            raise UserError(f"run: {path} is a file; wanted the run directory of a finished retraining")
        raise UserError(f"run: {path} is not there; wanted the run directory of a finished retraining, or its model.pt")
    inner = path / "retrain"
    for directory in (path, inner):
        if (directory / "model.pt").is_file():
            return directory
    begun = inner if (inner / "config.json").exists() else path
    if read_config(begun).get("kind") in ("search", "adapt"):
        raise UserError(
            f"run: {begun} is a search, which leaves a genotype and no trained network; train one first: "
            f"lt-nas retrain --run {begun}"
        )
    raise UserError(f"run: {begun} has no weights yet (model.pt); finish the retraining first (--resume)")
