"""Results as a table: in the terminal, as markdown, and as the cells of the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lt_nas_ext.report.runs import Network

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EMPTY = "–"
Values = tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """All seeds of one network. Accuracies are fractions of the test set, one value a seed.

    Attributes:
        network: its name.
        searched: "without labels", "with labels", "yes" (not known yet) or "–".
        seeds: number of runs.
        params: parameters of the trained network.
        search_seconds, train_seconds: time of the epochs.
        top1, macro: accuracy over images, mean over classes.
        many, medium, few: mean over classes with more than 100, 20 to 100, fewer than 20 training images.
        first, middle, last: mean over thirds of the classes, from those with the most training images on.
        longtailed: top-1 on a test set distributed like the training set.
        adjusted: macro after the logit adjustment, of runs that held validation images out to fit it on.
        state: what is still missing of it, else empty.
    """

    network: str
    searched: str
    seeds: int
    params: Values = ()
    search_seconds: Values = ()
    train_seconds: Values = ()
    top1: Values = ()
    macro: Values = ()
    many: Values = ()
    medium: Values = ()
    few: Values = ()
    first: Values = ()
    middle: Values = ()
    last: Values = ()
    longtailed: Values = ()
    adjusted: Values = ()
    state: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its title, what it means in one line, how it shows a row, whether it is a number, an accuracy.

    An optional one is left out of a table in which no row has a value for it.
    """

    title: str
    meaning: str
    show: Callable[[Row], str]
    number: bool = True
    accuracy: bool = False
    optional: bool = False


def rows(networks: Sequence[Network]) -> list[Row]:
    """One row a network, its seeds gathered, in the order in which the networks come."""
    return [_row(name, [n for n in networks if n.name == name]) for name in dict.fromkeys(n.name for n in networks)]


def seed_rows(networks: Sequence[Network]) -> list[tuple[str, Row]]:
    """What stands behind the means: (name, row) of each run, where some network has several seeds; else none."""
    several = any(row.seeds > 1 for row in rows(networks))
    return [(n.name, _row(f"{n.name}, seed {n.seed}", [n])) for n in networks] if several else []


def spread(values: Values, scale: float = 1.0, digits: int = 1) -> str:
    """Mean, and with several values ± their sample standard deviation; "–" where there is none.

    >>> spread((0.95, 0.97), 100), spread((0.5,), 100), spread(())
    ('96.0 ± 1.4', '50.0', '–')
    """
    present = [scale * v for v in values if not math.isnan(v)]
    if not present:
        return EMPTY
    mean = f"{statistics.fmean(present):,.{digits}f}".replace(",", "\u202f")
    return mean if len(present) == 1 else f"{mean} ± {statistics.stdev(present):.{digits}f}"


def _accuracy(title: str, meaning: str, field: str, optional: bool = False) -> Column:
    return Column(title, meaning, lambda row: spread(getattr(row, field), 100), accuracy=True, optional=optional)


COLUMNS: tuple[Column, ...] = (
    Column("network", "", lambda r: r.network, number=False),
    Column("searched", "whether a search found it, and whether that search read labels", lambda r: r.searched, False),
    Column("seeds", "runs; with several, figures are mean ± standard deviation", lambda r: str(r.seeds)),
    Column("params", "parameters of the trained network", lambda r: spread(r.params, digits=0)),
    Column("search s", "seconds of the search", lambda r: spread(r.search_seconds)),
    Column("train s", "seconds of the training", lambda r: spread(r.train_seconds)),
    _accuracy("top-1", "% of the test images that are right", "top1"),
    _accuracy("macro", "%, mean over classes", "macro"),
    _accuracy("many", "%, classes with more than 100 training images", "many"),
    _accuracy("medium", "%, classes with 20 to 100", "medium"),
    _accuracy("few", "%, classes with fewer than 20", "few"),
    _accuracy("first", "%, the third of the classes with the most training images", "first"),
    _accuracy("middle", "%, the classes between", "middle"),
    _accuracy("last", "%, the third of the classes with the fewest training images", "last"),
    _accuracy("long-tailed", "% on a test set distributed like the training set", "longtailed"),
    _accuracy(
        "adjusted", "macro after a logit adjustment fitted on held-out training images", "adjusted", optional=True
    ),
)


def print_results(
    results: Sequence[Row], console: Console, title: str = "", columns: Sequence[Column] | None = None
) -> None:
    """Print the table; as several, cost and accuracy, where the terminal is too narrow for one."""
    shown = _columns(results) if columns is None else list(columns)
    for i, part in enumerate(_fitting(results, shown, console)):
        console.print(as_rich(results, title if i == 0 else "", part))


