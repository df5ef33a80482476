"""The four rules on tables worked by hand, with ties, vanished nodes and both lists of candidates."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext import nn, ops
from lt_nas_ext.errors import UserError
from lt_nas_ext.space import EmptyCellError, GateTieWarning, derive, random_genotype
from lt_nas_ext.space.derive import RULES

# Gates of a cell of two nodes and 8 candidates. Columns:
#  none  max   avg   skip  sep3  sep5  dil3  dil5
ROWS = [
    [0.90, 0.10, 0.20, 0.30, 0.86, 0.05, 0.91, 0.02],  # 0 → 2
    [0.05, 0.40, 0.50, 0.10, 0.10, 0.10, 0.10, 0.10],  # 1 → 2
    [0.10, 0.10, 0.10, 0.20, 0.10, 0.10, 0.10, 0.10],  # 0 → 3
    [0.99, 0.10, 0.10, 0.10, 0.60, 0.30, 0.10, 0.10],  # 1 → 3
    [0.10, 0.10, 0.10, 0.10, 0.10, 0.88, 0.87, 0.10],  # 2 → 3
]  # fmt: skip
GATES = torch.tensor(ROWS, dtype=torch.float64)
LOW = GATES.clone()
LOW[0, 4], LOW[0, 6] = 0.84, 0.80  # nothing from an input reaches .85, so 2 → 3 must go with node 2


def cell(gates, rule, gate="identity", threshold=0.85):
    """The normal cell that a rule makes of gates, with 8 columns or 7; the reduction cell always has some."""
    primitives = nn.DARTS[-gates.shape[1] :]
    found = derive(gates, GATES[:, -len(primitives) :], primitives, gate, rule, threshold)
    assert found.rule == rule
    return found.normal


TABLE = {
    "top2": (
        [("dil_conv_3x3", 0, 2), ("avg_pool_3x3", 1, 2), ("sep_conv_5x5", 2, 3), ("sep_conv_3x3", 1, 3)],
        (2, 3),
    ),
    "threshold_sparse": ([("dil_conv_3x3", 0, 2), ("sep_conv_5x5", 2, 3)], (2, 3)),
    "threshold_edge": (
        [("dil_conv_3x3", 0, 2), ("sep_conv_3x3", 0, 2), ("sep_conv_5x5", 2, 3), ("dil_conv_3x3", 2, 3)],
        (2, 3),
    ),
}


@pytest.mark.parametrize("candidates", [8, 7])
@pytest.mark.parametrize("rule", ["top2", "threshold_sparse", "threshold_edge"])
def test_table(rule, candidates):
    found = cell(GATES[:, -candidates:], rule)
    assert (list(found.edges), found.concat) == TABLE[rule]


def test_per_edge_takes_every_edge_and_none_drops_one():
    """Softmax of log p is p, so the rows of the table are read as they are, up to their sum."""
    found = cell(GATES.log(), "per_edge", gate="softmax")
    assert found.edges == (
        ("dil_conv_3x3", 0, 2),
        ("avg_pool_3x3", 1, 2),
        ("skip_connect", 0, 3),
        ("sep_conv_5x5", 2, 3),  # and not 1 → 3, where `none` wins
    )
    seven = cell(GATES[:, 1:].log(), "per_edge", gate="softmax")
    assert seven.edges == (
        ("dil_conv_3x3", 0, 2),
        ("avg_pool_3x3", 1, 2),
        ("skip_connect", 0, 3),
        ("sep_conv_3x3", 1, 3),
        ("sep_conv_5x5", 2, 3),
    )


def test_per_edge_drops_a_node_whose_edges_are_all_none():
    gates = GATES.clone()
    gates[:2, 0] = 0.95
    found = cell(gates.log(), "per_edge", gate="softmax")
    assert (found.edges, found.concat) == ((("skip_connect", 0, 3),), (3,))


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
@pytest.mark.parametrize("rule", ["top2", "threshold_sparse", "threshold_edge"])
def test_raw_alpha_goes_through_the_gate(gate, rule):
    torch.manual_seed(0)
    alpha = 3 * torch.randn(14, 8)
    raw = derive(alpha, -alpha, nn.DARTS, gate, rule, 0.3)
    gates = [ops.gate_weights(a.double(), gate) for a in (alpha, -alpha)]
    assert raw == derive(*gates, nn.DARTS, "identity", rule, 0.3)


def test_none_counts_in_the_softmax_but_is_never_chosen_by_top2():
    """Edge 0 → 3 has the larger α, but gives most of its softmax to `none`: 1 → 3 and 2 → 3 are stronger."""
    alpha = torch.zeros(5, 8)
    alpha[:, 4] = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.5])
    alpha[2, 0] = 9.0
    found = cell(alpha, "top2", gate="softmax")
    assert found.edges[2:] == (("sep_conv_3x3", 2, 3), ("sep_conv_3x3", 1, 3))


@pytest.mark.filterwarnings("ignore::lt_nas_ext.space.GateTieWarning")
@pytest.mark.parametrize("rule", ["top2", "threshold_sparse"])
def test_ties_go_to_the_lower_index(rule):
    found = cell(torch.full((9, 8), 0.9), rule)
    assert found.edges == tuple(("max_pool_3x3", source, node) for node in (2, 3, 4) for source in (0, 1))


@pytest.mark.filterwarnings("ignore::lt_nas_ext.space.GateTieWarning")
def test_ties_go_to_the_lower_index_edge_by_edge():
    assert cell(torch.zeros(2, 7), "per_edge", gate="softmax").edges == (
        ("max_pool_3x3", 0, 2),
        ("max_pool_3x3", 1, 2),
    )
    assert cell(torch.full((2, 8), 0.9), "threshold_edge").edges == (
        ("max_pool_3x3", 0, 2),
        ("avg_pool_3x3", 0, 2),
        ("max_pool_3x3", 1, 2),
        ("avg_pool_3x3", 1, 2),
    )


def test_a_gate_at_the_threshold_is_kept():
    gates = GATES.clone()
    gates[0, 4], gates[0, 6] = 0.10, 0.85
    assert ("dil_conv_3x3", 0, 2) in cell(gates, "threshold_sparse").edges


def test_a_node_without_input_vanishes_with_the_edges_from_it():
    gates = LOW.clone()
    gates[3, 4] = 0.86  # 1 → 3 survives, 0 → 2 and 1 → 2 do not: 2 → 3 goes too
    for rule in ("threshold_sparse", "threshold_edge"):
        found = cell(gates, rule)
        assert (found.edges, found.concat) == ((("sep_conv_3x3", 1, 3),), (3,))


@pytest.mark.parametrize("rule", ["threshold_sparse", "threshold_edge"])
def test_an_empty_cell_is_an_error_that_says_which_threshold_keeps_a_node(rule):
    with pytest.raises(
        EmptyCellError, match=r"threshold: no node of the normal cell survives 0.85; .* at most 0\.8400 keeps"
    ):
        cell(LOW, rule)
    assert cell(LOW, rule, threshold=0.84).concat == (2, 3)
    with pytest.raises(UserError, match="no node of the reduce cell survives"):
        derive(GATES, LOW, nn.DARTS, "identity", rule)


@given(st.integers(0, 10_000), st.sampled_from(["threshold_sparse", "threshold_edge"]))
def test_the_threshold_named_does_keep_a_node(seed, rule):
    alpha = torch.randn(14, 7, generator=torch.Generator().manual_seed(seed))
    with pytest.raises(UserError, match="survives 1;") as error:
        derive(alpha, alpha, nn.FAIR_DARTS, "sigmoid", rule, threshold=1.0)
    named = float(str(error.value).split("at most ")[1].split()[0])
    assert derive(alpha, alpha, nn.FAIR_DARTS, "sigmoid", rule, threshold=named).normal.concat
    with pytest.raises(UserError):
        derive(alpha, alpha, nn.FAIR_DARTS, "sigmoid", rule, threshold=named + 2e-4)


def test_a_cell_of_none_only_is_an_error():
    gates = GATES.clone()
    gates[:, 0] = 0.999
    with pytest.raises(UserError, match="no node of the normal cell survives, `none` wins"):
        cell(gates.log(), "per_edge", gate="softmax")


@pytest.mark.parametrize("gate", ["sigmoid", "identity"])
def test_per_edge_needs_softmax_gates(gate):
    with pytest.raises(UserError, match="needs gate='softmax', where `none` competes"):
        cell(GATES, "per_edge", gate=gate)


def test_gates_that_all_tie_warn():
    noise = 1e-3 * torch.randn(14, 8, generator=torch.Generator().manual_seed(0))
    decided = 2 * torch.randn(14, 8, generator=torch.Generator().manual_seed(1))
    with pytest.warns(GateTieWarning, match="all gates of the reduce cell lie within 0.001 of each other") as caught:
        derive(decided, noise)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        derive(decided, -decided)


def test_the_gate_of_none_does_not_hide_a_tie():
    alpha = torch.zeros(14, 8)
    alpha[:, 0] = 5.0
    with pytest.warns(GateTieWarning):
        derive(alpha, alpha, gate="sigmoid")


@given(st.integers(0, 10_000), st.sampled_from(RULES), st.sampled_from([nn.DARTS, nn.FAIR_DARTS]), st.integers(1, 5))
def test_laws_of_every_rule(seed, rule, primitives, nodes):
    """Nothing but existing states is used, `none` never, and a row's gates decide with no regard to a common shift."""
    edges = nodes * (nodes + 3) // 2
    alpha = 2 * torch.randn(edges, len(primitives), generator=torch.Generator().manual_seed(seed))
    try:
        found = derive(alpha, alpha, primitives, "softmax", rule, threshold=0.3).normal
    except UserError as error:
        assert "no node of the normal cell survives" in str(error)
        return
    assert all(edge.op != "none" for edge in found.edges)
    assert found.concat == found.nodes
    for node in found.nodes:
        incoming = [edge for edge in found.edges if edge.target == node]
        limit = {"top2": 2, "per_edge": node, "threshold_sparse": 2, "threshold_edge": 2 * node}[rule]
        assert 1 <= len(incoming) <= limit
    if rule == "top2":
        assert len(found.edges) == 2 * nodes
    assert derive(alpha.double() + 5, alpha, primitives, "softmax", rule, threshold=0.3).normal == found


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rule": "best"}, "rule: got 'best'; wanted one of 'top2', 'per_edge'"),
        ({"gate": "hard"}, "gate: got 'hard'"),
        ({"primitives": ("skip_connect", "conv")}, "primitives: got 'conv'"),
        ({"primitives": nn.FAIR_DARTS}, r"alpha_normal: got \(5, 8\); wanted a tensor \(edges, 7\)"),
        ({"alpha_reduce": torch.zeros(8)}, r"alpha_reduce: got \(8,\); wanted a tensor"),
        ({"alpha_reduce": [[0.0]]}, "alpha_reduce: got list; wanted a tensor"),
        ({"alpha_reduce": torch.zeros(4, 8)}, "alpha_reduce: got 4 rows; wanted 2, 5, 9, 14"),
        ({"alpha_reduce": torch.zeros(0, 8)}, "alpha_reduce: got 0 rows"),
        ({"alpha_reduce": GATES / 0}, "alpha_reduce: holds values that are not finite"),
        ({"threshold": 1.5}, "threshold: got 1.5; wanted a gate value, 0 to 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        derive(**({"alpha_normal": GATES, "alpha_reduce": GATES} | arguments))


def test_random_genotypes_are_drawn_by_the_seed_alone():
    torch.manual_seed(0)
    assert str(random_genotype(0, nodes=2)) == str(random_genotype(0, nodes=2))
    assert len({random_genotype(seed) for seed in range(50)}) == 50


@given(st.integers(0, 10_000), st.sampled_from([nn.DARTS, ("none", "skip_connect", "max_pool_3x3")]), st.integers(1, 6))
def test_random_genotypes_are_of_the_form_of_top2(seed, primitives, nodes):
    drawn = random_genotype(seed, primitives, nodes)
    for found in (drawn.normal, drawn.reduce):
        assert found.concat == found.nodes == tuple(range(2, nodes + 2))
        assert all(edge.op in primitives and edge.op != "none" for edge in found.edges)
        for node in found.nodes:
            assert len({edge.source for edge in found.edges if edge.target == node}) == 2


def test_random_genotypes_draw_uniformly():
    cells = [cell for seed in range(400) for cell in (random_genotype(seed).normal, random_genotype(seed).reduce)]
    operations = [edge.op for cell in cells for edge in cell.edges]
    for name in nn.FAIR_DARTS:
        assert operations.count(name) / len(operations) == pytest.approx(1 / 7, abs=0.02)
    sources = [edge.source for cell in cells for edge in cell.edges if edge.target == 5]
    for source in range(5):
        assert sources.count(source) / len(sources) == pytest.approx(1 / 5, abs=0.04)


def test_random_genotype_names_bad_arguments():
    with pytest.raises(UserError, match="nodes: got 0"):
        random_genotype(0, nodes=0)
    with pytest.raises(UserError, match="primitives: "):
        random_genotype(0, primitives=("none",))
