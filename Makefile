# `make` lists the targets. Each prepares .venv by itself: a stamp in it, written only after success, says what it holds.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train quick test nightly gpu-check gpu lint check docs bench clean

PYTHONS := $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14)
RUN := .venv/bin/python

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s%s\n", $$1, $$2 }' Makefile
	@echo 'Arguments: make train ARGS="--epochs 3". To make .venv with a Python of your choice: make test PYTHON=python3.12'

train: .venv/.has-apps ## train on the digits that come with needle; ARGS are the app's
	$(RUN) apps/train.py $(ARGS)

# One BLAS thread for each worker: more threads than cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest
QUICK := test_architecture.py test_tensor.py test_autograd.py test_conv_conformance.py ops/test_conv.py \
    ops/test_table.py::test_agrees_with_torch kernels/test_conv.py kernels/test_window.py nn/test_layers.py

quick: .venv/.has-test ## run a sample of the tests in seconds: one file per floor, the CPU, few examples
	$(PYTEST) -n auto --maxprocesses 2 --hypothesis-profile quick --device cpu $(addprefix tests/,$(QUICK)) $(ARGS)

test: .venv/.has-test ## run the tests; ARGS are pytest's (ARGS="-n 0 -k conv", ARGS="--device all")
	$(PYTEST) -n auto --maxprocesses 4 --dist loadfile $(ARGS)

KERNELS := tests/kernels tests/ops tests/test_conv_conformance.py

nightly: .venv/.has-test ## run all tests, also slow ones, with 2,000 examples, on every device and on deeper graphs; guard memory
	$(PYTEST) -n auto --maxprocesses 4 --guard after $(KERNELS)
	$(PYTEST) -n auto --maxprocesses 4 --guard before $(KERNELS)
	$(PYTEST) -n auto --maxprocesses 4 --hypothesis-profile nightly -m "slow or not slow" $(ARGS)
	if command -v g++ > /dev/null; then $(MAKE) gpu-check; else echo "No gpu-check: g++ is not installed"; fi

gpu-check: .venv-gpu/.made ## run the tests for GPUs without one: on CuPy, with kernels that g++ compiles for the CPU
	PATH="$(CURDIR)/.venv/bin:$$PATH" MPI4PY_LIBMPI="$(CURDIR)/.venv/lib:" OMP_NUM_THREADS=1 \
	    .venv-gpu/bin/python -m pytest -p tests.gpu.null.plugin -m gpu \
	    -n auto --maxprocesses 4 --dist loadfile $(ARGS)

gpu: ## on a machine with a GPU, CuPy and torch: test and time needle there, in ten minutes; ARGS are the script's
	$(or $(PYTHON),python3) -m tests.gpu.first_gpu $(ARGS)

lint: .venv/.has-lint ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m basedpyright --pythonpath $(RUN)

check: lint test ## style, types and tests: what a change must pass

docs: .venv/.has-docs ## build the documentation into build/docs; warnings are errors
	$(RUN) -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo 'Open build/docs/index.html'

bench: .venv/.has-bench ## measure speed; ARGS are the benchmark's
	$(RUN) -m apps.benchmark $(ARGS)

clean: ## remove what make made: its .venv, caches, build products; runs/ stay
	rm -rf .venv-gpu .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov build dist *.egg-info
	if [ -e .venv/.by-make ] || [ -e .venv/.made ]; then rm -rf .venv; fi
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

.venv/.made:
	@chosen=; tried=; \
	for python in $(PYTHONS); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then chosen=$$python; break; fi; \
	    version=$$($$python -c 'import platform; print(platform.python_version())' 2>/dev/null) || version=missing; \
	    tried="$$tried $$python ($$version)"; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "needle needs Python 3.11 or newer, but looked at:$$tried." >&2; \
	    echo "Install one, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if ! $$chosen -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$chosen cannot make a virtual environment: its venv and ensurepip modules are missing." >&2; \
	    echo "Install them (on Debian and Ubuntu: apt install python3-venv), or use another Python with PYTHON=…" >&2; exit 1; \
	fi; \
	if [ -e .venv ] && [ ! -e .venv/.by-make ]; then \
	    echo ".venv is not one that make made; move it away, or install needle into it: pip install -e ." >&2; exit 1; \
	fi; \
	rm -rf .venv && mkdir .venv && touch .venv/.by-make; \
	echo "Making .venv with $$chosen ($$($$chosen --version))"; \
	$$chosen -m venv .venv
	@touch $@

.venv/.has-%: .venv/.made setup.py
	@echo "Installing needle with its '$*' requirements into .venv"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$*]' || { \
	    echo "pip could not install '.[$*]'; its message above says why." >&2; \
	    echo "It needs a package index: the internet, or a mirror set by PIP_INDEX_URL or \`pip config\`." >&2; exit 1; }
	@touch $@

# Apart from .venv, so that the other targets run without CuPy; what .venv has, it takes from there.
.venv-gpu/.made: .venv/.has-test setup.py
	@echo "Installing CuPy into .venv-gpu"
	@rm -rf .venv-gpu && $(RUN) -m venv .venv-gpu
	@places='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(RUN) -c "$$places" > "$$(.venv-gpu/bin/python -c "$$places")/test-packages.pth"
	@.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[gpu-check]' || { \
	    echo "pip could not install '.[gpu-check]'; its message above says why." >&2; exit 1; }
	@touch $@
