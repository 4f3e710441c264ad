# Switchboard's commands; `make help` lists them. Only Python 3.11+ and make are needed:
# everything else is installed into .venv from requirements/*.lock, checked by hash.

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install --python $(BIN)/python
COMPILE := $(UV) pip compile -q --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url

FUZZ_SECONDS ?= 60

# Many tests wait for timers and for other processes: two workers more than there are cores.
WORKERS = $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 2) + 2)")

.PHONY: help run say call test compose-test replicas-test fuzz lint bench chaos protos metrics dashboards locks sbom clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: .venv/run.stamp ## start everything on this machine; Ctrl-C stops it
	@exec $(BIN)/switchboard run

# The text goes through the environment, so that no shell reads the contact's words.
say: export SWITCHBOARD_SAY := $(value TEXT)
say: .venv/run.stamp ## TEXT="...": write as a WhatsApp contact and watch the answer
	@exec $(BIN)/switchboard say -- "$$SWITCHBOARD_SAY"

call: export SWITCHBOARD_CALL := $(value TEXT)
call: export SWITCHBOARD_CALL_WAV := $(value WAV)
call: .venv/run.stamp ## TEXT="..." or WAV=file: call, speak (turns separated by |) and listen
	@exec $(BIN)/switchboard call $(if $(WAV),--wav "$$SWITCHBOARD_CALL_WAV") -- "$$SWITCHBOARD_CALL"

test: .venv/dev.stamp ## run every test, side by side
	@tools/bridge install
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

replicas-test: .venv/dev.stamp ## two of each service on three NATS servers, killed under load
	@REPLICAS_TEST=1 $(BIN)/pytest --numprocesses 0 tests/e2e/test_replicas.py $(ARGS)

compose-test: .venv/dev.stamp ## the stack of containers, where a Docker engine answers
	@$(BIN)/python -m tests.compose

fuzz: $(UV) ## FUZZ_SECONDS=60: look so long for input that a parser can't take, for each of them
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .fuzz/venv
	@$(UV) pip install --quiet --python .fuzz/venv/bin/python --require-hashes -r requirements/fuzz.lock
	@for parser in signature event bundle queue; do \
		PYTHONPATH=.:protos/gen .fuzz/venv/bin/python -m tests.fuzz $$parser $(FUZZ_SECONDS) || exit; done

lint: .venv/dev.stamp ## check style, types, import rules and contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@tools/lint-protos
	@tools/bridge check

bench: .venv/dev.stamp ## measure, as ratios within one run; ARGS="edge consumer --quick"
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: .venv/dev.stamp ## break things under load; ARGS="--faults kill-nats --rounds 10 --seed 7"
	@$(BIN)/python -m tests.chaos $(or $(ARGS),--short --together 16)

protos: .venv/dev.stamp ## compile protos/ into protos/gen
	$(BIN)/python tools/compile_protos.py protos/gen

metrics: .venv/dev.stamp ## write docs/metrics.md from the code
	$(BIN)/python tools/list_metrics.py docs/metrics.md

dashboards: .venv/dev.stamp ## write Grafana's dashboards from tools/make_dashboards.py
	$(BIN)/python tools/make_dashboards.py deploy/grafana/dashboards

locks: .venv/dev.stamp ## resolve requirements/*.lock anew from pyproject.toml
	$(COMPILE) requirements/uv.in -o requirements/uv.lock
	$(COMPILE) --all-extras --group build --group dev pyproject.toml -o requirements/dev.lock
	$(COMPILE) --all-extras --group build -c requirements/dev.lock pyproject.toml -o requirements/run.lock
	$(COMPILE) --group build -c requirements/dev.lock -o requirements/build.lock
	$(COMPILE) --group sbom -o requirements/sbom.lock
	$(COMPILE) --extra webhook --extra messaging --group fuzz -c requirements/dev.lock pyproject.toml -o requirements/fuzz.lock
	$(COMPILE) --extra webhook --extra tracing -c requirements/dev.lock --excludes requirements/webhook.excludes pyproject.toml -o requirements/webhook.lock
	$(COMPILE) --extra messaging --extra tracing --extra cli -c requirements/dev.lock pyproject.toml -o requirements/messaging.lock
	$(COMPILE) --extra health --extra tracing -c requirements/dev.lock pyproject.toml -o requirements/health.lock
	$(COMPILE) --extra sandbox --extra messaging --extra cli -c requirements/dev.lock pyproject.toml -o requirements/sandbox.lock

sbom: $(UV) ## write what each image is made of into sbom/, as CycloneDX
	@$(UV) venv --quiet --allow-existing .venv/sbom
	@$(UV) pip install --quiet --python .venv/sbom/bin/python --require-hashes -r requirements/sbom.lock
	@mkdir -p sbom
	@for name in webhook messaging health; do \
		.venv/sbom/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
			--of JSON -o sbom/$$name.cdx.json requirements/$$name.lock; done
	@cd services/baileys && npm sbom --package-lock-only --omit=dev --sbom-format=cyclonedx \
		> ../../sbom/baileys.cdx.json
	@ls sbom

clean: ## remove the environment and caches, keep the data
	rm -rf .venv .fuzz tools/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as the lock that its packages came from.
$(UV): requirements/uv.lock
	@tools/check-python "$(PYTHON)"
	@echo "Creating the environment in .venv with $$($(PYTHON) --version). This happens once."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Adds to the environment without removing what the tests need.
.venv/run.stamp: $(UV) requirements/run.lock pyproject.toml
	@echo "Installing what Switchboard needs to run."
	@$(INSTALL) --require-hashes -r requirements/run.lock
	@$(INSTALL) --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: $(UV) requirements/dev.lock pyproject.toml
	@echo "Installing what the tests need."
	@$(UV) pip sync --python $(BIN)/python --require-hashes requirements/dev.lock
	@$(INSTALL) --quiet --no-deps --no-build-isolation -e .
	@touch .venv/run.stamp $@
