# make sweep   a finished sweep of the shipped data on the embedded LLM
# make bench   every benchmark that needs no GPU; long
# make chaos   a hundred kills of a sweep's processes, each resumed; long
# make fuzz    2,000 generated inputs, then every file of a sweep damaged in every way
# make real    a pretrained LLM, SmolLM2-135M-Instruct, in hub/
# make test-real   the tests on it
# make test    all tests that need neither a GPU nor a browser
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Two tests at a time: each has directories and a Ray of its own.
AT_ONCE := --numprocesses 2 --dist worksteal
REAL := hub/SmolLM2-135M-Instruct

.PHONY: sweep bench chaos fuzz real test-real test unit lint browser clean

sweep: $(READY)
	$(BIN)/python run_tune.py launch --num_epochs 10

bench: $(READY)
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.overheads
	$(BIN)/python -m benchmarks.reports
	$(BIN)/python -m benchmarks.warm_start $$(mktemp -d)
	$(BIN)/python -m benchmarks.whole_sweep --reuse

chaos: $(READY)
	$(BIN)/python -m tests.chaos

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --examples 2000
	$(BIN)/python -m tests.faults

real: $(REAL)

# Order only: what is installed again later does not make the model again.
$(REAL): | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[real]'
	$(BIN)/python -m trainables.llm.make_smollm2 $(REAL)

test-real: $(REAL)
	$(BIN)/python -m pytest -m real

test: $(READY) lint
	$(BIN)/python -m pytest $(AT_ONCE)
	$(BIN)/python -m pytest $(AT_ONCE) -m "ray and not browser"

unit: $(READY)
	$(BIN)/python -m pytest $(AT_ONCE)

browser: $(READY)
	$(BIN)/python -m pytest -m browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11")'
	@echo "Installing into $(VENV); torch and Ray are large, this takes a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
