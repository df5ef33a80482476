"""Table 1 and the verification at a tiny scale: from images to tables, pictures and results, and killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from test_experiments_queue import until
from tiny_studies import PLAN, RUNS, SETTINGS, InThisProcess

from lt_nas_ext import cli
from lt_nas_ext.engine.retrain_presets import retrain_preset
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import series as lt_series
from lt_nas_ext.experiments import table1 as lt_table1
from lt_nas_ext.experiments.queue import QueueInterrupted
from lt_nas_ext.experiments.sections import PaperStudy
from lt_nas_ext.experiments.settings import VERIFICATION, StudySettings
from lt_nas_ext.experiments.table1 import METHODS, run_table1, table1_plan
from lt_nas_ext.experiments.verification import run_verification, verification_plan
from lt_nas_ext.methods import preset
from lt_nas_ext.report.tables import COLUMNS, Row
from lt_nas_ext.space import Genotype

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # tiny searches warn of gates that cannot move

ROWS = ["DARTS", "FairDARTS", "SSF-NAS", "random genotypes", "SmallConvNet"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PaperStudy]:
    """The study, uninterrupted."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lt_series, "run_queue", InThisProcess())
        return out, run_table1(out, SETTINGS, plan=PLAN)


def figures(out: Path) -> dict[str, Any]:
    """Every final figure of a study but its times."""
    found = {}
    for path in sorted(out.rglob("metrics.json")):
        content = json.loads(path.read_text())
        found[path.parent.relative_to(out).as_posix()] = {k: v for k, v in content.items() if k != "seconds"}
    return found


def test_tables_pictures_and_results(whole: tuple[Path, PaperStudy]) -> None:
    out, study = whole
    assert study.heading == "Table 1 on digits: smoke, not evidence (scale 0.2)"
    ((title, results, columns),) = study.tables
    assert title == "exp μ = 0.1: 103 training images, 26 … 2 a class"
    assert [(row.network, row.seeds, row.state) for row in results] == [
        (name, 2 if name == "random genotypes" else 1, "") for name in ROWS
    ]
    assert "[paper]" not in [column.title for column in columns]  # digits are not the paper's images
    assert [one.name for one in study.differences[title]] == [
        "FairDARTS - DARTS", "SSF-NAS - DARTS", "SSF-NAS - FairDARTS",
        *(f"{name} - {control}" for name in ROWS[:3] for control in ROWS[3:]),
    ]  # fmt: skip

    content = json.loads((out / "results.json").read_text())
    assert [entry["run"] for entry in content["networks"]] == RUNS
    for entry in content["networks"]:
        assert entry["devices"] and entry["train_seconds"] > 0 and 0 <= entry["top1"] <= 1
        assert (entry["search_seconds"] is None) == (entry["run"] not in METHODS)
    assert content["plan"]["training"]["epochs"] == 2 and content["images"]["test"] == 10

    pictures = {path.stem for path in out.glob("*.svg")}
    cells = {f"figure-9-cells-{name}-exp-0.1-seed-0" for name in METHODS}
    assert pictures == {"figure-6-distributions", "figure-7-supernet", "figure-8-training"} | cells
    page = study.report.read_text(encoding="utf-8")
    assert study.report == (out / "report.html").absolute() and page.count("<svg") == len(pictures)
    assert not re.search(r'(src|href)="(?!#)', page)  # it asks no server for anything
    assert "Smoke, not evidence: scale 0.2, search epochs darts 2" in page
    assert "lt-nas reproduce table1 --data digits --seeds 1 --scale 0.2 --device cpu --out" in page
    assert (out / "table.md").read_text().startswith(f"## {study.heading}\n\n**{title}**\n\n| network | runs |")


def test_the_threshold_that_keeps_no_edge_is_told(whole: tuple[Path, PaperStudy]) -> None:
    out, study = whole
    rules = {name: Genotype.load(out / f"exp-0.1/seed-0/{name}/genotype.json").rule for name in METHODS}
    assert rules == {"darts": "top2", "fair-darts": "top2", "ssf-nas": "top2"}
    config = json.loads((out / "exp-0.1/seed-0/fair-darts/config.json").read_text())
    assert config["settings"]["rule"] == "top2" and PLAN.searches["fair-darts"].rule == "threshold_sparse"
    assert "left a cell without an operation" in study.report.read_text(encoding="utf-8")


