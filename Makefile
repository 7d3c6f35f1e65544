# Verbs of the project; `make` alone lists them. Everything runs inside .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
export DO_NOT_TRACK := 1
export BENTOML_DO_NOT_TRACK := True

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long faults faults-long check format lock bench serve clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --editable .
	@touch $@

setup: .venv/.ready ## make .venv from requirements.lock

demo: setup ## replay real history through every stage (about 3 minutes), report in .seatrial/reports/
	$(BIN)/seatrial demo --fresh

test: setup ## the ordinary test run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not long"

test-long: setup ## the long test run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long"

faults: setup ## every fault test for real; what held, with figures, into docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.reliability

faults-long: setup ## the same with the long cases
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.reliability --long

check: setup ## ruff, mypy strict, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## resolve requirements.lock again
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --extra demo --extra dev pyproject.toml -o requirements.lock

bench: setup ## the benchmarks (after a demo), tables into docs/
	$(BIN)/python -m benchmarks.point_in_time
	$(BIN)/python -m benchmarks.online
	$(BIN)/python -m benchmarks.forecast
	$(BIN)/python -m benchmarks.forecast --throughput
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.risk
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.stockout_rule
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.reconciliation
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.leakage
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.verdicts
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.gates
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.access
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lifecycle

serve: setup ## the BentoML service on 127.0.0.1:3000 over the workspace in .seatrial
	$(BIN)/seatrial serve

clean: ## remove what can be made again (not .seatrial, your workspace)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
