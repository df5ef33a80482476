"""Builds csrc/ into lt_nas_ext/_C against the PyTorch of the environment that is being installed into.

Switches, all environment variables:
    LT_NAS_EXT_KERNELS=0     pure Python, nothing is compiled
    LT_NAS_EXT_CUDA=0|1      never build the CUDA kernels | fail where they cannot be built
    TORCH_CUDA_ARCH_LIST     as in PyTorch: "8.0;9.0+PTX"
    LT_NAS_EXT_SANITIZE=1    the CPU kernels under the address and undefined-behaviour sanitizers (make sanitize)
    MAX_JOBS                 compilers at a time (default: as many as cores and memory allow)
    CXX, CC, CUDA_HOME       the compilers to use
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

ROOT = Path(__file__).resolve().parent
PACKAGE = "lt_nas_ext"
MINIMUM_TORCH = (2, 11)
GIGABYTES_PER_JOB = 3.0  # what one compiler takes at its worst with PyTorch's headers
DEFAULT_CUDA_ARCHS = ("7.5", "8.0", "9.0+PTX")  # Turing; Ampere and Ada; Hopper, and by its PTX whatever comes after
FLAGS = ["-O3", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wextra", "-g0"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-omit-frame-pointer", "-g1"]
NVCC_FLAGS = ["-O3", "-Xcompiler=-fopenmp,-fvisibility=hidden,-Wall"]


def fail(message: str) -> NoReturn:
    """End the build with one readable sentence: pip prints it as it is, without a traceback."""
    raise SystemExit(f"\n{PACKAGE} cannot be built: {message}\n")


def say(message: str) -> None:
    print(f"{PACKAGE}: {message}", file=sys.stderr)


def switch(name: str) -> bool | None:
    """The value of an on/off environment variable; None where it is not set."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        fail(f"{name}={value!r} is not understood; set it to 0 or 1, or not at all.")
    return None if value == "" else value == "1"


# ---------------------------------------------------------------------------------------------------------- PyTorch


@dataclass(frozen=True)
class Torch:
    """A PyTorch as its own version file states it, known without importing it."""

    version: str
    cuda: str | None

    @property
    def public_version(self) -> str:
        return self.version.split("+")[0]

    @property
    def recent(self) -> bool:
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) >= MINIMUM_TORCH


def importable_torch() -> Torch | None:
    """The PyTorch that `import torch` would find now."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    stated = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return Torch(stated["__version__"], stated.get("cuda"))


def target_path(python: str = sys.executable) -> list[str]:
    """The import path of the environment behind `python`, as it is outside pip's build isolation.

    Isolation works through these two variables, so the environment's own interpreter without them sees its own
    packages: site-packages, .pth entries, and the system's and the user's where the environment lets them in.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
    command = [python, "-c", "import json, sys; print(json.dumps(sys.path))"]
    with tempfile.TemporaryDirectory() as elsewhere:  # -c puts the working directory first, and it may hold anything
        asked = subprocess.run(command, env=environment, cwd=elsewhere, capture_output=True, text=True)
    if asked.returncode != 0:
        return []
    return [entry for entry in json.loads(asked.stdout.splitlines()[-1]) if entry and os.path.isdir(entry)]


def find_torch() -> Torch | None:
    """The PyTorch to build against: this interpreter's, or the one of the environment that is installed into."""
    found = importable_torch()
    if found is None:
        # Appended, so that everything the build environment has itself goes before.
        added = [entry for entry in target_path() if entry not in sys.path]
        sys.path.extend(added)
        found = importable_torch()
        if found is not None and not found.recent:  # it must not hide the one that pip is about to fetch
            del sys.path[-len(added) :]
    return found if found is not None and found.recent else None


# ------------------------------------------------------------------------------------------------------------- CUDA


@dataclass(frozen=True)
class Cuda:
    """The CUDA toolkit that compiles the kernels."""

    nvcc: str
    home: str
    version: str
    archs: tuple[str, ...]


