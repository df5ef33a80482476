"""The page of a run: one html file that holds everything, opens anywhere and asks no server for anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lt_nas_ext.errors import UserError
from lt_nas_ext.report import curves, palette, tables
from lt_nas_ext.report.cells import cell_note, cell_title, draw_cell
from lt_nas_ext.report.gates import gates_over_epochs
from lt_nas_ext.report.reproduce import reproduce
from lt_nas_ext.report.runs import Network, Run, read_networks
from lt_nas_ext.report.templates import template

MANY_SKIPS = 0.5


@dataclass(frozen=True)
class Picture:
    """An SVG with a heading and a line that says how to read it."""

    title: str
    svg: Markup
    note: str = ""
    code: str = ""


def write_report(runs: Iterable[str | Path] | Sequence[Network], path: str | Path) -> Path:
    """Write the page of these runs.

    Args:
        runs: run directories (see `read_networks`), or networks already read.
        path: the html file to write.

    Returns:
        `path`, absolute.

    Raises:
        UserError: no run, a directory that is none, or a file that cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run:
    ...     _ = Path(run, "config.json").write_text('{"kind": "search", "settings": {"method": "darts"}}')
    ...     write_report([run], Path(run, "report.html")).name
    'report.html'
    """
    path = Path(path).absolute()
    if path.suffix not in (".html", ".htm"):
        raise UserError(f"out: got {path.name}; wanted a page to write, a name that ends in .html")
    if isinstance(runs, str | Path) or not isinstance(runs, Iterable):
        raise UserError(f"runs: got {runs!r}; wanted a list of run directories")
    listed = list(runs)
    networks = [n for n in listed if isinstance(n, Network)]
    networks += read_networks([p for p in listed if not isinstance(p, Network)])
    if not networks:
        raise UserError("runs: got none; wanted one or more run directories, such as runs/*")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(networks), encoding="utf-8")
    except OSError as error:
        raise UserError(f"out: the report cannot be written to {path}: {error.strerror}") from None
    return path


def render(networks: Sequence[Network]) -> str:
    """The page as text."""
    results = tables.rows(networks)
    columns, cells = tables.columns_and_cells(results)
    seed_columns, seed_cells = tables.columns_and_cells([row for _, row in tables.seed_rows(networks)])
    chosen = curves.colours(networks)
    searches = {n.name: n for n in networks if n.search}
    return template("page.html.j2").render(
        palette=palette,
        title=_title(networks),
        summary=_summary(networks),
        columns=columns,
        rows=[(chosen[row.network], line) for row, line in zip(results, cells, strict=True)],
        one_seed=all(row.seeds == 1 for row in results),
        seed_columns=seed_columns,
        seed_rows=[
            (chosen[name], line) for (name, _), line in zip(tables.seed_rows(networks), seed_cells, strict=True)
        ],
        classes=Markup(curves.per_class_accuracy(networks) or _counts(networks)),
        cells=[_cells(network) for network in networks if network.genotype],
        search=Markup(curves.search_curves(networks)),
        gates=[_gates(network) for network in searches.values() if _has_gates(network)],
        training=Markup(curves.training_curves(networks)),
        health_names=[n.name + _seed_words(n) for n in searches.values()],
        health=_health(searches),
        warnings=_warnings(networks),
        settings=_settings(networks),
        versions=_versions(networks),
        commands=[(network.name + _seed_words(network), reproduce(network)) for network in networks],
    )


def _title(networks: Sequence[Network]) -> str:
    names = list(dict.fromkeys(n.name for n in networks))
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    data = list(dict.fromkeys(n.run.title for n in networks))
    return f"{listed} on {', '.join(data)}"


def _summary(networks: Sequence[Network]) -> list[str]:
    """What was run on, a sentence a data set."""
    sets: dict[str, list[Run]] = {}
    for network in networks:
        sets.setdefault(_data_words(network.run), []).append(network.run)
    return [words + _subset_words(runs) for words, runs in sets.items()]


def _data_words(run: Run) -> str:
    words = run.about
    if run.counts and min(run.counts) > 0:
        most, least = max(run.counts), min(run.counts)
        words += f": {sum(run.counts):,} training images of {len(run.counts)} classes, {most:,} … {least:,} a class"
        words += f" (imbalance ratio {most / least:.3g}), {run.data.get('test_images', '?')} test images"
    return words


def _subset_words(runs: Sequence[Run]) -> str:
    seeds = list(dict.fromkeys(str(run.data.get("seed", "?")) for run in runs))
    return f"; subset seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _counts(networks: Sequence[Network]) -> str:
    run = networks[0].run
    return curves.label_distribution(run.counts, run.class_names)


def _cells(network: Network) -> Picture:
    genotype = network.genotype
    assert genotype is not None
    nodes = network.search.settings.get("nodes") if network.search else None
    note = "found by the search" if network.searched else "not searched"
    note += {None: "", "random": ", drawn at random"}.get(genotype.rule, f", derived by the rule {genotype.rule}")
    drawn = (draw_cell(cell, cell_title(name), cell_note(name), nodes) for name, cell in genotype.cells.items())
    return Picture(network.name + _seed_words(network), Markup("").join(map(_shrinking, drawn)), note, str(genotype))


def _shrinking(svg: str) -> Markup:
    """A box that gives way down to 0.7 of the drawing's width before it moves below its neighbour."""
    match = re.search(r'width="(\d+)"', svg)
    assert match is not None
    width = int(match[1])
    return Markup('<div style="flex:1 1 {}px;max-width:{}px">{}</div>').format(width * 7 // 10, width, Markup(svg))


def _has_gates(network: Network) -> bool:
    """Of an adaptation, which leaves α as it is, there is nothing to draw."""
    return network.search is not None and network.search.kind == "search" and bool(network.search.history)


def _gates(network: Network) -> Picture:
    assert network.search is not None
    return Picture(network.name + _seed_words(network), Markup(gates_over_epochs(network.search, network.name)))


def _seed_words(network: Network) -> str:
    return f", seed {network.seed}" if network.seed is not None else ""


def _health(searches: Mapping[str, Network]) -> list[tuple[str, str, list[str]]]:
    """Rows of the health table: figure, what it means, its value for each search."""
    all_figures = [_figures(n) for n in searches.values()]
    if not any(all_figures):
        return []
    rows = []
    for title, meaning, show in _HEALTH:
        values = [show(figures) for figures in all_figures]
        if any(value is not None for value in values):
            rows.append((title, meaning, [value if value is not None else tables.EMPTY for value in values]))
    return rows


def _figures(network: Network) -> Mapping[str, Any]:
    return (network.search.metrics.get("health") or {}) if network.search else {}


def _gate(figures: Mapping[str, Any], name: str) -> str | None:
    return None if figures.get(name) is None else f"{figures[name]:.2f}"


def _share(figures: Mapping[str, Any], name: str) -> str | None:
    return None if figures.get(name) is None else f"{100 * figures[name]:.0f} %"


def _polarised(figures: Mapping[str, Any]) -> str | None:
    return f"{figures['polarised_gates']} of {figures['gates']}" if figures.get("gates") else None


def _gradients(figures: Mapping[str, Any]) -> str | None:
    ratios = figures.get("gradient_ratio") or {}
    return ", ".join(f"{value:.3g}" for value in ratios.values()) or None


def _ends(figures: Mapping[str, Any]) -> str | None:
    ends = _gate(figures, "lowest_gate"), _gate(figures, "highest_gate")
    return None if None in ends else " … ".join(map(str, ends))


_HEALTH = (
    ("reachable gate", "the largest gate that the learning rate of α allows in the steps there were",
     lambda f: _gate(f, "reachable_gate")),
    ("polarised gates", "gates above 0.9 or below 0.1 at the end: they have decided", _polarised),
    ("gates", "lowest and highest at the end", _ends),
    ("skip connections", "share of the chosen operations; near 100 % the search has collapsed",
     lambda f: _share(f, "skip_share")),
    ("agreement", "edges in common between genotypes of consecutive epochs, over the last ones; 100 % is settled",
     lambda f: _share(f, "genotype_agreement")),
    ("gradients on α", "norm of the task's gradient over that of the zero-one loss; 1 is balance", _gradients),
)  # fmt: skip


def _warnings(networks: Sequence[Network]) -> list[tuple[str, str]]:
    """What a reader must know before believing the pictures: (network, text)."""
    found: list[tuple[str, str]] = []
    for network in networks:
        figures = _figures(network)
        texts = [str(text) for text in figures.get("warnings") or ()]
        if (figures.get("skip_share") or 0.0) >= MANY_SKIPS:
            share = f"{100 * figures['skip_share']:.0f} %"
            texts.append(f"{share} of the chosen operations are skip connections; the search may have collapsed")
        if figures.get("polarised_gates") == 0:
            count = figures["gates"]
            texts.append(f"none of the {count} gates decided (above 0.9 or below 0.1); the cells rank open ones")
        for kind, run in (("search", network.search), ("training", network.training)):
            if run and not run.finished:
                texts.append(f"the {kind} is not finished ({len(run.history)} epochs so far)")
        found += [(network.name + _seed_words(network), text) for text in texts]
    return list(dict.fromkeys(found))


def _settings(networks: Sequence[Network]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(title, directory, settings) of every run."""
    shown = []
    for network in networks:
        for kind, run in (("search", network.search), ("training", network.training)):
            if run is not None:
                pairs = [(name, _value_words(value)) for name, value in run.settings.items()]
                shown.append((f"{network.name}, {kind}{_seed_words(network)}", str(run.path), pairs))
    return shown


def _value_words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value_words, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _versions(networks: Sequence[Network]) -> list[str]:
    """The versions of the runs, each combination once."""
    lines = []
    for network in networks:
        versions = network.run.config.get("versions") or {}
        parts = [f"{label} {versions[key]}" for key, label in _VERSIONS.items() if versions.get(key)]
        if "kernels" in versions:
            parts.append("compiled kernels" if versions["kernels"] else "eager twins, no compiled kernels")
        lines.append(", ".join(parts))
    return list(dict.fromkeys(line for line in lines if line))


_VERSIONS = {"lt_nas_ext": "lt_nas_ext", "torch": "PyTorch", "cuda": "CUDA", "python": "Python", "machine": "on"}
