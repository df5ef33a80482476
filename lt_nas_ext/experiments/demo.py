"""The demo: two searches on long-tailed digits, and beside what they found two networks that no search made.

All four are trained on the same images for the same supervised epochs. It shows the pipeline from images to report; one
seed on 527 images of 8×8 pixels proves nothing about the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lt_nas_ext import data
from lt_nas_ext.engine import Progress, RetrainSettings, run_retrain, run_search
from lt_nas_ext.methods import preset
from lt_nas_ext.report.page import write_report
from lt_nas_ext.report.runs import Network, read_networks
from lt_nas_ext.report.tables import Row, rows

SEARCHES = {"ssf-nas": "demo-ssf", "darts": "demo-darts"}
"""Directory -> preset of each search."""

CONTROLS = {"random-genotype": "random", "small-conv-net": "small-conv-net"}
"""Directory -> network of each control."""

TRAINING = RetrainSettings(epochs=20, batch_size=64, channels=12, layers=3, lr=0.05, drop_path=0.0, test_every=2)
"""How every network is trained; SSF-NAS's is pre-trained without labels before it."""

PRETRAIN_EPOCHS = 5


@dataclass(frozen=True)
class Demo:
    """What the demo leaves.

    Attributes:
        networks: the four, read back from disk.
        results: the rows of its table.
        report: the page.
    """

    networks: list[Network]
    results: list[Row]
    report: Path


def run_demo(
    out: str | Path = "runs/demo",
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[], Progress] | None = None,
) -> Demo:
    """Run the demo, or what is missing of it: finished runs in `out` are kept, an interrupted one continues.

    Args:
        out: directory of the four runs and the report.
        seed: of everything, the long-tailed subset included.
        tell: called with a line before each run.
        progress: makes what follows a run; by default a bar on a terminal, log lines elsewhere.

    Raises:
        UserError: `out` holds something else, or a demo with other settings.
        Interrupted: Ctrl-C; call again to continue.
    """
    out = Path(out)
    digits = data.load("digits", imbalance="exp", factor=0.1, seed=seed)
    training = replace(TRAINING, seed=seed)
    with _one_thread():
        for name, preset_name in SEARCHES.items():
            tell(f"{name}: searching cells on {len(digits.train)} images of {digits.num_classes} classes")
            settings = replace(preset(preset_name), seed=seed)
            found = run_search(digits, settings, out / name, True, progress and progress())
            tell(f"{name}: training the network found")
            own = replace(training, pretrain_epochs=PRETRAIN_EPOCHS) if name == "ssf-nas" else training
            run_retrain(found.genotype, digits, own, out / name / "retrain", True, progress and progress())
        for name, network in CONTROLS.items():
            tell(f"{name}: training it on the same images")
            run_retrain(network, digits, _control(network, training), out / name, True, progress and progress())
    networks = read_networks([out / name for name in (*SEARCHES, *CONTROLS)])
    return Demo(networks, rows(networks), write_report(networks, out / "report.html"))


@contextmanager
def _one_thread() -> Iterator[None]:
    # On 8×8 images threads only wait for each other: two were 1.7 times slower than one, and 50 times while another
    # process held a core. The numbers do not depend on it.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _control(network: str, training: RetrainSettings) -> RetrainSettings:
    """The hand-designed network keeps its own width: it is what one would write without a search."""
    return replace(training, channels=None, layers=None) if network == "small-conv-net" else training
