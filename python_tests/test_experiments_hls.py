"""The HLS study at a tiny scale: from images to tables and pictures; what continues HLS begins where that ended."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tiny_runs import TINY, Silent
from tiny_studies import InThisProcess

from lt_nas_ext import cli
from lt_nas_ext.engine import RetrainSettings
from lt_nas_ext.engine.retrain_presets import retrain_preset
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import hls as lt_hls
from lt_nas_ext.experiments import hls_page
from lt_nas_ext.experiments import series as lt_series
from lt_nas_ext.experiments.carry import pack, unpack
from lt_nas_ext.experiments.hls import CONTINUED, PRESETS, hls_plan, run_hls
from lt_nas_ext.experiments.hls_tables import PAPER, search_differences, search_table
from lt_nas_ext.experiments.images import survey
from lt_nas_ext.experiments.networks import Place, jobs, needed, places, read, search
from lt_nas_ext.experiments.sections import PaperStudy
from lt_nas_ext.experiments.settings import HLS, StudySettings
from lt_nas_ext.experiments.table1 import run_table1
from lt_nas_ext.methods import preset
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.report.runs import Network
from lt_nas_ext.report.tables import COLUMNS, Column, Row
from lt_nas_ext.space import BbnGenotype, Genotype, load_genotype

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # tiny searches warn of gates that cannot move
    pytest.mark.timeout(900),  # the study is 30 runs: half a minute, and ten on a machine that others keep busy
]

SETTINGS = replace(HLS, data="digits", seeds=1, scale=0.2, device="cpu")
_SEARCH: dict[str, Any] = {**TINY, "epochs": 2, "continuous_epochs": 2, "batch_size": 24}
_WHOLE = hls_plan(SETTINGS)
PLAN = replace(
    _WHOLE,
    searches={row: overridden(settings, _SEARCH) for row, settings in _WHOLE.searches.items()},
    training=RetrainSettings(epochs=1, channels=2, layers=3, device="cpu"),
)
ROWS = [
    "DARTS", "DARTS + re-sampling", "DARTS + re-weighting", "DARTS + BBN", "HLS", "HLS + reverse sigmoid",
    "HLS + continuous: r = 0", "HLS + continuous: r = ½", "HLS + continuous: reverse sigmoid",
    "HLS + continuous: frozen backbone",
]  # fmt: skip
HEADS = ROWS[3:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PaperStudy]:
    """The study, uninterrupted."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lt_series, "run_queue", InThisProcess())
        return out, run_hls(out, SETTINGS, PLAN)


def history(out: Path, row: str) -> list[dict[str, Any]]:
    path = out / "exp-0.1/seed-0" / row / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the epochs computed; the norms are those of each search's last epoch."""
    left_out = {"seconds", "peak_memory_mb", "alpha_gradient_norms"}
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def cells(results: Sequence[Row], columns: Sequence[Column]) -> dict[str, dict[str, str]]:
    return {row.network: {column.title: column.show(row) for column in columns} for row in results}


def test_supernets_at_search_time(whole: tuple[Path, PaperStudy]) -> None:
    out, study = whole
    assert study.heading == "DARTS + BBN and HLS on digits: smoke, not evidence (scale 0.2)"
    title, results, columns = study.tables[0]
    assert title == "exp μ = 0.1: 103 training images, 26 … 2 a class: supernets at search time"
    assert [row.network for row in results] == ROWS
    assert "[paper]" not in [column.title for column in columns]  # digits are not the paper's images
    for row, shown in zip(PLAN.searches, cells(results, columns).values(), strict=True):
        last = history(out, row)[-1]
        assert shown["top-1"] == f"{100 * last['test_accuracy']:.1f}"
        if row not in (*CONTINUED, "darts+bbn", "hls", "hls-reverse-sigmoid"):
            assert (shown["ratio"], shown["class head"], shown["best on test"]) == ("–", "–", "–")
            continue
        test, val = last["test_readings"], last["val_macro_readings"]
        assert val[shown["ratio"]] == max(val.values())
        assert last["test_accuracy"] == pytest.approx(test[shown["ratio"]])
        assert shown["class head"] == f"{100 * test['0']:.1f}"
        assert shown["best on test"] == f"{100 * max(test.values()):.1f}"


