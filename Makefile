PYTHON ?= python3
BIN := .venv/bin
# Up to four processes of one thread each: the networks of the tests are tiny.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all test-gpu lint clean

# The environment with everything installed; made anew when what it is built from changes, or when
# the last attempt was broken off.
.venv: .venv/installed

.venv/installed: pyproject.toml setup.py layers/kernels.pyx layers/depthwise.pxi layers/mask_pixels.pxi
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev,export,int8,serve,heif,lite,ray]"
	touch $@

demo: .venv
	$(BIN)/python scripts/demo.py

test: .venv
	$(PYTEST)

test-all: .venv
	$(PYTEST) -m "not gpu"

test-gpu: .venv
	$(BIN)/python scripts/test_gpu.py

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info layers/kernels.c layers/*.so
