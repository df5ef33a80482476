"""Batches as the losses take them, as a pure function of (seed, role, epoch)."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import tiny_data

from lt_nas_ext.engine.seeds import derived_seed, isolated_rng
from lt_nas_ext.engine.streams import Feed
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Labelled, Paired, Stream, TwoViews

DATA, CPU = tiny_data(), torch.device("cpu")


def feed(stream: Stream, seed: int = 0, role: str = "weights") -> Feed:
    return Feed(stream, DATA.train, CPU, DATA, 8, seed, role)


def test_labelled_batches():
    draws = list(feed(Stream("labelled")).epoch(0))
    assert len(draws) == 6 and all(isinstance(draw.batch, Labelled) for draw in draws)
    batch = draws[0].batch
    assert batch.images.shape == (8, 1, 8, 8) and batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.labels, draws[0].labels)
    whole = torch.cat([draw.batch.labels for draw in draws])
    assert torch.equal(torch.bincount(whole), torch.tensor([24, 14, 10]))


def test_two_views_hold_no_labels():
    draw = next(feed(Stream("two_views")).epoch(0))
    assert isinstance(draw.batch, TwoViews)
    assert set(vars(draw.batch)) == {"first", "second"}
    assert not torch.equal(draw.batch.first, draw.batch.second)


def test_paired_streams_have_their_own_samplers():
    draws = list(feed(Stream("paired", ("instance", "class_uniform"))).epoch(0, steps=300))
    assert all(isinstance(draw.batch, Paired) for draw in draws)
    first, second = (
        torch.bincount(torch.cat([getattr(draw.batch, side).labels for draw in draws])) / 2400
        for side in ("first", "second")
    )
    assert torch.allclose(first, torch.tensor([24, 14, 10]) / 48, atol=0.01)  # whole passes: exact but for the last
    assert torch.allclose(second, torch.full((3,), 1 / 3), atol=0.04)


def test_a_class_without_images_cannot_be_drawn_uniformly():
    """The last one too, which no label betrays."""
    for missing, name in ((1, "middle"), (2, "right")):
        images = DATA.train.subset((DATA.train.labels != missing).nonzero().flatten())
        for stream in (Stream("labelled", ("class_uniform",)), Stream("paired", ("instance", "class_uniform"))):
            with pytest.raises(UserError, match=f"data: class '{name}' has no images for alpha, and the class_uniform"):
                Feed(stream, images, CPU, DATA, 8, 0, "alpha")
        assert len(Feed(Stream("labelled"), images, CPU, DATA, 8, 0, "alpha"))


def test_an_epoch_is_a_pure_function():
    images = [next(feed(Stream("labelled")).epoch(3)).batch.images for _ in range(2)]
    assert torch.equal(*images)
    others = [
        next(feed(Stream("labelled")).epoch(4)),
        next(feed(Stream("labelled"), seed=1).epoch(3)),
        next(feed(Stream("labelled"), role="alpha").epoch(3)),
    ]
    assert not any(torch.equal(images[0], other.batch.images) for other in others)


def test_longer_epochs_pass_again_in_another_order():
    stream = feed(Stream("labelled"))
    draws = list(stream.epoch(0, steps=13))
    assert len(draws) == 13
    first, second = (torch.cat([draw.labels for draw in draws[a : a + 6]]) for a in (0, 6))
    assert torch.equal(first.sort().values, second.sort().values) and not torch.equal(first, second)
    later = torch.cat([draw.labels for draw in stream.epoch(1, steps=13)][:6])
    assert not torch.equal(later, first) and not torch.equal(later, second)


def test_derived_seeds_differ():
    seeds = {derived_seed(s, p, e) for s in range(3) for p in ("a", "b") for e in range(10)}
    assert len(seeds) == 60 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_callers_random_state_is_untouched():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated_rng(torch.device("cpu")):
        torch.manual_seed(99)
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)