def test_what_is_chosen_and_what_is_not(whole: tuple[Path, PaperStudy]) -> None:
    """Two seeds whose heads say different things; the table takes each at its own ratio."""
    place, network = read(whole[0], [Place("exp-0.1", 0, "hls", "retrain-bbn")])[0]
    assert network.search is not None
    made = []
    for seed, (ratio, at_ratio, best) in enumerate([("0.3", 0.5, 0.75), ("1", 0.25, 0.5)]):
        readings = {**dict.fromkeys(map(str, range(2)), 0.125), "0.6": best, ratio: at_ratio}
        last = {**network.search.history[-1], "test_readings": readings, "test_accuracy": at_ratio}
        run = replace(network.search, history=(last,), metrics={"reading": ratio})
        made.append((place._replace(seed=seed), replace(network, search=run)))
    _, results, columns = search_table("", made, {})
    ((_, shown),) = cells(results, columns).items()
    assert (shown["top-1"], shown["ratio"]) == ("37.5 ± 17.7", "0.3, 1")
    assert (shown["class head"], shown["best on test"]) == ("12.5 ± 0.0", "62.5 ± 17.7")


def test_what_was_found_as_two_networks(whole: tuple[Path, PaperStudy]) -> None:
    out, study = whole
    assert [title.rpartition(": ")[2] for title, _, _ in study.tables[1:]] == [
        "trained as a BBN network", "trained as a plain network",
    ]  # fmt: skip
    for (_, results, _), derived in zip(study.tables[1:], ("bbn", "plain"), strict=True):
        assert [row.network for row in results] == ROWS
        for row, name in zip(results, PLAN.searches, strict=True):
            run = out / "exp-0.1/seed-0" / name / f"retrain-{derived}"
            found, trained = load_genotype(run.parent / "genotype.json"), load_genotype(run / "genotype.json")
            assert row.top1 == (json.loads((run / "metrics.json").read_text())["top1"],)
            backbone = found.backbone if isinstance(found, BbnGenotype) else found
            assert isinstance(found, BbnGenotype) == (row.network in HEADS)
            if derived == "plain":
                assert trained == backbone
            elif isinstance(found, Genotype):
                assert trained == BbnGenotype(found, found.normal, found.normal)
            else:
                assert trained == found
    with_heads, plain = (table[1] for table in study.tables[1:])
    assert all(a.params[0] > b.params[0] for a, b in zip(with_heads, plain, strict=True))


def test_differences_are_paired(whole: tuple[Path, PaperStudy]) -> None:
    _, study = whole
    supernets, with_heads, plain, both = study.differences.values()
    assert [one.name for one in with_heads] == [one.name for one in plain] == [
        *(f"{row} - DARTS" for row in ROWS[1:]), "HLS - DARTS + BBN", "HLS + reverse sigmoid - HLS",
    ]  # fmt: skip
    assert [one.name for one in supernets] == [one.name for one in plain] + [f"{row} - HLS" for row in ROWS[6:]]
    top1 = {row.network: row.top1[0] for row in study.tables[2][1]}
    assert plain[3].values == pytest.approx([100 * (top1["HLS"] - top1["DARTS"])])
    assert [one.name for one in both] == [f"{row} as a BBN network - {row} as a plain network" for row in ROWS]
    assert both[4].values == pytest.approx([100 * (study.tables[1][1][4].top1[0] - top1["HLS"])])


def test_pictures_page_and_results(whole: tuple[Path, PaperStudy]) -> None:
    out, study = whole
    named = ("2-epochs", "3-7-weights", "4-6-ratio", "5-factor", "8-continued")
    pictures = {f"figure-{name}-exp-0.1" for name in named} | {"training-images"}
    pictures |= {f"cells-{row}-exp-0.1-seed-0" for row in PLAN.searches}
    assert {path.stem for path in out.glob("*.svg")} == pictures
    for path in out.glob("*.svg"):
        ElementTree.parse(path)
    page = study.report.read_text(encoding="utf-8")
    assert page.count("<svg") == len(pictures)
    assert not re.search(r'(src|href)="(?!#|data:image/png;base64,)', page)  # it asks no server for anything
    assert "Smoke, not evidence: scale 0.2, search epochs darts 2" in page and "hls-then-half 2 + 2, " in page
    assert "lt-nas reproduce hls --data digits --distributions exp-0.1 --seeds 1 --scale 0.2 --device cpu --out" in page
    assert "a selection on test data, which flatters" in page and "DARTS + BBN 52.14, HLS 65.12" in page
    text = (out / "table.md").read_text()
    assert text.startswith(f"## {study.heading}\n\n**{study.tables[0][0]}**\n\n| search | runs |")
    assert text.count("| HLS + continuous: r = ½ |") == 3
    content = json.loads((out / "results.json").read_text())
    assert [(one["run"], one["trained"]) for one in content["networks"]] == [
        (row, derived) for row in PLAN.searches for derived in ("bbn", "plain")
    ]
    assert [one["run"] for one in content["searches"]] == list(PLAN.searches)
    hls = content["searches"][4]
    assert len(hls["test"]) == len(hls["validation"]) == len(hls["validation_macro"]) == 11
    assert hls["test"][str(hls["chosen_ratio"])] == pytest.approx(hls["test_accuracy"])


