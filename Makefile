# make demo: set everything up and train on the built-in synthetic images. make test: set up, lint, types, docs, tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs test-fast test-slow test-long lock clean
.DEFAULT_GOAL := demo

# Compiled once here, the libraries load in half the time in every process from the first run on.
.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: .venv/ready
	$(BIN)/python launch.py --data demo --gpus 0 --config examples/demo.yaml

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive melanoma_dist benchmarks launch.py
	$(BIN)/mypy
	$(MAKE) docs
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

docs: .venv/ready
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

test-fast: .venv/ready
	$(BIN)/pytest tests/unit

test-slow: .venv/ready
	$(BIN)/pytest -m slow

test-long: .venv/ready
	$(BIN)/pytest -m long

lock:
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-header --no-annotate --quiet --upgrade --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv
