# Everything starts from here; each target sets up what it needs. No root, no Docker, only the Python package index.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
READY := $(VENV)/.ready

export UV_COMPILE_BYTECODE = 1
export BENTOML_DO_NOT_TRACK = True
export FEAST_USAGE = False
# Every process would otherwise compile its imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo drill demo-full test-full closed-loop train test test-ops test-deploy docs docs-serve test-docs newcomer parity-nightly crash-nightly chaos-nightly topics bench-stream bench-serving bench-models bench-drift bench-monitoring check format up down status mlflow images secrets rebuild-online data lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 found; install one, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) (about 220 packages, a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: $(READY) ## Install what the lock names into .venv

demo: $(READY) ## The whole loop on one machine: data to drift report (DATASET=name or file)
	@$(BIN)/python -m training.demo $(if $(DATASET),--dataset "$(DATASET)")

test: $(READY) ## Every test, against real servers
	@$(BIN)/python -m pytest

test-ops: $(READY) ## Alerts, dashboards, status page, Airflow's workflows: needs .ci/ops-tools and .ci/airflow-tools
	@$(BIN)/python -m pytest tests/ops

demo-full: $(READY) ## The same loop on the full profile without Docker: Postgres, Redis, Kafka, MLflow over S3
	@.ci/full-tools >/dev/null
	@$(BIN)/python -m monitoring.full_profile $(BIN)/python -m training.demo --reports reports/full $(if $(DATASET),--dataset "$(DATASET)")

test-full: $(READY) ## The full profile without Docker: the demo's figures on it, and a short drill (Java, Maven)
	@.ci/full-tools >/dev/null
	@$(BIN)/python -m pytest tests/full

drill: $(READY) ## Each part of the full profile lost under load and restored: how long, and what was lost (Java, Maven)
	@.ci/full-tools >/dev/null
	@$(BIN)/python -m tests.chaos.drill $(DRILL)

closed-loop: $(READY) ## Weeks in minutes: a planted drift to its alert, retraining, promotion (WEEKS="--weeks 12 [--worse]")
	@$(BIN)/python -m training.replayed_weeks $(WEEKS)

train: $(READY) ## A champion from any data set and window: TRAIN="--dataset NAME_OR_FILE --train-start DATE ..."
	@$(BIN)/python -m training.train $(TRAIN)

bench-stream: $(READY) ## Stream, freshness, backfill, joins, state: measured beside their peers (minutes)
	@$(BIN)/python -m tests.load.bench_stream

bench-serving: $(READY) ## The service under load beside its peers, and a picture of it (minutes; SERVING=--quick)
	@$(BIN)/python -m tests.load.bench_serving $(SERVING)

bench-models: $(READY) ## Every model on every data set beside the published figures (minutes; MODELS=--quick)
	@$(BIN)/python -m tests.load.bench_models $(MODELS)

bench-drift: $(READY) ## Drift that was planted and drift that was not: alarms, false alarms, 10 M decisions (minutes)
	@$(BIN)/python -m tests.load.bench_drift

bench-monitoring: $(READY) ## What monitoring costs the service, on and off in turns (minutes; needs Prometheus)
	@$(BIN)/python -m tests.load.bench_monitoring

parity-nightly: $(READY) ## 10,000 random histories per parity test, hours of them (PARITY_EXAMPLES=n)
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/parity --timeout=0

crash-nightly: $(READY) ## The stream job killed twenty times, and rescaled
	@FRAUD_NIGHTLY=1 $(BIN)/python -m pytest tests/integration/test_recovery.py tests/integration/test_rescale.py --timeout=0

chaos-nightly: $(READY) ## The service under load while all behind it breaks: twenty kills, twenty swaps
	@FRAUD_NIGHTLY=1 $(BIN)/python -m pytest tests/chaos --timeout=0

topics: $(READY) ## Make the Kafka topics at FRAUD_KAFKA_BOOTSTRAP, or tell what is there
	@$(BIN)/python -m stream_jobs.topics

check: $(READY) ## Lint, format, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

up: $(READY) ## Leave the platform running for play (DATASET=name or file the first time)
	@$(BIN)/python -m training.up $(if $(DATASET),--dataset "$(DATASET)")

down: $(READY) ## Stop what `make up` started
	@$(BIN)/python -m monitoring.processes down

status: $(READY) ## What `make up` left running
	@$(BIN)/python -m monitoring.processes status

mlflow: $(READY) ## Look at the models of the last demo (make down FRAUD_HOME=.tollgate/demo ends it)
	@FRAUD_HOME=.tollgate/demo $(BIN)/python -m monitoring.processes up mlflow

secrets: $(READY) ## Draw the passwords of docker-compose and k8s/overlays/local into .tollgate/secrets
	@$(BIN)/python -m k8s.draw_secrets

images: $(READY) ## Build the five container images (VERSION=0.1.0; needs Docker)
	@k8s/images/build.sh $(or $(VERSION),0.1.0)

test-deploy: $(READY) ## Images, compose, Kubernetes manifests, AWS's stacks and workflows, judged by the tools that read them
	@.ci/deploy-tools >/dev/null
	@$(BIN)/python -m pytest tests/deploy

docs: $(READY) ## Build the documentation's site into site/, strictly
	@PYTHON=$(PYTHON) .ci/docs-tools >/dev/null
	@$(BIN)/python -W ignore -m pages
	@NO_MKDOCS_2_WARNING=1 .tollgate/tools/docs/bin/mkdocs build --quiet --strict

test-docs: $(READY) ## The site, its links, and every command in the README and docs
	@PYTHON=$(PYTHON) .ci/docs-tools >/dev/null
	@$(BIN)/python -m pytest tests/docs

newcomer: $(READY) ## The tutorial's commands as they stand, in a fresh clone, each section timed (minutes; WALK="--skip WORDS")
	@$(BIN)/python -m pages.walk docs/tutorial.md $(WALK)

docs-serve: docs ## The same at http://127.0.0.1:8000, built anew when a page changes
	@.tollgate/tools/docs/bin/mkdocs serve

rebuild-online: $(READY) ## Make the online store anew from history
	@$(BIN)/python -m stream_jobs.rebuild

data: $(READY) ## How to get the public data sets
	@$(BIN)/python -m training.datasets.catalogue

lock: $(READY) ## Resolve the lock files anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --all-extras \
	  pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --extra serving \
	  -c requirements.lock pyproject.toml -o requirements-serving.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-index-url --no-annotate --no-header \
	  --group pyproject.toml:full-tools -o requirements-full-tools.lock
	printf 'mlflow\npsycopg[binary]\nboto3\n' | $(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-index-url --no-header \
	  --no-annotate -c requirements-full-tools.lock - -o k8s/images/mlflow-requirements.txt
	echo 'apache-airflow[postgres]==3.1.0' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	  --no-header --no-annotate --exclude-newer 2025-09-26 - -o k8s/images/airflow-requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  k8s/aws/requirements.in -o k8s/aws/requirements.txt

clean: ## Remove what the targets made, but for .venv
	rm -rf .tollgate reports build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
