# make demo [DATA=dir] [OUT=demo]   train, register, segment, evaluate and draw; phantoms unless DATA names a data set
# make test [PYTEST='-m slow']      lint, format check, tests
# make test-label                   the bundles in the real MONAI Label; its environment, 2.7 GB, is made once, in ~/.cache
PYTHON ?= python3
VENV ?= .venv
DATA ?=
PYTEST ?=
OUT ?= demo
# TORCH_INDEX=url names an extra index for PyTorch, such as that of its CPU builds.
TORCH_INDEX ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' requirements.txt)

.PHONY: demo test test-label lint format peers clean

demo: $(STAMP)
	$(BIN)/python -m tools demo --out "$(OUT)" $(if $(DATA),--data "$(DATA)")

test: lint
	$(BIN)/python -W 'ignore:builtin type:DeprecationWarning' -m pytest $(PYTEST)

test-label: $(STAMP)
	$(BIN)/python -W 'ignore:builtin type:DeprecationWarning' -m pytest -m label tests/label

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# What the benchmark compares with.
peers: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-peers.txt

clean:
	rm -rf "$(VENV)" build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is older than requirements.txt when that has changed: then what is missing is installed.
# PyTorch comes first: from a local wheel where pip is configured with one (find-links), else from the index.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@echo 'Installing requirements.txt into $(VENV): a few minutes the first time'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --no-index $(TORCH) >/dev/null 2>&1 \
		|| $(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@
