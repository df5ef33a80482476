"""The page of a study: tables and pictures in one html file, and each picture as a file of its own beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from lt_nas_ext.errors import UserError
from lt_nas_ext.report import palette
from lt_nas_ext.report.tables import Column, Row, columns_and_cells
from lt_nas_ext.report.templates import template


@dataclass(frozen=True)
class Table:
    """Text in rows.

    Attributes:
        title: above it.
        columns: (title, meaning, whether it is a number) each.
        lines: a text a column.
    """

    title: str
    columns: Sequence[tuple[str, str, bool]]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """An SVG: `name` is that of its file, without the ending."""

    name: str
    svg: str
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page; `name` is its anchor."""

    name: str
    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class StudyPage:
    """All that the page says.

    Attributes:
        title: heading.
        warning: what a reader must know first, or nothing.
        summary: sentences below the heading.
        sections: tables and pictures.
        settings: (title, pairs of name and value) each.
        command: what makes it again.
    """

    title: str
    warning: str
    summary: Sequence[str]
    sections: Sequence[Section]
    settings: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    command: str


def table_of(title: str, results: Sequence[Row], columns: Sequence[Column]) -> Table:
    """Rows of results as a table of the page."""
    shown, cells = columns_and_cells(results, columns)
    return Table(title, [(column.title, column.meaning, column.number) for column in shown], cells)


def write_study_page(page: StudyPage, out: Path, colours: Mapping[str, str]) -> Path:
    """Write report.html and the pictures into `out`.

    Args:
        page: what it says.
        out: directory of the study.
        colours: of the rows' names.

    Returns:
        The page's path, absolute.

    Raises:
        UserError: they cannot be written.
    """
    path = (out / "report.html").absolute()
    try:
        for section in page.sections:
            for picture in section.pictures:
                (out / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
        path.write_text(_rendered(page, colours), encoding="utf-8")
    except OSError as error:
        raise UserError(f"out: the report cannot be written to {out}: {error.strerror}") from None
    return path


def _rendered(page: StudyPage, colours: Mapping[str, str]) -> str:
    sections = [
        replace(section, pictures=[replace(p, svg=Markup(p.svg)) for p in section.pictures])
        for section in page.sections
    ]
    shown = {name: colours.get(name, "") for section in sections for t in section.tables for name, *_ in t.lines}
    return template("study.html.j2").render(palette=palette, page=replace(page, sections=sections), colours=shown)
