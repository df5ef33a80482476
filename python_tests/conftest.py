"""What every test gets: the markers, the hypothesis profiles, a sensible number of threads, and a header that says
which kernels were tested."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from lt_nas_ext import ops

# Times vary on shared machines, and PyTorch's first calls are slow: a deadline would fail tests at random.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=2500)
settings.register_profile("slow", settings.get_profile("default"), max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long sweeps too, and 16 times the examples")
    parser.addoption("--install", action="store_true", help="run the install matrix too")


@pytest.fixture(params=ops.status().build.get("isas", []) or ["eager"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this machine runs."""
    if not ops.status().active:
        pytest.skip(ops.status().reason)
    from lt_nas_ext import _C

    _C.set_isa(request.param)
    yield request.param
    _C.set_isa("")


def pytest_configure(config: pytest.Config) -> None:
    profile = "slow" if config.getoption("--slow") else "default"
    settings.load_profile(os.environ.get("LT_NAS_EXT_TEST_PROFILE", profile))
    # A shell starts background commands with Ctrl-C ignored, and tests send it to themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "OMP_NUM_THREADS" not in os.environ:
        # The tests' tensors are small: threads only wait for each other, 50 times as long where another process holds
        # a core. Tests of threads set their own number.
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


def pytest_report_header() -> str:
    status = ops.status()
    serving = f"{', '.join(status.build.get('isas', ()))}" if status.active else f"eager twins: {status.reason}"
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"lt_nas_ext: {serving}; PyTorch {torch.__version__}, {devices} CUDA device(s)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    for on_request in ("slow", "install"):
        if not config.getoption(f"--{on_request}"):
            left_out = {item for item in items if item.get_closest_marker(on_request)}
            config.hook.pytest_deselected(items=sorted(left_out, key=items.index))
            items[:] = [item for item in items if item not in left_out]
