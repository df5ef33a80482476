"""The Barlow Twins loss of a global batch: two gloo processes equal one process with the whole batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.nn import BarlowTwinsLoss

N, FEATURES, D, WORLD = 12, 5, 10, 2
SETTINGS = {"lambd": 0.1, "scale": 0.5}

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")


def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, N, FEATURES, generator=generator, dtype=torch.float64)
    weight = torch.randn(FEATURES, D, generator=generator, dtype=torch.float64)
    return x, weight, torch.randn(FEATURES, D, generator=generator, dtype=torch.float64)


def step(x, weight, direction, form, group=None):
    """Loss, its gradient and the product of its Hessian with `direction`, for the weights of one linear layer."""
    weight = weight.clone().requires_grad_()
    loss = lt.ops.barlow_twins_loss(x[0] @ weight, x[1] @ weight, form=form, group=group, **SETTINGS)
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    (product,) = torch.autograd.grad(gradient, weight, direction)
    return loss.detach(), gradient.detach(), product


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    group = dist.group.WORLD
    x, weight, direction = batch()
    own = x[:, rank * N // WORLD : (rank + 1) * N // WORLD]
    results = {form: step(own, weight, direction, form, group) for form in ("gram", "cross")}
    with lt.ops.eager():
        results["eager"] = step(own, weight, direction, "cross", group)
    for _, *of_weights in results.values():
        for value in of_weights:  # what DistributedDataParallel does with the gradients of parameters
            dist.all_reduce(value)
            value.div_(WORLD)
    model = torch.nn.Linear(FEATURES, D, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weight.T)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    crit = BarlowTwinsLoss(group=group, **SETTINGS)
    crit(*parallel(own.reshape(-1, FEATURES)).chunk(2)).backward()
    results["ddp"] = (None, model.weight.grad.T, None)
    results["repr"] = repr(crit)
    try:
        lt.ops.barlow_twins_loss(*torch.ones(2, 3 + rank, 2), group=group)
    except UserError as error:
        results["uneven"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("form", ["gram", "cross", "eager", "ddp"])
def test_two_processes_equal_one(results, form):
    expected = step(*batch(), form="cross")
    for result in results:
        for value, wanted in zip(result[form], expected, strict=True):
            if value is not None:
                torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)


def test_batches_of_different_sizes_are_refused_in_every_process(results):
    for result in results:
        assert result["uneven"].startswith("za: got shapes [(3, 2), (4, 2)] by process; wanted the same in each")


def test_the_module_says_how_many_processes_share_the_batch(results):
    assert results[0]["repr"] == "BarlowTwinsLoss(lambd=0.1, scale=0.5, form='auto', processes=2)"


def test_a_group_of_one_process_is_this_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x, weight, direction = batch()
        for a, b in zip(
            step(x, weight, direction, "gram", dist.group.WORLD), step(x, weight, direction, "gram"), strict=True
        ):
            assert torch.equal(a, b)
    finally:
        dist.destroy_process_group()