def test_what_is_done_is_kept_and_seeds_are_added(
    whole: tuple[Path, PaperStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, study = whole
    queue = InThisProcess()
    monkeypatch.setattr(lt_series, "run_queue", queue)
    again = run_table1(out, SETTINGS, plan=PLAN)
    assert queue.names == [] and [rows for _, rows, _ in again.tables] == [rows for _, rows, _ in study.tables]
    for other, message in (
        ({"scale": 0.3}, r"scale \(was 0.2, now 0.3\)"),
        ({"data": "digits", "scale": 1.0}, r"scale \(was 0.2, now 1.0\)"),
    ):
        with pytest.raises(UserError, match=f"holds another study: .*{message}"):
            run_table1(out, replace(SETTINGS, **other), plan=PLAN)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"training.channels \(was 2, now 3\)"):
        run_table1(out, SETTINGS, plan=replace(PLAN, training=replace(PLAN.training, channels=3)))
    with pytest.raises(UserError, match=r"study \(was 'table1', now 'verification'\)"):
        run_verification(out, SETTINGS, plan=PLAN)
    assert queue.names == []


def test_two_seeds_are_a_mean_with_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lt_series, "run_queue", InThisProcess())
    plan = replace(PLAN, searches={"darts": PLAN.searches["darts"]}, random=2, controls=())
    study = run_table1(tmp_path, replace(SETTINGS, seeds=2), plan=plan)
    ((_, (darts, random), _),) = study.tables
    assert (darts.seeds, random.seeds) == (2, 4)
    ((only,),) = study.differences.values()
    means = [100 * (random.top1[s] + random.top1[2 + s]) / 2 for s in range(2)]
    assert only.values == pytest.approx([100 * darts.top1[s] - means[s] for s in range(2)])
    assert only.interval == pytest.approx((min(only.values), max(only.values)))
    drawn = {(tmp_path / f"exp-0.1/seed-{s}/random-{k}/genotype.json").read_text() for s in (0, 1) for k in (0, 1)}
    assert len(drawn) == 4