def find_nvcc() -> str | None:
    """CUDA_HOME's nvcc, the one on PATH, or, where nobody named a toolkit, the one of the customary place."""
    named = [home for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    for home in named:
        if os.access(Path(home, "bin", "nvcc"), os.X_OK):
            return str(Path(home, "bin", "nvcc"))
    return shutil.which("nvcc") or (None if named else shutil.which("nvcc", path="/usr/local/cuda/bin"))


def toolkit_of(dryrun: str) -> str | None:
    """The toolkit's folder, as `nvcc -v --dryrun` states it; nvcc on PATH may be a script that lives elsewhere."""
    stated = dict(re.findall(r"^#\$ (TOP|_HERE_)=(.+?)\s*$", dryrun, flags=re.MULTILINE))
    candidates = [stated.get("TOP"), os.path.dirname(stated["_HERE_"]) if "_HERE_" in stated else None]
    folders = [os.path.realpath(folder) for folder in candidates if folder]
    with_nvcc = [folder for folder in folders if os.access(os.path.join(folder, "bin", "nvcc"), os.X_OK)]
    return next(iter(with_nvcc + folders), None)


def ask_nvcc(nvcc: str) -> tuple[str, str]:
    """The release of this nvcc ("13.0") and the folder of its toolkit."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.cu").touch()
        answers = []
        for arguments in (["--version"], ["-v", "--dryrun", "x.cu"]):
            try:
                done = subprocess.run([nvcc, *arguments], cwd=folder, capture_output=True, text=True)
            except OSError as error:
                fail(f"{nvcc} does not run ({error}). Repair it, or set LT_NAS_EXT_CUDA=0 for CPU kernels only.")
            answers.append(done.stdout + done.stderr)
    version, home = re.search(r"release (\d+\.\d+)", answers[0]), toolkit_of(answers[1])
    if version is None or home is None:
        fail(
            f"{nvcc} does not say which CUDA toolkit it belongs to; it answered:\n{(answers[0] + answers[1])[:500]}\n"
            "Set CUDA_HOME to the toolkit's folder, or LT_NAS_EXT_CUDA=0 for CPU kernels only."
        )
    return version[1], home


def cuda_archs() -> tuple[str, ...]:
    """TORCH_CUDA_ARCH_LIST, else the GPUs that are visible, else those in common use (images are built without one)."""
    listed = tuple(re.split(r"[;,\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip(" ;,")))
    if listed != ("",):
        return listed
    import torch

    with contextlib.suppress(RuntimeError):  # a driver that fails is no reason not to compile
        if torch.cuda.is_available():
            visible = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
            names = [f"{major}.{minor}" for major, minor in sorted(visible)]
            return (*names[:-1], names[-1] + "+PTX")
    return DEFAULT_CUDA_ARCHS


def plan_cuda(torch: Torch) -> tuple[Cuda | None, str]:
    """The toolkit to build the CUDA kernels with, or None; and the reason in one sentence."""
    wanted = switch("LT_NAS_EXT_CUDA")
    if wanted is False:
        return None, "no CUDA kernels on request (LT_NAS_EXT_CUDA=0)"
    nvcc = find_nvcc()
    if torch.cuda is None:
        obstacle = f"PyTorch {torch.version} is a build without CUDA"
    elif nvcc is None:
        obstacle = (
            f"PyTorch {torch.version} is built for CUDA {torch.cuda}, but there is no nvcc in CUDA_HOME or on PATH"
        )
    else:
        version, home = ask_nvcc(nvcc)
        if version.split(".")[0] == torch.cuda.split(".")[0]:
            return Cuda(nvcc, home, version, cuda_archs()), f"CUDA kernels with nvcc {version}"
        fail(
            f"nvcc is CUDA {version} ({nvcc}), and PyTorch {torch.version} is built for CUDA {torch.cuda}: "
            "the major versions must be the same. Put the nvcc of a "
            f"CUDA {torch.cuda.split('.')[0]} toolkit first on PATH (or set CUDA_HOME to that toolkit), "
            "or set LT_NAS_EXT_CUDA=0 for CPU kernels only."
        )
    if wanted:
        fail(f"LT_NAS_EXT_CUDA=1 asks for CUDA kernels, but {obstacle}.")
    return None, f"no CUDA kernels: {obstacle}"


# ---------------------------------------------------------------------------------------------------- this machine


PACKAGES = {  # what may be missing: the packages that bring it on Debian and Ubuntu, and on Fedora
    "a C++ compiler": ("g++", "gcc-c++"),
    "Python's headers": ("python3-dev", "python3-devel"),
    "Python's venv module": ("python3-venv", "python3-libs"),
}


def find_compiler() -> str | None:
    """The C++ compiler: CXX, or the first of the usual names."""
    asked = os.environ.get("CXX", "").split()[:1]
    return next((found for name in asked or ["c++", "g++", "clang++"] if (found := shutil.which(name))), None)


def missing_tools(venv: bool = False) -> list[str]:
    """What this machine lacks for a build (and for a virtual environment), each with the package that brings it."""
    present = {
        "a C++ compiler": find_compiler() is not None,
        "Python's headers": Path(sysconfig.get_path("include"), "Python.h").exists(),
        "Python's venv module": not venv or (find_spec("venv") is not None and find_spec("ensurepip") is not None),
    }
    return [
        f"{tool} (Debian and Ubuntu: apt install {debian}; Fedora: dnf install {fedora})"
        for tool, (debian, fedora) in PACKAGES.items()
        if not present[tool]
    ]


def check_machine(venv: bool = False) -> None:
    """Name everything that is missing at once, before anything is downloaded or compiled."""
    pure = "LT_NAS_EXT_KERNELS=0 pip install . installs the package as pure Python: same results, slower."
    if sys.platform != "linux":
        fail(f"the kernels build on Linux only so far, and this is {sys.platform}. {pure}")
    missing = missing_tools(venv)
    if missing:
        chosen = f" CXX is {os.environ['CXX']!r}." if os.environ.get("CXX") else ""
        fail(f"this machine lacks {'; and '.join(missing)}.{chosen} {pure}")


def available_gigabytes() -> float:
    """Free memory, by the tighter of the machine's and the container's limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with contextlib.suppress(OSError, AttributeError, TypeError):
        stated = Path("/proc/meminfo").read_text()
        free = int(re.search(r"^MemAvailable:\s+(\d+) kB", stated, flags=re.MULTILINE)[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # "max" where the container has no limit
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return free / 2**30


def parallel_jobs(cores: int, gigabytes: float) -> int:
    """Compilers to run at a time: no more than cores, and no more than memory holds."""
    return max(1, min(cores, int(gigabytes / GIGABYTES_PER_JOB)))


# ------------------------------------------------------------------------------------------------------- the build


def write_build_info(folder: Path, info: dict[str, Any]) -> None:
    lines = [
        '"""What the kernels were built against. Written by setup.py."""\n',
        *(f"{k} = {v!r}" for k, v in info.items()),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_build_info.py").write_text("\n".join(lines) + "\n")


def build_info(torch: Torch | None, cuda: Cuda | None, reason: str) -> dict[str, Any]:
    return {
        "KERNELS": torch is not None,
        "TORCH_VERSION": torch.version if torch else None,
        "CUDA_VERSION": cuda.version if cuda else None,
        "CUDA_ARCHS": cuda.archs if cuda else (),
        "NVCC": cuda.nvcc if cuda else None,
        "CUDA_REASON": reason,
    }


def python_command(info: dict[str, Any]) -> type:
    """build_py that also writes _build_info.py, and starts from an empty folder."""
    from setuptools.command.build_py import build_py

    class BuildPython(build_py):
        def run(self) -> None:
            if self.editable_mode:
                super().run()
                return write_build_info(ROOT / PACKAGE, info)
            # A module that the sources no longer have would otherwise stay in build/ and go into the wheel.
            shutil.rmtree(Path(self.build_lib, PACKAGE), ignore_errors=True)
            super().run()
            write_build_info(Path(self.build_lib, PACKAGE), info)

    return BuildPython


def extension_command() -> type:
    """PyTorch's build_ext, with the object files of an editable install kept, so that the next one is incremental."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildKernels(BuildExtension):
        def run(self) -> None:
            self.force = True  # ninja knows what is up to date (setuptools would compare dates and miss a new PyTorch)
            if self.inplace or self.editable_mode:
                self.build_temp = str(ROOT / "build" / f"editable-{sys.implementation.cache_tag}")
            super().run()

    return BuildKernels


def extension(cuda: Cuda | None) -> Any:
    """The one shared object: every .cpp under csrc, and every .cu where CUDA kernels are built."""
    import pybind11
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    sources, headers = (
        sorted(str(path.relative_to(ROOT)) for suffix in suffixes for path in ROOT.glob(f"csrc/**/*{suffix}"))
        for suffixes in ((".cpp", ".cu") if cuda else (".cpp",), (".h", ".cuh"))
    )
    kind = CUDAExtension if cuda else CppExtension
    sanitize = SANITIZE if switch("LT_NAS_EXT_SANITIZE") else []
    built = kind(
        f"{PACKAGE}._C",
        sources,
        depends=headers,
        define_macros=[("LT_NAS_EXT_CUDA", "1")] if cuda else [],
        extra_compile_args={"cxx": [*FLAGS, *sanitize], "nvcc": NVCC_FLAGS},
        extra_link_args=["-fopenmp", *sanitize],
    )
    # As system folders, so that the warnings shown are ours. pybind11 first: PyTorch brings another one along.
    system = [flag for folder in (pybind11.get_include(), *built.include_dirs) for flag in ("-isystem", folder)]
    built.include_dirs = [str(ROOT / "csrc")]
    for flags in built.extra_compile_args.values():
        flags.extend(system)
    return built


def prepare(cuda: Cuda | None) -> None:
    """Settings that torch.utils.cpp_extension reads, some of them while it is imported."""
    os.environ["PATH"] = build_path()
    os.environ.setdefault("CXX", find_compiler() or "c++")
    os.environ.setdefault("MAX_JOBS", str(parallel_jobs(len(os.sched_getaffinity(0)), available_gigabytes())))
    if cuda:
        os.environ["CUDA_HOME"] = cuda.home
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(cuda.archs)


def build_path() -> str:
    """PATH, and behind it this environment's own programs: pip may be called by its path, without activation."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])


def check_build_tools() -> None:
    """With --no-build-isolation nobody installs them: name those that are not there."""
    present = {
        "pybind11": find_spec("pybind11"),
        "ninja": shutil.which("ninja", path=build_path()),
        "tomli": tomllib or find_spec("tomli"),
    }
    missing = [name for name, found in present.items() if not found]
    if missing:
        fail(f"{' and '.join(missing)} missing: pip install {' '.join(missing)}, or leave out --no-build-isolation.")


def check_uv() -> None:
    """uv builds where nothing of the environment that is installed into can be seen.

    A PyTorch fetched for the build would then replace the one that is there, by the pin of `dependencies`.
    """
    if os.environ.get("UV_INTERNAL__BUILD_DIR"):
        fail(
            "uv builds in an environment of its own, from which the PyTorch of yours cannot be seen. "
            "Build without it:\n  uv pip install torch setuptools ninja pybind11 numpy\n"
            "  uv pip install --no-build-isolation ."
        )


def dependencies(torch: Torch | None, kernels: bool) -> list[str]:
    """What the wheel requires: the list of pyproject.toml, with PyTorch pinned to the one that was built against."""
    reader = tomllib or import_module("tomli")  # not at the top: the Makefile asks this file what the machine lacks
    listed = reader.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][PACKAGE]["dependencies"]
    return [
        f"torch=={torch.public_version}" if kernels and torch and name.startswith("torch>") else name for name in listed
    ]


def main() -> None:
    from setuptools import setup

    kernels = switch("LT_NAS_EXT_KERNELS") is not False
    asked_what_it_needs = "egg_info" in sys.argv  # how pip learns the build requirements
    metadata_only = asked_what_it_needs or "dist_info" in sys.argv
    torch, cuda, reason = None, None, "built as pure Python on request (LT_NAS_EXT_KERNELS=0)"
    arguments: dict[str, Any] = {}
    if kernels and "sdist" not in sys.argv:
        check_machine()
        check_build_tools()
        torch = find_torch()
        if torch is not None:
            cuda, reason = plan_cuda(torch)
        elif asked_what_it_needs:
            check_uv()
            arguments["setup_requires"] = [f"torch>={MINIMUM_TORCH[0]}.{MINIMUM_TORCH[1]}"]
        else:
            fail(
                f"there is no PyTorch {MINIMUM_TORCH[0]}.{MINIMUM_TORCH[1]} or later in this environment "
                f"({sys.prefix}). Install one first (pip install torch), or leave out --no-build-isolation."
            )
    arguments["cmdclass"] = {"build_py": python_command(build_info(torch, cuda, reason))}
    if torch is not None and not metadata_only:
        prepare(cuda)
        say(f"building against PyTorch {torch.version}; {reason}; {os.environ['MAX_JOBS']} job(s)")
        arguments["ext_modules"] = [extension(cuda)]
        arguments["cmdclass"]["build_ext"] = extension_command()
    # Here rather than in pyproject.toml: setuptools before 77 and from 77 on each refuse the other's form there.
    setup(
        license="Apache-2.0",
        license_expression="Apache-2.0",
        install_requires=dependencies(torch, kernels),
        **arguments,
    )


if __name__ == "__main__":
    main()
