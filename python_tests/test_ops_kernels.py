"""Which build of the kernels serves, and what is said where none does."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

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
