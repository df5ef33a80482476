"""Is what a search found more than noise? Figures that stand in metrics.json of every search."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

HIGH, LOW = 0.9, 0.1

COLLAPSED = 0.5
"""From this share of skip connections, or of edges that `none` wins, on a search is said to have collapsed [ours]."""

AGREEING_EPOCHS = 5


def polarised(gates: torch.Tensor) -> int:
    """How many gates (n,) have decided: above .9 or below .1.

    >>> polarised(torch.tensor([0.95, 0.5, 0.05]))
    2
    """
    return int(((gates > HIGH) | (gates < LOW)).sum())


class CollapseWarning(UserWarning):
    """The cells that a search found do little: skip connections, or edges that would rather be none."""


def collapse_warnings(skips: float, nones: float | None) -> list[CollapseWarning]:
    """What to say of cells with these shares of skip connections, and of edges whose largest gate is that of `none`.

    >>> [str(warning)[:45] for warning in collapse_warnings(0.75, 0.1)]
    ['75 % of the operations found are skip connect']
    """
    said = []
    if skips >= COLLAPSED:
        said.append(
            f"{100 * skips:.0f} % of the operations found are skip connections, as after a search for too long: search "
            "for fewer epochs, with stop_at_skips=2 or auxiliary_skip=True, or with fair-darts or ssf-nas, whose "
            "candidates do not compete"
        )
    if nones is not None and nones >= COLLAPSED:
        said.append(
            f"'none' has the largest gate on {100 * nones:.0f} % of the edges, which the rule top2 does not look at: "
            "what it found there is a second choice. Search for longer, with rule='per_edge', which leaves such edges "
            "out, or with fair-darts or ssf-nas, where 'none' does not compete"
        )
    return [CollapseWarning(one) for one in said]


def edges(genotype: Mapping[str, Any]) -> Counter[tuple[str, ...]]:
    """All edges of a genotype as its json holds it, as (cell, operation, source, target), whatever cells there are."""
    cells = {name: cell["edges"] for name, cell in genotype.items() if isinstance(cell, dict) and "edges" in cell}
    return Counter(
        (name, edge["op"], str(edge["source"]), str(edge["target"])) for name, found in cells.items() for edge in found
    )


def skip_share(genotype: Mapping[str, Any]) -> float:
    """The share of skip connections among the edges; near 1 the search has collapsed.

    >>> skip = {"op": "skip_connect", "source": 0, "target": 2}
    >>> skip_share({"normal": {"edges": [skip, {**skip, "op": "sep_conv_3x3"}]}})
    0.5
    """
    operations = Counter(operation for _, operation, _, _ in edges(genotype).elements())
    return operations["skip_connect"] / sum(operations.values())


def edges_in_common(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The share of edges, operation and all, that two genotypes (as json) have in common."""
    first, second = edges(one), edges(other)
    return sum((first & second).values()) / sum((first | second).values())


def agreement(genotypes: Sequence[Mapping[str, Any] | None]) -> float | None:
    """The mean share of edges that two consecutive genotypes have in common (1: nothing changes any more).

    Over the last five epochs; None where no two in a row have a genotype.
    """
    shares = [
        edges_in_common(before, after)
        for before, after in itertools.pairwise(genotypes[-AGREEING_EPOCHS:])
        if before is not None and after is not None
    ]
    return sum(shares) / len(shares) if shares else None


def gradient_ratio(norms: dict[str, float]) -> dict[str, float] | None:
    """The task's gradient norm on α over that of each regulariser: 1 is balance, 1000 is a regulariser that drowns.

    >>> gradient_ratio({"barlow_twins": 4.5, "zero_one": 0.005})
    {'barlow_twins/zero_one': 900.0}
    """
    if not norms:
        return None
    task, *others = norms.items()
    ratios = {f"{task[0]}/{name}": task[1] / norm for name, norm in others if norm > 0}
    return ratios or None


def health_figures(gates: torch.Tensor, genotype: str, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the gates (n,), the genotype (as json) and the history of a search say about it."""
    norms = history[-1].get("alpha_gradient_norms", {})
    return {
        "gates": gates.numel(),
        "polarised_gates": polarised(gates) if len(gates) else None,
        "lowest_gate": float(gates.min()) if len(gates) else None,
        "highest_gate": float(gates.max()) if len(gates) else None,
        "skip_share": skip_share(json.loads(genotype)),
        "alpha_gradient_norms": norms,
        "gradient_ratio": gradient_ratio(norms),
        "genotype_agreement": agreement([row["genotype"] for row in history]),
    }
