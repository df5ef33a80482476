"""The install matrix: which PyTorch is there, which compilers, which installer. Each case ends in working kernels or in
one clear message.

Runs on request (`make test-install`): it makes virtual environments with three PyTorches, two of them several GB large
(one at a time), and compiles the kernels five times, once with CUDA.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TORCH_CPU = os.environ.get("LT_NAS_EXT_TORCH_CPU", "torch==2.13.0")
TORCH_CUDA = os.environ.get("LT_NAS_EXT_TORCH_CUDA", "torch==2.11.0")
BUILD_TOOLS = ("setuptools>=70.1", "ninja", "pybind11>=2.12", "numpy")
CXX = r"(.*-)?(c|g|clang)\+\+(-[\d.]+)?"
NOT_OURS = r"LT_NAS_EXT_.*|PYTHON.*|VIRTUAL_ENV|CUDA_(HOME|PATH)|CXX|CC|MAX_JOBS|MAKE.*|MFLAGS"

pytestmark = [pytest.mark.install, pytest.mark.timeout(3600)]


class Environment:
    """A virtual environment, used by its path as the Makefile does: not activated, so PATH does not lead there."""

    def __init__(self, folder: Path, *requirements: str) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        if requirements:
            self.add(*requirements)

    def run(
        self, program: str | Path, *arguments: str | Path, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """One of the environment's programs, without this test run's own variables; all output in `stdout`."""
        kept = {name: value for name, value in os.environ.items() if not re.fullmatch(NOT_OURS, name)}
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=cwd or self.folder,
            env={**kept, "TORCH_CUDA_ARCH_LIST": "9.0", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def add(self, *requirements: str | Path) -> None:
        """What a case needs to be there: none of its subject, so it has to succeed."""
        done = self.run("python", "-m", "pip", "install", *requirements)
        assert done.returncode == 0, done.stdout

    def install(self, *flags: str | Path, tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """`pip install .` in `tree`, where the package was not installed before."""
        self.run("python", "-m", "pip", "uninstall", "-y", "lt_nas_ext")
        return self.run("python", "-m", "pip", "install", *flags, ".", cwd=tree, **variables)

    def packages(self) -> set[str]:
        """Names and versions, without the package itself."""
        listed = self.run("python", "-m", "pip", "list", "--format=json").stdout
        found = json.loads(re.search(r"^\[.*\]$", listed, re.MULTILINE)[0])
        return {f"{package['name']} {package['version']}" for package in found if package["name"] != "lt_nas_ext"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Deleted at the end: pytest would keep the gigabytes of three runs."""
    made = tmp_path_factory.mktemp("matrix")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def bare(folder) -> Environment:
    """Without PyTorch."""
    return Environment(folder / "bare")


@pytest.fixture(scope="module")
def cpu(folder) -> Environment:
    """With the CPU build of a PyTorch, and today's pip."""
    environment = Environment(folder / "cpu", "--upgrade", "pip")
    environment.add(TORCH_CPU)
    cuda = environment.run("python", "-c", "import torch; print(torch.version.cuda)").stdout.splitlines()[-1]
    if cuda != "None":
        pytest.skip(f"{TORCH_CPU} is no CPU build here (CUDA: {cuda}); name one in LT_NAS_EXT_TORCH_CPU")
    return environment


@pytest.fixture(scope="module")
def cpu_with_tools(cpu) -> Environment:
    cpu.add(*BUILD_TOOLS)
    return cpu


@pytest.fixture
def fresh(folder) -> Iterator[Environment]:
    """Without PyTorch, to be deleted with what was installed into it."""
    yield Environment(folder / "fresh")
    shutil.rmtree(folder / "fresh")


@pytest.fixture(scope="module")
def cuda(folder) -> Environment:
    """With the CUDA build of a PyTorch, and the pip that Python brings."""
    return Environment(folder / "cuda", TORCH_CUDA)


@pytest.fixture(scope="module")
def uv(cpu, folder) -> Path:
    cpu.add("--target", folder / "uv", "uv")
    return folder / "uv" / "bin" / "uv"


