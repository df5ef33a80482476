"""What is installed here, what of it serves, and why the rest does not: `lt-nas doctor`."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import torch

from lt_nas_ext import ops

OPTIONAL = {
    "torchvision": "CIFAR-10 and CIFAR-100",
    "onnxscript": "lt-nas export --format onnx",
    "pytest": "the tests",
    "hypothesis": "the tests",
}
"""Packages of the extras, and what each is for."""


@dataclass(frozen=True)
class Diagnosis:
    """The state of one installation; `str()` of it is what the shell prints.

    Attributes:
        facts: (name, value) in the order to be read.
        problems: one sentence each, with the remedy; empty where everything serves.

    >>> from lt_nas_ext.doctor import Diagnosis
    >>> print(Diagnosis(facts=(("PyTorch", "2.11.0"), ("kernels", "active")), problems=()))
    PyTorch  2.11.0
    kernels  active
    <BLANKLINE>
    no problems found
    """

    facts: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.facts)
        facts = [f"{name:<{width}}  {value}" for name, value in self.facts]
        problems = [f"problem: {problem}" for problem in self.problems] or ["no problems found"]
        return "\n".join([*facts, "", *problems])


def doctor() -> Diagnosis:
    """Look at Python, PyTorch, the kernels, the devices and the optional packages of this environment.

    Nothing here fails on a broken installation: torchvision, for one, is imported in a process of its own.
    """
    status = ops.status()
    problems = [] if status.active else [f"the eager twins serve instead of the kernels (slower): {status.reason}"]
    facts = [
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("machine", f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"),
        ("lt_nas_ext", installed_version("lt_nas_ext") or "not installed: a source tree"),
        ("PyTorch", torch.__version__),
        ("PyTorch's CUDA", torch.version.cuda or "none: a CPU build"),
        ("kernels", "active" if status.active else f"not active: {status.reason}"),
    ]
    built = build_facts(status.active)
    facts += built
    devices, unserved = device_facts()
    facts += devices
    problems += unserved
    for name, purpose in OPTIONAL.items():
        version = installed_version(name)
        facts.append((name, version or f"not installed (optional: {purpose})"))
        if name == "torchvision" and version and (mismatch := torchvision_problem()):
            problems.append(mismatch)
    return Diagnosis(tuple(facts), tuple(problems))


def installed_version(package: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torchvision_problem(python: str = sys.executable) -> str | None:
    """The sentence for a torchvision that does not load beside this PyTorch; None where it does, or is not there.

    It registers operators while it is imported, so a bad one is tried in a process that may die of it.
    """
    version = installed_version("torchvision")
    if version is None:
        return None
    tried = subprocess.run([python, "-c", "import torchvision"], capture_output=True, text=True)
    if tried.returncode == 0:
        return None
    last = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
    required = re.findall(r"^torch\s*==\s*([\w.+]+)", "\n".join(importlib.metadata.requires("torchvision") or []), re.M)
    built_for = f"torchvision {version}" + (f", built for PyTorch {required[0]}," if required else "")
    return (
        f"{built_for} does not load beside PyTorch {torch.__version__} ({last}); "
        "install the one that belongs to this PyTorch (pip install --upgrade torchvision), or none"
    )


def build_info() -> Any:
    """The module that setup.py wrote, or None in a source tree that was never built."""
    try:
        return importlib.import_module("lt_nas_ext._build_info")
    except ModuleNotFoundError:
        return None


def build_facts(active: bool) -> list[tuple[str, str]]:
    """What the kernels were built against, and the instruction set in use."""
    built = build_info()
    if built is None or not built.KERNELS:
        return []
    facts = [("built against", f"PyTorch {built.TORCH_VERSION}")]
    if built.CUDA_VERSION:
        archs = ", ".join(built.CUDA_ARCHS)
        facts.append(("CUDA kernels", f"for {archs}, with CUDA {built.CUDA_VERSION} ({built.NVCC})"))
    else:
        facts.append(("CUDA kernels", built.CUDA_REASON))
    if active:
        extension = importlib.import_module("lt_nas_ext._C")
        info = extension.build_info()
        facts.append(("compiler", str(info["compiler"])))
        facts.append(("CPU kernels", f"{extension.isa()} (this machine runs {', '.join(info['isas'])})"))
    return facts


def device_facts() -> tuple[list[tuple[str, str]], list[str]]:
    """Each CUDA device, and a problem for each that the kernels do not serve."""
    if not torch.cuda.is_available():
        return [("device", "cpu (no CUDA device visible)")], []
    facts, problems = [], []
    built = build_info()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        name = f"{properties.name}, {properties.major}.{properties.minor}, {properties.total_memory / 2**30:.0f} GiB"
        facts.append((f"device cuda:{index}", name))
        archs = built.CUDA_ARCHS if built is not None else ()
        if not archs:
            problems.append(
                f"cuda:{index} is served by the eager twins: {getattr(built, 'CUDA_REASON', 'nothing built')}"
            )
        elif not serves(archs, capability):
            problems.append(
                f"cuda:{index} ({name}) runs none of the architectures built ({', '.join(archs)}); reinstall with "
                f"TORCH_CUDA_ARCH_LIST={properties.major}.{properties.minor}"
            )
    return facts, problems


def serves(archs: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether a device runs one of these: the same major version and no later minor one, or any earlier PTX.

    >>> serves(("8.0", "9.0+PTX"), (8, 6)), serves(("8.0", "9.0+PTX"), (12, 0)), serves(("8.0",), (7, 5))
    (True, True, False)
    """
    for arch in archs:
        found = re.match(r"(\d+)\.(\d+)", arch)
        if found is None:  # a name such as "Hopper": PyTorch's builder knows it, and so does the driver
            return True
        built = (int(found[1]), int(found[2]))
        if built <= capability and (built[0] == capability[0] or arch.endswith("+PTX")):
            return True
    return False
