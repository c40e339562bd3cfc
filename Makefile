# The only commands anyone has to know. `make` alone lists them.
PYTHON ?= python3
ARGS   ?=
SBOM   ?= sbom.json

BIN     := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
           --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
AUDIT   := $(BIN)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements.txt \
           -r requirements-dev.txt
REFUSE  := import sys; sys.version_info >= (3, 11) or sys.exit("Berth needs Python 3.11 or newer; $(PYTHON) is " \
           + sys.version.split()[0] + ". Try: make PYTHON=/path/to/python3.11")

PEERS   := fastapi litestar blacksheep

MAKEFLAGS += --no-print-directory
.PHONY: help run dev test test-quick test-plain test-image soak mutants lint format lock bench bench-check bench-lock \
        sbom release migrate migration settings new upgrade clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run ## serve on http://localhost:8000 (HOST, PORT and the rest: make settings, or a file named .env)
	@exec .ci/local $(BIN)/python app.py

dev: .venv/run ## the same, and start anew whenever a .py file or .env changes
	@exec $(BIN)/python -m infra.process.reload .ci/local $(BIN)/python app.py

test: .venv/dev ## run the tests against real servers of their own (ARGS="-k login -x" goes to pytest, and installs nothing)
	@[ -n "$(ARGS)" ] || tests/install-servers.sh kubectl=kubernetes-client
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-quick: .venv/dev ## run those that need no server, in about a minute
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --quick $(ARGS)

# tests/fast is about nothing but those paths; tests/project and tests/deploy read files, which no fast path touches.
test-plain: .venv/dev ## run them once more with FAST=off, so that nothing bends another package
	@tests/install-servers.sh
	@FAST=off $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/accounts tests/faults tests/platform

test-image: .venv/dev ## build the image and run it confined, on the Docker engine here or one that the tests start (as root)
	@docker info >/dev/null 2>&1 || set -- dockerd=docker.io debootstrap=debootstrap; tests/install-servers.sh "$$@"
	@$(BIN)/python -m pytest $(ARGS) tests/image

soak: .venv/dev ## play every fault, many times and for 25 minutes (ARGS="--scale 0.02 --minutes 1" for less)
	@tests/install-servers.sh
	@$(BIN)/python -m tests.soak $(ARGS)

mutants: .venv/dev ## break lines in a copy and see which breaks no test notices (ARGS="--room infra/sql --sample 5 --seed 2")
	@tests/install-servers.sh && $(BIN)/python -m tests.mutants $(ARGS)

lint: .venv/dev ## check style, format, types, and the packages for known vulnerabilities (AUDIT_REQUIRED=1: fail where that can't be)
	@$(BIN)/ruff check --quiet && $(BIN)/ruff format --quiet --check
	@$(BIN)/mypy
	@said=$$($(BIN)/lint-imports --no-cache) || { echo "$$said"; exit 1; }
	@$(BIN)/hadolint Dockerfile
	@if said=$$($(AUDIT) 2>&1); then exit 0; fi; case "$$said" in *"known vulnerabilit"*) echo "$$said"; exit 1;; \
	*) echo "pip-audit: NOT CHECKED: $$(echo "$$said" | tail -n 1 | cut -c 1-160)"; [ -z "$$AUDIT_REQUIRED" ];; esac

format: .venv/dev ## fix what can be fixed
	@$(BIN)/ruff check --quiet --fix; $(BIN)/ruff format --quiet

lock: .venv/dev ## pin requirements*.in into requirements*.txt, on the oldest Python in use (ARGS=--upgrade for newer)
	@$(COMPILE) $(ARGS) requirements.in && $(COMPILE) $(ARGS) requirements-dev.in

sbom: .venv/dev ## write sbom.json (or SBOM=...), which lists what requirements.txt locks, as CycloneDX 1.6
	@PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file $(SBOM)

bench: .venv/dev $(PEERS:%=benchmarks/.venvs/%/made) ## measure Berth beside its peers, write docs/performance.md (ARGS=--quick)
	@benchmarks/install-tools.sh
	@$(BIN)/python -m benchmarks $(ARGS)

bench-check: .venv/dev ## count a request's instructions, fail when they have grown (ARGS=--write keeps today's)
	@benchmarks/install-tools.sh
	@$(BIN)/python -m benchmarks.instructions $(ARGS)

bench-lock: .venv/dev ## pin the peers' requirements
	@for peer in $(PEERS); do $(COMPILE) $(ARGS) benchmarks/peers/$$peer.in || exit; done

release: ## change the version wherever it stands, and begin its section in CHANGELOG.md (VERSION=0.2.0)
	@.ci/release "$$VERSION"

migrate: .venv/run ## bring the database's schema up to date
	@exec .ci/local $(BIN)/python app.py migrate

migration: .venv/run ## make the file of the next migration (NAME=add_notes)
	@$(BIN)/python -m migrations.new "$$NAME"

settings: .venv/run ## list every environment variable, its value and where that came from (ARGS="--format json|env|markdown")
	@exec .ci/local $(BIN)/python settings.py $(ARGS)

new: .venv/dev ## make a service of another name out of this one (NAME=harbour-master DIR=../harbour WITHOUT=accounts,events)
	@$(BIN)/python -m tools.new "$$NAME" "$$DIR" "$$WITHOUT"

upgrade: .venv/dev ## bring what make new makes of today's files to the branch `platform` of a copy (DIR=../harbour)
	@$(BIN)/python -m tools.new.upgrade "$$DIR"

clean: ## remove what make made (./data, your accounts, stays)
	@rm -rf .venv benchmarks/.venvs .cache sbom.json .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# Made anew when a lock changes, so that .venv never holds more than the locks say.
.venv/run: requirements.txt
	@$(PYTHON) -c '$(REFUSE)'
	@echo "making .venv from requirements.txt" >&2
	@$(PYTHON) -m venv --clear .venv
	@$(INSTALL) -r requirements.txt && touch $@

.venv/dev: requirements-dev.txt .venv/run
	@echo "adding requirements-dev.txt" >&2
	@$(INSTALL) -r requirements-dev.txt && touch $@

benchmarks/.venvs/%/made: benchmarks/peers/%.txt
	@echo "making benchmarks/.venvs/$*" >&2
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< && touch $@
