"""The ranking: sub-networks of an adapted supernet, each judged on the hold-out as the supernet restricted to it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from lt_nas_ext.engine.adaptation import Adaptation
from lt_nas_ext.engine.evaluate import batched
from lt_nas_ext.engine.loop import Row, Watch
from lt_nas_ext.engine.processes import Group
from lt_nas_ext.engine.recalibrate import recalibrate
from lt_nas_ext.engine.source import Source
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import evaluate_predictions
from lt_nas_ext.methods.imb_nas import AdaptSettings, drawn_genotypes
from lt_nas_ext.space import Genotype, distinct, sub_network


class Candidate(NamedTuple):
    """A sub-network: its genotype, and whether the source's search found it or it was drawn."""

    origin: str
    genotype: Genotype


@dataclass(frozen=True)
class Ranked:
    """A sub-network and how the adapted supernet judges it.

    Attributes:
        rank: from 1.
        origin: "searched" or "drawn".
        val_macro, val_accuracy: of the supernet restricted to it, on the hold-out.
        genotype: the cells.
    """

    rank: int
    origin: str
    val_macro: float
    val_accuracy: float
    genotype: Genotype


def candidates_of(source: Source, settings: AdaptSettings) -> list[Candidate]:
    """What is ranked: the genotype that the search found, where it is known, and the drawn ones."""
    drawn = drawn_genotypes(source.supernet, settings.subnets, settings.seed)
    searched = [] if source.genotype is None or not _fits(source) else [source.genotype]
    return [
        Candidate("searched" if genotype in searched else "drawn", genotype)
        for genotype in distinct([*searched, *drawn])
    ]


def _fits(source: Source) -> bool:
    """Whether the genotype found is a sub-network: a threshold may have left a node without an edge."""
    try:
        sub_network(source.supernet, source.genotype)  # type: ignore[arg-type]
    except UserError:
        return False
    return True


class Judge:
    """Judges one sub-network an epoch (an `engine.loop.Trainer` that trains nothing).

    Of several processes each judges one of as many, and all have the rows of these: those of one process, whose state
    is the supernet's alone.

    Args:
        adaptation: whose supernet, hold-out and images for running statistics are taken.
        candidates: what is judged, in this order.
        group: the processes.
    """

    def __init__(self, adaptation: Adaptation, candidates: Sequence[Candidate], group: Group) -> None:
        self._adaptation, self._candidates, self._group = adaptation, candidates, group
        self._judged: dict[int, tuple[float, float]] = {}

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        if epoch not in self._judged:
            self._judge(range(epoch, min(epoch + self._group.size, len(self._candidates))))
        macro, accuracy = self._judged[epoch]
        watch.step({})
        return {"origin": self._candidates[epoch].origin, "val_macro": macro, "val_accuracy": accuracy}

    def _judge(self, numbers: range) -> None:
        """Judge so many candidates, each in a process of its own."""
        own = torch.zeros(2, dtype=torch.float64)
        if self._group.rank < len(numbers):
            own = torch.tensor(self._figures(numbers[self._group.rank]), dtype=torch.float64)
        figures = self._group.gather(own).tolist()
        self._judged.update({number: (figures[place][0], figures[place][1]) for place, number in enumerate(numbers)})

    def _figures(self, number: int) -> tuple[float, float]:
        """Macro and plain accuracy of one."""
        adaptation = self._adaptation
        network = sub_network(adaptation.supernet, self._candidates[number].genotype).eval()
        if adaptation.settings.recalibrate_subnets:
            recalibrate(network, adaptation.calibration())
        data, held_out = adaptation.data, adaptation.held_out
        found = evaluate_predictions(
            batched(network, held_out, adaptation.device, data.mean, data.std), held_out.labels, adaptation.counts
        )
        return found.macro, found.top1

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: the rows of the history are all there is."""


def ranked(candidates: Sequence[Candidate], rows: Sequence[Row]) -> list[Ranked]:
    """The best first; of equals the one that was drawn first."""
    order = sorted(range(len(rows)), key=lambda i: -rows[i]["val_macro"])
    return [
        Ranked(rank, candidates[i].origin, rows[i]["val_macro"], rows[i]["val_accuracy"], candidates[i].genotype)
        for rank, i in enumerate(order, 1)
    ]


def as_csv(ranking: Sequence[Ranked]) -> str:
    """The table of sub-networks: rank, origin, val_macro, val_accuracy, genotype.

    >>> from lt_nas_ext.space import DARTS_V2
    >>> print(as_csv([Ranked(1, "drawn", 0.5, 0.75, DARTS_V2)])[:60])
    rank,origin,val_macro,val_accuracy,genotype
    1,drawn,0.5,0.75
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "origin", "val_macro", "val_accuracy", "genotype"])
    for one in ranking:
        writer.writerow([one.rank, one.origin, one.val_macro, one.val_accuracy, one.genotype])
    return text.getvalue()
