"""A search that begins where another one ended: those epochs are its own first ones, and need not be done twice."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from lt_nas_ext.engine import read_config
from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.methods import SearchSettings

CHECKPOINT = "checkpoint.pt"


def branch_from(before: Path, out: Path, settings: SearchSettings) -> None:
    """Make `out` a run that stands where the search in `before` ended, to be resumed with `settings`.

    Where `out` has begun, nothing is done. Where the checkpoint of `before` is gone, nothing either: a search in `out`
    then does those epochs itself, to the same numbers.

    Args:
        before: a finished search with the same settings but for what comes after its last epoch.
        out: run directory of the search to come.
        settings: of that search.
    """
    checkpoint, here = before / CHECKPOINT, out / CHECKPOINT
    if here.exists() or not checkpoint.exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    config = {**read_config(before), "settings": asdict(settings)}
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    temporary = here.with_name(here.name + ".tmp")
    shutil.copyfile(checkpoint, temporary)
    os.replace(temporary, here)  # last: before it the run has no epoch, and none is lost
