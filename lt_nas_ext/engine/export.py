"""A trained network as one file for others: a state dict, a program of torch.export, or ONNX."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from lt_nas_ext.engine.classifier import Classifier, load_classifier
from lt_nas_ext.engine.run_dir import check_spares_runs
from lt_nas_ext.errors import UserError
from lt_nas_ext.space import multiply_adds, param_count

Format = Literal["state", "torch-export", "onnx"]
SUFFIXES: dict[str, str] = {"state": ".pt", "torch-export": ".pt2", "onnx": ".onnx"}
METADATA = "metadata.json"


class Deployed(nn.Module):
    """A network with its normalisation inside: floating-point images in [0, 1] to logits.

    Args:
        model: what `retrain` returned; its network is copied, in evaluation mode, on the CPU.

    Shapes: images (N, C, H, W) -> (N, num_classes).

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> model = Classifier(network, ("cat", "dog"), (9, 1), mean=(0.5,), std=(0.25,), image_shape=(1, 2, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> torch.equal(Deployed(model)(images), model(images))
    True
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        # Strides are baked into a program: those of its users' images are most likely the plain ones.
        network = copy.deepcopy(model.network).to("cpu")
        self.network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(model.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(model.std).view(-1, 1, 1))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images in [0, 1]."""
        logits: torch.Tensor = self.network((images - self.mean) / self.std)
        return logits


def export(run: str | os.PathLike[str] | Classifier, out: str | os.PathLike[str], format: Format = "state") -> Path:
    """Write a trained network to a file.

    Formats, by name:
        state (.pt): weights and how to build the network again; `lt.engine.load_classifier(out).network` is then the
            plain module, a class of `lt.space`. No code is executed on loading.
        torch-export (.pt2): `torch.export.load(out).module()(images)` gives logits without this library.
        onnx (.onnx): for other runtimes, input "images", output "logits". Needs the packages onnx and onnxscript.

    The last two take float32 images (N, C, H, W) in [0, 1], any N, and normalise them inside. What `metadata` returns
    (class names, normalisation, counts, calibration, …) travels with them: as the extra file "metadata.json" of the
    .pt2, as the metadata properties of the ONNX model. The weights are those that were reported.

    Args:
        run: run directory of a retraining, or of the search it belongs to; its model.pt; or what `retrain` returned.
        out: the file.
        format: its kind.

    Returns:
        The path of the file.

    Raises:
        UserError: there is no trained network, the file's name does not fit the format or is one of a run's own, a
            package is missing, or PyTorch cannot export a module of the user's own.

    >>> import lt_nas_ext as lt
    >>> digits = lt.data.load("digits", imbalance="exp", factor=0.1)
    >>> model = lt.retrain("small-conv-net", digits, epochs=1, channels=4)
    >>> lt.engine.load_classifier(lt.export(model, "digits.pt")).network.feature_dim
    16
    """
    if format not in get_args(Format):
        raise UserError(f"format: got {format!r}; wanted one of {', '.join(map(repr, get_args(Format)))}")
    if not isinstance(run, str | os.PathLike | Classifier):
        raise UserError(
            f"run: got {type(run).__name__}; wanted a run directory, its model.pt, or what retrain returned"
        )
    path = _checked(out, format)
    if format == "onnx":
        _check_packages()
    model = run if isinstance(run, Classifier) else load_classifier(Path(run))
    write = {"state": _write_state, "torch-export": _write_program, "onnx": _write_onnx}[format]
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's exporters warn of their own insides
            write(model, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"out: cannot write {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # it is there only where writing failed
            temporary.unlink()
    return path


def metadata(model: Classifier) -> dict[str, Any]:
    """What travels with the weights, in types that JSON has."""
    return {
        "input": "float32 images (N, C, H, W) in [0, 1]; they are normalised inside",
        "output": "logits (N, classes)",
        "class_names": list(model.class_names),
        "mean": list(model.mean),
        "std": list(model.std),
        "image_shape": list(model.image_shape),
        "train_counts": list(model.train_counts),
        "calibration": None if model.calibration is None else dataclasses.asdict(model.calibration),
        "architecture": model.architecture,
        "parameters": param_count(model.network),
        "multiply_adds": multiply_adds(model.network, model.image_shape),
    }


def _write_state(model: Classifier, path: Path) -> None:
    model.save(path)


def _write_program(model: Classifier, path: Path) -> None:
    torch.export.save(_program(model), path, extra_files={METADATA: json.dumps(metadata(model))})


def _write_onnx(model: Classifier, path: Path) -> None:
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    written = torch.onnx.export(_program(model), dynamo=True, verbose=False, **names)
    assert written is not None
    written.model.metadata_props.update({key: _text(value) for key, value in metadata(model).items()})
    written.save(str(path), external_data=False)


def _program(model: Classifier) -> torch.export.ExportedProgram:
    example = torch.zeros(2, *model.image_shape)
    try:
        return torch.export.export(Deployed(model), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # a module of the user's own can do what cannot be traced
        raise UserError(
            f"run: PyTorch cannot export {type(model.network).__name__} ({str(error).splitlines()[0]}); "
            "wanted a module that torch.export takes, or format='state'"
        ) from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _checked(out: str | os.PathLike[str], format: str) -> Path:
    suffix = SUFFIXES[format]
    if not isinstance(out, str | os.PathLike) or Path(out).suffix != suffix:
        came = str(out) if isinstance(out, str | os.PathLike) else type(out).__name__
        raise UserError(f"out: got {came}; wanted a file to write, for {format} a name that ends in {suffix}")
    check_spares_runs(Path(out), "out")
    return Path(out)


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format: 'onnx' needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed: pip install 'lt_nas_ext[onnx]', or use torch-export"
        )
