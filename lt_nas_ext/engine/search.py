"""The search: two disjoint halves of the images, a step of α on one before each step of w on the other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lt_nas_ext.data import Dataset, ImageSet, split
from lt_nas_ext.engine.capture import recorder_for
from lt_nas_ext.engine.device import place
from lt_nas_ext.engine.evaluate import batched
from lt_nas_ext.engine.health import collapse_warnings, health_figures
from lt_nas_ext.engine.loop import Row, Watch, train
from lt_nas_ext.engine.meter import Meter, finite
from lt_nas_ext.engine.optimisers import alpha_travel
from lt_nas_ext.engine.probe import LinearProbe
from lt_nas_ext.engine.processes import Group, join
from lt_nas_ext.engine.progress import Progress, Several, following
from lt_nas_ext.engine.resident import resident
from lt_nas_ext.engine.run_dir import RunDirectory, check_out, run_config
from lt_nas_ext.engine.seeds import isolated_rng, seed_global
from lt_nas_ext.engine.steps import Steps
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import evaluate_predictions
from lt_nas_ext.methods import Epoch, Loss, Method, Problem, SearchSettings, method_class
from lt_nas_ext.methods.base import Derived
from lt_nas_ext.space import GateTieWarning


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves.

    Attributes:
        genotype: the found cells.
        settings: what was asked for, with the numbers that depend on the images.
        history: a dict an epoch, as in history.jsonl.
        metrics: final figures, as in metrics.json; `metrics["health"]` is `health`, and `metrics["stopped"]`, where it
            is there, says why the search ended before its last epoch, `metrics["ranking"]` what a contest of candidate
            genotypes decided.
        health: reachable gate, polarised gates, skips, gradients on α, agreement over epochs.
        out: the run directory, or None.
    """

    genotype: Any
    settings: SearchSettings
    history: list[Row]
    metrics: dict[str, Any]
    health: dict[str, Any]
    out: Path | None