def test_what_continues_hls_begins_where_it_ended(whole: tuple[Path, PaperStudy], tmp_path: Path) -> None:
    """Its first epochs are not done again (they took the same time), and are what they would be."""
    out, _ = whole
    images, hls = survey("digits", None, 0.2, ("exp-0.1",)), history(out, "hls")
    for row in CONTINUED:
        assert history(out, row)[: len(hls)] == hls and len(history(out, row)) == len(hls) + 2
    assert [row["mixing_ratio"] for row in history(out, "hls-then-half")] == [1.0, 0.75, 0.5, 0.5]
    settings = replace(PLAN.searches["hls-then-half"], seed=0)
    alone = tmp_path / "exp-0.1/seed-0/alone"
    search(alone, images, "exp-0.1", settings, lambda phase: Silent(), begin=tmp_path / "gone")
    assert untimed(history(tmp_path, "alone")) == untimed(history(out, "hls-then-half"))


def test_what_is_done_is_kept(whole: tuple[Path, PaperStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    out, study = whole
    queue = InThisProcess()
    monkeypatch.setattr(lt_series, "run_queue", queue)
    again = run_hls(out, SETTINGS, PLAN)
    assert queue.names == [] and [rows for _, rows, _ in again.tables] == [rows for _, rows, _ in study.tables]
    with pytest.raises(UserError, match=r"holds another study: .*hls.hls_k \(was 1.0, now 2.0\)"):
        other = {**PLAN.searches, "hls": replace(PLAN.searches["hls"], hls_k=2.0)}
        run_hls(out, SETTINGS, replace(PLAN, searches=other))
    with pytest.raises(UserError, match=r"study \(was 'hls', now 'table1'\)"):
        run_table1(out, replace(SETTINGS, distributions=("exp-0.1",)), plan=PLAN)


def test_carried_between_hls_and_what_continues_it(whole: tuple[Path, PaperStudy], tmp_path: Path) -> None:
    """HLS is done, and its checkpoint goes along where there is room; without it its epochs are done again."""
    first, asked = tmp_path / "first", (PLAN.scaled(0.2), ("exp-0.1",), 1)
    kept = first / "exp-0.1/seed-0/hls"
    shutil.copytree(whole[0] / "exp-0.1/seed-0/hls", kept)
    shutil.copy(whole[0] / "study.json", first)
    assert needed(first, *asked) == {kept} and (kept / "metrics.json").exists()
    pack(first, tmp_path / "roomy", needed=[kept])
    most = sum(path.stat().st_size for path in (tmp_path / "roomy").iterdir()) - 1
    assert pack(first, tmp_path / "narrow", all_bytes=most, needed=[kept]) == []  # nothing is rounded
    images = survey("digits", None, 0.2, ("exp-0.1",))
    last = []
    for name, there in (("roomy", True), ("narrow", False)):
        out = tmp_path / f"from {name}"
        unpack(tmp_path / name, out)
        assert (out / "exp-0.1/seed-0/hls/checkpoint.pt").exists() == there
        continued = next(job for job in jobs(out, images, *asked) if job.name.startswith("HLS + continuous: r = ½"))
        continued.work(lambda phase: Silent())
        assert (history(out, "hls-then-half")[0] == history(out, "hls")[0]) == there  # to the second
        assert needed(out, *asked) == {out / "exp-0.1/seed-0/hls"}  # of the other three
        last.append(untimed(history(out, "hls-then-half")))
    assert last[0] == last[1] == untimed(history(whole[0], "hls-then-half"))


def test_what_waits_for_what(tmp_path: Path) -> None:
    images = survey("digits", None, 0.2, ("exp-0.1",))
    queue = jobs(tmp_path, images, PLAN, ("exp-0.1",), 1)
    assert len(queue) == len({job.name for job in queue}) == 10 + 20
    where = "exp μ = 0.1, seed 0"
    after = {job.name: job.after for job in queue}
    assert after[f"HLS + continuous: r = 0, {where}: search"] == {f"HLS, {where}: search"}
    assert after[f"HLS + reverse sigmoid, {where}: search"] == set()
    assert after[f"DARTS as a BBN network, {where}"] == {f"DARTS, {where}: search"}
    assert len(places(PLAN, ("exp-0.1",), 2)) == 40


def test_the_paper_s_plan() -> None:
    plan = hls_plan(HLS)
    assert HLS.distributions == ("exp-0.01",) and list(plan.searches) == [*PRESETS, *CONTINUED]
    for row, name in PRESETS.items():  # literal
        assert replace(plan.searches[row], test_every=0) == preset(name)
    assert {row: settings.continuous for row, settings in plan.searches.items() if row in CONTINUED} == CONTINUED
    for row in CONTINUED:
        assert replace(plan.searches[row], continuous="none", preset="paper-hls") == plan.searches["hls"]
    assert plan.training == replace(retrain_preset("default"), epochs=150)
    paper = hls_plan(StudySettings(size="paper")).training
    assert paper == replace(retrain_preset("darts"), epochs=150, auxiliary=0.0)
    small = plan.scaled(0.25)
    assert {s.epochs for s in small.searches.values()} == {12} and small.training.epochs == 38
    assert {small.searches[row].continuous_epochs for row in CONTINUED} == {2}
    digits = hls_plan(StudySettings(data="digits"))
    assert {s.epochs for s in digits.searches.values()} == {20} and digits.training.epochs == 40


def test_the_papers_numbers_stand_beside_its_images_only(
    whole: tuple[Path, PaperStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[tuple[Place, Network]] = read(whole[0], places(PLAN, ("exp-0.1",), 1))
    _, results, columns = search_table("", networks, PAPER)
    assert [cells(results, columns)[row]["[paper]"] for row in ROWS] == [
        "64.56", "61.20", "–", "52.14", "65.12", "61.85", "63.12", "–", "–", "–",
    ]  # fmt: skip
    differences = {one.name: one.paper for one in search_differences(networks, PAPER)}
    assert differences["HLS - DARTS"] == pytest.approx(0.56)
    assert differences["HLS - DARTS + BBN"] == pytest.approx(12.98)
    assert differences["HLS + continuous: r = 0 - HLS"] == pytest.approx(-2.0)
    assert differences["HLS + continuous: r = ½ - HLS"] is None

    seen: list[Any] = []
    monkeypatch.setattr(lt_series, "run_queue", InThisProcess())
    monkeypatch.setattr(lt_hls, "write_page", seen.append)
    run_hls(whole[0], SETTINGS, PLAN)
    series = seen[0]
    named = replace(series, images=replace(series.images, title="CIFAR-10 JPEG-Q75"))
    assert hls_page._paper(named, "exp-0.01") == PAPER
    assert hls_page._paper(named, "exp-0.1") == hls_page._paper(series, "exp-0.01") == {}
    assert hls_page._notes(named)[-1].startswith("CIFAR-10 JPEG-Q75: the images of CIFAR-10 as JPEG")
    beside = replace(named, settings=replace(named.settings, distributions=("exp-0.01",)))
    assert not any("64.56" in note for note in hls_page._notes(beside))  # they stand in the table


def test_digits_are_too_few_for_the_papers_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[StudySettings] = []
    monkeypatch.setattr(lt_hls, "run_series", lambda name, settings, *more: asked.append(settings))
    monkeypatch.setattr(lt_hls, "write_page", lambda series: None)
    for distributions in (HLS.distributions, ("balance", "exp-0.01")):
        run_hls(tmp_path, StudySettings(data="digits", distributions=distributions))
    run_hls(tmp_path, StudySettings(data="folder", distributions=HLS.distributions))
    assert [one.distributions for one in asked] == [("exp-0.1",), ("balance", "exp-0.01"), ("exp-0.01",)]


def test_the_shell_prints_the_report_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def study(*args: Any) -> PaperStudy:
        asked.extend(args)
        row = Row("HLS", "with labels", 1, top1=(0.5,))
        return PaperStudy("HLS on digits", [("exp", [row], list(COLUMNS[:1]))], {"exp": []}, tmp_path / "report.html")

    monkeypatch.setattr(lt_hls, "run_hls", study)
    assert cli.main(["reproduce", "hls", "--minutes", "9", "--carry", "c", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "HLS on digits" and lines[-1] == str(tmp_path / "report.html")
    assert (asked[0], asdict(asked[1])) == (tmp_path, asdict(replace(HLS, minutes=9.0, carry=Path("c"))))
