"""The page of a data set: what is in it, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from lt_nas_ext.data import Dataset
from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import class_groups
from lt_nas_ext.report import palette
from lt_nas_ext.report.contact_sheet import samples, views
from lt_nas_ext.report.curves import label_distribution
from lt_nas_ext.report.templates import template

GENERATOR = "lt-nas data describe"
"""Stands in every page of ours, so that no other file is written over."""

_GROUPS = {
    "many": "more than 100 training images",
    "medium": "20 to 100",
    "few": "fewer than 20",
    "first": "the third of the classes with the most training images",
    "middle": "the classes between",
    "last": "the third with the fewest",
}


def write_data_page(data: Dataset, path: str | Path) -> Path:
    """Write the page of a data set: counts, groups, samples of every class, the two views of Barlow Twins.

    Args:
        data: what `lt.data.load` returns.
        path: the html file to write; one that is there must be such a page.

    Returns:
        `path`, absolute.

    Raises:
        UserError: another file is there, or it cannot be written.

    >>> import tempfile
    >>> from lt_nas_ext.data import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_data_page(load("digits", "exp", 0.1), f"{folder}/digits.html").name
    'digits.html'
    """
    path = Path(path).absolute()
    check_page(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(data), encoding="utf-8")
    except OSError as error:
        raise UserError(f"out: the page cannot be written to {path}: {error.strerror}") from None
    return path


def check_page(path: Path) -> None:
    """Raise `UserError` where `path` is no name for a page, or something else is there."""
    if path.suffix not in (".html", ".htm"):
        raise UserError(f"out: got {path.name}; wanted a page to write, a name that ends in .html")
    if not path.exists():
        return
    try:
        ours = f'content="{GENERATOR}"'.encode() in path.read_bytes()
    except OSError:  # a directory, or a file that may not be read
        ours = False
    if not ours:
        raise UserError(f"out: {path} is there and is no page of data describe; wanted another name, to spare it")


def render(data: Dataset) -> str:
    """The page as text."""
    shown = samples(data)
    return template("data_page.html.j2").render(
        palette=palette,
        generator=GENERATOR,
        title=data.title or data.name,
        summary=data.describe().splitlines()[:2],
        counts=Markup(label_distribution(data.counts, data.class_names)),
        groups=_groups(data),
        samples=shown,
        views=views(data),
        views_name=data.views,
        left_out=data.num_classes - len(shown),
    )


def _groups(data: Dataset) -> list[tuple[str, str, int, int, int]]:
    """(group, which classes, how many, their training images, their test images)."""
    tests = data.test.counts(data.num_classes)
    return [
        (name, _GROUPS[name], len(classes), sum(data.counts[c] for c in classes), sum(tests[c] for c in classes))
        for name, classes in class_groups(data.counts).items()
    ]
