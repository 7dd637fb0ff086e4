# Everything a contributor or user does. Each target sets up what it needs, from nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src models simulations analysis

.PHONY: demo test lint types mutate kill fuzz gpu check numbers docs clean

demo: $(VENV)/installed
	$(BIN)/actrelax demo

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal --pyargs actrelax tests

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy -p actrelax

mutate: $(VENV)/installed
	$(BIN)/python tests/mutate.py

kill: $(VENV)/installed
	$(BIN)/python tests/kill.py
	$(BIN)/python tests/kill_suite.py
	$(BIN)/python tests/kill_recording.py
	$(BIN)/python tests/kill_lock.py

# A thousand malformed options, files and arguments.
fuzz: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py

# Eight minutes on a GPU, with DATA=FILE.npz of CIFAR-10. It runs as it is, in a Python that has PyTorch and SciPy.
gpu:
	$(PYTHON) benchmarks/gpu.py $(if $(DATA),--data $(DATA))

# The numbers in the pages, from results/.
numbers: $(VENV)/installed
	$(BIN)/python docs/fill_numbers.py

# The site, into docs/_build/html. It runs the examples and studies that take a minute at most;
# GALLERY=all runs all, GALLERY=none none: their pages show the committed figures instead.
docs: $(VENV)/documented
	rm -rf docs/generated/api # which would keep the page of a module that is gone
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -n -W --keep-going docs docs/_build/html

# What CI runs.
check: test lint types mutate

clean:
	rm -rf $(VENV) build docs/_build docs/generated .hypothesis .mypy_cache .pytest_cache .ruff_cache

# A strict editable install links to single files, so it is repeated when a file is added or removed:
# files.txt is rewritten only when the list changes.
$(shell mkdir -p $(VENV) && find $(SOURCES) -name '*.py' | sort > $(VENV)/files.new && \
	{ cmp -s $(VENV)/files.new $(VENV)/files.txt || cp $(VENV)/files.new $(VENV)/files.txt; } && rm $(VENV)/files.new)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt $(VENV)/files.txt
	rm -rf build
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt \
		--config-settings editable_mode=strict --editable '.[test,dev]'
	touch $@

# What only the site needs, on top of an installation.
$(VENV)/documented: setup.cfg constraints.txt | $(VENV)/installed
	rm -rf build
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt \
		--config-settings editable_mode=strict --editable '.[docs]'
	touch $@
