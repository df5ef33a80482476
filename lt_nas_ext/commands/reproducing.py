"""`lt-nas reproduce STUDY`: a published table again, or one of our own, over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from lt_nas_ext.commands.images import OptionalInt
from lt_nas_ext.commands.printing import say
from lt_nas_ext.experiments.imb_settings import ImbSettings
from lt_nas_ext.experiments.settings import HLS, VERIFICATION, StudySettings
from lt_nas_ext.report.tables import print_results

if TYPE_CHECKING:
    from lt_nas_ext.experiments.sections import PaperStudy
    from lt_nas_ext.experiments.study import Study
    from lt_nas_ext.experiments.tabular import Tabular
    from lt_nas_ext.report.study_page import Table


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
    """Networks at work at the same time, each in a process of one thread; by default one a core. Not with torchrun,
    whose processes do one network after the other, together."""
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


@dataclass(frozen=True)
class ReproduceTabular:
    """The tabular study: does a network's accuracy on balanced images tell how good it is under a long tail?

    Random genotypes of a tiny space, three cells of 8 channels, each trained alike and briefly on 240 digits: balanced,
    and long-tailed with imbalance ratios 10 and 100. Every accuracy in one table (tabular.csv), the accuracies against
    each other (tabular.svg), and Kendall's τ between distributions beside that between two seeds of one.

    Minutes on two cores, no GPU, no download. What is done is kept after Ctrl-C; the same command continues, and more
    --networks or --seeds add to what is there.
    """

    networks: int = 30
    """How many random genotypes."""
    seeds: int = 3
    """How many random seeds; they count from 0."""
    jobs: OptionalInt = None
    """Networks at work at the same time, each in a process of one thread; by default one a core."""
    out: Path = Path("runs/tabular")
    """Directory of tabular.csv, tabular.svg, results.json, and a file for each training (seed-0/exp-0.1/07.json)."""

    def run(self) -> None:
        """Train what is missing, and show what came out."""
        from lt_nas_ext.experiments.tabular import run_tabular

        show_tabular(run_tabular(self.out, self.networks, self.seeds, self.jobs))


@dataclass(frozen=True)
class ReproduceTable1:
    """Table 1 of the SSF-NAS text: DARTS, FairDARTS and SSF-NAS on long-tailed CIFAR-10, beside controls.

    [paper] 40 epochs of search and 150 of training, exponential with factor 0.1, the balanced test set. [ours] Five
    random genotypes as large as the networks found, ResNet-32 and DARTS_V2, trained alike on the same images.

    A queue of runs in one directory: Ctrl-C, --minutes and even a kill lose the epochs in hand only; the same command
    continues, on a CPU to the bit. For a first look on two CPU cores: --scale 0.03 --seeds 1. Exit code 0: done; 130:
    stopped, with the state saved; 2: the input cannot be used.
    """

    settings: StudySettings = field(default_factory=StudySettings)
    """On which images, how much, where."""
    pretrain_epochs: int = 0
    """Barlow Twins epochs before the training of SSF-NAS's network, always extra. The text has them and does not say
    how many; the preset paper-ssf has 30."""
    out: Path = Path("runs/table1")
    """Directory of the runs (exp-0.1/seed-0/darts, ...), report.html, its pictures, table.md and results.json."""

    def run(self) -> None:
        """Run what is missing, and show what came out."""
        from lt_nas_ext.experiments.table1 import run_table1

        show_paper_study(run_table1(self.out, self.settings, self.pretrain_epochs))


@dataclass(frozen=True)
class ReproduceVerification:
    """What a long tail costs: DARTS over the four distributions of figure 6 of the SSF-NAS text.

    Supernet and trained network, each on the balanced and on the long-tailed test set. [paper] 12.57 to 38.01 points
    lie between balance and a long tail on CIFAR-10. It stops and continues as reproduce table1 does.
    """

    settings: StudySettings = field(default_factory=lambda: VERIFICATION)
    """On which images, how much, where."""
    out: Path = Path("runs/verification")
    """Directory of the runs (exp-0.1/seed-0/darts, ...), report.html, its pictures, table.md and results.json."""

    def run(self) -> None:
        """Run what is missing, and show what came out."""
        from lt_nas_ext.experiments.verification import run_verification

        show_paper_study(run_verification(self.out, self.settings))


@dataclass(frozen=True)
class ReproduceHls:
    """DARTS + BBN and HLS on long-tailed CIFAR-10 beside DARTS, DARTS + re-sampling and DARTS + re-weighting.

    [paper] Exponential with factor 0.01; the accuracy of the supernet at search time. [ours] The test-time mixing ratio
    is chosen on validation images, with the best on test images beside it, as the paper has it; 50 epochs of search, 10
    more for each of the four ways to continue HLS, and of every genotype found two networks trained: BBN's and a plain
    one. Digits, in minutes, are taken with factor 0.1 and numbers of ours.

    It stops and continues as reproduce table1 does. CIFAR-10 with this factor needs a --scale of 0.04 at least; a
    smaller one goes with --distributions exp-0.1.
    """

    settings: StudySettings = field(default_factory=lambda: HLS)
    """On which images, how much, where."""
    out: Path = Path("runs/hls")
    """Directory of the runs (exp-0.01/seed-0/hls, ...), report.html, its pictures, table.md and results.json."""

    def run(self) -> None:
        """Run what is missing, and show what came out."""
        from lt_nas_ext.experiments.hls import run_hls

        show_paper_study(run_hls(self.out, self.settings))


@dataclass(frozen=True)
class ReproduceImb:
    """Adapting a supernet (IMB-NAS) from a balanced source to long-tailed targets: every strategy and its cost.

    DARTS searches on balanced images and, as a control, on each target. Each backbone (as is, frozen, finetuned, from
    scratch) and head (kept, new) adapts the source's supernet to exponential and step targets at imbalance ratios of 10
    and 100, and ranks 30 random sub-networks. Each of these is trained alone on the source and on every target: that
    gives Kendall's tau of the rankings, and shows whether accuracy on balanced images tells that on imbalanced ones.
    [ours] all of it: the paper's tables are not available.

    It stops and continues as reproduce table1 does. For a first look on two CPU cores: --data digits --scale 0.2.
    """

    settings: ImbSettings = field(default_factory=ImbSettings)
    """On which images, how much, where."""
    out: Path = Path("runs/imb")
    """Directory of the runs (exp-0.1/seed-0/frozen-reinit, ...), report.html, pictures, table.md and results.json."""

    def run(self) -> None:
        """Run what is missing, and show what came out."""
        from lt_nas_ext.experiments.imb import run_imb

        study = run_imb(self.out, self.settings)
        say(study.heading)
        for table in study.tables:
            show_table(table)
        print(study.report)


def show_table(table: Table) -> None:
    """Text in rows, in columns as wide as they need."""
    say(f"\n{table.title}")
    lines = [[title for title, _, _ in table.columns], *table.lines]
    widths = [max(len(line[k]) for line in lines) for k in range(len(table.columns))]
    for line in lines:
        cells = zip(line, widths, table.columns, strict=True)
        say("  ".join(f"{cell:>{width}}" if number else f"{cell:<{width}}" for cell, width, (_, _, number) in cells))


def show_paper_study(study: PaperStudy) -> None:
    """Tables and differences of a study, and the page's path last."""
    console = Console()
    say(study.heading)
    for title, results, columns in study.tables:
        say(title)
        print_results(results, console, columns=columns)
    for title, found in study.differences.items():
        say(f"Points of top-1, paired by seed; {title}")
        say("\n".join(map(str, found)))
    print(study.report)


def show(study: Study) -> None:
    """Table and margins of a study, and the page's path last."""
    from lt_nas_ext.experiments.study import margins

    print_results(study.results, Console())
    say("Points of macro accuracy, paired by seed:")
    say("\n".join(margins(study.results)))
    print(study.report)


def show_tabular(study: Tabular) -> None:
    """Accuracies and agreements of the study, and the path of its figures last."""
    console = Console()
    columns = ["images", "worst network", "mean", "best network"]
    lines = []
    for title, seeds in study.accuracies.items():
        means = [statistics.fmean(values) for values in zip(*seeds, strict=True)]
        lines.append([title, *(f"{value:.1f}" for value in (min(means), statistics.fmean(means), max(means)))])
    console.print(_plain_table("Macro accuracy in %, means over seeds", columns, lines))
    title = "Kendall's τ over networks (95 % of the bootstrap)"
    columns = ["images", "and", "means over seeds", "seed against seed"]
    console.print(_plain_table(title, columns, [one.shown for one in study.agreements]))
    for path in (study.table, study.picture, study.report):
        print(path)


def _plain_table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> RichTable:
    table = RichTable(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for line in lines:
        table.add_row(*line)
    return table
