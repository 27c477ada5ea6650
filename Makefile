# `make demo` and `make test` need nothing installed but Python >= 3.11, a C++17 compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(wildcard xla_ops/*/*.cc xla_ops/*/*.h xla_ops/*/*.cu envs/*/*.cc envs/*/*.h envs/*/*.cu)
NATIVE_ALL := $(filter-out CMakeLists.txt,$(NATIVE)) $(wildcard tests/native/*.cc)
CUDA := $(wildcard xla_ops/*/cuda.cu envs/*/cuda.cu)

.PHONY: demo test nightly sanitize lint format cuda clean

demo: $(VENV)/.installed  ## train a maze in about two minutes; ends with unseen mazes, a plot and a GIF
	$(BIN)/python experiments/demo.py

test: $(VENV)/.installed  ## everything CI runs
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

nightly: $(VENV)/.installed  ## the generated tests, far more of each (about an hour)
	PUFFERJAX_NIGHTLY=1 $(BIN)/python -m pytest tests/xla_ops/test_state_heap_sequences.py tests/test_bad_calls.py \
	  $(PYTEST_ARGS)

# Every handler outside Python, instrumented; and some of its tests, whose Python gets the runtimes preloaded. libstdc++
# too: its exceptions must be known to AddressSanitizer before XLA throws one. Nothing is skipped: without the
# sanitizers' libraries the build fails.
CXX ?= g++
RUNTIMES = $(foreach name,libasan.so libubsan.so libstdc++.so.6,$(shell $(CXX) -print-file-name=$(name)))
SANITIZED_TESTS ?= tests/xla_ops/test_gae_vtrace.py -k native

sanitize: $(VENV)/.installed  ## native code under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
	$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja pybind11
	$(call instrument,address$(comma)undefined,build/sanitize-address,drive_handlers _cpu)
	build/sanitize-address/drive_handlers
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(RUNTIMES)" $(BIN)/python tests/native/pytest_instrumented.py \
	  build/sanitize-address $(SANITIZED_TESTS)
	$(call instrument,thread,build/sanitize-thread,drive_handlers)
	build/sanitize-thread/drive_handlers

comma := ,
define instrument
	$(BIN)/cmake -S . -B $(2) -G Ninja -DPUFFERJAX_SANITIZE=$(1) -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build $(2) --target $(3)
endef

$(VENV)/.installed: pyproject.toml Makefile $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

lint: $(VENV)/.lint  ## ruff and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE_ALL)

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE_ALL)

$(VENV)/.lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	@touch $@

cuda: $(VENV)/.installed  ## compile every CUDA source where nvcc is found; nothing is run
ifeq ($(CUDA),)
	@echo "no CUDA sources in this version"
else ifeq ($(shell command -v nvcc),)
	@echo "nvcc not found: CUDA sources not compiled"
else
	$(BIN)/python -m pip install --quiet cmake ninja pybind11
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DPUFFERJAX_CUDA=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/cuda --target _cuda
endif

clean:
	rm -rf $(VENV) build
