"""What every figure shares: the style, the SVG that a page can take in, the legend."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from lt_nas_ext.report import palette
from lt_nas_ext.report.palette import GRID, INK, LINE, MUTED

WIDTH = 11.4  # inches at 96 pixels: the text column of the page

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable, small
    "svg.hashsalt": "lt_nas_ext",
    "font.family": "sans-serif",
    "font.sans-serif": list(palette.SANS),
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 8,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$100"
}


@contextmanager
def open_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in the style of all pictures, of `width` and `height` inches."""
    # Figure without pyplot: no global state, no display.
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, title: str, name: str) -> str:
    """The figure as SVG for inlining: no prolog, no metadata, identifiers that are unique to this figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    width, height = (round(float(v) * 4 / 3) for v in figure.get_size_inches() * 72)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    head = re.search(r'viewBox="[^"]+"', text)
    assert head is not None
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{height}" {head[0]} role="img"><title>{escape(title)}</title>'
    )
    return opening + text[text.index(">") + 1 :]


def legend(figure: Figure, entries: Mapping[str, Artist]) -> None:
    """One legend below all panels of a figure."""
    figure.legend(list(entries.values()), list(entries), loc="outside lower left", ncols=min(8, len(entries)),
                  borderaxespad=0, columnspacing=1.6)  # fmt: skip
