"""manifest.csv: which image was in which split, so that a run can be repeated on exactly the same images."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lt_nas_ext.errors import UserError


class ManifestRow(NamedTuple):
    """One line: the image's name in its data set, its label, and the split that holds it."""

    file: str
    label: int
    split: str


def write_rows(path: str | os.PathLike[str], rows: Iterable[ManifestRow]) -> None:
    """Write rows as CSV with the header file,label,split; the file appears whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(ManifestRow._fields)
            writer.writerows(rows)
        part.replace(path)
    except OSError as error:
        raise UserError(f"path: cannot write the manifest {path}: {error.strerror or error}") from error


def read_rows(path: str | os.PathLike[str]) -> tuple[ManifestRow, ...]:
    """Read what `write_rows` wrote, in its order.

    Raises:
        UserError: no such file, another header, or a line that is not file,label,split.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(f"{folder}/manifest.csv", [ManifestRow("cat/1.jpg", 0, "train")])
    ...     read_rows(f"{folder}/manifest.csv")
    (ManifestRow(file='cat/1.jpg', label=0, split='train'),)
    """
    rows = []
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            if tuple(header) != ManifestRow._fields:
                raise UserError(
                    f"path: {path} starts with {','.join(header)!r}; a manifest starts with 'file,label,split'"
                )
            for cells in reader:
                if len(cells) != 3 or not cells[1].isdecimal():
                    raise UserError(f"path: {path}, line {reader.line_num}: got {cells!r}; wanted file,label,split")
                rows.append(ManifestRow(cells[0], int(cells[1]), cells[2]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"path: cannot read the manifest {path}: {error}") from error
    return tuple(rows)
