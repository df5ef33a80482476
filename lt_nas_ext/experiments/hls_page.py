"""The page of the HLS study: its tables, the figures of the paper, and what a reader needs to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lt_nas_ext.experiments.differences import Difference
from lt_nas_ext.experiments.hls_tables import (
    PAPER,
    Networks,
    heads_differences,
    in_training,
    search_differences,
    search_table,
    searches_of,
    trained_differences,
    trained_tables,
)
from lt_nas_ext.experiments.images import DISTRIBUTIONS
from lt_nas_ext.experiments.networks import TRAINED_AS, TRAININGS
from lt_nas_ext.experiments.sections import (
    DIFFERENCES,
    PaperStudy,
    Results,
    cells_section,
    differences_section,
    jpeg_notes,
    publish,
    results_section,
    runs_section,
    table_title,
)
from lt_nas_ext.experiments.series import Series
from lt_nas_ext.experiments.settings import HLS
from lt_nas_ext.report import hls_figures
from lt_nas_ext.report.gate_maps import gate_maps
from lt_nas_ext.report.palette import BLUE, CONTROLS, GREEN, ORANGE, PURPLE
from lt_nas_ext.report.readings import chosen_ratio, final_accuracy, sweep
from lt_nas_ext.report.runs import TITLES
from lt_nas_ext.report.study_figures import label_distributions
from lt_nas_ext.report.study_page import Picture, Section

PAPER_DISTRIBUTION = "exp-0.01"

DARTS, BBN, PLAIN_HLS, SIGMOID = (TITLES[row] for row in ("darts", "darts+bbn", "hls", "hls-reverse-sigmoid"))

COLOURS = {
    **dict(zip((DARTS, TITLES["darts+resampling"], TITLES["darts+reweighting"]), CONTROLS, strict=False)),
    BBN: BLUE,
    PLAIN_HLS: ORANGE,
    SIGMOID: GREEN,
    **{title: PURPLE for row, title in TITLES.items() if row.startswith("hls-then-")},
}
"""Grey is what has no heads."""


def write_page(series: Series) -> PaperStudy:
    """Write report.html, table.md, results.json and the pictures of the finished study."""
    tables: list[Results] = []
    differences: dict[str, list[Difference]] = {}
    figures: list[Section] = []
    trainings = series.plan.trainings
    for name in series.settings.distributions:
        found = [(place, network) for place, network in series.networks if place.distribution == name]
        title, short, paper = table_title(series.images, name), DISTRIBUTIONS[name].title, _paper(series, name)
        tables += [search_table(title, found, paper), *trained_tables(title, found, trainings)]
        differences[f"{short}: supernets at search time"] = search_differences(found, paper)
        for training in trainings:
            words = TRAINED_AS[TRAININGS[training]]
            differences[f"{short}: trained {words}"] = trained_differences(found, training)
        differences[f"{short}: the same cells in two networks"] = heads_differences(found, trainings)
        figures += _figures(series, found, name)
    sections = [
        results_section(tables, _RESULTS),
        differences_section(differences, f"{DIFFERENCES} {_HALF_A_POINT}"),
        *figures,
        Section("distributions", "Training images", pictures=[_training_images(series)]),
        cells_section(series, "cells", "What each search found; of BBN also the cell of each head."),
        runs_section(series),
    ]
    more, title = {"searches": _searches(series)}, "DARTS + BBN and HLS"
    return publish(series, title, _notes(series), tables, differences, sections, COLOURS, HLS, more)


_RESULTS = (
    "At search time: top-1 of the supernet on the balanced test set after the last epoch, not trained anew. Two heads "
    "answer at a mixing ratio r: 1 is the instance head alone, 0 the class head alone. top-1 is at the ratio that is "
    "best on the validation images, by the mean over classes, since they have the long tail of the training images. "
    "best on test is at the ratio that is best on the test images, as the paper has it: a selection on test data, "
    "which flatters. Trained: top-1 of the last weights of networks trained from the start on all training images, all "
    "alike; two heads answer at r = ½. Mean ± standard deviation over seeds."
)
_HALF_A_POINT = (
    "The paper's margins are of single runs at ratios chosen on test images: half a point, as there of HLS above "
    "DARTS, is no win."
)
_FIGURE_2 = (
    "Figure 2 of the paper. The losses of BBN are mixed by the ratio r, so their level moves with it: from images as "
    "they are sampled to class-uniform ones. Accuracy is that at the ratio which is best on validation images then."
)
_FIGURE_3 = (
    "Figures 3 and 7 of the paper, seed 0. Each line of a map is one candidate on one edge; within a candidate the "
    "edges stand in order, from the first node's to the last one's. All maps share one scale."
)
_FIGURE_4 = (
    "Figures 4 and 6 of the paper, at the end of the search. The grey line is DARTS, which has no ratio. Rings: the "
    "ratio chosen on validation images, seed by seed."
)
_FIGURE_5 = (
    "Figure 5 of the paper. The dots on the left are the epochs of the searches (seed 0): HLS keeps the factor below "
    "the ratio throughout, without it the factor is 1."
)
_FIGURE_8 = (
    "Figure 8 of the paper. All four begin where HLS ends, at the grey band; there all rates are a tenth, and the "
    "cosine of the weights' rate begins anew."
)


def _paper(series: Series, distribution: str) -> Mapping[str, float]:
    return PAPER if series.images.of_cifar10 and distribution == PAPER_DISTRIBUTION else {}


def _figures(series: Series, networks: Networks, distribution: str) -> list[Section]:
    searches = searches_of(networks)
    heads = {row: searches[row] for row in (BBN, PLAIN_HLS, SIGMOID)}
    shown = {DARTS: searches[DARTS], **heads}
    without_and_with = {row: searches[row][0] for row in (BBN, PLAIN_HLS)}
    continued = {TITLES[row]: searches[TITLES[row]] for row in series.plan.branches}
    return [
        _figure("figure-2-epochs", distribution, "While they are searched", _FIGURE_2, hls_figures.epoch_curves(shown)),
        _figure("figure-3-7-weights", distribution, "Architecture weights without and with HLS", _FIGURE_3,
                gate_maps(without_and_with)),
        _figure("figure-4-6-ratio", distribution, "Accuracy against the test-time mixing ratio", _FIGURE_4,
                hls_figures.ratio_curves(shown, COLOURS)),
        _figure("figure-5-factor", distribution, "Learning rate of the backbone's architecture", _FIGURE_5,
                hls_figures.factor_curves(heads, COLOURS)),
        _figure("figure-8-continued", distribution, "Continuous training", _FIGURE_8,
                hls_figures.continued_curves(continued)),
    ]  # fmt: skip


def _figure(name: str, distribution: str, heading: str, note: str, svg: str) -> Section:
    full = f"{name}-{distribution}"
    return Section(full, f"{heading}, {DISTRIBUTIONS[distribution].title}", note, pictures=[Picture(full, svg)])


def _training_images(series: Series) -> Picture:
    counts = {DISTRIBUTIONS[name].title: found for name, found in series.images.counts.items()}
    return Picture("training-images", label_distributions(counts, series.images.class_names))


def _searches(series: Series) -> list[dict[str, Any]]:
    """For results.json: what each supernet says at every ratio."""
    found = []
    for place, network in in_training(series.networks, series.plan.trainings[0]):
        assert network.search is not None
        about = {"distribution": place.distribution, "run": place.name, "seed": place.seed}
        run = network.search
        sweeps = {"validation_macro": sweep(run, "val_macro"), "validation": sweep(run, "val"), "test": sweep(run)}
        found.append({**about, "chosen_ratio": chosen_ratio(run), "test_accuracy": final_accuracy(run), **sweeps})
    return found


def _notes(series: Series) -> list[str]:
    plan, training = series.plan, series.plan.training
    continued = max(plan.searches[row].continuous_epochs for row in plan.branches)
    notes = [
        f"{series.settings.seeds} seed(s); {plan.searches['hls'].epochs} epochs of search, {continued} more where HLS "
        f"is continued; {training.epochs} of training, batch {training.batch_size}, "
        f"{training.loss.replace('_', ' ')}, alike for all networks of a seed.",
        "As a BBN network: a backbone under two heads, trained as the supernets of BBN are; where a search found no "
        "heads, its normal cell makes both. As a plain network: the backbone's cells alone.",
    ]
    if any(_paper(series, name) for name in series.settings.distributions):
        notes.append(
            "The paper has one number for continuous training and does not say of which variant: it stands beside the "
            "first. Its equations of HLS and of the reverse sigmoid are lost, and its number of epochs: ours are ours."
        )
    else:
        numbers = ", ".join(f"{row} {accuracy:.2f}" for row, accuracy in PAPER.items())
        notes.append(
            f"[paper] On CIFAR-10 with μ = 0.01, one run each, at the ratio best on test images: {numbers} (of one of "
            "the four variants). On these images they say nothing."
        )
    if series.settings.data == "digits":
        notes.append("Digits are not the paper's images, and settings, sizes and μ here are ours.")
    return [*notes, *jpeg_notes(series.images)]
