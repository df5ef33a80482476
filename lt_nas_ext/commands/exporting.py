"""`lt-nas export`: a trained network as one file, to be used where this library is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lt_nas_ext.commands.printing import say
from lt_nas_ext.engine import export
from lt_nas_ext.engine.export import Format


@dataclass(frozen=True)
class Export:
    """Write the trained network of a run to one file, with normalisation and class names.

    state (.pt) is read by lt_nas_ext.engine.load_classifier; torch-export (.pt2) by torch.export.load, without this
    library; onnx (.onnx) by other runtimes. The last two take images in [0, 1], any number at once.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory of a retraining, or of the search that it belongs to."""
    out: Path
    """File to write: *.pt, *.pt2 or *.onnx."""
    format: Format = "state"
    """Its kind; onnx needs the packages onnx and onnxscript."""

    def run(self) -> None:
        """Write it, and print its path."""
        say(str(export(self.source, self.out, self.format)))
