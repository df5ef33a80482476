"""The result table: mean and spread, empty groups, runs that are not finished."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from report_runs import demo_runs, search_run, training_run
from rich.console import Console

from lt_nas_ext.report.runs import read_networks
from lt_nas_ext.report.tables import COLUMNS, Column, Row, as_markdown, as_rich, print_results, rows, seed_rows, spread


@pytest.mark.parametrize(
    ("values", "scale", "digits", "text"),
    [
        ((), 1, 1, "–"),
        ((math.nan,), 100, 1, "–"),
        ((0.5,), 100, 1, "50.0"),
        ((0.95, 0.97), 100, 1, "96.0 ± 1.4"),
        ((0.9, math.nan), 100, 1, "90.0"),
        ((1234567.0,), 1, 0, "1\u202f234\u202f567"),
    ],
)
def test_spread(values: tuple[float, ...], scale: float, digits: int, text: str) -> None:
    assert spread(values, scale, digits) == text


def test_rows_of_a_demo(tmp_path: Path) -> None:
    ssf, darts, random, small = rows(read_networks(demo_runs(tmp_path)))
    assert (ssf.network, ssf.searched, ssf.params, ssf.state) == ("SSF-NAS", "without labels", (61234.0,), "")
    assert (darts.searched, random.searched, small.searched) == ("with labels", "–", "–")
    assert ssf.search_seconds == pytest.approx((34.0,)) and random.search_seconds == ()
    assert ssf.train_seconds == pytest.approx((27.0,))


def test_seeds_become_one_row_with_their_spread(tmp_path: Path) -> None:
    paths = [search_run(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    for seed, path in enumerate(paths[:2]):
        training_run(path / "retrain", 0.9 + 0.01 * seed, seed=seed)
    (row,) = rows(read_networks(paths))
    assert row.seeds == 3 and len(row.macro) == 2 and row.state == "2 of 3 finished"
    assert "| seeds |" in as_markdown([row]) and " ± " in as_markdown([row])


def test_adjusted_accuracy_has_a_column_where_some_run_has_it(tmp_path: Path) -> None:
    plain, adjusted = (training_run(tmp_path / name, 0.9, architecture={"name": name}) for name in ("a", "b"))
    metrics = json.loads((adjusted / "metrics.json").read_text())
    (adjusted / "metrics.json").write_text(json.dumps({**metrics, "posthoc": {"adjusted": {"macro": 0.925}}}))
    assert "adjusted" not in as_markdown(rows(read_networks([plain])))
    title, _, first, second = as_markdown(rows(read_networks([plain, adjusted]))).splitlines()
    assert title.endswith("| adjusted |") and first.endswith("| – |") and second.endswith("| 92.5 |")


def test_what_stands_behind_the_means(tmp_path: Path) -> None:
    paths = [
        training_run(tmp_path / f"s{seed}", 0.9 + 0.01 * seed, seed=seed, architecture={"name": "random"})
        for seed in range(2)
    ]
    networks = read_networks(paths)
    (row,) = rows(networks)
    assert [(name, single.network, single.macro) for name, single in seed_rows(networks)] == [
        ("random genotype", f"random genotype, seed {seed}", (row.macro[seed],)) for seed in range(2)
    ]
    assert seed_rows(networks[:1]) == []  # one seed is its own mean


@pytest.mark.parametrize(
    ("finished", "trained", "state"),
    [(False, None, "in search"), (True, None, "searched, not trained"), (True, False, "in training"), (True, True, "")],
)
def test_state(tmp_path: Path, finished: bool, trained: bool | None, state: str) -> None:
    path = search_run(tmp_path / "a", finished=finished)
    if trained is not None:
        training_run(path / "retrain", finished=trained)
    assert rows(read_networks([path]))[0].state == state


def test_an_empty_group_is_a_dash(tmp_path: Path) -> None:
    path = training_run(tmp_path / "a")
    metrics = json.loads((path / "metrics.json").read_text()) | {"few": None, "medium": None}
    (path / "metrics.json").write_text(json.dumps(metrics))
    line = as_markdown(rows(read_networks([path]))).splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")][9:11] == ["–", "–"]


@pytest.mark.parametrize(("width", "tables"), [(60, 4), (80, 3), (160, 1)])
def test_a_narrow_terminal_gets_several_tables(tmp_path: Path, width: int, tables: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    print_results(rows(read_networks(demo_runs(tmp_path))), console)
    lines = console.export_text().splitlines()
    assert sum("network" in line for line in lines) == tables
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)


def test_markup_in_names_is_text() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(as_rich([Row("[red]a|b[/red]", "–", 1)]))
    assert "[red]a|b[/red]" in console.export_text()
    assert "[red]a\\|b[/red]" in as_markdown([Row("[red]a|b[/red]", "–", 1)])
    chosen = [COLUMNS[0], Column("[paper]", "", lambda row: "78.26")]
    print_results([Row("A", "–", 1)], console, columns=chosen)
    assert "[paper]" in console.export_text()
    assert as_markdown([Row("A", "–", 1)], chosen).splitlines()[0] == "| network | [paper] |"
