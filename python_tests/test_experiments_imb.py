"""The study of adaptations at a tiny scale: from images to tables, pictures and results; killed, and carried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_settings
from tiny_studies import InThisProcess

from lt_nas_ext import cli
from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import imb as lt_imb
from lt_nas_ext.experiments.imb import ImbStudy, imb_plan, run_imb
from lt_nas_ext.experiments.imb_runs import FULL, STRATEGIES, ImbPlan, jobs, places
from lt_nas_ext.experiments.imb_settings import ImbSettings
from lt_nas_ext.experiments.queue import QueueInterrupted
from lt_nas_ext.methods import AdaptSettings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # tiny searches warn of gates that cannot move

SETTINGS = ImbSettings(data="digits", targets=("exp-0.1",), device="cpu")
PLAN = ImbPlan(
    search=tiny_settings("darts", epochs=2, batch_size=64, channels=2, layers=3, nodes=1),
    adapt=AdaptSettings(epochs=2, subnets=4, calibration_images=64),
    training=RetrainSettings(epochs=1, channels=2, layers=1),
)
ROWS = [FULL, *(strategy.title for strategy in STRATEGIES)]


@pytest.fixture(scope="module", autouse=True)
def few_images() -> Iterator[None]:
    """A fifth of the digits, for the tests' sake."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImbSettings, "image_scale", 0.2)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImbStudy]:
    """The study, uninterrupted."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lt_imb, "run_queue", InThisProcess())
        return out, run_imb(out, SETTINGS, PLAN)


def figures(out: Path) -> dict[str, Any]:
    """Every final figure but times."""
    found = {}
    for path in sorted(out.rglob("metrics.json")):
        content = json.loads(path.read_text())
        found[path.parent.relative_to(out).as_posix()] = {k: v for k, v in content.items() if "seconds" not in k}
    return found


def test_tables_pictures_and_results(whole: tuple[Path, ImbStudy]) -> None:
    out, study = whole
    assert study.heading == "Adapting a supernet on digits"
    table, balance = study.tables
    assert table.title == "exp μ = 0.1: 103 training images, 26 … 2 a class"
    assert [line[0] for line in table.lines] == ROWS and [line[0] for line in balance.lines] == ["exp μ = 0.1"]
    assert table.lines[0][5] == "–" and all(line[5].endswith(" %") for line in table.lines[1:])
    assert {path.stem for path in out.glob("*.svg")} == {"figure-balanced-imbalanced", "figure-ranking"}
    page, text = (out / "report.html").read_text(), (out / "table.md").read_text()
    assert "is not evidence" not in page and all(row in page and f"| {row} |" in text for row in ROWS)
    assert "lt-nas reproduce imb --data digits --targets exp-0.1 --device cpu" in page

    content = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    outcomes = content["outcomes"]["exp-0.1"]
    assert [*outcomes] == ROWS and len(content["alone"]["balance"][0]) == 4 == len(content["genotypes"]["0"])
    for row, (one,) in outcomes.items():
        assert 0 <= one["macro"] <= 1 and one["train_seconds"] >= 0 and one["full_seconds"] > 0
        assert one["chosen"] in [*content["alone"]["exp-0.1"][0], content["searched"]["exp-0.1"][0]] or row == FULL
    assert outcomes["as is, head kept"][0]["train_seconds"] == 0


def test_every_supernet_ranks_what_is_trained_alone(whole: tuple[Path, ImbStudy]) -> None:
    out, _ = whole
    found = {str(genotype) for genotype in PLAN.genotypes(0)}
    trained = set()
    for k in range(4):
        config = json.loads((out / "exp-0.1" / "seed-0" / f"net-{k:02d}" / "config.json").read_text())
        trained.add(json.dumps(config["architecture"]["genotype"]["normal"]))
    assert len(found) == 4 and len(trained) > 1
    for strategy in STRATEGIES:
        rows = (out / "exp-0.1" / "seed-0" / strategy.name / "ranking.csv").read_text()
        assert all(genotype in rows.replace('""', '"') for genotype in found)


def test_another_study_is_refused(whole: tuple[Path, ImbStudy]) -> None:
    with pytest.raises(UserError, match=r"holds another study: adapt\.subnets \(was 4, now 5\)"):
        run_imb(whole[0], SETTINGS, replace(PLAN, adapt=replace(PLAN.adapt, subnets=5)))


def test_carried_it_goes_on(whole: tuple[Path, ImbStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supernet of the source travels: adaptations on another machine start from it. Half a scale changes the
    heading, and of so small a plan no number."""
    carried = replace(SETTINGS, carry=tmp_path / "carry", scale=0.5)

    def some(queue: Any, out: Path, *rest: Any) -> None:
        InThisProcess(most=7)(queue, out, *rest)
        raise QueueInterrupted(out, 7, len(queue))

    monkeypatch.setattr(lt_imb, "run_queue", some)
    with pytest.raises(QueueInterrupted):
        run_imb(tmp_path / "first", carried, PLAN)
    second = InThisProcess()
    monkeypatch.setattr(lt_imb, "run_queue", second)
    study = run_imb(tmp_path / "second", carried, PLAN)
    assert len(second.names) == len(places(PLAN, ["exp-0.1"], 1)) - 7
    assert figures(tmp_path / "second") == figures(whole[0])
    assert study.heading.endswith("smoke, not evidence (scale 0.5)")
    assert "Smoke, not evidence" in (tmp_path / "second" / "report.html").read_text()


def test_jobs_wait_for_what_they_start_from() -> None:
    images = lt_imb.survey("digits", None, 0.2, SETTINGS.distributions)
    queue = jobs(Path("out"), images, PLAN, ["exp-0.1"], 2)
    assert {job.name for job in queue} == {place.title for place in places(PLAN, ["exp-0.1"], 2)}
    seen: set[str] = set()
    for job in queue:
        assert job.after <= seen
        seen.add(job.name)


def test_two_seeds_are_a_mean(whole: tuple[Path, ImbStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = whole
    monkeypatch.setattr(lt_imb, "run_queue", InThisProcess())
    study = run_imb(out, replace(SETTINGS, seeds=2), PLAN)
    assert all("±" in line[1] for line in study.tables[0].lines)


@pytest.mark.parametrize(("scale", "epochs", "subnets"), [(1.0, 40, 30), (0.5, 20, 15), (0.2, 8, 8), (0.01, 2, 8)])
def test_the_plan_and_its_scale(scale: float, epochs: int, subnets: int) -> None:
    for data in ("digits", "cifar10"):
        plan = imb_plan(ImbSettings(data=data)).scaled(scale)
        assert (plan.search.epochs, plan.adapt.epochs, plan.adapt.subnets) == (epochs, epochs, subnets)
    assert ImbSettings(data="digits").chosen == ("exp-0.1", "step-0.1", "exp-0.02", "step-0.02")
    assert ImbSettings().distributions == ("balance", "exp-0.1", "step-0.1", "exp-0.01", "step-0.01")


def test_the_shell_prints_the_report_last(
    whole: tuple[Path, ImbStudy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, study = whole
    monkeypatch.setattr(lt_imb, "run_imb", lambda *_: study)
    assert cli.main(["reproduce", "imb", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == str(study.report) and all(row in shown for row in ROWS)
