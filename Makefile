# litestream-hook: `make` alone prints this help.
PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
EXAMPLE := examples/01-pod.yaml
IMAGE = ghcr.io/kaidotio/litestream-hook:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' injector/__init__.py)
PIN := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make requirements"
PYTEST := $(BIN)/python -m pytest --quiet --no-header
FAST := not slow and not containers and not apiserver
PARTS := $(VENV)/parts
PART := PARTS=$(PARTS) tests/part
.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast lint format golden demo bench fuzz endurance durability containers \
	test-apiserver dist dev requirements

help: ## Print this help
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# The virtual environment is made anew whenever one of the pinned lists changes.
$(VENV)/.stamp: requirements.txt requirements-dev.txt
	@echo "making $(VENV) from the pinned lists (a minute at most)"
	@$(PYTHON) -c 'import sys; sys.exit("litestream-hook needs Python 3.11 or newer: make PYTHON=python3.12 ..." \
		if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

setup: $(VENV)/.stamp ## Make the virtual environment with everything that is pinned

run: setup ## Serve /mutate on this machine, without TLS or a cluster; a saved file of injector/ reloads it
	@echo "serving http://127.0.0.1:$(PORT)/mutate (Ctrl-C ends it); in another terminal, in this folder:"
	@echo
	@echo "  $(BIN)/python -m injector review --as-pod $(EXAMPLE) | curl -sS -d @- http://127.0.0.1:$(PORT)/mutate | $(BIN)/python -m injector apply --as-pod $(EXAMPLE)"
	@echo
	@FUNCTION_TARGET=mutate exec $(BIN)/uvicorn functions_framework.aio:app --host 127.0.0.1 --port $(PORT) \
		--log-level warning --reload --reload-dir injector --reload-include '*.sh'

test-fast: setup ## Check style, types and imports, and run the tests that start nothing (a minute)
	@rm -f $(PARTS)
	@$(PART) "style, types and imports" $(MAKE) --no-print-directory lint
	@$(PART) "tests that start nothing" $(PYTEST) -n 3 -m "$(FAST)"
	@cat $(PARTS)

test: test-fast containers ## Run every test that this machine can run; ends with how long it took and what was skipped
	@$(PART) "tests that start processes and containers" $(PYTEST) -n 3 --dist loadfile -m "not ($(FAST))" \
		--ignore=tests/durability
	@$(PART) "no row is lost" $(PYTEST) -n 3 tests/durability
	@cat $(PARTS)

test-apiserver: setup ## Run the tests that need a real API server, from the folder in KUBEBUILDER_ASSETS
	@test -n "$$KUBEBUILDER_ASSETS" || { echo 'set KUBEBUILDER_ASSETS first, for instance:' \
		'export KUBEBUILDER_ASSETS=$$(setup-envtest use -p path)'; exit 1; }
	$(BIN)/python -m pytest -m apiserver

fuzz: setup ## Make up reviews, annotations and PEM files for half an hour; what fails belongs into tests/corpus
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-50000} $(BIN)/python -m pytest --timeout=0 tests/test_fuzz.py

endurance: setup ## Send 100,000 admissions: memory, files and threads stay as they were
	ADMISSIONS=100000 $(BIN)/python -m pytest --timeout=0 tests/faults/test_endurance.py

containers: setup ## Get from Debian and npm what tests need that run containers, servers or shells, where that can be done
	@tests/podrunner/install
	@tests/prometheus/install
	@tests/stores/install
	@tests/install-shells

lint: setup ## Check style, types, scripts, the Dockerfile, workflows and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd injector/pod/scripts && ../../../$(BIN)/shellcheck -x *.sh
	$(BIN)/shellcheck k8s/render tests/part tests/*/install .ci/run
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet .github
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

format: setup ## Put the code into its one format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

golden: setup ## Rewrite the expected Pods, the reviews of examples/ and the tables in docs/; review the diff
	-$(BIN)/python -m pytest -q tests/test_golden.py tests/test_docs.py tests/test_example_reviews.py --update
	git diff --stat -- tests/golden docs examples

demo: setup containers ## Show the whole promise with a real Litestream and a real S3 server
	@$(BIN)/python -m tests.demo

durability: setup containers ## Measure rows lost and kept in every scenario, and rewrite docs/durability.md (takes a while)
	@DURABILITY=full $(BIN)/python -m pytest --quiet --no-header -n 2 --update tests/durability

bench: setup ## Measure start, memory, requests and the command line, and rewrite docs/performance.md (two minutes)
	@$(BIN)/python -m tests.bench

dist: setup ## Make what a release ships beside its image IMAGE (name:tag, or name:tag@sha256:...), in dist/
	@$(BIN)/python -m tests.dist "$(IMAGE)"

dev: ## Develop in a cluster: build, deploy and reload with skaffold
	skaffold dev --port-forward

requirements: setup ## Pin the newest versions of what pyproject.toml asks for
	$(BIN)/$(PIN) --upgrade pyproject.toml -o requirements.txt
	$(BIN)/$(PIN) --upgrade -c requirements.txt --group dev -o requirements-dev.txt
