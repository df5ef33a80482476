"""What a BBN search finds: the two cells of the backbone and one of each head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lt_nas_ext.errors import UserError
from lt_nas_ext.space.genotype import CellGenotype, Genotype, cell_from_json, cell_json, read_object, read_text

HEADS = ("instance_head", "class_head")


@dataclass(frozen=True)
class BbnGenotype:
    """A backbone and two heads of one normal cell each [paper: HLS].

    Attributes:
        backbone: its normal and its reduction cell: by itself the genotype of a plain network.
        instance_head: the cell of the head that learns from instance-sampled images.
        class_head: the cell of the head that learns from class-uniform images.

    `save("genotype.json")` writes the file of a run, which `load_genotype` reads. `Genotype.load` reads the backbone
    from it: the names of its two cells are the same.

    >>> cell = CellGenotype((("skip_connect", 0, 2), ("max_pool_3x3", 1, 2)), concat=(2,))
    >>> found = BbnGenotype(Genotype(cell, cell, rule="top2"), cell, cell)
    >>> BbnGenotype.from_json(found.to_json()) == found, Genotype.from_json(found.to_json()) == found.backbone
    (True, True)
    """

    backbone: Genotype
    instance_head: CellGenotype
    class_head: CellGenotype

    def __post_init__(self) -> None:
        if not isinstance(self.backbone, Genotype):
            raise UserError(f"backbone: got {type(self.backbone).__name__}; wanted a space.Genotype")
        for name in HEADS:
            if not isinstance(getattr(self, name), CellGenotype):
                raise UserError(f"{name}: got {type(getattr(self, name)).__name__}; wanted a space.CellGenotype")

    @property
    def rule(self) -> str | None:
        """How the cells were derived, where known."""
        return self.backbone.rule

    @property
    def cells(self) -> dict[str, CellGenotype]:
        """The four cells by name."""
        return {**self.backbone.cells, "instance_head": self.instance_head, "class_head": self.class_head}

    def __str__(self) -> str:
        heads = (f"{name}={[tuple(edge) for edge in self.cells[name].edges]}" for name in HEADS)
        return f"BbnGenotype(backbone={self.backbone}, {', '.join(heads)})"

    def to_json(self) -> str:
        """The text of `genotype.json`, one line an edge."""
        return cell_json(self.rule, self.cells)

    @classmethod
    def from_json(cls, text: str) -> BbnGenotype:
        """Read `to_json`'s text.

        Raises:
            UserError: it is not JSON or not such a genotype; the message says what is wrong where.
        """
        content = read_object(text)
        return cls(Genotype.from_json(text), *(cell_from_json(content, name) for name in HEADS))

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")


AnyGenotype = Genotype | BbnGenotype
"""What a search may find."""


def genotype_from_json(text: str) -> AnyGenotype:
    """Read the text of any `genotype.json`: with heads or without.

    Raises:
        UserError: it is not JSON or not a genotype; the message says what is wrong where.

    >>> genotype_from_json('{"class_head": {}}')
    Traceback (most recent call last):
        ...
    lt_nas_ext.errors.UserError: normal: got None; wanted an object with 'edges' and 'concat'
    """
    return (BbnGenotype if any(name in read_object(text) for name in HEADS) else Genotype).from_json(text)


def load_genotype(path: str | Path) -> AnyGenotype:
    """Read a file that holds the JSON of any genotype, or the text `Genotype(…)` of DARTS.

    Raises:
        UserError: the file cannot be read or holds no genotype; the message names the file and what is wrong.
    """
    return read_text(path, genotype_from_json)
