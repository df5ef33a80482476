"""How a run is followed: the flags of every command that trains."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lt_nas_ext.engine import BarProgress, JsonProgress, LogProgress, Progress, Several, TensorBoard
from lt_nas_ext.engine.processes import asked
from lt_nas_ext.engine.progress import default_progress
from lt_nas_ext.experiments.board import BarBoard, Board, JsonBoard, LogBoard, QuietBoard, default_board


@dataclass(frozen=True)
class Following:
    """What the run tells while it lasts."""

    progress: Literal["auto", "bar", "lines", "json"] = "auto"
    """A bar, or a line an epoch, on standard error (auto: a bar on a terminal); or, for machines, a JSON object a line
    on standard output, and nothing else there."""
    quiet: bool = False
    """Say nothing but warnings and errors."""
    tensorboard: bool = False
    """Write the curves to OUT/tensorboard as well (needs the package tensorboard)."""

    @contextlib.contextmanager
    def of(self, out: Path) -> Iterator[Progress]:
        """What is to follow the run that writes to `out`; within, what is printed is kept from those who want none."""
        if asked().rank:  # the first process talks
            with contextlib.redirect_stdout(io.StringIO()):
                yield Several(())
            return
        machine = JsonProgress() if self.progress == "json" else None
        followers: list[Progress] = [] if self.quiet else [machine or self._shown()]
        if self.tensorboard:
            followers.append(TensorBoard(out / "tensorboard"))
        with contextlib.redirect_stdout(io.StringIO()) if self.quiet or machine else contextlib.nullcontext():
            yield Several(followers)
        if machine is not None and not self.quiet:
            machine.say("result", out=str(out))

    def board(self) -> Board:
        """What is to follow a queue of runs."""
        if self.quiet:
            return QuietBoard()
        return {"auto": default_board, "bar": BarBoard, "lines": LogBoard, "json": JsonBoard}[self.progress]()

    def _shown(self) -> Progress:
        return {"auto": default_progress, "bar": BarProgress, "lines": LogProgress}[self.progress]()
