PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

.PHONY: demo test check bench attacks soak clean

demo: $(INSTALLED)  ## Run a team of offline researchers on the tiny math task (about two minutes)
	$(BIN)/outlearn demo

test: $(INSTALLED)  ## Run the tests
	$(PYTEST)

check: $(INSTALLED)  ## Lint, types, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) --cov --cov-report=term

bench: $(INSTALLED)  ## Measure the tool servers beside a bare one, and the trainer beside others (half an hour)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python benchmarks/services.py
	$(BIN)/python benchmarks/trainer.py

attacks: $(INSTALLED)  ## Attack everything that can be attacked (some minutes); writes build/attacks.json
	OMP_NUM_THREADS=1 $(BIN)/python tests/attacks/run_all.py

soak: $(INSTALLED)  ## Kill processes of a Claude team twenty times, on a local API; writes build/soak.json (minutes)
	rm -rf build/soak
	$(BIN)/python tests/agents/soak.py

clean:  ## Remove what make made
	rm -rf .venv build dist

$(INSTALLED): pyproject.toml
	@echo "setting up .venv, with PyTorch: some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
