"""Images that fit a device lie there; others stay on the host, and their batches arrive in order, to the bit."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import Silent, tiny_data, tiny_settings

from lt_nas_ext.data import Batches
from lt_nas_ext.engine import resident as lt_resident
from lt_nas_ext.engine import run_search
from lt_nas_ext.engine.resident import SHARE, epoch_on, fits, resident, sent_ahead

DATA = tiny_data()
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_a_set_fits_where_it_takes_half_of_what_is_free(monkeypatch):
    size = DATA.train.images.nbytes
    assert size == 48 * 64
    for free, wanted in ((size / SHARE, True), (size / SHARE - 1, False), (0, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert fits(DATA.train, CUDA) is wanted
        if not wanted:
            assert resident(DATA.train, CUDA) is DATA.train
    assert resident(DATA.train, CPU).images.data_ptr() == DATA.train.images.data_ptr()


def test_on_the_host_an_epoch_is_the_batches_own():
    batches = Batches(DATA.train, 8, seed=3)
    found, wanted = list(epoch_on(CPU, batches, 2)), list(batches.epoch(2))
    assert len(found) == 6 and all(torch.equal(a[0], b[0]) for a, b in zip(found, wanted, strict=True))


@pytest.mark.cuda
def test_batches_are_sent_ahead_in_order():
    wanted = [(torch.full((64, 3, 64, 64), k, dtype=torch.uint8), torch.full((64,), k)) for k in range(20)]
    found = []
    for images, labels in sent_ahead(iter(wanted), CUDA):
        busy = torch.randn(2048, 2048, device=CUDA)
        for _ in range(5):
            busy = busy @ busy.softmax(1)  # the stream that computes lies behind the one that copies
        found.append((images.float().mean() + 0 * busy.mean(), labels.sum()))
    assert [float(mean) for mean, _ in found] == list(range(20))
    assert [int(total) for _, total in found] == [64 * k for k in range(20)]


@pytest.mark.cuda
def test_a_search_with_images_on_the_host_is_the_same(monkeypatch):
    found = []
    for room in (True, False):
        monkeypatch.setattr(lt_resident, "fits", lambda images, device, room=room: room)
        settings = tiny_settings("darts", rule="top2", device="cuda", deterministic=True)
        found.append([row["train_loss"] for row in run_search(DATA, settings, progress=Silent()).history])
    assert found[0] == found[1]
