"""A study of the paper as a queue of runs in one directory: begun, continued, carried, and read back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lt_nas_ext.engine.checkpoint import write_text
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments.board import Board, default_board
from lt_nas_ext.experiments.carry import STUDY, pack, unpack
from lt_nas_ext.experiments.images import Images, survey
from lt_nas_ext.experiments.local_crew import SECONDS_TO_STOP
from lt_nas_ext.experiments.networks import Place, Plan, finished, jobs, needed, places, read
from lt_nas_ext.experiments.queue import run_queue
from lt_nas_ext.experiments.settings import StudySettings
from lt_nas_ext.report.runs import Network

SECONDS_TO_PACK = 15.0
"""For the start of the command, before anybody looks at the clock, and for packing 48 MB at its end."""


@dataclass(frozen=True)
class Series:
    """The networks of a study, read back, with all that says what they are.

    Attributes:
        name: "table1", "verification" or "hls".
        settings: what was asked for.
        plan: every number of the runs, scaled.
        images: what they were run on.
        out: their directory.
        networks: in the order of the tables.
    """

    name: str
    settings: StudySettings
    plan: Plan
    images: Images
    out: Path
    networks: list[tuple[Place, Network]]


def run_series(name: str, settings: StudySettings, plan: Plan, out: str | Path, board: Board | None = None) -> Series:
    """Do what is missing of a study: runs that are done are kept, others continue from their last whole epoch.

    Args:
        name: of the study.
        settings: what is asked for.
        plan: its numbers at scale 1.
        out: its directory.
        board: what follows the queue.

    Raises:
        UserError: images or a device that are not there, or an `out` with another study.
        QueueInterrupted: Ctrl-C, or the minutes are over; call again to continue.
    """
    began, out = time.monotonic(), Path(out)
    board, end = board or default_board(), until(began, settings.minutes)
    crew = settings.spread.crew(out, settings.device, board, end)
    if settings.carry is not None:
        unpack(settings.carry, out)
    images = survey(settings.data, settings.root, settings.scale, settings.distributions)
    plan = _on(plan.scaled(settings.scale), settings.device)
    claim(out, _identity(name, settings, plan, images))
    asked = (plan, settings.distributions, settings.seeds)
    try:
        queue, done = jobs(out, images, *asked), finished(out, *asked)
        run_queue(queue, out, crew, name, board, end, done)
    finally:
        if settings.carry is not None:
            pack(out, settings.carry, needed=needed(out, *asked))
    return Series(name, settings, plan, images, out, read(out, places(*asked)))


def _on(plan: Plan, device: str) -> Plan:
    searches = {name: replace(settings, device=device) for name, settings in plan.searches.items()}
    return replace(plan, searches=searches, training=replace(plan.training, device=device))


def until(began: float, minutes: float | None) -> float | None:
    """When the workers are asked to stop: early enough that the slowest ends, and the state is packed, in time."""
    if minutes is None:
        return None
    return began + max(60 * minutes - SECONDS_TO_STOP - SECONDS_TO_PACK, 30 * minutes)


def claim(out: Path, now: Mapping[str, Any]) -> None:
    """Write study.json, or check that what is there is the same study; seeds and distributions may be added.

    Args:
        out: directory of the study.
        now: what must not change between two calls, flat, as JSON reads it back.

    Raises:
        UserError: it is another one, or `out` cannot be written.
    """
    path = out / STUDY
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"out: cannot read the study in {out}: {error}") from None
    if before:
        _check_same(out, before, now)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**before, **now}, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"out: cannot write the study to {out}: {error}") from None


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    # A distribution that comes new has no counts there yet.
    compared = [key for key in now if key in before or not key.startswith("images.")]
    differing = [
        f"{key} (was {before.get(key)!r}, now {now[key]!r})" for key in compared if before.get(key) != now[key]
    ]
    if differing:
        raise UserError(
            f"out: {out} holds another study: {'; '.join(differing)}. Continue with the settings that it was begun "
            "with, or name another directory"
        )


def _identity(name: str, settings: StudySettings, plan: Plan, images: Images) -> dict[str, Any]:
    """What must not change between two calls, flat, as JSON reads it back."""
    flat = {
        "study": name,
        "data": images.title,
        "scale": settings.scale,
        "random": plan.random,
        "controls": list(plan.controls),
        "pretrain_epochs": plan.pretrain_epochs,
        "test_images": images.test,
        **{f"training.{key}": value for key, value in asdict(plan.training).items()},
        **{f"{m}.{key}": value for m, s in plan.searches.items() for key, value in asdict(s).items()},
        **{f"images.{distribution}": counts for distribution, counts in images.counts.items()},
    }
    fixed = {key: value for key, value in flat.items() if not key.endswith((".device", ".seed"))}
    content: dict[str, Any] = json.loads(json.dumps(fixed))
    return content
