"""`lt-nas predict`: what a trained network sees on images of the user's own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lt_nas_ext.commands.images import OptionalPath
from lt_nas_ext.commands.printing import percent, say
from lt_nas_ext.engine import Prediction, UnreadableImages, predict
from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.engine.run_dir import check_spares_runs
from lt_nas_ext.errors import UserError

First = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
Others = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...", help_behavior_hint="")]
"""Two, so that flags may stand between them."""


@dataclass(frozen=True)
class Predict:
    """Name what is on images: a line an image, with its likeliest classes and their probabilities."""

    first: First = None
    """Run directory of a retraining, or of the search that it belongs to."""
    images: Others = ()
    """Image files, or directories of them."""
    source: Annotated[Path | None, tyro.conf.arg(name="run", metavar="PATH", help_behavior_hint="")] = None
    """The run directory, as for the other commands; RUN is then the first of the images."""
    top: int = 3
    """How many classes to name, the likeliest first."""
    csv: OptionalPath = None
    """Table to write, named *.csv: file, class_1, probability_1, class_2, ..."""
    json: OptionalPath = None
    """List to write, named *.json: file, classes, probabilities of each image."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, ..."""

    def run(self) -> None:
        """Print all that can be predicted, then name what cannot be read."""
        given = [path for path in (self.source, self.first, *self.images) if path is not None]
        if not given:
            raise UserError("run: got none; wanted lt-nas predict RUN IMAGE ...")
        source, *images = given
        _check_table(self.csv, "csv")
        _check_table(self.json, "json")
        try:
            self._show(predict(source, images, self.top, self.device))
        except UnreadableImages as error:
            self._show(error.predictions)
            raise

    def _show(self, predictions: Sequence[Prediction]) -> None:
        paths = max((len(str(found.path)) for found in predictions), default=0)
        names = max((len(found.classes[0]) for found in predictions), default=0)
        for found in predictions:
            first, *others = zip(found.classes, map(percent, found.probabilities), strict=True)
            next_ones = "".join(f"   {name} {share}" for name, share in others)
            say(f"{found.path!s:<{paths}}  {first[0]:<{names}} {first[1]:>7}{next_ones}")
        if self.csv is not None:
            _write(self.csv, "csv", _as_csv(predictions))
        if self.json is not None:
            _write(self.json, "json", _as_json(predictions))


def _as_csv(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    width = max((len(found.classes) for found in predictions), default=0)
    writer.writerow(
        ["file", *(f"{name}_{place}" for place in range(1, width + 1) for name in ("class", "probability"))]
    )
    for found in predictions:
        pairs = zip(found.classes, found.probabilities, strict=True)
        writer.writerow([found.path, *(cell for pair in pairs for cell in pair)])
    return text.getvalue()


def _as_json(predictions: Sequence[Prediction]) -> str:
    content = [
        {"file": str(found.path), "classes": found.classes, "probabilities": found.probabilities}
        for found in predictions
    ]
    return json.dumps(content, indent=2) + "\n"


def _check_table(path: Path | None, flag: str) -> None:
    """Before anything is computed: no table takes the place of an image, or of a file of a run."""
    if path is None:
        return
    if path.suffix != f".{flag}":
        raise UserError(f"{flag}: got {path}; wanted a file to write, a name that ends in .{flag}")
    check_spares_runs(path, flag)


def _write(path: Path, flag: str, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{flag}: cannot write {path}: {error.strerror}") from None
