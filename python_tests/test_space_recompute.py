"""Recomputation: less is kept for backward, and every gradient, statistic and random number is the same to the bit."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.nn import functional as F

from lt_nas_ext import ops
from lt_nas_ext.space import FusedCell, PerEdgeCell, Supernet
from lt_nas_ext.space.recompute import recomputed

CELLS = (FusedCell, PerEdgeCell)


def supernet(recompute, cell=FusedCell, **arguments):
    torch.manual_seed(0)
    net = Supernet(4, 5, layers=4, cell=cell, recompute=recompute, **arguments)
    with torch.no_grad():
        for alpha in net.arch_parameters():
            alpha.normal_()
    return net


def images(seed=1):
    return torch.randn(6, 3, 9, 8, generator=torch.Generator().manual_seed(seed))


def trained(net, part, steps=2, forward=contextlib.nullcontext):
    """Gradients of every step, and parameters, buffers and the state of the random stream after the last."""
    weights, alphas = net.weight_parameters(), net.arch_parameters()
    moving, frozen = (weights, alphas) if part == "w" else (alphas, weights)
    for parameter in frozen:
        parameter.requires_grad_(False)
    optimiser = torch.optim.SGD(moving, 0.1)
    found = []
    for step in range(steps):
        optimiser.zero_grad()
        with forward():
            loss = F.cross_entropy(net(images(step)), torch.arange(6) % 5)
        loss.backward()
        found += [loss.detach(), *(parameter.grad.clone() for parameter in moving)]
        optimiser.step()
    return [*found, *net.state_dict().values(), torch.get_rng_state()]


def same(ours, theirs):
    return len(ours) == len(theirs) and all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("part", ["w", "α"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_else_changes(cell, part, training):
    kept, run_twice = (trained(supernet(recompute, cell).train(training), part) for recompute in (False, True))
    assert same(run_twice, kept)


@pytest.mark.parametrize("cell", CELLS)
def test_what_lies_between_a_cells_input_and_output_is_not_kept(cell):
    held = []
    for recompute in (False, True):
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        net = supernet(recompute, cell)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(images()).sum().backward()
        held.append(sum(sizes.values()))
    assert held[1] < 0.1 * held[0]


def test_running_statistics_count_every_batch_once():
    net = supernet(True)
    for step in range(3):
        net(images(step)).sum().backward()
    batches = [value for name, value in net.state_dict().items() if name.endswith(("batches", "batches_tracked"))]
    assert len(batches) > 50 and all(count == 3 for count in batches)


def test_two_passes_before_one_backward_and_several_through_one_graph():
    found = []
    for recompute in (False, True):
        net = supernet(recompute)
        loss = (net(images(1)) * net(images(2))).sum()
        partly = torch.autograd.grad(loss, net.arch_parameters(), retain_graph=True)
        loss.backward()
        found.append([*partly, *(weight.grad for weight in net.parameters()), *net.buffers()])
    assert same(*found)


def test_gradients_of_gradients():
    """As a search with order="exact" takes them, through weights that may move once they are taken."""
    found = []
    for recompute in (False, True):
        net = supernet(recompute)
        weights = net.weight_parameters()
        first = torch.autograd.grad(net(images()).square().sum(), weights, create_graph=True)
        found.append(torch.autograd.grad(sum(one.square().sum() for one in first), net.arch_parameters()))
    assert same(*found)


def test_weights_that_are_lent_for_forward_only():
    found = []
    for recompute in (False, True):
        net = supernet(recompute)
        lent = {name: (0.5 * value).detach().requires_grad_() for name, value in net.named_parameters()}
        loss = torch.func.functional_call(net, lent, images()).square().sum()
        found.append(torch.autograd.grad(loss, list(lent.values())))
    assert same(*found)


def test_the_second_run_draws_the_same_random_numbers():
    cell = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(), torch.nn.Linear(8, 8), torch.nn.Dropout())
    found = []
    for run in (lambda cell, x: cell(x), recomputed):
        torch.manual_seed(0)
        output = run(cell, torch.ones(4, 8))
        between = torch.rand(3)  # the stream goes on as if the cell had run once
        gradients = torch.autograd.grad(output.square().sum(), list(cell.parameters()))
        found.append([output.detach(), between, *gradients, torch.rand(3)])
    assert same(*found)


@pytest.mark.skipif(not ops.status().active, reason=f"eager twins serve: {ops.status().reason}")
def test_the_second_run_takes_the_operators_of_the_first():
    """They are chosen where forward runs; backward may run elsewhere."""
    kept, run_twice = (trained(supernet(recompute), "w", forward=ops.eager) for recompute in (False, True))
    assert same(run_twice, kept)
    assert not same(run_twice, trained(supernet(True), "w"))  # the kernels round otherwise


def test_under_autocast():
    def half():
        return torch.autocast("cpu", torch.bfloat16)

    kept, run_twice = (trained(supernet(recompute), "w", forward=half) for recompute in (False, True))
    assert same(run_twice, kept)


def test_the_second_run_takes_float32_products_as_the_first():
    """TF32 is chosen where forward runs, and only there."""
    seen = []

    class Cell(torch.nn.Linear):
        def forward(self, x):
            seen.append(torch.backends.cuda.matmul.fp32_precision)
            return super().forward(x)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        output = recomputed(Cell(4, 4), torch.ones(2, 4))
    finally:
        torch.set_float32_matmul_precision(before)
    output.sum().backward()
    assert seen == ["tf32", "tf32"]
    assert torch.get_float32_matmul_precision() == before


def test_no_gradients_no_difference():
    with torch.no_grad():
        assert torch.equal(supernet(True)(images()), supernet(False)(images()))


def test_torch_compile_leaves_the_cells_as_they_are():
    net = supernet(True)
    compiled = torch.compile(net, backend="eager")
    loss = compiled(images()).sum()
    loss.backward()
    plain = supernet(False)
    plain(images()).sum().backward()
    assert same([p.grad for p in net.parameters()], [p.grad for p in plain.parameters()])