def copy_tree(target: Path) -> Path:
    """What git would commit now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture
def tree(tmp_path) -> Path:
    """A clean copy of the sources."""
    return copy_tree(tmp_path / "tree")


@pytest.fixture(scope="module")
def built_tree(folder) -> Path:
    """A copy for builds with the same settings: the second only links."""
    return copy_tree(folder / "tree")


def path_without(folder: Path, hidden: str) -> str:
    """A PATH with every program of this one but those whose name is `hidden`."""
    (folder / "bin").mkdir()
    for directory in os.environ["PATH"].split(os.pathsep):
        for program in sorted(Path(directory).glob("*")):
            link = folder / "bin" / program.name
            if not re.fullmatch(hidden, program.name) and not link.is_symlink():
                link.symlink_to(program)
    return str(folder / "bin")


def fetched(log: str) -> set[str]:
    """The packages of PyTorch that pip's log says were fetched, for the build or for the environment."""
    names = r"^\s*(?:Collecting|Downloading|Using cached|Processing) (?:\S*/)?(torch|triton|nvidia|cuda)"
    return set(re.findall(names, log, re.MULTILINE))


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """It ended in one message of ours that says all of this, and in no traceback."""
    assert done.returncode != 0
    assert done.stdout.count("lt_nas_ext cannot be built: ") == 1 and "Traceback" not in done.stdout, done.stdout
    for words in said:
        assert words in done.stdout, done.stdout


def installed(done: subprocess.CompletedProcess[str], environment: Environment) -> dict[str, Any]:
    """It was installed, operators and modules compute what they should; what installed_package.py found."""
    assert done.returncode == 0, done.stdout[-10000:]
    checked = environment.run("python", ROOT / "python_tests" / "installed_package.py")
    assert checked.returncode == 0, checked.stdout
    found = json.loads(checked.stdout.splitlines()[-1])
    assert Path(found["file"]).is_relative_to(environment.folder)
    return found


def doctor(environment: Environment) -> str:
    done = environment.run("lt-nas", "doctor")
    assert done.returncode == 0, done.stdout
    return done.stdout


def assert_working(found: dict[str, Any], environment: Environment) -> None:
    assert found["active"] and found["warnings"] == []
    assert re.search(r"^kernels +active$", doctor(environment), re.MULTILINE)


# -------------------------------------------------------------------------------------------------- without PyTorch


def test_no_compiler(bare, tree, tmp_path):
    path = path_without(tmp_path, rf"{CXX}|nvcc")
    done = bare.install("-v", tree=tree, PATH=path)
    refused(done, "this machine lacks a C++ compiler", "apt install g++", "LT_NAS_EXT_KERNELS=0 pip install .")
    assert not fetched(done.stdout)


def test_compiler_that_is_not_there(bare, tree):
    done = bare.install("-v", tree=tree, CXX="/nowhere/g++")
    refused(done, "this machine lacks a C++ compiler", "CXX is '/nowhere/g++'")
    assert not fetched(done.stdout)


def test_make_without_a_compiler(bare, tree, tmp_path):
    make = Path(shutil.which("make"))
    done = bare.run(make, f"PYTHON={sys.executable}", cwd=tree, PATH=path_without(tmp_path, CXX))
    refused(done, "this machine lacks a C++ compiler")
    assert not (tree / ".venv").exists()


def test_no_isolation_without_tools(bare, tree, tmp_path):
    bare.add("setuptools>=70.1")  # later Pythons bring none, and pip itself says so
    done = bare.install("--no-build-isolation", tree=tree, PATH=path_without(tmp_path, "ninja"))
    refused(done, "pybind11 and ninja missing: pip install pybind11 ninja")


def test_no_isolation_without_pytorch(bare, tree):
    bare.add(*BUILD_TOOLS)
    done = bare.install("--no-build-isolation", tree=tree)
    refused(done, "there is no PyTorch 2.11 or later", "pip install torch")


# --------------------------------------------------------------------------------------------------- the CPU build


def test_cpu_build(cpu, tree):
    before = cpu.packages()
    done = cpu.install("-v", tree=tree)
    assert_working(installed(done, cpu), cpu)
    assert not fetched(done.stdout) and before <= cpu.packages()
    assert "is a build without CUDA" in doctor(cpu)


