# make            set everything up in .venv (done by every other target too, when it is needed)
# make demo       search and retrain on the digits, a table and a report
# make test       the tests          make test-slow    and the long sweeps
# make test-install   the install matrix: 51 minutes on 2 busy cores, 8 GB of disk
# make fuzz       operators against their eager twins, 12 500 random cases
# make sanitize   the operators' tests under the address and undefined-behaviour sanitizers
# make bench      the benchmarks     make lint         ruff, clang-format, mypy
# make clean      remove what was built (.venv stays)
#
# make PYTHON=python3.12 takes another interpreter; a .venv of your own is used as it is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
LINTERS := $(VENV)/.linters
BUILT_FROM := setup.py pyproject.toml constraints.txt $(shell find csrc -type f)
# build-system.requires of pyproject.toml: installed beside the package, so that a rebuild is incremental
BUILD_TOOLS := 'setuptools>=70.1' ninja 'pybind11>=2.12' numpy "tomli; python_version < '3.11'"

# a file's tests stay together, for what they share is made once
PYTEST := $(BIN)/pytest -n auto --dist loadfile
OPERATORS := $(wildcard python_tests/test_ops_*.py)
SANITIZED := build/sanitized

.PHONY: install demo test test-slow test-install fuzz sanitize bench lint clean
.DELETE_ON_ERROR:

install: $(INSTALLED)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here. Debian and Ubuntu: apt install python3; Fedora: dnf install python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("%s is Python %s; it takes 3.10 or later: make PYTHON=python3.12, say" % (sys.executable, sys.version.split()[0]))'
	@$(PYTHON) -B -c 'import setup; setup.check_machine(venv=True)'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python $(BUILT_FROM)
	@$(BIN)/python -B -c 'import setup; setup.check_machine()'
	$(PIP) install --constraint constraints.txt $(BUILD_TOOLS) torch torchvision
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[vision,tensorboard,cluster,test]'
	@touch $@

$(LINTERS): $(INSTALLED)
	$(PIP) install --constraint constraints.txt 'lt_nas_ext[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/lt-nas demo

test: $(INSTALLED)
	LT_NAS_EXT_REQUIRE_KERNELS=1 $(PYTEST)

test-slow: $(INSTALLED)
	LT_NAS_EXT_REQUIRE_KERNELS=1 $(PYTEST) --slow

test-install: $(INSTALLED)
	$(BIN)/pytest --install -m install --durations=0 --durations-min=1 -v

fuzz: $(INSTALLED)
	LT_NAS_EXT_REQUIRE_KERNELS=1 LT_NAS_EXT_TEST_PROFILE=fuzz $(PYTEST) -k test_equals_its_eager_twin $(OPERATORS)

# Python itself is built without sanitizers: their libraries must be loaded before it, and what it never frees ignored.
sanitize: $(INSTALLED)
	LT_NAS_EXT_SANITIZE=1 LT_NAS_EXT_CUDA=0 $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LT_NAS_EXT_REQUIRE_KERNELS=1 PYTHONPATH=$(SANITIZED) $(BIN)/pytest -x -k "not Bodies and not bodies" $(OPERATORS)

bench: $(INSTALLED)
	@for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

lint: $(LINTERS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc python_tests -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info lt_nas_ext/*.so lt_nas_ext/_build_info.py .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(INSTALLED)