def _fitting(results: Sequence[Row], columns: list[Column], console: Console) -> list[list[Column]]:
    """The columns of one table, or of as many as the terminal's width asks for, each with the networks' names."""
    from rich.measure import Measurement

    def fits(part: list[Column]) -> bool:
        unbounded = console.options.update(max_width=1000)
        return Measurement.get(console, unbounded, as_rich(results, columns=part)).maximum <= console.width

    if fits(columns):
        return [columns]
    name, parts = columns[0], []
    for accuracy in (False, True):
        part = [name]
        for column in (c for c in columns[1:] if c.accuracy == accuracy):
            if len(part) > 1 and not fits([*part, column]):
                parts.append(part)
                part = [name]
            part.append(column)
        parts.append(part)
    return parts


def as_rich(results: Sequence[Row], title: str = "", columns: Sequence[Column] | None = None) -> Table:
    """The table for a terminal, or some columns of it."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = _columns(results) if columns is None else columns
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in shown:
        table.add_column(escape(column.title), justify="right" if column.number else "left", no_wrap=column.number)
    for row in results:
        table.add_row(*(escape(cell) for cell in _cells(row, shown)))
    return table


def as_markdown(results: Sequence[Row], columns: Sequence[Column] | None = None) -> str:
    """The table, or some columns of it, as GitHub markdown.

    >>> print(as_markdown([Row("DARTS", "with labels", 1, params=(1234,), top1=(0.5,), macro=(0.5,))]).splitlines()[-1])
    | DARTS | with labels | 1 234 | – | – | 50.0 | 50.0 | – | – | – | – | – | – | – |
    """
    shown = _columns(results) if columns is None else columns
    lines = [
        [column.title for column in shown],
        *([cell.replace("|", "\\|") for cell in _cells(row, shown)] for row in results),
    ]
    text = [f"| {' | '.join(line)} |" for line in lines]
    text.insert(1, f"|{'|'.join('--:' if column.number else ':--' for column in shown)}|")
    return "\n".join(text).replace("\u202f", " ")


def columns_and_cells(
    results: Sequence[Row], columns: Sequence[Column] | None = None
) -> tuple[list[Column], list[list[str]]]:
    """What a page needs of the table: its columns, and its cells as text."""
    shown = _columns(results) if columns is None else list(columns)
    return shown, [_cells(row, shown) for row in results]


def _columns(results: Sequence[Row]) -> list[Column]:
    several = any(row.seeds > 1 for row in results)
    shown = [column for column in COLUMNS if column.title != "seeds" or several]
    return [c for c in shown if not c.optional or any(c.show(row) != EMPTY for row in results)]


def _cells(row: Row, shown: Sequence[Column]) -> list[str]:
    cells = [column.show(row) for column in shown]
    if row.state:
        cells[0] += f" ({row.state})"
    return cells


def _row(name: str, networks: Sequence[Network]) -> Row:
    trained = [n.training for n in networks if n.training]
    searches = [n.search for n in networks if n.search]
    done = sum(bool(n.metrics) for n in networks)
    reads = {True: "without labels", False: "with labels", None: "yes"}[networks[0].label_free]
    return Row(
        network=name,
        searched=reads if searches else EMPTY,
        seeds=len(networks),
        search_seconds=tuple(run.seconds for run in searches if run.seconds is not None),
        train_seconds=tuple(run.seconds for run in trained if run.seconds is not None),
        params=_metric(networks, "parameters"),
        top1=_metric(networks, "top1"),
        macro=_metric(networks, "macro"),
        many=_metric(networks, "many"),
        medium=_metric(networks, "medium"),
        few=_metric(networks, "few"),
        first=_metric(networks, "first"),
        middle=_metric(networks, "middle"),
        last=_metric(networks, "last"),
        longtailed=_metric(networks, "longtailed_top1"),
        adjusted=_metric(networks, "posthoc", "adjusted", "macro"),
        state="" if done == len(networks) else _state(networks, done),
    )


def _state(networks: Sequence[Network], done: int) -> str:
    if done:
        return f"{done} of {len(networks)} finished"
    if any(n.training for n in networks):
        return "in training"
    return "searched, not trained" if all(n.search and n.search.finished for n in networks) else "in search"


def _metric(networks: Sequence[Network], *path: str) -> Values:
    values: list[Any] = [n.metrics for n in networks]
    for name in path:
        values = [value.get(name) if isinstance(value, Mapping) else None for value in values]
    return tuple(float(v) for v in values if isinstance(v, (int, float)))
