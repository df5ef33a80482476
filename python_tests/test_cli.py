"""`lt-nas`: what it prints, how it ends. Most of it in this process, the exit codes once from outside."""

from __future__ import annotations

import builtins
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_runs import demo_runs, search_run

from lt_nas_ext import cli
from lt_nas_ext.commands.images import DataOptions, data_of_run
from lt_nas_ext.commands.training import search_defaults
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import PRESETS

TAIL = ["--data", "digits", "--imbalance", "exp", "--factor", "0.1"]
TINY = ["--epochs", "1", "--batch-size", "128", "--channels", "2", "--layers", "1", "--nodes", "1", "--alpha-lr", "1"]
TINY_TRAINING = ["--epochs", "1", "--channels", "2", "--layers", "1"]


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command line."""
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def lt_nas(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In a folder without the sources, which Python would find there before the package that is installed."""
    command = [sys.executable, "-m", "lt_nas_ext", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, out, _ = call(capsys, *words)
    assert code == 0 and all(command in out for command in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version")[1].startswith("lt-nas 0.")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = call(capsys, *command.split(), "--help")
    assert code == 0 and f"lt-nas {command}" in out and not err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "(default: paper-ssf)"),
        (["--method", "darts"], "(default: 50)"),
        (["--method=fair-darts"], "(default: authors-fairdarts)"),
        (["--preset", "demo-darts"], f"(default: {PRESETS['demo-darts'].alpha_lr})"),
    ],
)
def test_help_shows_the_numbers_of_the_preset(capsys: pytest.CaptureFixture[str], words: list[str], shown: str) -> None:
    code, out, _ = call(capsys, "search", *words, "--help")
    assert code == 0 and shown in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(("words", "epochs"), [([], 150), (["--preset", "darts"], 600), (["--preset=paper-ssf"], 150)])
