"""The build's decisions: which PyTorch, which CUDA toolkit, how many jobs, and what it says where it cannot build."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _setup():
    spec = importlib.util.spec_from_file_location("lt_nas_ext_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


setup = _setup()
SWITCHES = ("LT_NAS_EXT_CUDA", "TORCH_CUDA_ARCH_LIST", "CUDA_HOME", "CUDA_PATH", "CXX", "CC", "MAX_JOBS")
TORCH_CUDA = setup.Torch("2.11.0+cu130", "13.0")
TORCH_CPU = setup.Torch("2.13.0+cpu", None)


@pytest.fixture(autouse=True)
def _no_switches(monkeypatch):
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)


def fake_toolkit(folder: Path, version: str) -> Path:
    """A toolkit whose nvcc answers as the real one does, and the folder of a wrapper script that calls it."""
    nvcc = folder / f"cuda-{version}" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --version ]; then echo "Cuda compilation tools, release {version}, V{version}.88"; exit; fi\n'
        'test -f x.cu || { echo "x.cu: no such file" >&2; exit 1; }\n'
        f'printf "#$ _SPACE_= \\n#$ _HERE_={nvcc.parent}\\n#$ TOP={nvcc.parent}/..\\n#$ gcc -E x.cu\\n" >&2\n'
    )
    wrapper = folder / "wrappers" / "nvcc"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    for script in (nvcc, wrapper):
        script.chmod(0o755)
    return wrapper.parent


# ------------------------------------------------------------------------------------------------------------- CUDA


@pytest.mark.parametrize(
    ("dryrun", "home"),
    [
        ("#$ _SPACE_= \n#$ _HERE_=/opt/cuda/bin\n#$ TOP=/opt/cuda/bin/..\n#$ gcc -E x.cu\n", "/opt/cuda"),
        ("#$ _HERE_=/opt/my cuda/bin\n#$ TOP=/opt/my cuda/bin/..\n", "/opt/my cuda"),
        ("#$ _HERE_=/env/bin\n", "/env"),  # no TOP: the folder above nvcc's own
        ("nvcc fatal : something\n", None),
        ("", None),
    ],
)
def test_toolkit_of(dryrun, home):
    assert setup.toolkit_of(dryrun) == home


def test_toolkit_of_prefers_the_folder_that_has_nvcc(tmp_path):
    fake_toolkit(tmp_path, "13.0")
    here = tmp_path / "cuda-13.0" / "bin"
    dryrun = (
        f"#$ _HERE_={here}\n#$ TOP={tmp_path}/targets/x86_64-linux\n"  # a layout in which TOP is the headers' folder
    )
    assert setup.toolkit_of(dryrun) == os.path.realpath(here.parent)


def test_toolkit_behind_a_wrapper_script(tmp_path, monkeypatch):
    wrappers = fake_toolkit(tmp_path, "13.0")
    monkeypatch.setenv("PATH", f"{wrappers}:/usr/bin:/bin")
    cuda, reason = setup.plan_cuda(TORCH_CUDA)
    assert cuda == setup.Cuda(
        str(wrappers / "nvcc"), os.path.realpath(tmp_path / "cuda-13.0"), "13.0", setup.cuda_archs()
    )
    assert "13.0" in reason


def test_cuda_home_goes_before_path(tmp_path, monkeypatch):
    wrappers = fake_toolkit(tmp_path, "12.4")
    fake_toolkit(tmp_path, "13.1")
    monkeypatch.setenv("PATH", f"{wrappers}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda-13.1"))
    cuda, _ = setup.plan_cuda(TORCH_CUDA)
    assert (cuda.version, cuda.home) == ("13.1", os.path.realpath(tmp_path / "cuda-13.1"))


def test_a_cuda_home_without_nvcc_is_not_replaced_by_the_customary_toolkit(tmp_path, monkeypatch):
    customary = {"/usr/local/cuda/bin": "/usr/local/cuda/bin/nvcc"}
    monkeypatch.setattr(setup.shutil, "which", lambda name, path=None: customary.get(path))
    assert setup.find_nvcc() == "/usr/local/cuda/bin/nvcc"
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert setup.find_nvcc() is None


def test_major_versions_differ(tmp_path, monkeypatch):
    wrappers = fake_toolkit(tmp_path, "12.4")
    monkeypatch.setenv("PATH", f"{wrappers}:/usr/bin:/bin")
    with pytest.raises(SystemExit) as error:
        setup.plan_cuda(TORCH_CUDA)
    message = str(error.value)
    assert "12.4" in message and "13.0" in message and str(wrappers / "nvcc") in message
    assert "LT_NAS_EXT_CUDA=0" in message and "CUDA_HOME" in message
    monkeypatch.setenv("LT_NAS_EXT_CUDA", "0")
    assert setup.plan_cuda(TORCH_CUDA)[0] is None


def test_an_nvcc_that_is_broken(tmp_path, monkeypatch):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho no licence >&2; exit 1\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SystemExit, match=r"(?s)does not say which CUDA toolkit.*no licence.*LT_NAS_EXT_CUDA=0"):
        setup.plan_cuda(TORCH_CUDA)


@pytest.mark.parametrize(
    ("torch", "obstacle"),
    [(TORCH_CUDA, "built for CUDA 13.0, but there is no nvcc"), (TORCH_CPU, "2.13.0+cpu is a build without CUDA")],
)
def test_without_cuda(torch, obstacle, monkeypatch):
    monkeypatch.setattr(setup, "find_nvcc", lambda: None)
    cuda, reason = setup.plan_cuda(torch)
    assert cuda is None and obstacle in reason
    monkeypatch.setenv("LT_NAS_EXT_CUDA", "1")
    with pytest.raises(SystemExit, match=re.escape(obstacle)):
        setup.plan_cuda(torch)


@pytest.mark.parametrize(
    ("listed", "archs"),
    [("9.0", ("9.0",)), ("8.0;9.0+PTX", ("8.0", "9.0+PTX")), ("7.5 8.0; 8.6", ("7.5", "8.0", "8.6"))],
)
def test_arch_list_is_honoured(listed, archs, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    assert setup.cuda_archs() == archs


@pytest.mark.parametrize(("visible", "archs"), [([], setup.DEFAULT_CUDA_ARCHS), ([(9, 0), (8, 6)], ("8.6", "9.0+PTX"))])
def test_archs_follow_the_visible_gpus(visible, archs, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(visible))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(visible))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: visible[index])
    assert setup.cuda_archs() == archs


@pytest.mark.parametrize(("value", "meaning"), [(None, None), ("", None), ("0", False), ("1", True)])
def test_switch(value, meaning, monkeypatch):
    if value is not None:
        monkeypatch.setenv("LT_NAS_EXT_CUDA", value)
    assert setup.switch("LT_NAS_EXT_CUDA") is meaning


def test_switch_that_is_neither(monkeypatch):
    monkeypatch.setenv("LT_NAS_EXT_CUDA", "yes")
    with pytest.raises(SystemExit, match=r"LT_NAS_EXT_CUDA='yes'.*0 or 1"):
        setup.switch("LT_NAS_EXT_CUDA")


# ---------------------------------------------------------------------------------------------------------- PyTorch

FIND = """
import json, sys
sys.path.insert(0, sys.argv[1])
import setup
found, before = setup.importable_torch(), list(sys.path)
torch = setup.find_torch()
print(json.dumps([found is None, torch and torch.version, sys.path == before]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment, and a command that runs in it as pip's build isolation does."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", folder], check=True)
    isolation = folder / "isolation"
    isolation.mkdir()
    (isolation / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.path[:] = [p for p in sys.path if not p.endswith(('site-packages', 'dist-packages', 'elsewhere'))]\n"
    )
    site = next(folder.glob("lib/python3*/site-packages"))
    return folder, site, isolation


def put_torch(folder: Path, version: str) -> None:
    (folder / "torch").mkdir(parents=True, exist_ok=True)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('the version is known without importing it')")
    (folder / "torch" / "version.py").write_text(f"__version__ = {version!r}\ncuda = None\n")


def find_in(environment, user: Path | None = None) -> list:
    folder, _, isolation = environment
    variables = {**os.environ, "PYTHONPATH": str(isolation), "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if user is not None:
        variables["PYTHONUSERBASE"] = str(user)
    command = [folder / "bin" / "python", "-c", FIND, ROOT]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout)


def test_torch_of_the_environment_is_found_from_isolation(environment, tmp_path):
    _, site, _ = environment
    put_torch(site, "2.99.0+cpu")
    assert find_in(environment) == [True, "2.99.0+cpu", False]
    put_torch(site, "2.10.1")  # too old: pip fetches another, which this one must not hide
    assert find_in(environment) == [True, None, True]


def test_torch_behind_a_pth_file(environment, tmp_path):
    _, site, _ = environment
    elsewhere = tmp_path / "elsewhere"
    put_torch(elsewhere, "2.98.0")
    for file in (site / "torch").glob("*"):
        file.unlink()
    if (site / "torch").exists():
        (site / "torch").rmdir()
    # before the system's own, where the machine that runs this test may have one
    (site / "elsewhere.pth").write_text(f"import sys; sys.path.insert(1, {str(elsewhere)!r})\n")
    try:
        assert find_in(environment) == [True, "2.98.0", False]
    finally:
        (site / "elsewhere.pth").unlink()


def test_torch_of_the_user_site(environment, tmp_path):
    put_torch(tmp_path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages", "2.97.0")
    assert find_in(environment, user=tmp_path) == [True, "2.97.0", False]


@pytest.mark.parametrize(
    ("version", "recent", "public"),
    [
        ("2.11.0+cu130", True, "2.11.0"),
        ("2.13.0", True, "2.13.0"),
        ("3.0.0a0+git1234", True, "3.0.0a0"),
        ("2.10.2", False, "2.10.2"),
        ("1.13.1", False, "1.13.1"),
    ],
)
def test_torch_versions(version, recent, public):
    torch = setup.Torch(version, None)
    assert (torch.recent, torch.public_version) == (recent, public)


def test_the_wheel_requires_what_it_was_built_against():
    built = setup.dependencies(TORCH_CUDA, kernels=True)
    pure = setup.dependencies(None, kernels=False)
    assert built[0] == "torch==2.11.0" and pure[0] == "torch>=2.11"
    assert built[1:] == pure[1:] and {re.split(r"[<>=]", name)[0] for name in pure} == {
        *("torch", "numpy", "pillow", "scikit-learn", "matplotlib", "jinja2", "rich", "tyro")
    }


# ---------------------------------------------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    ("cores", "gigabytes", "jobs"),
    [(2, 23.0, 2), (64, 12.5, 4), (64, 2.0, 1), (1, 100.0, 1), (16, 48.0, 16), (4, 0.0, 1)],
)
def test_parallel_jobs(cores, gigabytes, jobs):
    assert setup.parallel_jobs(cores, gigabytes) == jobs


def test_available_memory_is_plausible():
    assert 0 < setup.available_gigabytes() < 2**20


def test_missing_compiler_is_named_with_its_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"lacks a C\+\+ compiler \(.*apt install g\+\+;.*dnf install gcc-c\+\+"):
        setup.check_machine()


def test_everything_missing_is_named_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(setup, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        setup.check_machine(venv=True)
    for package in ("g++", "python3-dev", "python3-venv", "gcc-c++", "python3-devel"):
        assert package in str(error.value)
    assert len(setup.missing_tools()) == 2  # pip needs no venv module


def test_cxx_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(SystemExit, match="CXX is 'no-such-compiler -m64'"):
        setup.check_machine()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_platforms(platform, monkeypatch):
    monkeypatch.setattr(setup.sys, "platform", platform)
    with pytest.raises(SystemExit, match=rf"this is {platform}.*LT_NAS_EXT_KERNELS=0"):
        setup.check_machine()


# -------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("missing", ["ninja", "pybind11"])
def test_build_tools_that_are_not_there(missing, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name, path: None if name == missing else f"/bin/{name}")
    monkeypatch.setattr(setup, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(
        SystemExit, match=f"{missing} missing: pip install {missing}, or leave out --no-build-isolation"
    ):
        setup.check_build_tools()


def test_ninja_of_an_environment_that_is_not_activated(tmp_path, monkeypatch):
    (tmp_path / "ninja").write_text("#!/bin/sh\n")
    (tmp_path / "ninja").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(tmp_path) if name == "scripts" else None)
    monkeypatch.setattr(setup, "find_spec", lambda name: object())
    setup.check_build_tools()
    (tmp_path / "ninja").unlink()
    with pytest.raises(SystemExit, match="ninja missing"):
        setup.check_build_tools()


def test_uv_in_isolation_is_refused(monkeypatch):
    monkeypatch.delenv("UV_INTERNAL__BUILD_DIR", raising=False)
    setup.check_uv()
    monkeypatch.setenv("UV_INTERNAL__BUILD_DIR", "/somewhere")
    with pytest.raises(SystemExit, match="uv pip install --no-build-isolation"):
        setup.check_uv()


def test_build_info_is_a_module(tmp_path):
    cuda = setup.Cuda("/bin/nvcc", "/opt/cuda", "13.0", ("8.0", "9.0+PTX"))
    info = setup.build_info(TORCH_CUDA, cuda, "CUDA kernels with nvcc 13.0")
    setup.write_build_info(tmp_path / "lt_nas_ext", info)
    written = runpy.run_path(str(tmp_path / "lt_nas_ext" / "_build_info.py"))
    assert {name: written[name] for name in info} == info
    assert (info["KERNELS"], info["TORCH_VERSION"], info["CUDA_ARCHS"]) == (True, "2.11.0+cu130", ("8.0", "9.0+PTX"))
    assert setup.build_info(None, None, "pure")["KERNELS"] is False


def test_makefile_installs_every_build_tool():
    listed = re.search(
        r"^requires = \[(.+?)^\]", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE | re.DOTALL
    )[1]
    required = re.findall(r'^ *"(.+?)"', listed, flags=re.MULTILINE)
    assert len(required) >= 4
    makefile = (ROOT / "Makefile").read_text()
    listed = re.search(r"^BUILD_TOOLS := (.+)$", makefile, flags=re.MULTILINE)[1]
    for requirement in required:
        assert re.match(r"[\w-]+", requirement)[0] in listed
