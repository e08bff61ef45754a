# make demo   set up, train the default detector if there is no run yet, serve the app
# make test   set up, lint, tests, notebooks; what .ci/run calls

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PORT   ?= 7860

.PHONY: setup demo test lint notebooks clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'labkit needs Python 3.10 or newer; run make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[elpv,ray,dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/labkit train dnfad elpv/mono --budget laptop
	$(BIN)/labkit app --port $(PORT)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile tests
	$(MAKE) notebooks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: setup
	LABKIT_BUDGET=quick $(BIN)/python -m pytest --nbval-lax notebooks

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