@pytest.mark.parametrize("command", ["retrain", "baseline"])
def test_help_of_retrain_too(capsys: pytest.CaptureFixture[str], command: str, words: list[str], epochs: int) -> None:
    code, out, _ = call(capsys, command, *words, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0 and f"Supervised epochs, over all training images. (default: {epochs})" in text
    assert ("(default: 0.4)" in text) == bool(words)  # the auxiliary classifier


def test_one_way_through(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "ssf"
    search = ["search", "--method", "ssf-nas", *TAIL, *TINY, "--projector", "8", "8", "--seed", "3", "--out", run]
    code, out, err = call(capsys, *search)
    assert code == 0 and "Genotype(normal=" in out and out.rstrip().endswith(f"next: lt-nas retrain --run {run}")
    assert "ssf-nas search epoch 0" in err  # no terminal: a line an epoch

    code, _, err = call(capsys, *search)
    assert code == 2 and "already holds a run" in err and "--resume" in err
    assert call(capsys, *search, "--resume")[0] == 0

    code, out, _ = call(capsys, "retrain", "--run", run, *TINY_TRAINING)
    assert code == 0 and "SSF-NAS" in out and "macro" in out
    assert json.loads((run / "retrain" / "config.json").read_text())["settings"]["seed"] == 3  # the search's

    code, out, _ = call(capsys, "evaluate", "--run", run)
    metrics = json.loads((run / "retrain" / "metrics.json").read_text())
    assert code == 0 and f"macro       {100 * metrics['macro']:.1f} %" in out and "n 130" in out
    for title, name in (("long-tailed", "longtailed_top1"), ("medium", "medium"), ("last", "last")):
        assert f"{title:<12}{100 * metrics[name]:.1f} %\n" in out
    assert f"parameters  {metrics['parameters']:,}\nMACs        {metrics['multiply_adds']:,} multiply-adds" in out
    assert call(capsys, "evaluate", "--run", run / "retrain")[1] == out

    code, out, _ = call(capsys, "report", run)
    assert code == 0 and out.splitlines()[-1] == str(run / "report.html")
    assert "SSF-NAS" in (run / "report.html").read_text()


def test_adapt_and_retrain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, run = tmp_path / "source", tmp_path / "adapted"
    assert call(capsys, "search", "--method", "darts", *TINY, "--out", source)[0] == 0
    small = ["--epochs", "1", "--subnets", "2", "--augment", "none", "--seed", "3"]
    words = ["adapt", "--run", source, *TAIL, *small, "--out", run]
    code, out, err = call(capsys, *words)
    assert code == 0 and out.rstrip().endswith(f"next: lt-nas retrain --run {run}")
    assert "supernet, frozen, reinit, class_balanced: macro" in out and "features computed once" in out
    assert "frozen, reinit, class_balanced adaptation epoch 0" in err
    assert call(capsys, *words)[0] == 2 and call(capsys, *words, "--resume")[0] == 0

    assert call(capsys, "retrain", "--run", run, *TINY_TRAINING)[0] == 0
    assert json.loads((run / "retrain" / "config.json").read_text())["settings"]["seed"] == 3  # the adaptation's
    code, out, _ = call(capsys, "report", run)
    page = (run / "report.html").read_text()
    assert code == 0 and "IMB-NAS" in out and f"lt-nas adapt --run {source} --data digits --imbalance exp" in page
    code, _, err = call(capsys, "evaluate", "--run", source)
    assert code == 2 and "is a search" in err


def test_evaluate_shows_what_validation_images_were_good_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    training = [*TINY_TRAINING, "--val-fraction", "0.2", "--out", run]
    code, out, _ = call(capsys, "retrain", "--network", "small-conv-net", *TAIL, *training)
    assert code == 0 and "adjusted" in out
    metrics = json.loads((run / "metrics.json").read_text())
    code, out, _ = call(capsys, "evaluate", "--run", run)
    posthoc, (about, *lines) = metrics["posthoc"], out.splitlines()
    assert "digits" in about
    assert lines[0].split() == [
        "as", "it", "is", "adjusted:", "z", "-", "τ", "log", "π,", "τ", "=", f"{posthoc['tau']:.2f},", "fitted", "on",
        "105", "validation", "images",
    ]  # fmt: skip
    assert lines[2] == f"macro       {100 * metrics['macro']:<4.1f} %    {100 * posthoc['adjusted']['macro']:.1f} %"
    assert lines[10].split() == ["ECE", f"{metrics['ece']:.3f}", f"{posthoc['adjusted']['ece']:.3f}"]
    assert "n 104" in out  # of 130


def test_seeds_candidates_and_random_search(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    darts = ["search", "--method", "darts", *TAIL, *TINY]
    code, out, _ = call(capsys, *darts, "--seeds", "2", "--out", tmp_path / "two")
    assert code == 0 and "two of the 2 seeds agree on " in out and (tmp_path / "two" / "seed-1").is_dir()
    short = ["--candidate-epochs", "1"]
    code, out, err = call(capsys, *darts, "--candidates", "2", *short, "--out", tmp_path / "best")
    assert code == 0 and "validation macro accuracy of candidates: " in out and "contest epoch 1" in err
    code, out, _ = call(capsys, "search", "--method", "random", *TAIL, *TINY, *short, "--out", tmp_path / "random")
    assert code == 0 and "validation macro accuracy of candidates: " in out and "gates decided" not in out
    code, out, _ = call(
        capsys, "search", *darts[1:], "--stop-at-skips", "0", "--order", "exact", "--out", tmp_path / "e"
    )
    assert code == 0 and "stopped after" not in out
    code, out, _ = call(capsys, "report", tmp_path, "--markdown")
    assert code == 0 and "| random search (searched, not trained) | with labels |" in out and "DARTS (two)" in out


@pytest.fixture
def trained(tmp_path: Path, pictures: Path) -> Path:
    """Run directory of a network trained on `pictures`."""
    from lt_nas_ext.engine import RetrainSettings, run_retrain

    settings = RetrainSettings(epochs=1, channels=2, device="cpu")
    run_retrain("small-conv-net", DataOptions("folder", root=pictures).load(), settings, tmp_path / "trained")
    return tmp_path / "trained"


def test_predict(capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, trained: Path) -> None:
    cat, dogs = pictures / "cat" / "1.png", pictures / "dog"
    code, out, err = call(capsys, "predict", trained, cat, dogs)
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "") and [line[0] for line in lines] == [str(cat), *(f"{dogs}/{i}.png" for i in range(8))]
    assert all({line[1], line[4], line[7]} == {"cat", "dog", "eel"} for line in lines)
    shares = [[float(line[i]) for i in (2, 5, 8)] for line in lines]
    assert all(s == sorted(s, reverse=True) and sum(s) == pytest.approx(100, abs=0.2) for s in shares)
    assert call(capsys, "predict", cat, dogs, "--run", trained)[1] == out

    files = ["--csv", tmp_path / "found.csv", "--json", tmp_path / "found.json"]
    code, out, _ = call(capsys, "predict", trained, "--top", "1", cat, dogs, *files)
    assert code == 0 and [line.split()[:3] for line in out.splitlines()] == [line[:3] for line in lines]
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(rows[0]) == ["file", "class_1", "probability_1"] and len(rows) == len(found) == 9
    for row, entry, line in zip(rows, found, lines, strict=True):
        assert row["file"] == entry["file"] == line[0] and [row["class_1"]] == entry["classes"] == [line[1]]
        assert [float(row["probability_1"])] == entry["probabilities"]


def test_export(capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: Path) -> None:
    from lt_nas_ext.engine import load_classifier

    out_file = tmp_path / "cells.pt"
    assert call(capsys, "export", trained, "--format", "state", "--out", out_file) == (0, f"{out_file}\n", "")
    assert load_classifier(out_file).class_names == ("cat", "dog", "eel")


def test_predict_names_what_it_cannot_read_after_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, trained: Path
) -> None:
    (tmp_path / "broken.png").write_text("no image")
    eels = call(capsys, "predict", trained, pictures / "eel")[1]
    table = ["--csv", tmp_path / "found.csv"]
    code, out, err = call(capsys, "predict", trained, tmp_path / "broken.png", pictures / "eel", *table)
    assert (code, out) == (2, eels) and len((tmp_path / "found.csv").read_text().splitlines()) == 7
    assert err.splitlines()[0] == "lt-nas: error: images: 1 of 7 cannot be read"
    assert err.splitlines()[1].startswith(f"  image: {tmp_path}/broken.png cannot be read (") and "Traceback" not in err


@pytest.mark.parametrize("kind", ["network", "genotype"])
def test_retrain_without_a_search(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str) -> None:
    text = "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 1)], normal_concat=[2],"
    (tmp_path / "mine.txt").write_text(text + " reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2])")
    what = ["--network", "small-conv-net"] if kind == "network" else ["--genotype", tmp_path / "mine.txt"]
    out_dir = tmp_path / "out"
    code, out, _ = call(capsys, "retrain", *what, *TAIL, *TINY_TRAINING, "--out", out_dir)
    assert code == 0 and ("SmallConvNet" if kind == "network" else "out") in out


@pytest.mark.parametrize(("network", "loss"), [("small-conv-net", "balanced_softmax"), ("fair-darts-a", "ldam")])
def test_baseline_is_retrain_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, network: str, loss: str
) -> None:
    words = [*TAIL, *TINY_TRAINING, "--loss", loss, "--seed", "4"]
    code, out, _ = call(capsys, "baseline", network, *words, "--out", tmp_path / "baseline")
    assert code == 0 and {"small-conv-net": "SmallConvNet", "fair-darts-a": "FairDARTS-a"}[network] in out
    assert call(capsys, "retrain", "--network", network, *words, "--out", tmp_path / "retrain")[0] == 0
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("baseline", "retrain")]
    assert configs[0] == configs[1] and configs[0]["settings"]["loss"] == loss
    found = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("baseline", "retrain")]
    assert found[0] | {"seconds": 0} == found[1] | {"seconds": 0}
    assert call(capsys, "baseline", network, *words, "--out", tmp_path / "baseline", "--resume")[0] == 0


