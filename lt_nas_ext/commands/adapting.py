"""`lt-nas adapt`: a searched supernet on other images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from lt_nas_ext.commands.following import Following
from lt_nas_ext.commands.images import DataOptions, OptionalPath
from lt_nas_ext.commands.printing import percent, say
from lt_nas_ext.engine import AdaptResult, run_adapt
from lt_nas_ext.methods import AdaptSettings

SHOWN = 5


@dataclass(frozen=True)
class Adapt:
    """Adapt a searched supernet to other images, and rank sub-networks of it. Afterwards: lt-nas retrain --run OUT.

    By default the backbone stays as it was searched, a new head is trained with a class-balanced loss [paper: IMB-NAS],
    and random sub-networks are ranked by macro accuracy on held-out training images [ours]. Cheapest with --augment
    none: every image then goes through the backbone once.

    Ctrl-C ends it cleanly after the step in hand; the same command with --resume continues where it was.
    """

    source: Annotated[Path, tyro.conf.arg(name="run", metavar="PATH")]
    """Run directory of a finished search, on balanced images as a rule."""
    data: DataOptions = field(default_factory=DataOptions)
    """Which images to adapt to."""
    settings: AdaptSettings = field(default_factory=AdaptSettings)
    """Every number of the adaptation."""
    following: Following = field(default_factory=Following)
    """What the run tells while it lasts."""
    out: OptionalPath = None
    """Run directory to write; by default runs/imb-nas-DATA-SEED."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run in OUT; where there is none, begin it."""

    def run(self) -> None:
        """Adapt, and say which sub-networks rank first."""
        out = self.out or Path("runs", f"imb-nas-{self.data.data}-{self.settings.seed}")
        with self.following.of(out) as progress:
            _show(run_adapt(self.source, self.data.load(), self.settings, out, self.resume, progress), out)


def _show(found: AdaptResult, out: Path) -> None:
    figures = found.metrics
    say(f"supernet, {figures['strategy']}: macro {percent(figures['supernet']['macro'])} on the test images")
    cached = ", features computed once" if figures["cached_features"] else ""
    say(f"{figures['adapt_seconds']:g} s of adaptation{cached}, {figures['ranking_seconds']:g} s of ranking")
    for one in found.ranking[:SHOWN]:
        say(f"{one.rank:>3}  {one.origin:<9} validation macro {percent(one.val_macro)}")
    say(f"all {len(found.ranking)} sub-networks: {out / 'ranking.csv'}")
    say(str(found.genotype))
    say(f"next: lt-nas retrain --run {out}")
