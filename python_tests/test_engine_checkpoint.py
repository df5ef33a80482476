"""Checkpoints and run directories: whole or not at all, never another run's."""

from __future__ import annotations

import copy
import dataclasses
import errno
import io
import json
import os
import re

import pytest
import torch
from tiny_runs import tiny_data, tiny_settings

from lt_nas_ext.engine.checkpoint import (
    DamagedCheckpointWarning,
    checksum,
    load_checkpoint,
    previous,
    save_checkpoint,
    write_text,
)
from lt_nas_ext.engine.run_dir import RunDirectory, read_config, run_config
from lt_nas_ext.errors import UserError

DATA = tiny_data()


def config(**overrides):
    return run_config("search", tiny_settings("darts", **overrides), DATA)


def test_the_newest_checkpoint_and_the_one_before(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path) is None
    for epoch in range(3):
        save_checkpoint(path, {"epoch": epoch, "w": torch.full((2,), float(epoch))})
    assert load_checkpoint(path)["epoch"] == 2
    assert torch.load(previous(path), weights_only=True)["epoch"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 0})
    save_checkpoint(path, {"epoch": 1, "w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    with pytest.warns(DamagedCheckpointWarning, match="using the one before"):
        assert load_checkpoint(path)["epoch"] == 0
    previous(path).write_bytes(b"gone too")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        load_checkpoint(path)


def test_every_turned_bit_of_a_tensor_is_found(tmp_path):
    """PyTorch itself reads such files without a word."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 0})
    save_checkpoint(path, {"epoch": 1, "w": torch.full((64,), 1.5)})
    whole = path.read_bytes()
    pattern = torch.full((64,), 1.5).numpy().tobytes()
    begin = whole.index(pattern)
    for place in (begin, begin + 101, begin + len(pattern) - 1):
        for bit in (0, 7):
            turned = bytearray(whole)
            turned[place] ^= 1 << bit
            path.write_bytes(turned)
            assert not torch.equal(torch.load(path, weights_only=True)["w"], torch.full((64,), 1.5))
            with pytest.warns(DamagedCheckpointWarning, match=r"checkpoint\.pt: its checksum does not match"):
                assert load_checkpoint(path)["epoch"] == 0
    path.write_bytes(whole)
    assert load_checkpoint(path)["epoch"] == 1


@pytest.mark.parametrize(
    "one, other",
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1, "b": 2}, {"b": 1, "a": 2}),
        ({"a": [1, [2]]}, {"a": [[1], 2]}),
        ({"a": None}, {"a": "None"}),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.int32)}),
        ({"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}),
        ({"a": torch.tensor(0.0)}, {"a": torch.tensor(-0.0)}),
    ],
)
def test_the_checksum_tells_states_apart(one, other):
    assert checksum(one) == checksum(copy.deepcopy(one)) != checksum(other)


@pytest.mark.parametrize("room", [0, 100, 1500])
def test_a_full_disk_leaves_what_was_saved(tmp_path, monkeypatch, room):
    """The write ends with ENOSPC after so many bytes: no half file stays, and the message says what to do."""
    directory = RunDirectory(tmp_path, config())
    directory.save({"epoch": 0})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Full(io.FileIO):
        left = room

        def write(self, data):
            written = super().write(data[: self.left])
            self.left -= written
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return written

    def full(path, mode="r", **_):
        raw = Full(path, mode.replace("b", ""))
        return io.BufferedWriter(raw) if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw))

    monkeypatch.setattr("builtins.open", full)
    row = {"epoch": 0, "alpha": [0.0] * 1000}
    for write in (
        lambda: directory.save({"epoch": 1, "w": torch.zeros(1000)}),
        lambda: directory.write_json("metrics.json", row),
        lambda: directory.write_history([row]),
    ):
        with pytest.raises(UserError, match=r"out: cannot write .*No space left on device.*resume"):
            write()
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert directory.load(torch.device("cpu"))["epoch"] == 0


def test_a_kill_between_the_two_renames_leaves_the_previous_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 0})
    replace, calls = os.replace, []

    def killed_at_the_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"epoch": 1})
    monkeypatch.undo()
    assert load_checkpoint(path)["epoch"] == 0
    save_checkpoint(path, {"epoch": 1})
    assert load_checkpoint(path)["epoch"] == 1


def test_no_code_is_loaded(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"evil": os.system}, path)
    with pytest.raises(UserError, match="no checkpoint can be read"):
        load_checkpoint(path)


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two" and list(tmp_path.iterdir()) == [path]


def test_config_holds_settings_data_and_versions(tmp_path):
    RunDirectory(tmp_path / "new" / "run", config())
    content = read_config(tmp_path / "new" / "run")
    assert content["kind"] == "search" and content["settings"]["projector"] == [8, 8]
    assert content["data"]["counts"] == [24, 14, 10] and content["data"]["class_names"] == ["left", "middle", "right"]
    assert content["versions"]["torch"] == torch.__version__


def test_a_run_is_never_overwritten(tmp_path):
    RunDirectory(tmp_path, config())
    with pytest.raises(UserError, match=re.escape("already holds a run; continue it with resume=True (--resume), or")):
        RunDirectory(tmp_path, config())
    RunDirectory(tmp_path, config(), resume=True)


def test_other_files_of_a_directory_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunDirectory(tmp_path, config())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resume_with_other_settings_names_what_differs(tmp_path):
    RunDirectory(tmp_path, config())
    text = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError, match=re.escape("epochs (was 3, now 4); w_lr (was 0.025, now 0.1)")):
        RunDirectory(tmp_path, config(epochs=4, w_lr=0.1), resume=True)
    other = dataclasses.replace(DATA, factor=0.5)
    with pytest.raises(UserError, match=re.escape("factor (was 1.0, now 0.5)")):
        RunDirectory(tmp_path, run_config("search", tiny_settings("darts"), other), resume=True)
    with pytest.raises(UserError, match="kind"):
        RunDirectory(tmp_path, {**config(), "kind": "retrain"}, resume=True)
    assert (tmp_path / "config.json").read_text() == text


def test_what_only_reads_the_result_may_differ_on_resume(tmp_path):
    RunDirectory(tmp_path, config())
    RunDirectory(tmp_path, config(rule="threshold_sparse", threshold=0.5), resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["threshold"] == 0.5


def test_bad_directories(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(tmp_path / "file", config())
    with pytest.raises(UserError, match="out: cannot write"):
        RunDirectory(tmp_path / "file" / "below", config())
    with pytest.raises(UserError, match=re.escape("holds no run (no config.json)")):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="this is not the config"):
        read_config(tmp_path)
