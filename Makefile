# Each target sets up what it needs; `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
# Files of tests that run at once; more than the cores, as most tests wait. A worker that ends with
# a test that hangs is not replaced, as the new one would begin that test again.
WORKERS ?= 5
AT_ONCE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: install demo test test-long check format chaos soak bench-extra bench-gowalla bench-train bench-ingest bench-history bench-commits bench-serving bench-scale

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	touch $@

demo: install
	$(BIN)/streamgcn demo

# The tests start hundreds of processes, and each would compile all sources anew.
test test-long: export PYTHONDONTWRITEBYTECODE =

test: install
	$(BIN)/python -m pytest $(AT_ONCE)

test-long: install
	$(BIN)/python -m pytest $(AT_ONCE) -m long

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-extra: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'

bench-gowalla: install
	$(BIN)/python -m benchmarks.bench_gowalla

# Parts by name, as below. TIMES=1 make bench-train PARTS=games: benchmarks/quality.py says what TIMES is.
bench-train: bench-extra
	$(BIN)/python -m benchmarks.bench_train $(PARTS)

# Needs an Apache Kafka 4, named by KAFKA_HOME; without one the embedded broker, which is not killed.
chaos: install
	$(BIN)/python -m tests.chaos

# Needs an Apache Kafka 4, named by KAFKA_HOME. Each process is killed now and then, as are Kafka and Redis.
MINUTES ?= 30
soak: install
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

bench-ingest: install
	$(BIN)/python -m benchmarks.bench_ingest

bench-history: install
	$(BIN)/python -m benchmarks.bench_history

bench-commits: install
	$(BIN)/python -m benchmarks.bench_commits

# Parts by name: make bench-serving PARTS="freshness scoring". benchmarks/bench_serving.py says what they need.
bench-serving: bench-extra
	$(BIN)/python -m benchmarks.bench_serving $(PARTS)

# What several serving processes, and several ranks of the trainer, hold and do.
bench-scale: install
	$(BIN)/python -m benchmarks.bench_scale
	$(BIN)/python -m benchmarks.bench_ranks
	$(BIN)/python -m benchmarks.bench_history --edges 10000000