def test_baseline_on_a_folder_stands_beside_a_search(capsys: pytest.CaptureFixture[str], pictures: Path) -> None:
    folder = ["--data", "folder", "--root", pictures]
    runs = [pictures.parent / "darts", pictures.parent / "resnet32"]
    assert call(capsys, "search", "--method", "darts", *folder, *TINY, "--out", runs[0])[0] == 0
    assert call(capsys, "retrain", "--run", runs[0], *TINY_TRAINING)[0] == 0
    assert call(capsys, "baseline", *folder, *TINY_TRAINING, "resnet32", "--out", runs[1])[0] == 0
    code, out, _ = call(capsys, "report", *runs, "--markdown")
    assert code == 0 and "| DARTS |" in out and "| ResNet-32 |" in out


def test_default_directories(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "search", "--method", "darts", *TINY, "--seed", "2")[0] == 0
    assert call(capsys, "retrain", "--network", "small-conv-net", *TINY_TRAINING)[0] == 0
    assert call(capsys, "baseline", "random", *TINY_TRAINING)[0] == 0
    assert {p.name for p in Path("runs").iterdir()} == {"darts-digits-2", "small-conv-net-digits-0", "random-digits-0"}


def test_report_of_several_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "report", *demo_runs(tmp_path), "--markdown")
    assert code == 0 and out.startswith("**digits, exp μ = 0.1**\n\n| network | searched |")
    assert out.splitlines()[-1] == str(tmp_path / "report.html") and (tmp_path / "report.html").exists()
    code, out, _ = call(capsys, "report", tmp_path, "--out", tmp_path / "sub" / "page.html")
    assert out.splitlines()[-1] == str(tmp_path / "sub" / "page.html")


def test_data_describe(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "data", "describe", *TAIL)
    lines = out.splitlines()
    assert code == 0 and "imbalance ratio 10" in out and "many (> 100) 1" in out
    bars = [line.count("█") for line in lines if "█" in line]
    assert len(bars) == 10 and bars == sorted(bars, reverse=True)
    assert lines[3].endswith(" 130") and lines[-1].endswith(" 13")


def test_data_describe_draws_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "data", "describe", *TAIL, "--out", tmp_path / "digits.html")
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "digits.html")
    assert "imbalance ratio 10" in (tmp_path / "digits.html").read_text()


def test_class_order_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    order = [str(c) for c in range(9, -1, -1)]
    code, out, _ = call(
        capsys, "data", "describe", *TAIL, "--image-size", "6", "--n-max", "50", "--class-order", *order
    )
    assert code == 0 and "1×6×6" in out and out.splitlines()[3].startswith("9 ") and out.splitlines()[3].endswith(" 50")


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor")
    assert code == 0 and "PyTorch" in out and "kernels" in out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three classes of 12, 8 and 6 grey images of 10×10 pixels."""
    rng = np.random.default_rng(0)
    for name, count in (("cat", 12), ("dog", 8), ("eel", 6)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (10, 10), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_run_finds_its_folder_again(capsys: pytest.CaptureFixture[str], pictures: Path) -> None:
    run = pictures.parent / "run"
    folder = ["--data", "folder", "--root", pictures]
    assert call(capsys, "search", "--method", "darts", *folder, *TINY, "--out", run)[0] == 0
    searched = DataOptions("folder", root=pictures).load()
    assert data_of_run(run).train.files == searched.train.files
    pictures.rename(pictures.parent / "moved")
    with pytest.raises(UserError, match="pictures"):
        data_of_run(run)
    assert data_of_run(run, pictures.parent / "moved").counts == searched.counts
    (pictures.parent / "moved" / "cat" / "3.png").unlink()
    (pictures.parent / "moved" / "cat" / "4.png").unlink()
    with pytest.raises(UserError, match="Point --root at the same images"):
        data_of_run(run, pictures.parent / "moved")


def test_results_call_images_by_their_name(capsys: pytest.CaptureFixture[str], pictures: Path) -> None:
    """A folder's results say what is in it: above tables, on the page, in the command that repeats them."""
    run, name = pictures.parent / "run", "PETS [JPEG] Q75"
    folder = ["--data", "folder", "--root", pictures, "--data-name", name]
    assert call(capsys, "data", "describe", *folder)[1].startswith(f"{name}: 3 classes")
    assert call(capsys, "search", "--method", "darts", *folder, *TINY, "--out", run)[0] == 0
    code, out, _ = call(capsys, "retrain", "--run", run, *TINY_TRAINING)
    assert code == 0 and out.startswith(f"{name}\n")
    assert call(capsys, "evaluate", "--run", run)[1].startswith(f"{name}\n")
    assert call(capsys, "report", run, "--markdown")[1].startswith(f"**{name}**\n")
    page = (run / "report.html").read_text()
    assert f"<h1>DARTS on {name}</h1>" in page and "--data-name &#39;PETS [JPEG] Q75&#39;" in page
    assert data_of_run(run / "retrain").title == name


