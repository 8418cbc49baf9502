# A machine needs Python 3.11 and make, nothing else. What a target needs, it installs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: venv demo check test test-slow faults loadtest quality serve clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e ".[dev]"
	touch $@

demo: venv  ## starts the graph, makes demo.mp4 over HTTP, stops the graph
	$(BIN)/python -m aiprod_client.demo

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: venv
	$(BIN)/pytest -n 2

test-slow: venv  ## the tests that `make test` leaves out, in some eight minutes
	$(BIN)/pytest -m slow

faults: venv  ## 200 jobs under kill -9 and SIGSTOP on both databases: docs/reliability.json, in some twelve minutes
	$(BIN)/python -m tests.faults.long

loadtest: venv  ## two minutes of traffic and a promise to keep: docs/loadtest; HOST=URL (GRPC=HOST:PORT OUT=FOLDER) tests a server that is there
	$(BIN)/python -m loadtests $(if $(HOST),--host $(HOST) --out $(or $(OUT),build/loadtest)) $(if $(GRPC),--grpc $(GRPC))

quality: venv  ## docs/quality.md, from held-out seeds
	$(BIN)/python -m aiprod_components.training.report

serve: venv
	$(BIN)/aiprod serve

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache *.egg-info demo.mp4
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
