# Each target sets up what it needs; `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install bench-extra bench-gowalla bench-train demo test check format

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	touch $@

demo: install
	$(BIN)/streamgcn demo

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-extra: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'

bench-gowalla: install
	$(BIN)/python benchmarks/bench_gowalla.py

bench-train: bench-extra
	$(BIN)/python benchmarks/bench_train.py