def test_the_papers_numbers_stand_beside_its_images_only(
    whole: tuple[Path, PaperStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(lt_series, "run_queue", InThisProcess())
    monkeypatch.setattr(lt_table1, "_concluded", seen.append)
    run_table1(whole[0], SETTINGS, plan=PLAN)
    monkeypatch.undo()
    series = replace(seen[0], images=replace(seen[0].images, title="CIFAR-10 JPEG-Q75"))
    monkeypatch.setattr(lt_table1, "conclude", lambda *args: args)
    _, _, notes, tables, differences, _, _, _ = lt_table1._concluded(series)
    ((_, results, columns),) = tables
    shown = next(column for column in columns if column.title == "[paper]")
    assert [shown.show(row) for row in results] == ["78.26", "79.35", "82.64", "–", "–"]
    assert [one.paper for one in next(iter(differences.values()))][:4] == pytest.approx([1.09, 4.38, 3.29, None])
    assert notes[-1].startswith("CIFAR-10 JPEG-Q75: the images of CIFAR-10 as JPEG")


def test_the_paper_s_plan() -> None:
    plan = table1_plan(StudySettings())
    assert {name: (s.preset, s.epochs, s.test_every) for name, s in plan.searches.items()} == {
        "darts": ("darts", 40, 1), "fair-darts": ("authors-fairdarts", 40, 1), "ssf-nas": ("paper-ssf", 40, 1),
    }  # fmt: skip
    for name, chosen in METHODS.items():  # literal but for the epochs
        assert replace(plan.searches[name], epochs=0 or preset(chosen).epochs, test_every=0) == preset(chosen)
    assert (plan.training.epochs, plan.random, plan.controls) == (150, 5, ("resnet32", "darts-v2"))
    assert plan.training == retrain_preset("default")
    assert table1_plan(StudySettings(size="paper")).training == replace(retrain_preset("darts"), epochs=150)
    small = plan.scaled(0.03)
    assert {s.epochs for s in small.searches.values()} == {2} and small.training.epochs == 4
    assert table1_plan(StudySettings(), 20).scaled(0.25).pretrain_epochs == 5
    assert plan.scaled(0.5).pretrain_epochs == 0
    digits = table1_plan(StudySettings(data="digits"))
    assert {s.epochs for s in digits.searches.values()} == {40} and digits.training.epochs == 150
    assert verification_plan(VERIFICATION) == replace(
        plan, searches={"darts": plan.searches["darts"]}, controls=(), random=0
    )


def test_verification_is_darts_over_the_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lt_series, "run_queue", InThisProcess())
    settings = replace(SETTINGS, distributions=("balance", "exp-0.1"))
    plan = replace(PLAN, searches={"darts": PLAN.searches["darts"]}, random=0, controls=())
    study = run_verification(tmp_path, settings, plan=plan)
    ((title, results, columns),) = study.tables
    assert title.startswith("balance: 260 training images, 26 … 26 a class; exp μ = 0.1: 103")
    assert [row.network for row in results] == ["balance", "exp μ = 0.1"]
    cells = {column.title: [column.show(row) for row in results] for column in columns}
    last = [
        json.loads((tmp_path / name / "seed-0/darts/history.jsonl").read_text().splitlines()[-1])
        for name in ("balance", "exp-0.1")
    ]
    assert cells["supernet"] == [f"{100 * row['test_accuracy']:.1f}" for row in last]
    assert cells["supernet, long-tailed"] == [f"{100 * row['test_longtailed_accuracy']:.1f}" for row in last]
    ((cost,),) = study.differences.values()
    assert cost.name == "balance - exp μ = 0.1"
    assert cost.values == pytest.approx([100 * (results[0].top1[0] - results[1].top1[0])])
    assert study.report.read_text(encoding="utf-8").count("<svg") == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"distributions": ("exp-0.01",)},
            "exp-0.01 at scale 0.2 leaves no image of some class, .* wanted other distributions",
        ),
        ({"distributions": ("step-0.01",), "scale": 1.0}, "step-0.01 at scale 1 leaves 1 image of some class"),
        ({"scale": 0.08}, "exp-0.1 at scale 0.08 leaves 1 image of some class, .* a scale of at least 0.16"),
        ({"data": "folder", "root": Path("no/where")}, "root: .*no/where is not a directory"),
        ({"device": "tpu"}, "device: got 'tpu'"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_table1(tmp_path / "out", replace(SETTINGS, **changes), plan=PLAN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mnist"}, "data: got 'mnist'; wanted one of 'cifar10', 'folder', 'digits'"),
        ({"scale": 0.0}, "scale: got 0.0; wanted a number above 0"),
        ({"scale": 1.5}, "scale: got 1.5; wanted a share"),
        ({"seeds": 0}, "seeds: got 0"),
        ({"jobs": 0}, "jobs: got 0"),
        ({"minutes": 0}, "minutes: got 0; wanted a number above 0"),
        ({"size": "big"}, "size: got 'big'"),
        ({"distributions": ()}, "distributions: got ()"),
        ({"distributions": ("exp-0.5",)}, "wanted some of balance, exp-0.1, exp-0.01, step-0.01"),
        ({"distributions": ("balance", "balance")}, "wanted each once"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        StudySettings(**changes)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_studies import PLAN, SETTINGS
from lt_nas_ext.experiments.table1 import run_table1
run_table1(Path(sys.argv[2]), replace(SETTINGS, jobs=1), plan=PLAN)
"""


@pytest.mark.timeout(900)
def test_killed_at_any_moment_it_ends_with_the_same_figures(
    tmp_path: Path, whole: tuple[Path, PaperStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL to all its processes: in the first search, between two runs, in a training; then it ends."""
    out = tmp_path / "killed"

    def epochs() -> int:
        return sum(len(path.read_text().splitlines()) for path in out.rglob("history.jsonl"))

    for least in (1, 4, 9):
        words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(out)]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            assert until(lambda: epochs() >= least, 240), "it does not go on"  # noqa: B023
            time.sleep(0.05 * least)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert figures(out) != figures(whole[0])
    queue = InThisProcess()
    monkeypatch.setattr(lt_series, "run_queue", queue)
    study = run_table1(out, SETTINGS, plan=PLAN)
    assert 0 < len(queue.names) < 9  # something was kept
    assert figures(out) == figures(whole[0])
    assert [r.top1 for r in study.tables[0][1]] == [r.top1 for r in whole[1].tables[0][1]]


def test_minutes_end_it_with_a_code_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[float] = []

    def queue(jobs: Any, out: Path, workers: int, title: str, board: object, until: float, done: object) -> None:
        asked.append(until - time.monotonic())
        raise QueueInterrupted(out, 2, len(jobs), "the time is over")

    monkeypatch.setattr(lt_series, "run_queue", queue)
    words = ["reproduce", "table1", "--data", "digits", "--seeds", "1", "--minutes", "9", "--out", str(tmp_path)]
    assert cli.main(words) == 130
    err = capsys.readouterr().err.splitlines()
    assert err[-2].endswith(f"the time is over with 2 of 13 runs done, the others saved as they stand in {tmp_path}")
    assert err[-1].endswith(
        f"continue with: {'lt-nas' if 'lt-nas' in err[-1] else 'python -m lt_nas_ext'} {' '.join(words)}"
    )
    assert cli.main([*words, "--minutes", "0.5"]) == 130
    assert 8 * 60 < asked[0] <= 8.25 * 60 and 0 < asked[1] <= 15


def test_the_shell_prints_the_report_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def study(*args: Any) -> PaperStudy:
        asked.extend(args)
        row = Row("DARTS", "with labels", 1, top1=(0.5,))
        return PaperStudy("Table 1 on digits", [("exp", [row], list(COLUMNS[:1]))], {"exp": []}, tmp_path / "r.html")

    monkeypatch.setattr(lt_table1, "run_table1", study)
    words = ["--data", "digits", "--distributions", "balance", "exp-0.1", "--pretrain-epochs", "3", "--carry", "c"]
    assert cli.main(["reproduce", "table1", *words, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Table 1 on digits" and lines[-1] == str(tmp_path / "r.html")
    wanted = StudySettings(data="digits", distributions=("balance", "exp-0.1"), carry=Path("c"))
    assert (asked[0], asdict(asked[1]), asked[2]) == (tmp_path, asdict(wanted), 3)


def test_pretraining_below_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pretrain_epochs: got -1; wanted a whole number, at least 0"):
        run_table1(tmp_path / "out", SETTINGS, pretrain_epochs=-1)
