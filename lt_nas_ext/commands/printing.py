"""What commands print for people, on standard output."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence

from rich.console import Console


def say(text: str) -> None:
    """Print text as it is: no markup, no wrapping, so that it can be piped and pasted."""
    print(text)


def percent(value: float) -> str:
    """A fraction in %, or – for NaN.

    >>> percent(0.953), percent(float("nan"))
    ('95.3 %', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def bars(lines: Sequence[tuple[str, float, str]]) -> None:
    """A bar of length 0 … 1 a line, between a name and its value."""
    console = Console()
    names = max(len(name) for name, _, _ in lines)
    values = max(len(value) for _, _, value in lines)
    room = max(10, min(60, console.width - names - values - 4))
    for name, length, value in lines:
        cells = 0.0 if math.isnan(length) else 2 * room * length
        bar = "█" * int(cells // 2) + ("▌" if cells % 2 >= 1 else "")
        print(f"{name:<{names}}  {bar or '▏'} {value}")


class _Terminal(logging.Handler):
    """Lines to standard error, whatever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_terminal() -> None:
    """The engine's line an epoch, where no bar is shown, goes to standard error."""
    logger = logging.getLogger("lt_nas_ext")
    if not logger.handlers:
        logger.addHandler(_Terminal())
        logger.setLevel(logging.INFO)
