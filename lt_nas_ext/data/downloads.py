"""Where a data set that other packages download lies."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lt_nas_ext.errors import UserError

LOG = logging.getLogger("lt_nas_ext")


def download_folder(root: str | os.PathLike[str] | None, holds: str) -> Path:
    """`root`, which must be there, or the user's cache, which is made.

    Args:
        root: as given by the user.
        holds: what lies in the folder, or shall: a word for the error.

    Raises:
        UserError: `root` is no directory, or the cache cannot be made.
    """
    if root is not None:
        folder = Path(root)
        if not folder.is_dir():
            raise UserError(
                f"root: {folder} is not a directory; wanted the one that holds {holds}, or an empty one to download it "
                f"into; without root it is downloaded into {_cache()}"
            )
        return folder
    folder = _cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"root: cannot make {folder} ({error.strerror}); give the directory of {holds}") from error
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lt_nas_ext"
