"""`doctor()` says what is installed, what serves, and why the rest does not; also where something is broken."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from lt_nas_ext import doctor as module
from lt_nas_ext import ops
from lt_nas_ext.doctor import doctor, serves, torchvision_problem


@pytest.fixture
def broken_torchvision(monkeypatch, tmp_path):
    """A torchvision 0.9.1, built for PyTorch 1.8.1, whose import fails as a real one does beside another PyTorch."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    information = tmp_path / "torchvision-0.9.1.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.9.1\nRequires-Dist: torch ==1.8.1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def sound_torchvision(monkeypatch):
    """Seconds saved: a real one is imported in a process of its own."""
    monkeypatch.setattr(module, "torchvision_problem", lambda: None)


def test_facts_of_this_environment(sound_torchvision):
    diagnosis = doctor()
    facts = dict(diagnosis.facts)
    assert facts["PyTorch"] == torch.__version__
    assert facts["Python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert facts["kernels"].startswith("active" if ops.status().active else "not active")
    assert "pytest" in facts
    for name, value in diagnosis.facts:
        assert f"{name} " in str(diagnosis) and value in str(diagnosis)


def test_broken_torchvision_is_named_with_both_builds(broken_torchvision):
    diagnosis = doctor()
    (problem,) = [problem for problem in diagnosis.problems if "torchvision" in problem]
    assert "torchvision 0.9.1" in problem and "PyTorch 1.8.1" in problem and torch.__version__ in problem
    assert "torchvision::nms does not exist" in problem and "pip install" in problem
    assert problem in str(diagnosis)


def test_torchvision_that_is_not_there(monkeypatch):
    monkeypatch.setattr(module, "installed_version", lambda package: None)
    assert torchvision_problem() is None
    assert "not installed (optional: CIFAR-10" in dict(doctor().facts)["torchvision"]


def test_inactive_kernels_are_a_problem_with_their_reason(sound_torchvision, monkeypatch):
    monkeypatch.setattr(ops, "status", lambda: ops.KernelStatus(False, "the kernels were built for PyTorch 9.9"))
    diagnosis = doctor()
    assert "not active: the kernels were built for PyTorch 9.9" in str(diagnosis)
    assert any("eager twins" in problem and "PyTorch 9.9" in problem for problem in diagnosis.problems)


def built(archs: tuple[str, ...]) -> SimpleNamespace:
    version = "13.0" if archs else None
    return SimpleNamespace(
        KERNELS=True,
        TORCH_VERSION="2.11.0",
        CUDA_VERSION=version,
        CUDA_ARCHS=archs,
        NVCC="/n/nvcc",
        CUDA_REASON="no nvcc",
    )


@pytest.mark.parametrize(
    ("archs", "capability", "said"),
    [
        (("8.0", "9.0+PTX"), (9, 0), None),
        (("9.0",), (8, 0), "TORCH_CUDA_ARCH_LIST=8.0"),
        ((), (9, 0), "eager twins: no nvcc"),
    ],
)
def test_a_gpu_that_the_build_does_not_serve_is_a_problem(archs, capability, said, monkeypatch):
    device = SimpleNamespace(name="Card", major=capability[0], minor=capability[1], total_memory=2**34)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(module, "build_info", lambda: built(archs))
    facts, problems = module.device_facts()
    assert facts == [("device cuda:0", f"Card, {capability[0]}.{capability[1]}, 16 GiB")]
    assert (problems == []) if said is None else (said in problems[0])


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        (("8.0",), (8, 0), True),
        (("8.0",), (8, 9), True),
        (("8.6",), (8, 0), False),
        (("8.0",), (9, 0), False),
        (("8.0+PTX",), (9, 0), True),
        (("8.0", "9.0+PTX"), (12, 0), True),
        (("9.0a",), (9, 0), True),
        ((), (9, 0), False),
    ],
)
def test_serves(archs, capability, runs):
    assert serves(archs, capability) is runs
