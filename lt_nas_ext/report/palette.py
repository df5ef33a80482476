"""The colours of every picture: one restrained set, told apart by all common forms of colour blindness.

The hues are those of Okabe and Ito (2008). Families of operations keep theirs in the cell drawings and in the curves
of their gates, so that a reader learns them once.
"""

from __future__ import annotations

from dataclasses import dataclass

INK = "#1f2933"
MUTED = "#667380"
LINE = "#aab4be"
GRID = "#e3e8ed"
PAPER = "#ffffff"
TAIL = "#cfd7df"  # the training counts, behind every accuracy

BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072b2", "#d55e00", "#00835f", "#a8518a", "#4aa3d4", "#5c6873"

# Searched networks are in colour, what was not searched stays grey: the eye sees the comparison that counts.
SEARCHED = (BLUE, ORANGE, GREEN, PURPLE, SKY)
CONTROLS = ("#8a949e", "#4b5660", "#b9c1c9", "#2f3840")

SANS = ("Inter", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")
FONT = ", ".join([*(f"'{name}'" if " " in name else name for name in SANS), "sans-serif"])


@dataclass(frozen=True)
class Family:
    """One family of candidate operations: what its legend says, and its colours."""

    title: str
    colour: str
    tint: str


FAMILIES: dict[str, Family] = {
    "sep": Family("separable convolution", BLUE, "#e3f0f8"),
    "dil": Family("dilated convolution", ORANGE, "#fdeadd"),
    "pool": Family("pooling", GREEN, "#e0f2ec"),
    "skip": Family("skip connection", GREY, "#eceff2"),
    "other": Family("other operation", PURPLE, "#f6e8f1"),
    "none": Family("none", LINE, PAPER),
}


def family(op: str) -> str:
    """The family key of a candidate's name.

    >>> [family(op) for op in ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "none", "my_block")]
    ['sep', 'pool', 'skip', 'none', 'other']
    """
    if op == "none":
        return "none"
    if op.startswith("sep_conv"):
        return "sep"
    if op.startswith("dil_conv"):
        return "dil"
    if "pool" in op:
        return "pool"
    return "skip" if op.startswith("skip") else "other"


def short_name(op: str) -> str:
    """A candidate's name as it stands in pictures.

    >>> [short_name(op) for op in ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "my_block")]
    ['sep 3×3', 'max 3×3', 'skip', 'my block']
    """
    text = op.replace("_conv", "").replace("_pool", "").replace("_connect", "").replace("_", " ")
    return text.replace("3x3", "3×3").replace("5x5", "5×5").replace("7x7", "7×7")
