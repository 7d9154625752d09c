# understudy: `make quickstart` installs into .venv, imitates real people cooking together and writes a report.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PEERS  := $(patsubst benchmarks/peers/%.txt,.venv-peers/%/.made,$(wildcard benchmarks/peers/*.txt))

.PHONY: quickstart test test-slow lint format bench bench-peers docs clean

quickstart: $(VENV)/.core
	$(BIN)/understudy quickstart

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

bench: $(VENV)/.dev
	$(BIN)/understudy bench kitchen
	$(BIN)/understudy bench navigation --seeds 3

# What we are measured beside, each in a virtual environment of its own. One that cannot be installed stops no other.
bench-peers: $(PEERS)

.venv-peers/%/.made: benchmarks/peers/%.txt
	-$(PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< && touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

# torch first and alone, pinned: an unpinned torch draws gigabytes of CUDA
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[plots,video]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .venv-peers build dist docs/_build .pytest_cache .mypy_cache .ruff_cache
