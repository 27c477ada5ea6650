# `make demo` and `make test` need nothing installed but Python >= 3.11, a C++17 compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(wildcard xla_ops/*/*.cc xla_ops/*/*.h xla_ops/*/*.cu envs/*/*.cc envs/*/*.h envs/*/*.cu)
CUDA := $(wildcard xla_ops/*/cuda.cu envs/*/cuda.cu)

.PHONY: demo test lint format cuda clean

demo: $(VENV)/.installed  ## train a maze in about two minutes; ends with unseen mazes, a plot and a GIF
	$(BIN)/python experiments/demo.py

test: $(VENV)/.installed  ## everything CI runs
	$(BIN)/python -m pytest $(PYTEST_ARGS)

$(VENV)/.installed: pyproject.toml Makefile $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

lint: $(VENV)/.lint  ## ruff and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(filter-out CMakeLists.txt,$(NATIVE))

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter-out CMakeLists.txt,$(NATIVE))

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