@pytest.mark.parametrize(
    "options",
    [
        DataOptions(),
        DataOptions(imbalance="step", factor=0.1, data_seed=5, n_max=60),
        DataOptions(imbalance="exp", factor=0.05, class_order=tuple("5678901234"), image_size=12),
    ],
)
def test_a_run_finds_the_very_images_again(tmp_path: Path, options: DataOptions) -> None:
    from lt_nas_ext.engine import RetrainSettings, run_retrain

    data = options.load()
    run_retrain("small-conv-net", data, RetrainSettings(epochs=1, channels=2, batch_size=512), tmp_path / "run")
    again = data_of_run(tmp_path / "run")
    assert (again.train.files, again.test.files) == (data.train.files, data.test.files)
    assert again.image_shape == data.image_shape and again.class_order == data.class_order


def test_a_data_set_of_ones_own_is_not_for_the_shell(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images of your own"):
        data_of_run(search_run(tmp_path / "a", name="own"))


def test_a_missing_tyro_is_one_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_tyro(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tyro":
            raise ImportError("No module named 'tyro'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_tyro)
    code, _, err = call(capsys, "doctor")
    assert (
        code == 2
        and err == "lt-nas: error: the command line needs the package tyro, which is not installed: pip install tyro\n"
    )


def test_machines_follow_a_run_on_standard_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--method", "darts", *TAIL, *TINY, "--epochs", "2", "--out", tmp_path / "a"]
    code, out, _ = call(capsys, "search", *words, "--progress", "json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [event["event"] for event in events if event["event"] != "step"] == [
        "start", "epoch", "epoch", "end", "result"
    ]  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "a" / "history.jsonl").read_text().splitlines()]
    assert [event["train_loss"] for event in events if event["event"] == "epoch"] == [r["train_loss"] for r in rows]
    assert events[-1]["out"] == str(tmp_path / "a")


@pytest.mark.parametrize("progress", ["bar", "lines", "json"])
def test_quiet_says_nothing_but_warnings(capsys: pytest.CaptureFixture[str], tmp_path: Path, progress: str) -> None:
    words = ["--method", "darts", *TAIL, *TINY, "--out", tmp_path / "a", "--quiet", "--progress", progress]
    code, out, err = call(capsys, "search", *words)
    assert (code, out) == (0, "") and all(line.startswith("lt-nas: warning: ") for line in err.splitlines())
    retrain = ["--run", tmp_path / "a", *TINY_TRAINING, "--quiet"]
    assert call(capsys, "retrain", *retrain) == (0, "", "")
    assert (tmp_path / "a" / "retrain" / "metrics.json").exists()


def test_tensorboard_lies_in_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="optional")
    words = ["--method", "darts", *TAIL, *TINY, "--out", tmp_path / "a", "--tensorboard"]
    assert call(capsys, "search", *words)[0] == 0
    assert len(list((tmp_path / "a" / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--data", "folder"], "recommended"),
        (["--data=folder"], "recommended"),
        (["--data", "folder", "--method", "darts"], "darts"),
        (["--data", "folder", "--preset", "paper-ssf"], "paper-ssf"),
        (["--data", "cifar10"], "paper-ssf"),
    ],
)
def test_a_folder_of_ones_own_starts_from_what_is_recommended(words: list[str], name: str) -> None:
    assert search_defaults(words).settings == PRESETS[name]


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    slow = ["--epochs", "1", "--batch-size", "128", "--channels", "2", "--layers", "1", "--nodes", "1"]
    code, _, err = call(capsys, "search", "--method", "darts", *TAIL, *slow, "--out", tmp_path / "a")
    warning = next(line for line in err.splitlines() if "warning" in line)
    assert code == 0 and warning.startswith("lt-nas: warning: ") and ".py" not in warning


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["serch"]])
def test_what_needs_no_pytorch_does_not_wait_for_it(words: list[str], tmp_path: Path) -> None:
    script = f"import sys; from lt_nas_ext.cli import main; main({words}); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, timeout=120, cwd=tmp_path).returncode == 0


def test_from_outside(tmp_path: Path) -> None:
    good, bad = lt_nas("--help", cwd=tmp_path), lt_nas("search", "--method", "dart", cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "") and "usage: lt-nas COMMAND" in good.stdout
    assert bad.returncode == 2 and "Traceback" not in bad.stderr


def test_ctrl_c_saves_the_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    words = ["search", "--method", "darts", *TAIL, *TINY[2:], "--epochs", "9999", "--out", str(run)]
    command = [sys.executable, "-m", "lt_nas_ext", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 90
        while not (run / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err
    assert f"saved in {run}" in err
    assert err.splitlines()[-1] == f"continue with: python -m lt_nas_ext {' '.join(words[:-1])} '{run}' --resume"
