PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint clean

# The environment with everything installed; made anew when pyproject.toml or the kernels change.
.venv: pyproject.toml layers/kernels.pyx layers/mask_pixels.pxi
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev,video,export,int8]"
	touch .venv

demo: .venv
	$(BIN)/python scripts/demo.py

test: .venv
	$(BIN)/python -m pytest

test-all: .venv
	$(BIN)/python -m pytest -m "slow or not slow"

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info layers/kernels.c layers/*.so
