"""Genotypes as values, as files, and in the text forms of the original projects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext import nn
from lt_nas_ext.errors import UserError
from lt_nas_ext.space import CellGenotype, Edge, Genotype, random_genotype

SKIP = Edge("skip_connect", 0, 2)
CELL = CellGenotype((SKIP, Edge("sep_conv_3x3", 1, 2)), (2,))

# Two edges a node, printed with a range, as the original prints it.
DARTS_TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_5x5', 2), ('max_pool_3x3', 0)], "
    "normal_concat=range(2, 4), "
    "reduce=[('max_pool_3x3', 0), ('avg_pool_3x3', 1), ('dil_conv_3x3', 0), ('dil_conv_5x5', 2)], "
    "reduce_concat=range(2, 4))"
)
# FairDARTS: node 3 has no input, so the edge from it to node 5 is dropped, and the output is narrower.
FAIR_TEXT = (
    "Genotype(normal=[('max_pool_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('dil_conv_3x3', 4, 0), ('skip_connect', 5, 3), "
    "('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), "
    "reduce=[('dil_conv_3x3', 2, 1), ('sep_conv_5x5', 2, 1), ('skip_connect', 3, 2)], reduce_concat=range(2, 6))"
)


def test_the_darts_form_is_read():
    genotype = Genotype.from_darts(DARTS_TEXT)
    assert genotype.normal.edges == (
        ("sep_conv_3x3", 1, 2),
        ("skip_connect", 0, 2),
        ("sep_conv_5x5", 2, 3),
        ("max_pool_3x3", 0, 3),
    )
    assert genotype.normal.concat == genotype.reduce.concat == (2, 3)
    assert genotype.rule is None


def test_the_darts_form_is_printed():
    assert str(Genotype.from_darts(DARTS_TEXT)) == DARTS_TEXT.replace("range(2, 4)", "[2, 3]")


def test_the_fair_darts_form_is_read_and_nodes_without_input_vanish():
    genotype = Genotype.from_darts(FAIR_TEXT)
    assert genotype.normal.edges == (
        ("max_pool_3x3", 0, 2),
        ("sep_conv_5x5", 1, 2),
        ("dil_conv_3x3", 0, 4),
        ("sep_conv_3x3", 0, 5),
    )
    assert genotype.normal.concat == (2, 4, 5)
    assert genotype.reduce.edges == (("dil_conv_3x3", 1, 2), ("sep_conv_5x5", 1, 2), ("skip_connect", 2, 3))
    assert genotype.reduce.concat == (2, 3)


def test_the_fair_darts_form_is_printed():
    assert str(Genotype.from_darts(FAIR_TEXT)) == (
        "Genotype(normal=[('max_pool_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('dil_conv_3x3', 4, 0), "
        "('sep_conv_3x3', 5, 0)], normal_concat=[2, 4, 5], "
        "reduce=[('dil_conv_3x3', 2, 1), ('sep_conv_5x5', 2, 1), ('skip_connect', 3, 2)], reduce_concat=[2, 3])"
    )


def test_the_states_of_a_triple_are_read_in_either_order():
    swapped = FAIR_TEXT
    for a, b in ((2, 0), (2, 1), (4, 0), (5, 3), (5, 0), (3, 2)):
        swapped = swapped.replace(f", {a}, {b})", f", {b}, {a})")
    assert swapped != FAIR_TEXT
    assert Genotype.from_darts(swapped) == Genotype.from_darts(FAIR_TEXT)


def test_a_name_line_breaks_and_positions_are_read():
    text = "MINE = " + DARTS_TEXT.replace(", ", ",\n   ")
    assert Genotype.from_darts(text) == Genotype.from_darts(DARTS_TEXT)
    positional = DARTS_TEXT.replace("normal=", "").replace("normal_concat=", "")
    assert Genotype.from_darts(positional) == Genotype.from_darts(DARTS_TEXT)


def test_nodes_fed_by_vanished_nodes_only_vanish_too():
    text = FAIR_TEXT.replace("('sep_conv_3x3', 5, 0)", "('sep_conv_3x3', 6, 5)").replace("range(2, 6)", "range(2, 7)")
    genotype = Genotype.from_darts(text)
    assert genotype.normal.nodes == genotype.normal.concat == (2, 4)


def test_the_file_is_written_for_people(tmp_path):
    path = tmp_path / "genotype.json"
    Genotype(CELL, CellGenotype((SKIP,), (2,)), rule="top2").save(path)
    assert path.read_text() == (
        "{\n"
        '  "rule": "top2",\n'
        '  "normal": {\n'
        '    "edges": [\n'
        '      {"op": "skip_connect", "source": 0, "target": 2},\n'
        '      {"op": "sep_conv_3x3", "source": 1, "target": 2}\n'
        "    ],\n"
        '    "concat": [2]\n'
        "  },\n"
        '  "reduce": {\n'
        '    "edges": [\n'
        '      {"op": "skip_connect", "source": 0, "target": 2}\n'
        "    ],\n"
        '    "concat": [2]\n'
        "  }\n"
        "}\n"
    )


@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([None, "top2"]))
def test_every_form_gives_the_genotype_back(seed, nodes, rule):
    drawn = random_genotype(seed, nodes=nodes)
    genotype = Genotype(drawn.normal, drawn.reduce, rule)
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert Genotype.from_darts(str(genotype)) == Genotype(drawn.normal, drawn.reduce)


def test_a_file_holds_either_form(tmp_path):
    path = tmp_path / "found"
    path.write_text("  \n" + DARTS_TEXT)
    assert Genotype.load(path) == Genotype.from_darts(DARTS_TEXT)
    Genotype.from_darts(FAIR_TEXT).save(path)
    assert Genotype.load(str(path)) == Genotype.from_darts(FAIR_TEXT)


def test_a_genotype_is_a_value():
    assert Genotype(CELL, CELL) == Genotype(CellGenotype([list(edge) for edge in CELL.edges], [2]), CELL)
    assert len({Genotype(CELL, CELL), Genotype(CELL, CELL)}) == 1


@pytest.mark.parametrize(
    "edges, concat, message",
    [
        ([("none", 0, 2)], (2,), r"edges\[0\]: got operation 'none'; wanted one of max_pool_3x3"),
        ([("sep_conv_3x4", 0, 2)], (2,), r"edges\[0\]: got operation 'sep_conv_3x4'; wanted one of max"),
        ([SKIP, ("skip_connect", 2, 2)], (2,), r"edges\[1\]: goes from state 2 to 2; wanted an edge from"),
        ([("skip_connect", -1, 2)], (2,), r"edges\[0\]: goes from state -1 to 2"),
        ([("skip_connect", 0, 1)], (2,), r"edges\[0\]: goes from state 0 to 1; .* a node from 2 on"),
        ([("skip_connect", "0", 2)], (2,), r"edges\[0\]: got states '0' and 2; wanted two integers"),
        ([("skip_connect", [0], [2])], (2,), r"edges\[0\]: got states \[0\] and \[2\]; wanted two integers"),
        ([SKIP, ("skip_connect", 3, 4)], (2, 4), r"edges\[1\]: 'skip_connect' comes from state 3, which receives no"),
        ([SKIP, SKIP], (2,), r"edges\[1\]: \('skip_connect', 0, 2\) comes twice"),
        ([SKIP], (2, 3), r"concat: got 3; wanted nodes that receive an edge, here \[2\]"),
        ([SKIP], (2.0,), r"concat: got 2.0; wanted nodes"),
        ([SKIP], (2, 2), r"concat: got \[2, 2\]; wanted at least one node, each once"),
        ([SKIP], (), r"concat: got \[\]; wanted at least one node"),
        ([], (), r"concat: got \[\]"),
    ],
)
def test_an_invalid_cell_is_an_error(edges, concat, message):
    with pytest.raises(UserError, match=message):
        CellGenotype(edges, concat)


VALID = json.loads(Genotype(CELL, CELL).to_json())


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "genotype: not JSON: Expecting property name"),
        ("[]", "genotype: got list; wanted an object with 'normal' and 'reduce'"),
        ({"normal": VALID["normal"]}, "reduce: got None; wanted an object with 'edges' and 'concat'"),
        (VALID | {"rule": 3}, "rule: got 3; wanted a text or null"),
        (VALID | {"normal": {"concat": [2]}}, "normal: 'edges' is missing; wanted a list"),
        (VALID | {"normal": {"edges": [], "concat": 2}}, "normal: 'concat' is 2; wanted a list"),
        (VALID | {"reduce": {"edges": [["skip_connect", 0, 2]], "concat": [2]}}, r"reduce: edges\[0\] is \['skip_conn"),
        (VALID | {"reduce": {"edges": [{"op": "skip_connect"}], "concat": [2]}}, "wanted an object with op, source, t"),
        (VALID | {"reduce": VALID["reduce"] | {"concat": [5]}}, r"reduce: concat: got 5; wanted nodes that receive"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=f"bad.json: .*{message}"):
        Genotype.load(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing.json: cannot be read as a genotype: .*No such file"):
        Genotype.load(tmp_path / "missing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="binary: cannot be read as a genotype"):
        Genotype.load(tmp_path / "binary")
    with pytest.raises(UserError, match="cannot be read as a genotype"):
        Genotype.load(tmp_path)


PAIRS = "[('skip_connect', 0), ('skip_connect', 1)]"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "wanted one Genotype"),
        ("Genotype(", "genotype: not of the form Genotype"),
        ("Phenotype(normal=1)", r"genotype: got 'Phenotype\(normal=1\)'; wanted one Genotype"),
        ("a.Genotype(normal=1)", "wanted one Genotype"),
        (f"Genotype({PAIRS}, [2])", "genotype: got the fields normal, normal_concat; wanted each of normal, normal_c"),
        (f"Genotype({PAIRS}, [2], {PAIRS}, [2], 5)", "wanted each of"),
        (f"Genotype({PAIRS}, [2], {PAIRS}, [2], normal=[])", "wanted each of"),
        (f"Genotype(**{{}}, normal={PAIRS})", "genotype: got the fields None, normal; wanted each of"),
        (f"Genotype({PAIRS}, 2, {PAIRS}, [2])", "normal_concat: got 2; wanted a list"),
        (f"Genotype({PAIRS}, ['2'], {PAIRS}, [2])", r"normal_concat: got \['2'\]; wanted a list of nodes"),
        (f"Genotype({PAIRS}, range(2, x), {PAIRS}, [2])", "genotype: got 'x'; wanted a list of tuples"),
        (f"Genotype({PAIRS}, range(0, 10**9), {PAIRS}, [2])", "wanted a list of tuples"),
        (f"Genotype([('skip_connect', 0)], [2], {PAIRS}, [2])", r"normal: got 1 tuples of lengths \[2\]; wanted two"),
        (f"Genotype([('a', 0), ('b', 2, 1)], [2], {PAIRS}, [2])", r"normal: got 2 tuples of lengths \[2, 3\]"),
        (f"Genotype(['skip_connect'], [2], {PAIRS}, [2])", r"normal\[0\]: got 'skip_connect'; wanted pairs"),
        (f"Genotype([('skip', 0), ('skip', 1)], [2], {PAIRS}, [2])", r"normal: edges\[0\]: got operation 'skip'"),
        (f"Genotype([('skip_connect', 2, -1)], [2], {PAIRS}, [2])", r"normal: edges\[0\]: goes from state -1 to 2"),
        (f"Genotype([('skip_connect', 4, 3)], [4], {PAIRS}, [2])", r"normal: concat: got \[\]"),
        (f"Genotype({PAIRS}, [2], __import__('os').system('false'), [2])", 'genotype: got "__import__'),
    ],
)
def test_a_bad_text_says_what_is_wrong(text, message):
    with pytest.raises(UserError, match=message):
        Genotype.from_darts(text)


def test_a_text_is_never_run(tmp_path):
    trap = tmp_path / "trap"
    for place in (
        f"[open({str(trap)!r}, 'w')]",
        f"(lambda: open({str(trap)!r}, 'w'))()",
        f"range(open({str(trap)!r}, 'w'))",
    ):
        with pytest.raises(UserError):
            Genotype.from_darts(f"Genotype(normal={place}, normal_concat=[2], reduce=[], reduce_concat=[2])")
    assert not trap.exists()


def test_every_operation_of_the_search_space_can_stand_in_a_genotype():
    edges = tuple(Edge(name, 0, 2) for name in nn.FAIR_DARTS)
    assert CellGenotype(edges, (2,)).edges == edges
