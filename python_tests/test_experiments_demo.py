"""The demo at a tiny scale, from images to report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import Silent, tiny_settings

from lt_nas_ext import cli
from lt_nas_ext.experiments import demo as lt_demo


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with the smallest networks, an epoch each."""
    monkeypatch.setattr(lt_demo, "preset", lambda name: tiny_settings(name, epochs=1, alpha_lr=1.0, batch_size=128))
    monkeypatch.setattr(lt_demo, "TRAINING", replace(lt_demo.TRAINING, epochs=1, channels=2, layers=1))
    monkeypatch.setattr(lt_demo, "PRETRAIN_EPOCHS", 1)


@pytest.mark.usefixtures("tiny")
def test_demo_ends_with_a_table_and_a_report_and_reuses_what_is_there(tmp_path: Path) -> None:
    told: list[str] = []
    first = lt_demo.run_demo(tmp_path, 1, tell=told.append, progress=Silent)
    assert [row.network for row in first.results] == ["SSF-NAS", "DARTS", "random genotype", "SmallConvNet"]
    assert all(row.state == "" and len(row.macro) == 1 for row in first.results)
    assert [row.searched for row in first.results] == ["without labels", "with labels", "–", "–"]
    assert len(told) == 6
    page = first.report.read_text(encoding="utf-8")
    assert first.report == (tmp_path / "report.html").absolute() and "Reduction cell" in page and "527 training" in page

    follower = Silent()
    again = lt_demo.run_demo(tmp_path, 1, progress=lambda: follower)
    assert follower.steps == 0  # nothing was trained twice
    assert [row.macro for row in again.results] == [row.macro for row in first.results]


def test_the_same_images_and_supervised_epochs_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[object, int]] = []

    def remember(what: object, data: object, settings: object, *rest: object) -> None:
        trained.append((data, settings.epochs))  # type: ignore[attr-defined]

    class Found:
        genotype = None

    monkeypatch.setattr(lt_demo, "run_retrain", remember)
    monkeypatch.setattr(lt_demo, "run_search", lambda *args: Found())
    monkeypatch.setattr(lt_demo, "read_networks", lambda paths: [])
    monkeypatch.setattr(lt_demo, "write_report", lambda networks, path: path)
    lt_demo.run_demo(tmp_path)
    assert len(trained) == 4 and len({epochs for _, epochs in trained}) == 1 and len({id(d) for d, _ in trained}) == 1


def test_the_shell_prints_the_report_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        lt_demo, "run_demo", lambda out, seed, tell: lt_demo.Demo([], [], (out / f"{seed}.html").absolute())
    )
    assert cli.main(["demo", "--out", str(tmp_path), "--seed", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "4.html")