def run_search(
    data: Dataset,
    settings: SearchSettings,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> SearchResult:
    """Search a genotype; where torchrun started several processes, in all of them together (`engine.processes`).

    Args:
        data: its training images are split in two halves (with `one_level` they train both); its test images are never
            looked at, but for the curves that `settings.test_every` asks for.
        settings: every number; see `methods.preset`.
        out: run directory; None keeps everything in memory.
        resume: continue the run in `out`: bit for bit as if it had not been interrupted, on a CPU.
        progress: what follows the run; by default a bar on a terminal, log lines elsewhere.

    Raises:
        UserError: settings or data that cannot work, or an `out` that holds another run.
        NonFiniteError: losses or gradients were not finite, and `settings.on_non_finite` has no other way.
        Interrupted: Ctrl-C or SIGTERM, after everything up to the last whole epoch was saved.
        ProcessEnded: another process of the run did.
        ProcessesDiffer: the processes do not hold the same numbers any more.
    """
    group = join()
    with group.run():
        return _searched(data, settings, out, resume, progress, group)


def _searched(
    data: Dataset,
    settings: SearchSettings,
    out: str | Path | None,
    resume: bool,
    progress: Progress | None,
    group: Group,
) -> SearchResult:
    check_out(out, resume)
    progress = following(progress) if group.first else Several(())
    device = group.device(settings.device)
    problem = Problem(data.num_classes, data.image_shape, tuple(data.counts))
    kind = method_class(settings.method)
    settings = kind.fitted(settings, problem)
    method = kind(settings, problem)
    halves = (data.train, data.train)
    if not settings.one_level:
        halves = split(data.train, settings.split, settings.seed, settings.stratify, data.class_names)
    for share, half in zip(("weights", "alpha"), halves, strict=True):
        if len(half) < 2:
            raise UserError(f"split: {settings.split:g} leaves {len(half)} image(s) for {share}; wanted at least 2")
        if not method.label_free:
            _check_classes(share, half, data)
    search = _Search(method, data, halves, settings, device, group)
    before = method.warnings(search.alpha_travel(method.epochs), method.epochs * search.steps)
    _warn(before)
    directory = None
    if out is not None and group.first:
        config = run_config("search", settings, data, **method.identity(), **group.identity)
        directory = RunDirectory(out, config, resume)
        shares = {"train": data.train} if settings.one_level else {"weights": halves[0], "alpha": halves[1]}
        data.write_manifest(directory.path / "manifest.csv", {**shares, "test": data.test})
    history = train(
        search,
        method.epochs,
        search.steps,
        settings,
        device,
        directory,
        progress,
        f"{settings.method} search",
        group,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        genotype = method.derive(search.networks)
    after: list[Warning | str] = [warning.message for warning in caught]
    second = method.second_stage(search.networks, history)
    ranking: dict[str, Any] = {}
    if second is not None:
        genotype, ranking = _second_stage(second, data, halves, device, directory, progress, group)
    travel, nones = search.alpha_travel(len(history)), method.edges_to_none(search.networks)
    health = health_figures(method.deciding_gates(search.networks), genotype.to_json(), history)
    after += collapse_warnings(health["skip_share"], nones) if health["gates"] else []
    _warn(after)
    figures = {
        "alpha_steps": len(history) * search.steps,
        "alpha_travel": travel,
        "reachable_gate": method.reachable_gate(travel),
        **health,
        "edges_to_none": nones,
        "capture_fallbacks": search.capture_fallbacks,
        "warnings": [str(warning) for warning in [*before, *after]],
    }
    metrics = {**_metrics(search, history, figures), **ranking}
    if directory is not None:
        directory.write_text("genotype.json", genotype.to_json())
        directory.write_json("metrics.json", metrics)
    return SearchResult(genotype, settings, history, metrics, figures, None if out is None else Path(out))


def _check_classes(share: str, half: ImageSet, data: Dataset) -> None:
    """Raise `UserError` where a method that reads labels would never see a class in one half."""
    for name, total, count in zip(data.class_names, data.counts, half.counts(data.num_classes), strict=True):
        if total and not count:
            raise UserError(
                f"stratify: got False, which leaves class {name!r} without an image for {share}; wanted True, or a "
                "method that reads no labels"
            )


def _second_stage(
    method: Method,
    data: Dataset,
    halves: tuple[ImageSet, ImageSet],
    device: torch.device,
    above: RunDirectory | None,
    progress: Progress,
    group: Group,
) -> tuple[Derived, dict[str, Any]]:
    """What a method of a second stage derives, and its figures; its run is in `ranking/` below the search's."""
    settings = method.settings
    search = _Search(method, data, halves, settings, device, group)
    directory = None
    if above is not None:
        config = run_config("ranking", settings, data, stage=method.report(search.networks))
        directory = RunDirectory(above.path / "ranking", config, resume=True)
    history = train(
        search,
        method.epochs,
        search.steps,
        settings,
        device,
        directory,
        progress,
        method.name,
        group,
    )
    seconds = round(sum(row["seconds"] for row in history), 2)
    return method.derive(search.networks), {"ranking": {**method.report(search.networks), "seconds": seconds}}


class _Search:
    """The state of a search and one epoch of it (an `engine.loop.Trainer`)."""

    def __init__(
        self,
        method: Method,
        data: Dataset,
        halves: tuple[ImageSet, ImageSet],
        settings: SearchSettings,
        device: torch.device,
        group: Group,
    ) -> None:
        self.method, self.settings, self._data, self._group = method, settings, data, group
        with isolated_rng(device):
            seed_global(device, settings.seed, "networks")
            self.networks = place(method.build(), device)
            if settings.global_batch:
                group.over_global_batch(self.networks)
            self._steps = Steps(method, self.networks, recorder_for(device, settings.capture), group)
            seed_global(device, settings.seed, "probe")
            self.probe = self._probe(device) if method.label_free else None
        self._device, self._validation = device, resident(halves[1], device)
        self._test = resident(data.test, device) if settings.test_every else None
        draws = (settings.batch_size, settings.seed)
        names = (settings.views, settings.augment)
        first, second = resident(halves[0], device), self._validation
        self._weight_feed = Feed(method.weight_stream, first, device, data, *draws, "weights", *names, group=group)
        self._alpha_feed = Feed(method.alpha_stream, second, device, data, *draws, "alpha", *names, group=group)
        self.steps = len(self._weight_feed)

    def _probe(self, device: torch.device) -> LinearProbe:
        images = torch.zeros(1, *self._data.image_shape, device=device)
        with torch.no_grad():
            width = self.method.features(self.networks.eval(), images).shape[1]
        return LinearProbe(width, self._data.num_classes, self.settings.probe_lr, device, self._group)

    def alpha_travel(self, epochs: int) -> float:
        """The most that Adam can move an α in so many epochs; there is one step of α before each step of w."""
        at = [self.method.at(epoch) for epoch in range(epochs)]
        return alpha_travel(self._steps.alphas.groups, self.settings.alpha_lr, at, self.steps)

    @property
    def capture_fallbacks(self) -> list[str]:
        """Why a step ran as written where it was to be recorded."""
        return self._steps.fallbacks

    def run_epoch(self, epoch: int, watch: Watch) -> Row:
        at = self.method.at(epoch)
        self._steps.begin(at)
        self.networks.train()
        for module in self.method.still(self.networks, at):
            module.eval()
        meter, norms = Meter(), dict[str, torch.Tensor]()
        alpha_draws = self._alpha_feed.epoch(epoch, self.steps, watch.attempt)
        draws = zip(alpha_draws, self._weight_feed.epoch(epoch, attempt=watch.attempt), strict=True)
        for step, (alpha_draw, weight_draw) in enumerate(draws):
            shown = {}
            if self._steps.alphas.active:
                # Gradients by part are taken once, within a step of the last epoch that is taken anyway: a pass of
                # their own would move the running statistics.
                measure = norms.update if step == 0 and epoch == self.method.epochs - 1 else None
                loss = self._steps.arch(alpha_draw.batch, weight_draw.batch, measure)
                if loss is not None:
                    meter.add({"val_loss": loss.task.detach(), **_named("alpha", loss)})
                    shown["val"] = loss.task.detach()
            loss = self._steps.weight(weight_draw.batch)
            if loss is not None:
                meter.add({"train_loss": loss.task.detach(), **_named("weights", loss)})
                shown["train"] = loss.task.detach()
                if loss.logits is not None:
                    meter.add_accuracy("train_accuracy", loss.logits, weight_draw.labels)
                if self.probe is not None and loss.features is not None:
                    self.probe.learn(loss.features, weight_draw.labels)
            watch.step(shown)
        self._steps.guard.read()
        self._group.average_buffers(self.networks.buffers())
        self._group.check_alike({"architecture parameters": self.method.alphas(self.networks)}, epoch)
        row = self._row(at, meter.read(self._group), {name: float(norm) for name, norm in norms.items()})
        return {**row, **self._tested(epoch, row)}

    def _row(self, at: Epoch, means: dict[str, float], norms: dict[str, float]) -> Row:
        names = ("train_loss", "val_loss", "train_accuracy")
        accuracy, judged = self.validation()
        genotype, weights, alphas = self.quiet_genotype(), self._steps.weights, self._steps.alphas
        row: Row = {
            "w_lr": weights.lr,
            "alpha_lr": alphas.lr,
            "lr_factors": {**weights.factors, **alphas.factors},
            **{name: finite(means.get(name)) for name in names},
            "losses": {name: finite(value) for name, value in means.items() if "/" in name},
            "probe_accuracy" if self.probe is not None else "val_accuracy": accuracy,
            **judged,
            **self.method.shown(at),
            "alpha": {name: alpha.tolist() for name, alpha in self.method.alphas(self.networks).items()},
            "gates": {name: gate.tolist() for name, gate in self.method.gates(self.networks).items()},
            "genotype": None if genotype is None else json.loads(genotype.to_json()),
        }
        if norms:
            row["alpha_gradient_norms"] = norms
        if self._steps.guard.skipped:
            row["skipped"] = self._steps.guard.skipped
        stopped = self.method.stop_reason(genotype, at)
        if stopped is not None:
            row["stopped"] = stopped
        return row

    def validation(self) -> tuple[float, dict[str, Any]]:
        """Accuracy on the half that trains α, and what the method makes of it; of the probe in a label-free search."""
        logits, labels = self._logits(self._validation), self._validation.labels.to(self._device)
        found, names = _accuracies(logits, labels), self.method.readings
        if names:
            answers = logits.argmax(-1).unbind(1)
            macro = [evaluate_predictions(one, labels, self._data.counts).macro for one in answers]
            readings = dict(zip(names, found, strict=True))
            judged = {"val_readings": readings, "val_macro_readings": dict(zip(names, macro, strict=True))}
            return readings[chosen_reading(judged)], judged
        judged = self.method.judge(self.networks, logits, labels) if self.probe is None else {}
        return found[0], judged

    def _tested(self, epoch: int, row: Row) -> Row:
        """Accuracy on the test images in the epochs that `test_every` names, nothing in others. It draws nothing."""
        every, last, readings = self.settings.test_every, epoch + 1 == self.method.epochs, self.method.readings
        if self._test is None or ((epoch + 1) % every and not last):
            return {}
        logits, labels, tested = self._logits(self._test), self._test.labels.to(self._device), dict[str, Any]()
        if readings:
            tested["test_readings"] = dict(zip(readings, _accuracies(logits, labels), strict=True))
            logits = logits[:, readings.index(chosen_reading(row))]
        found = evaluate_predictions(logits.argmax(1), labels, self._data.counts)
        return {"test_accuracy": found.top1, "test_longtailed_accuracy": finite(found.longtailed_top1), **tested}

    @torch.no_grad()
    def _logits(self, images: ImageSet) -> torch.Tensor:
        """(N, C) of the supernet, or of the probe where the search is label-free; (N, readings, C) of several."""
        method, networks = self.method, self.networks.eval()
        look = method.read if method.readings else method.logits if self.probe is None else method.features
        mean, std = self._data.mean, self._data.std
        found = batched(lambda part: look(networks, part), images, self._device, mean, std)
        return found if self.probe is None else self.probe.logits(found)

    def quiet_genotype(self) -> Derived | None:
        """The genotype as the gates stand; None where the rule keeps no node yet."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GateTieWarning)
            try:
                return self.method.derive(self.networks)
            except UserError:
                return None

    def state_dict(self) -> dict[str, Any]:
        return {**self._steps.state_dict(), "probe": None if self.probe is None else self.probe.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps.load_state_dict(state)
        if self.probe is not None:
            self.probe.load_state_dict(state["probe"])


def chosen_reading(row: Row) -> str:
    """Of an epoch's readings the best on the second half, never on test images; a tie goes to the first.

    The best by the mean over classes: that half has the long tail of the training images, the test set has not.
    """
    readings: dict[str, float] = row["val_macro_readings"]
    return max(readings, key=readings.__getitem__)


def _accuracies(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Of each reading: of (N, R, C) logits R, of (N, C) one."""
    right = logits.argmax(-1).view(len(labels), -1) == labels[:, None]
    return [float(share) for share in right.float().mean(0)]


def _named(side: str, loss: Loss) -> dict[str, torch.Tensor]:
    return {f"{side}/{name}": term for name, term in loss.terms.items()}


def _warn(said: Sequence[Warning | str]) -> None:
    for warning in said:
        warnings.warn(warning, stacklevel=4)  # at the caller of run_search


def _metrics(search: _Search, history: list[Row], figures: dict[str, Any]) -> dict[str, Any]:
    last = history[-1]
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "probe_accuracy")
    return {
        **{name: last[name] for name in names if last.get(name) is not None},
        "parameters": sum(parameter.numel() for parameter in search.networks.parameters()),
        "epochs": len(history),
        **{name: last[name] for name in ("stopped",) if name in last},
        **({"reading": chosen_reading(last)} if "val_readings" in last else {}),
        **search.method.report(search.networks),
        "seconds": round(sum(row["seconds"] for row in history), 2),
        "health": figures,
    }
