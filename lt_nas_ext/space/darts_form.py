"""The `Genotype(normal=[…], …)` text that the original DARTS and FairDARTS projects print and paste, read as data.

Nothing in a text is ever run: it is parsed, and only literals and `range(a, b)` are understood.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, NamedTuple

from lt_nas_ext.errors import UserError

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


class CellText(NamedTuple):
    """One cell as read: edges (operation, source, target), concat, and which of the two forms it came in."""

    edges: Sequence[tuple[str, int, int]]
    concat: Sequence[int]
    triples: bool


def read_darts(text: str) -> tuple[CellText, CellText]:
    """The normal and the reduction cell of a text in either form.

    Pairs (operation, source) are DARTS', two a node in the order of the nodes. Triples are FairDARTS' (operation,
    target, source); some tools swap the last two, and since an edge always goes to a later state, both are read.

    Raises:
        UserError: the text has another form; the message says what is wrong where.

    >>> text = "G = Genotype([('skip_connect', 0), ('skip_connect', 1)], [2], [('skip_connect', 2, 0)], range(2, 3))"
    >>> normal, reduce = read_darts(text)
    >>> normal
    CellText(edges=[('skip_connect', 0, 2), ('skip_connect', 1, 2)], concat=[2], triples=False)
    >>> reduce
    CellText(edges=[('skip_connect', 0, 2)], concat=[2], triples=True)
    """
    call = _genotype_call(text)
    given = [
        *zip(FIELDS, call.args, strict=False),
        *((keyword.arg, keyword.value) for keyword in call.keywords),
    ]
    fields = dict(given)
    if len(call.args) > len(FIELDS) or len(fields) != len(given) or set(fields) != set(FIELDS):
        came = ", ".join(str(name) for name, _ in given) or "none"
        raise UserError(f"genotype: got the fields {came}; wanted each of {', '.join(FIELDS)} once")
    read = {name: _literal(node) for name, node in fields.items()}
    return _cell(read, "normal"), _cell(read, "reduce")


def write_darts(normal: CellText, reduce: CellText) -> str:
    """The inverse of `read_darts`: pairs where neither cell needs triples.

    >>> cell = CellText([("skip_connect", 0, 2), ("skip_connect", 1, 2)], [2], triples=False)
    >>> write_darts(cell, cell)
    "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)], normal_concat=[2], \
reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2])"
    """
    triples = normal.triples or reduce.triples

    def code(name: str, cell: CellText) -> str:
        edges: list[Any] = [(op, target, source) for op, source, target in cell.edges]
        if not triples:
            edges = [(op, source) for op, _, source in sorted(edges, key=lambda edge: edge[1])]
        return f"{name}={edges}, {name}_concat={list(cell.concat)}"

    return f"Genotype({code('normal', normal)}, {code('reduce', reduce)})"


def fits_pairs(edges: Sequence[tuple[str, int, int]]) -> bool:
    """Whether the place of an edge in the list can tell its node: two edges for each of the nodes 2, 3, …

    >>> fits_pairs([("skip_connect", 0, 2), ("skip_connect", 1, 2)]), fits_pairs([("skip_connect", 0, 2)])
    (True, False)
    """
    targets = sorted(target for _, _, target in edges)
    return len(targets) % 2 == 0 and targets == [2 + place // 2 for place in range(len(targets))]


def _genotype_call(text: str) -> ast.Call:
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"genotype: not of the form Genotype(normal=[…], …): {error}") from None
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr | ast.Assign) else None
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name) or value.func.id != "Genotype":
        raise UserError(f"genotype: got {text.strip()[:60]!r}; wanted one Genotype(normal=[…], normal_concat=…, …)")
    return value


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [_literal(bound) for bound in node.args]
        if len(bounds) in (1, 2) and not node.keywords and all(type(b) is int and abs(b) < 1000 for b in bounds):
            return list(range(*bounds))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        raise UserError(f"genotype: got {ast.unparse(node)[:60]!r}; wanted a list of tuples, or of nodes") from None


def _cell(read: dict[Any, Any], name: str) -> CellText:
    tuples, concat = read[name], read[f"{name}_concat"]
    for field, value in ((name, tuples), (f"{name}_concat", concat)):
        if not isinstance(value, list | tuple):
            raise UserError(f"{field}: got {value!r}; wanted a list")
    if not all(type(node) is int for node in concat):
        raise UserError(f"{name}_concat: got {concat!r}; wanted a list of nodes")
    edges: list[tuple[str, int, int]] = []
    for place, item in enumerate(tuples):
        match item:
            case (str(op), int(source)):
                edges.append((op, source, 2 + place // 2))
            case (str(op), int(a), int(b)):
                edges.append((op, min(a, b), max(a, b)))
            case _:
                raise UserError(
                    f"{name}[{place}]: got {item!r}; wanted pairs (operation, source), two a node, "
                    "or triples (operation, target, source)"
                )
    lengths = {len(item) for item in tuples}
    if len(lengths) > 1 or (lengths == {2} and len(tuples) % 2):
        raise UserError(
            f"{name}: got {len(tuples)} tuples of lengths {sorted(lengths)}; wanted two pairs a node, or triples"
        )
    return CellText(edges, list(concat), triples=lengths == {3})
