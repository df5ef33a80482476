"""The commands of `lt-nas`: a dataclass each, whose fields are the flags and whose `run` does the work.

Settings are those of the Python API. A preset is looked up before the flags are parsed and gives their defaults, so
that `--help` shows the numbers that would be used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tyro

from lt_nas_ext.commands.adapting import Adapt
from lt_nas_ext.commands.exporting import Export
from lt_nas_ext.commands.images import Check, Describe
from lt_nas_ext.commands.predicting import Predict
from lt_nas_ext.commands.printing import log_to_terminal
from lt_nas_ext.commands.reproducing import (
    ReproduceDigits,
    ReproduceHls,
    ReproduceImb,
    ReproduceLosses,
    ReproduceTable1,
    ReproduceTabular,
    ReproduceVerification,
)
from lt_nas_ext.commands.showing import Demo, Doctor, Report
from lt_nas_ext.commands.training import (
    Baseline,
    Evaluate,
    Retrain,
    Search,
    baseline_defaults,
    retrain_defaults,
    search_defaults,
)
from lt_nas_ext.engine.processes import check_alone
from lt_nas_ext.experiments.group_crew import together

TYPES: dict[str, type[Any]] = {
    "search": Search,
    "adapt": Adapt,
    "retrain": Retrain,
    "baseline": Baseline,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "report": Report,
    "data check": Check,
    "data describe": Describe,
    "reproduce digits": ReproduceDigits,
    "reproduce imb": ReproduceImb,
    "reproduce losses": ReproduceLosses,
    "reproduce table1": ReproduceTable1,
    "reproduce tabular": ReproduceTabular,
    "reproduce verification": ReproduceVerification,
    "reproduce hls": ReproduceHls,
    "demo": Demo,
    "doctor": Doctor,
}

DEFAULTS: dict[str, Callable[[Sequence[str]], Any]] = {
    "search": search_defaults,
    "retrain": retrain_defaults,
    "baseline": baseline_defaults,
}
"""Commands whose defaults depend on their flags."""

SHARED = ("search", "adapt", "retrain", "baseline")
"""Commands that several processes (torchrun) do together."""

SHARED_BY_RUN = tuple(f"reproduce {study}" for study in ("digits", "imb", "table1", "verification", "hls"))
"""Likewise, one run after the other. The trainings of the other studies are too small to share."""


def run(name: str, words: Sequence[str]) -> None:
    """Parse the flags of a command and run it.

    Raises:
        UserError: the input cannot be used.
        SystemExit: after --help, or with code 2 after a flag that is none.
        Interrupted: Ctrl-C during a run.
    """
    if name not in (*SHARED, *SHARED_BY_RUN):
        check_alone(name, f"only {', '.join((*SHARED, *SHARED_BY_RUN))} share their work")
    log_to_terminal()
    default = DEFAULTS[name](words) if name in DEFAULTS else None
    command = tyro.cli(
        TYPES[name],
        args=list(words),
        prog=f"lt-nas {name}",
        default=default,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    together(command.run) if name in SHARED_BY_RUN else command.run()
