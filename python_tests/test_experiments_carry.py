"""What a study carries: small enough, whole, and enough to go on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_experiments_table1 import figures
from tiny_studies import PLAN, SETTINGS, InThisProcess

from lt_nas_ext.engine.checkpoint import load_checkpoint
from lt_nas_ext.errors import UserError
from lt_nas_ext.experiments import series as lt_series
from lt_nas_ext.experiments.carry import ALL_BYTES, FILE_BYTES, _restored, _rounded, pack, unpack
from lt_nas_ext.experiments.table1 import run_table1

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Stopped(Exception):
    pass


class StopsAfter(InThisProcess):
    """A queue that is stopped one epoch into the job after so many."""

    def __call__(self, jobs: Any, *rest: Any) -> None:
        super().__call__(jobs, *rest)
        done = rest[-1]
        job = next(job for job in jobs if job.name not in {*done, *self.names})
        self.follower.epoch = self.stop  # type: ignore[method-assign]
        job.work(lambda phase: self.follower)

    def stop(self, row: object) -> None:
        raise Stopped


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study stopped in the second search."""
    out = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lt_series, "run_queue", StopsAfter(1))
        with pytest.raises(Stopped):
            run_table1(out, SETTINGS, plan=PLAN)
    return out


def continued(out: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr(lt_series, "run_queue", InThisProcess())
    run_table1(out, SETTINGS, plan=PLAN)
    return figures(out)


def test_carried_it_goes_on_to_the_bit(tmp_path: Path, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried, there = tmp_path / "carried", tmp_path / "there"
    assert pack(broken, carried, file_bytes=5000) == []
    files = sorted(carried.iterdir())
    assert len(files) > 1 and all(path.stat().st_size <= 5000 for path in files)
    unpack(carried, there)
    kept = {path.relative_to(there).as_posix() for path in there.rglob("*.*") if path.is_file()}
    runs = "exp-0.1/seed-0"
    assert kept == {
        "study.json",
        *(f"{runs}/darts/{name}" for name in ("config.json", "history.jsonl", "genotype.json", "metrics.json")),
        *(f"{runs}/fair-darts/{name}" for name in ("config.json", "history.jsonl", "checkpoint.pt")),
    }
    assert continued(there, monkeypatch) == continued(broken, monkeypatch)


def test_where_it_is_too_much_large_tensors_are_rounded_and_the_page_says_so(
    tmp_path: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `broken` may have gone on to its end in another test: a run that is not done is made anew.
    (broken / "exp-0.1/seed-0/fair-darts/metrics.json").unlink(missing_ok=True)
    carried, there = tmp_path / "carried", tmp_path / "there"
    pack(broken, carried)
    size = sum(path.stat().st_size for path in carried.iterdir())
    assert pack(broken, carried, all_bytes=size - 1) == ["exp-0.1/seed-0/fair-darts"]
    assert sum(path.stat().st_size for path in carried.iterdir()) < size
    unpack(carried, there)
    assert json.loads((there / "halved.json").read_text()) == ["exp-0.1/seed-0/fair-darts"]
    exact, rounded = (load_checkpoint(d / "exp-0.1/seed-0/fair-darts/checkpoint.pt") for d in (broken, there))
    assert exact is not None and rounded is not None and exact["history"] == rounded["history"]
    continued(there, monkeypatch)
    assert "Continued from checkpoints rounded" in (there / "report.html").read_text(encoding="utf-8")
    pack(there, carried)
    assert pack(there, carried) == []
    with pytest.raises(UserError, match=r"carry: the state of .* with fewer --jobs"):
        pack(broken, tmp_path / "never", all_bytes=100)
    assert not (tmp_path / "never").exists()


def test_rounding_keeps_eleven_bits_of_the_largest_and_small_tensors_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    state = {
        "momentum": 1e-7 * torch.randn(2048, generator=draw),
        "alpha": torch.randn(14, 8, generator=draw),
        "steps": torch.tensor(3),
        "list": [torch.zeros(2000), "text", (1, 0.5)],
    }
    again = _restored(_rounded(state))
    largest = float(state["momentum"].abs().max())  # type: ignore[union-attr]
    assert (again["momentum"] - state["momentum"]).abs().max() <= largest / 2**11
    assert torch.equal(again["alpha"], state["alpha"]) and again["steps"] == 3  # type: ignore[arg-type]
    assert torch.equal(again["list"][0], torch.zeros(2000)) and again["list"][1:] == ["text", (1, 0.5)]
    assert _rounded(state)["momentum"]["half"].dtype == torch.float16


def test_a_state_that_is_not_whole_is_refused(tmp_path: Path, broken: Path) -> None:
    carried = tmp_path / "carried"
    pack(broken, carried, file_bytes=5000)
    first = next(path for path in carried.iterdir() if path.name.endswith("of2") or ".0of" in path.name)
    content = first.read_bytes()
    first.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"carry: no state in .* is whole; wanted all of its files, unchanged"):
        unpack(carried, tmp_path / "there")
    first.unlink()
    with pytest.raises(UserError, match="is whole"):
        unpack(carried, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_study_that_is_there_goes_on(tmp_path: Path, broken: Path) -> None:
    pack(broken, tmp_path / "carried")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/study.json").write_text("{}")
    unpack(tmp_path / "carried", tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["study.json"]
    unpack(tmp_path / "nothing", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_packing_again_leaves_one_state(tmp_path: Path, broken: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    pack(broken, tmp_path, file_bytes=5000)
    pack(broken, tmp_path)
    assert len(list(tmp_path.glob("state-*.0of1"))) == 1 and len(list(tmp_path.iterdir())) == 2
    assert (FILE_BYTES, ALL_BYTES) == (16_000_000, 48_000_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="carry: cannot write to"):
        pack(broken, tmp_path / "file")


def test_carry_packs_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    settings = replace(SETTINGS, carry=tmp_path / "carried")
    monkeypatch.setattr(lt_series, "run_queue", StopsAfter(0))
    with pytest.raises(Stopped):
        run_table1(tmp_path / "first", settings, plan=PLAN)
    queue = StopsAfter(0)
    monkeypatch.setattr(lt_series, "run_queue", queue)
    with pytest.raises(Stopped):  # the second epoch of the same run, elsewhere
        run_table1(tmp_path / "second", settings, plan=PLAN)
    assert queue.follower.done > 0
    lines = (tmp_path / "second/exp-0.1/seed-0/darts/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
