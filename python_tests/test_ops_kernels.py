"""Which build of the kernels serves, and what is said where none does."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lt_nas_ext.ops import _kernels


def built(kernels: bool = True, version: str = torch.__version__) -> SimpleNamespace:
    """What setup.py writes."""
    return SimpleNamespace(KERNELS=kernels, TORCH_VERSION=version, CUDA_VERSION=None, CUDA_REASON="no nvcc")


def load(monkeypatch: pytest.MonkeyPatch, build: SimpleNamespace | None) -> _kernels.KernelStatus:
    """The status of a build, or of none."""
    monkeypatch.setitem(sys.modules, "lt_nas_ext._build_info", build)
    return _kernels._load()


BUILDS = {
    "pure Python": (built(kernels=False), "built as pure Python on request"),
    "another PyTorch": (built(version="1.0.0"), "the kernels were built for PyTorch 1.0.0, and PyTorch"),
    "none": (None, "lt_nas_ext was never built here"),
}


@pytest.mark.parametrize(("build", "reason"), BUILDS.values(), ids=BUILDS)
def test_required_kernels_that_do_not_serve_are_an_error(monkeypatch, build, reason):
    status = load(monkeypatch, build)
    assert not status.active
    monkeypatch.setenv("LT_NAS_EXT_REQUIRE_KERNELS", "1")
    with pytest.raises(ImportError, match=f"LT_NAS_EXT_REQUIRE_KERNELS=1, but {reason}"):
        _kernels._announced(status)


@pytest.mark.parametrize(("build", "reason"), BUILDS.values(), ids=BUILDS)
def test_eager_twins_that_nobody_asked_for_are_a_warning(monkeypatch, build, reason):
    monkeypatch.delenv("LT_NAS_EXT_REQUIRE_KERNELS", raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert _kernels._announced(load(monkeypatch, build)).reason.startswith(reason)
    assert [reason in str(warning.message) for warning in caught] == ([] if reason.startswith("built as") else [True])


@pytest.fixture
def without_cuda_kernels(monkeypatch):
    """A build for CPUs alone, in a process that has not been told of it yet."""
    build = {"cuda_kernels": False, "cuda_reason": "PyTorch is built for CUDA 13.0, but there is no nvcc"}
    monkeypatch.setattr(_kernels, "_STATUS", _kernels.KernelStatus(True, "kernels are active", build))
    _kernels._warn_of_cuda.cache_clear()
    yield
    _kernels._warn_of_cuda.cache_clear()


def test_a_cuda_tensor_that_no_kernel_serves_is_told_once(without_cuda_kernels):
    with FakeTensorMode():
        tensor = torch.empty(2, device="cuda")
    with pytest.warns(RuntimeWarning, match=r"CUDA tensors run on the eager twins .*: PyTorch is built for .* no nvcc"):
        assert not _kernels.use_kernels(tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _kernels.use_kernels(tensor)
        assert _kernels.use_kernels(torch.empty(2))


def test_a_compiled_step_is_told_too_and_stays_one_graph(without_cuda_kernels):
    def step(x):
        return x if _kernels._cuda_kernels() else x + 1

    with pytest.warns(RuntimeWarning, match="CUDA tensors run on the eager twins"):
        assert torch.compile(step, fullgraph=True, backend="eager")(torch.zeros(2)).sum() == 2
