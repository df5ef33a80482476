"""The drawn cells: valid SVG, every operation there once, nothing on top of anything else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lt_nas_ext import nn
from lt_nas_ext.report.cells import STRIDE_NOTE, draw_cell, draw_genotype, vanished
from lt_nas_ext.report.layout import Box, layout
from lt_nas_ext.report.palette import FAMILIES, family, short_name
from lt_nas_ext.space import DARTS_V2, BbnGenotype, CellGenotype, Edge, random_genotype

OPS = nn.FAIR_DARTS
SVG = "{http://www.w3.org/2000/svg}"

# FairDARTS may keep two operations of an edge, and lose a node: here node 1 (state 3) has no input.
FAIR = CellGenotype(
    (
        Edge("dil_conv_3x3", 0, 2),
        Edge("sep_conv_3x3", 0, 2),
        Edge("sep_conv_3x3", 1, 4),
        Edge("dil_conv_5x5", 2, 4),
        Edge("skip_connect", 2, 5),
    ),
    concat=(2, 4, 5),
)


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of the operations: the rounded boxes 26 pixels high."""
    rects = [element.attrib for element in ET.fromstring(svg).iter(f"{SVG}rect") if element.get("height") == "26"]
    return [
        (float(r["x"]), float(r["y"]), float(r["x"]) + float(r["width"]), float(r["y"]) + float(r["height"]))
        for r in rects
    ]


@st.composite
def cells(draw: st.DrawFn) -> CellGenotype:
    """Any cell of four nodes: up to two operations on an edge, nodes without an input left out."""
    alive, edges = [0, 1], [Edge("skip_connect", 0, 2)]
    for target in range(2, 6):
        for source in alive[:]:
            for op in draw(st.lists(st.sampled_from(OPS), max_size=2, unique=True)):
                edges.append(Edge(op, source, target))
        if target in {edge.target for edge in edges}:
            alive.append(target)
    return CellGenotype(tuple(dict.fromkeys(edges)), tuple(alive[2:]))


@settings(max_examples=15)
@given(cells())
def test_every_operation_is_drawn_once_within_the_picture_and_none_lies_on_another(cell: CellGenotype) -> None:
    svg = draw_cell(cell)
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(left >= 0 and right <= width and bottom <= height for left, _, right, bottom in boxes(svg))
    placed = boxes(svg)
    assert len(placed) == len(cell.edges)
    for a, b in combinations(placed, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for edge in cell.edges:
        assert texts(svg).count(short_name(edge.op)) == sum(e.op == edge.op for e in cell.edges)


def test_the_nodes_and_states_are_labelled() -> None:
    labels = texts(draw_cell(DARTS_V2.normal, "Normal cell"))
    assert {"ck−2", "ck−1", "ck", "0", "1", "2", "3", "Normal cell", "8 operations"} <= set(labels)


def test_a_vanished_node_is_named_and_not_drawn() -> None:
    labels = texts(draw_cell(FAIR, nodes=4))
    assert "5 operations · node 1 vanished: no operation reached the threshold" in labels
    assert "1" not in labels


@pytest.mark.parametrize(("nodes", "gone"), [(None, [1]), (4, [1]), (5, [1, 4])])
def test_vanished_nodes(nodes: int | None, gone: list[int]) -> None:
    assert vanished(FAIR, nodes) == gone


def test_legend_names_only_the_families_that_are_there() -> None:
    labels = texts(draw_cell(FAIR))
    assert FAMILIES["sep"].title in labels and FAMILIES["pool"].title not in labels


@pytest.mark.parametrize("beside", [True, False, None])
def test_both_cells_of_a_genotype_share_one_picture(beside: bool | None) -> None:
    root = ET.fromstring(draw_genotype(DARTS_V2, beside=beside))
    labels = texts(draw_genotype(DARTS_V2, beside=beside))
    assert f"8 operations · {STRIDE_NOTE}" in labels and "Normal cell" in labels
    assert (float(root.attrib["width"]) > float(root.attrib["height"])) == (beside is not False)


def test_the_cells_of_heads_stand_beside_those_of_the_backbone() -> None:
    found = BbnGenotype(DARTS_V2, FAIR, DARTS_V2.normal)
    labels = texts(draw_genotype(found))
    titles = ["Normal cell", "Reduction cell", "Instance head", "Class head"]
    assert [label for label in labels if label in titles] == titles
    assert "5 operations" in " ".join(labels) and labels.count("8 operations") == 2


def test_the_same_cell_is_drawn_the_same_way() -> None:
    genotype = random_genotype(3)
    assert draw_genotype(genotype) == draw_genotype(genotype)


def test_titles_are_escaped() -> None:
    svg = draw_genotype(DARTS_V2, title="<script>alert(1)</script>")
    ET.fromstring(svg)
    assert "<script>" not in svg


@pytest.mark.parametrize(
    ("op", "kind", "name"),
    [
        ("none", "none", "none"),
        ("max_pool_3x3", "pool", "max 3×3"),
        ("avg_pool_3x3", "pool", "avg 3×3"),
        ("skip_connect", "skip", "skip"),
        ("sep_conv_5x5", "sep", "sep 5×5"),
        ("dil_conv_3x3", "dil", "dil 3×3"),
        ("my_own_block", "other", "my own block"),
    ],
)
def test_families_and_names(op: str, kind: str, name: str) -> None:
    assert (family(op), short_name(op)) == (kind, name)


def test_layout_refuses_a_link_that_leads_back() -> None:
    with pytest.raises(ValueError, match="must lead to a later column"):
        layout([Box("a", 0, 1, 1), Box("b", 1, 1, 1)], [("b", "a")])


def test_layout_uncrosses_what_need_not_cross() -> None:
    sides = [Box(key, column, 10, 10) for column, keys in enumerate(("ab", "cd")) for key in keys]
    placed = layout(sides, [("a", "d"), ("b", "c")]).centre
    assert (placed["a"][1] - placed["b"][1]) * (placed["d"][1] - placed["c"][1]) > 0


def test_layout_leads_a_long_link_straight_past_a_column() -> None:
    column = [Box("start", 0, 10, 10), Box("box", 1, 40, 30), Box("end", 2, 10, 10)]
    placed = layout(column, [("start", "box"), ("box", "end"), ("start", "end")])
    (_, level_in), (_, level_out) = placed.route["start", "end"][1:3]
    assert level_in == level_out and abs(level_in - placed.centre["box"][1]) > 15