def test_cpu_build_without_isolation(cpu_with_tools, built_tree, tmp_path):
    # The only ninja is the environment's own, and PATH does not lead there.
    tools = {"PATH": path_without(tmp_path, "ninja"), "CXX": shutil.which("c++") or ""}
    done = cpu_with_tools.install("--no-build-isolation", tree=built_tree, **tools)
    assert_working(installed(done, cpu_with_tools), cpu_with_tools)


def test_uv_in_isolation(cpu, uv, tree):
    before = cpu.packages()
    done = cpu.run(uv, "pip", "install", "--python", cpu.folder, ".", cwd=tree)
    refused(done, "uv builds in an environment of its own", "uv pip install --no-build-isolation .")
    assert cpu.packages() == before


def test_uv(cpu_with_tools, uv, built_tree):
    before = cpu_with_tools.packages()
    cpu_with_tools.run("python", "-m", "pip", "uninstall", "-y", "lt_nas_ext")
    command = ("pip", "install", "--python", cpu_with_tools.folder, "--no-build-isolation", ".")
    done = cpu_with_tools.run(uv, *command, cwd=built_tree)
    assert_working(installed(done, cpu_with_tools), cpu_with_tools)
    assert before <= cpu_with_tools.packages()


def test_pure_python_needs_no_compiler(cpu, tree, tmp_path):
    done = cpu.install(tree=tree, PATH=path_without(tmp_path, rf"{CXX}|nvcc"), LT_NAS_EXT_KERNELS="0")
    found = installed(done, cpu)
    assert not found["active"] and "pure Python on request" in found["reason"] and found["warnings"] == []


# --------------------------------------------------------------------------------------------- the newest PyTorch


def test_pytorch_is_fetched_where_there_is_none(fresh, tree, tmp_path):
    done = fresh.install("-v", tree=tree, PATH=path_without(tmp_path, "nvcc"), CUDA_HOME="/nowhere")
    assert_working(installed(done, fresh), fresh)
    assert "torch" in fetched(done.stdout)


# -------------------------------------------------------------------------------------------------- the CUDA build


def test_cuda_build_without_nvcc(cuda, tree, tmp_path):
    hidden = {"PATH": path_without(tmp_path, "nvcc"), "CUDA_HOME": "/nowhere"}
    refused(cuda.install(tree=tree, LT_NAS_EXT_CUDA="1", **hidden), "LT_NAS_EXT_CUDA=1", "there is no nvcc")
    before = cuda.packages()
    done = cuda.install("-v", tree=tree, **hidden)
    found = installed(done, cuda)
    assert_working(found, cuda)
    assert found["torch_cuda"] and not found["cuda_kernels"]
    assert not fetched(done.stdout) and before <= cuda.packages()
    assert "there is no nvcc in CUDA_HOME or on PATH" in doctor(cuda)


def test_a_build_for_another_pytorch(cuda, cpu_with_tools, built_tree, tmp_path):
    wheel = ("pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ".")
    path = os.pathsep.join([str(cpu_with_tools.folder / "bin"), os.environ["PATH"]])  # another ninja compiles anew
    built = cpu_with_tools.run("python", "-m", *wheel, cwd=built_tree, PATH=path)
    assert built.returncode == 0, built.stdout
    (wheel,) = tmp_path.glob("*.whl")
    cuda.add("jinja2", "matplotlib", "numpy", "pillow", "rich", "scikit-learn", "tyro")
    found = installed(cuda.run("python", "-m", "pip", "install", "--no-deps", "--force-reinstall", wheel), cuda)
    built_for, running = TORCH_CPU.partition("==")[2].split("+")[0], found["torch"]
    assert not found["active"]
    (warning,) = found["warnings"]
    for said in (warning, doctor(cuda)):
        assert f"were built for PyTorch {built_for}" in said and f"PyTorch {running} is running" in said
        assert "reinstall lt_nas_ext" in said


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_cuda_build(cuda, tree):
    before = cuda.packages()
    done = cuda.install("-v", tree=tree)
    found = installed(done, cuda)
    assert_working(found, cuda)
    assert found["cuda_kernels"]
    assert not fetched(done.stdout) and before <= cuda.packages()
    assert re.search(r"^CUDA kernels +for 9\.0, with CUDA", doctor(cuda), re.MULTILINE)
