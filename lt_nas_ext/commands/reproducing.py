"""`lt-nas reproduce STUDY`: a published table again, or one of our own, over several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lt_nas_ext.commands.images import OptionalInt
from lt_nas_ext.commands.printing import say
from lt_nas_ext.report.tables import print_results

if TYPE_CHECKING:
    from lt_nas_ext.experiments.study import Study


@dataclass(frozen=True)
class ReproduceDigits:
    """The digits study: what a search wins on 527 long-tailed digits (μ = 0.1), beside what no search found.

    Each seed searches cells with SSF-NAS (no labels) and DARTS, draws a random genotype, and trains these three and a
    hand-designed network of three layers on the same images: balanced softmax, the same epochs, last weights, 440
    balanced test images that chose nothing. A seed draws everything: the training images, the search's halves, weights,
    order, augmentation, the genotype.

    Minutes a seed and core, no GPU, no download. Ctrl-C saves; the same command continues, and more --seeds add to what
    is there. It ends with mean ± standard deviation, the margins by seed, and report.html with every seed.
    """

    seeds: int = 5
    """How many random seeds; they count from 0."""
    jobs: OptionalInt = None
    """Networks at work at the same time, each in a process of one thread; by default one a core."""
    out: Path = Path("runs/digits")
    """Directory of the runs (seed-0/ssf-nas, ...), report.html and results.json, which has every seed's figures."""

    def run(self) -> None:
        """Run what is missing, and show what came out."""
        from lt_nas_ext.experiments.digits import run_digits

        show(run_digits(self.out, self.seeds, self.jobs))


@dataclass(frozen=True)
class ReproduceLosses:
    """The losses study: what each remedy for a long tail wins on 360 long-tailed digits (μ = 0.02), with one network.

    Cross-entropy; class weights, focal, LDAM, deferred re-weighting, balanced softmax; four samplers; mixup and Remix;
    stronger tail augmentation; and after cross-entropy post-hoc logit adjustment, τ-normalisation and cRT. A small
    network of three layers, a plain loop, the same numbers for all, last weights, 440 balanced test images that chose
    nothing. A seed draws everything: the training images, weights, order, augmentation.

    About 80 seconds a seed on two cores, no GPU, no download. What is done is kept after Ctrl-C; the same command
    continues, and more --seeds add to what is there. It ends with mean ± standard deviation, and the margins by seed.
    """

    seeds: int = 5
    """How many random seeds; they count from 0."""
    jobs: OptionalInt = None
    """Networks at work at the same time, each in a process of one thread; by default one a core."""
    out: Path = Path("runs/losses")
    """Directory of a file for each training (seed-0/focal.json, ...) and of results.json, which has every figure."""

    def run(self) -> None:
        """Train what is missing, and show what came out."""
        from lt_nas_ext.experiments.losses import run_losses

        show(run_losses(self.out, self.seeds, self.jobs))


def show(study: Study) -> None:
    """Table and margins of a study, and the page's path last."""
    from lt_nas_ext.experiments.study import margins

    print_results(study.results, Console())
    say("Points of macro accuracy, paired by seed:")
    say("\n".join(margins(study.results)))
    print(study.report)
