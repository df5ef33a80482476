"""Figures of a classifier: a table worked by hand, and the laws that tie them together."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext.errors import UserError
from lt_nas_ext.longtail import (
    Metrics,
    RunningMetrics,
    class_counts,
    class_groups,
    evaluate_predictions,
    longtailed_top1,
)

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0])


def test_by_hand():
    m = evaluate_predictions(PREDICTED, LABELS, train_counts=[101, 100, 19])
    assert m.top1 == 4 / 8
    assert m.per_class == (0.75, 0.5, 0.0)
    assert m.macro == pytest.approx(1.25 / 3)
    assert (m.many, m.medium, m.few) == (0.75, 0.5, 0.0)  # > 100, 20 … 100, < 20
    assert (m.first, m.middle, m.last) == (0.75, 0.5, 0.0)
    assert m.longtailed_top1 == pytest.approx((101 * 0.75 + 100 * 0.5) / 220)  # Σ π_c · acc_c
    assert m.confusion == ((3, 1, 0), (1, 1, 0), (2, 0, 0))
    assert m.images == 8
    assert math.isnan(m.ece)


@pytest.mark.parametrize(
    ("counts", "empty"),
    [((500, 400, 101), ("medium", "few")), ((100, 20, 50), ("many", "few")), ((19, 1, 0), ("many", "medium"))],
)
def test_an_empty_group_is_nan(counts, empty):
    m = evaluate_predictions(PREDICTED, LABELS, counts)
    for group in ("many", "medium", "few"):
        assert math.isnan(getattr(m, group)) == (group in empty)


def test_groups_of_classes_come_from_head_to_tail():
    groups = class_groups([19, 100, 101, 20, 500, 20])
    assert groups == {
        "many": (4, 2), "medium": (1, 3, 5), "few": (0,), "first": (4, 2), "middle": (1, 3), "last": (5, 0),
    }  # fmt: skip


def test_thirds_are_by_rank_not_by_label():
    counts = (5, 7, 100, 90, 80, 70, 60, 50, 40, 6)  # the last third is labels 1, 9, 0
    predicted = torch.arange(10)
    predicted[[0, 1, 9]] = 2
    m = evaluate_predictions(predicted, torch.arange(10), counts)
    assert (m.first, m.middle, m.last) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(("classes", "sizes"), [(2, (1, 0, 1)), (4, (1, 2, 1)), (10, (3, 4, 3)), (100, (33, 34, 33))])
def test_sizes_of_the_thirds(classes, sizes):
    for k, group in enumerate(("first", "middle", "last")):
        start = sum(sizes[:k])
        predicted = torch.full((classes,), -1)
        predicted[start : start + sizes[k]] = torch.arange(start, start + sizes[k])
        predicted[predicted < 0] = (torch.arange(classes)[predicted < 0] + 1) % classes
        m = evaluate_predictions(predicted, torch.arange(classes), [classes - c for c in range(classes)])
        assert getattr(m, group) == 1.0 or sizes[k] == 0
        assert m.top1 == sizes[k] / classes


def test_a_class_without_test_images_is_nan_and_left_out_of_the_mean():
    m = evaluate_predictions(torch.tensor([0, 1]), torch.tensor([0, 0]), [30, 30])
    assert m.per_class[0] == 0.5
    assert math.isnan(m.per_class[1]) and math.isnan(m.longtailed_top1)
    assert m.macro == 0.5


def test_calibration_error_by_hand():
    # two bins: confidence .9 (three of four right), confidence .6 (one of one right)
    logits = torch.log(torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]]))
    m = evaluate_predictions(logits, torch.tensor([0, 0, 0, 1, 0]), [1, 1])
    assert m.ece == pytest.approx(4 / 5 * abs(0.75 - 0.9) + 1 / 5 * abs(1 - 0.6), abs=1e-6)


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_laws(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(classes), torch.randint(0, classes, (50,), generator=generator)])
    logits = torch.randn(len(labels), classes, generator=generator)
    m = evaluate_predictions(logits, labels, class_counts("exp", 0.1, classes, 100))
    confusion = torch.tensor(m.confusion)
    assert confusion.sum() == len(labels)
    assert m.top1 == pytest.approx(confusion.diagonal().sum().item() / len(labels))
    # weighting the classes as the test set has them gives top-1 back
    assert longtailed_top1(m.per_class, confusion.sum(1)) == pytest.approx(m.top1)
    assert longtailed_top1(m.per_class, [1] * classes) == pytest.approx(m.macro)
    assert m.longtailed_top1 == longtailed_top1(m.per_class, class_counts("exp", 0.1, classes, 100))
    assert 0 <= m.ece <= 1
    assert Metrics.from_json(json.loads(json.dumps(m.to_json(), allow_nan=False))).confusion == m.confusion


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_batches_give_the_figures_of_the_whole(batch, seed):
    generator = torch.Generator().manual_seed(seed)
    labels, logits = torch.randint(0, 4, (23,), generator=generator), torch.randn(23, 4, generator=generator)
    running = RunningMetrics([200, 50, 10, 1])
    for _ in range(2):
        for part in torch.arange(23).split(batch):
            running.update(logits[part], labels[part])
        whole, parts = evaluate_predictions(logits, labels, [200, 50, 10, 1]).to_json(), running.compute().to_json()
        assert parts.pop("ece") == pytest.approx(whole.pop("ece"), abs=1e-12)
        assert parts == whole
        running.reset()


def test_batches_of_predictions_have_no_calibration_error():
    running = RunningMetrics([1, 1])
    running.update(torch.eye(2), torch.tensor([0, 1]))
    running.update(torch.tensor([1]), torch.tensor([0]))
    assert math.isnan(running.compute().ece) and running.compute().top1 == 2 / 3
    running.reset()
    with pytest.raises(UserError, match="metrics: no test images were seen; call update"):
        running.compute()


def test_json_holds_nan_as_null_and_ignores_more():
    values = evaluate_predictions(PREDICTED, LABELS, [500, 400, 300]).to_json()
    assert values["few"] is None
    assert json.loads(json.dumps(values, allow_nan=False))["confusion"][0] == [3, 1, 0]
    back = Metrics.from_json({**values, "params": 3})
    assert math.isnan(back.few)
    assert back.per_class == (0.75, 0.5, 0.0)


def test_longtailed_top1():
    assert longtailed_top1([0.9, 0.5, 0.1], [90, 9, 1]) == pytest.approx(0.9 * 0.9 + 0.09 * 0.5 + 0.01 * 0.1)
    assert longtailed_top1([0.9, math.nan], [90, 0]) == 0.9
    assert math.isnan(longtailed_top1([0.9, math.nan], [90, 10]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate_predictions(torch.zeros(0, 3), torch.tensor([]), [1] * 3), "labels: got shape"),
        (
            lambda: evaluate_predictions(torch.zeros(8, 4), LABELS, [1] * 3),
            r"outputs: got shape \(8, 4\) for 8 labels; wanted \(8, 3\) logits or \(8,\) predictions",
        ),
        (lambda: evaluate_predictions(torch.zeros(7, 3), LABELS, [1] * 3), r"outputs: got shape \(7, 3\)"),
        (lambda: evaluate_predictions(torch.zeros(8), LABELS, [1] * 3), r"outputs: got \(N,\) of torch.float32"),
        (lambda: evaluate_predictions(torch.full((8, 3), math.nan), LABELS, [1] * 3), "diverged"),
        (lambda: evaluate_predictions(PREDICTED, LABELS, [1] * 2), "labels: found class 0 … 2; .* wanted 0 … 1"),
        (lambda: evaluate_predictions(PREDICTED - 1, LABELS, [1] * 3), "outputs: found class -1 … 0"),
        (lambda: longtailed_top1([0.5], [1, 2]), "train_counts: got 2 counts"),
        (lambda: Metrics.from_json({"top1": 1.0}), "metrics: macro, .* missing"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
