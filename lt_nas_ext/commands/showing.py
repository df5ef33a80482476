"""`lt-nas report`, `demo` and `doctor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from lt_nas_ext.commands.images import OptionalPath
from lt_nas_ext.commands.printing import say
from lt_nas_ext.errors import UserError
from lt_nas_ext.report.runs import about, read_networks
from lt_nas_ext.report.tables import as_markdown, print_results, rows


def print_table(runs: Sequence[Path]) -> None:
    """The results of some run directories, headed by what they were run on."""
    networks = read_networks(runs)
    say(about(networks))
    print_results(rows(networks), Console())


@dataclass(frozen=True)
class Report:
    """One table, and one html page that needs no network and no other file, for any number of runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or directories of them."""
    out: OptionalPath = None
    """Page to write; by default report.html in the run, or in the directory that holds all runs."""
    markdown: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the table as markdown."""

    def run(self) -> None:
        """Write the page and print the table; the page's path comes last."""
        from lt_nas_ext.report.page import write_report

        if not self.runs:
            raise UserError("runs: got none; wanted one or more run directories, such as runs/*")
        networks = read_networks(self.runs)
        out = self.out or _home(self.runs) / "report.html"
        page = write_report(networks, out)
        if self.markdown:
            print(f"**{about(networks)}**\n\n{as_markdown(rows(networks))}")
        else:
            print_table(self.runs)
        print(page)


@dataclass(frozen=True)
class Demo:
    """Search on long-tailed digits with SSF-NAS and DARTS, train what they found and two networks that no search made.

    Minutes on two cores, no GPU, no download. Run it again to continue after Ctrl-C.
    """

    out: Path = Path("runs/demo")
    """Directory of the four runs and of report.html."""
    seed: int = 0
    """Random seed of everything."""

    def run(self) -> None:
        """Run what is missing, print the table, and the page's path last."""
        from lt_nas_ext.experiments.demo import run_demo

        demo = run_demo(self.out, self.seed, tell=lambda line: print(line, file=sys.stderr, flush=True))
        print_results(demo.results, Console())
        print(demo.report)


@dataclass(frozen=True)
class Doctor:
    """What is installed, which kernels serve, and why the others do not."""

    def run(self) -> None:
        """Print it."""
        from lt_nas_ext.doctor import doctor

        print(doctor())


def _home(runs: Sequence[Path]) -> Path:
    """The run itself, or the directory that holds all of them."""
    return runs[0] if len(runs) == 1 else Path(os.path.commonpath([run.absolute() for run in runs]))
