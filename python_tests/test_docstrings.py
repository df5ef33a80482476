"""Every example in every docstring of the installed package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lt_nas_ext

NOT_EXAMPLES = {"__main__", "_C", "_build_info"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lt_nas_ext.__path__, "lt_nas_ext.")
    if module.name.rpartition(".")[2] not in NOT_EXAMPLES
)


@pytest.mark.parametrize("name", ["lt_nas_ext", *MODULES])
def test_examples(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write a file
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lt_nas_ext"):
            raise
        pytest.skip(f"needs the optional package {error.name}")
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert failed == 0
