"""Run directories read back: whole, half done, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_runs import GENOTYPE, demo_runs, search_run, training_run

from lt_nas_ext.errors import UserError
from lt_nas_ext.report.runs import read_networks, read_run


def test_the_networks_of_a_demo(tmp_path: Path) -> None:
    networks = read_networks(demo_runs(tmp_path))
    assert [n.name for n in networks] == ["SSF-NAS", "DARTS", "random genotype", "SmallConvNet"]
    assert [n.searched for n in networks] == [True, True, False, False]
    assert [n.label_free for n in networks] == [True, False, None, None]
    assert networks[0].genotype == GENOTYPE and len(networks[0].per_class) == 10


def test_a_directory_of_runs_stands_for_them(tmp_path: Path) -> None:
    demo_runs(tmp_path)
    assert {n.name for n in read_networks([tmp_path])} == {"SSF-NAS", "DARTS", "random genotype", "SmallConvNet"}


def test_a_retraining_named_with_its_search_is_one_network(tmp_path: Path) -> None:
    search = search_run(tmp_path / "a")
    training_run(search / "retrain")
    assert len(read_networks([search, search / "retrain", search])) == 1


def test_a_retraining_alone_is_called_after_its_search(tmp_path: Path) -> None:
    training_run(tmp_path / "mine" / "retrain", architecture={"name": "genotype"})
    assert read_networks([tmp_path / "mine" / "retrain"])[0].name == "mine"


def test_seeds_share_a_name_and_other_settings_do_not(tmp_path: Path) -> None:
    seeds = [search_run(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    assert [n.name for n in read_networks(seeds)] == ["SSF-NAS"] * 3
    longer = search_run(tmp_path / "long", epochs=5)
    assert {n.name for n in read_networks([*seeds, longer])} == {
        "SSF-NAS (s0)", "SSF-NAS (s1)", "SSF-NAS (s2)", "SSF-NAS (long)",
    }  # fmt: skip
    again = search_run(tmp_path / "again", seed=0)
    assert {n.name for n in read_networks([seeds[0], again])} == {"SSF-NAS (s0)", "SSF-NAS (again)"}


def test_a_run_at_work_has_what_it_has(tmp_path: Path) -> None:
    path = search_run(tmp_path / "a", epochs=2, finished=False)
    with open(path / "history.jsonl", "a") as history:
        history.write('{"epoch": 2, "train_lo')  # killed while it wrote
    run = read_run(path)
    assert (len(run.history), run.finished, run.genotype) == (2, False, None)
    (path / "history.jsonl").unlink()
    assert read_run(path).history == () and read_run(path).seconds is None


@pytest.mark.parametrize("damage", ["{", "[1, 2]", '{"normal": 3}'])
def test_damaged_results_count_as_missing(tmp_path: Path, damage: str) -> None:
    path = search_run(tmp_path / "a")
    for name in ("metrics.json", "genotype.json"):
        (path / name).write_text(damage)
    run = read_run(path)
    assert run.genotype is None
    assert dict(run.metrics) == (json.loads(damage) if damage.startswith('{"') else {})


def test_series_leave_out_what_is_no_number(tmp_path: Path) -> None:
    path = training_run(tmp_path / "a", epochs=3)
    rows = [
        {"phase": "pretrain", "train_loss": 9.0},
        {"phase": "train", "train_loss": 1.0, "test_macro": None},
        {"phase": "train", "train_loss": float("nan"), "test_macro": 0.5},
    ]
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(path)
    assert run.series("train_loss") == ([1], [1.0])
    assert run.series("train_loss", phase="pretrain") == ([1], [9.0])
    assert run.series("test_macro", "test_top1") == ([2], [0.5])
    assert run.series("nothing") == ([], [])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "is not a directory"),
        (lambda path: path.mkdir(), "holds no run"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{")), "is not valid JSON"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[]")), "is not valid JSON"),
    ],
)
def test_what_is_no_run_is_said(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "a"
    make(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        read_networks([path])
