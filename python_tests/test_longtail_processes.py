"""Samplers and metrics in two gloo processes that nobody told their rank."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, TensorDataset

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import SAMPLERS, ImageSampler, RunningMetrics, epoch_order, evaluate_predictions

WORLD, COUNTS = 2, (40, 11, 4)
LABELS = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
LOGITS = torch.randn(len(LABELS), 3, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {}
    for kind in SAMPLERS:
        sampler = ImageSampler(LABELS, kind, seed=3)
        sampler.set_epoch(5)
        places = TensorDataset(torch.arange(len(LABELS)))
        results[kind] = torch.cat([batch for (batch,) in DataLoader(places, batch_size=4, sampler=sampler)])
    alone = dist.new_group([0])  # a group in which rank 1 has no part
    try:
        results["alone"] = len(ImageSampler(LABELS, group=alone))
    except UserError as error:
        results["alone"] = str(error)
    running = RunningMetrics(COUNTS)
    running.update(LOGITS[rank::WORLD], LABELS[rank::WORLD])
    running.reduce()
    results["metrics"] = running.compute().to_json()
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_each_process_takes_its_own_places_of_one_order(results, kind):
    order = epoch_order(LABELS, kind, seed=3, epoch=5)
    for rank, own in enumerate(results):
        assert torch.equal(own[kind], order[rank::WORLD][: len(order) // WORLD])


def test_a_group_of_its_own(results):
    assert results[0]["alone"] == len(LABELS)
    assert results[1]["alone"].startswith("rank: got -1 of num_replicas=-1")


def test_figures_are_those_of_all_images(results):
    expected = evaluate_predictions(LOGITS, LABELS, COUNTS).to_json()
    for own in results:
        assert own["metrics"].pop("ece") == pytest.approx(expected["ece"], abs=1e-12)
    expected.pop("ece")
    assert results[0]["metrics"] == results[1]["metrics"] == expected
