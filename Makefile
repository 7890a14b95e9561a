# Everything here works on a fresh machine with Python 3.11+, pip and make.
.PHONY: setup checks demo test test-all test-rest test-durations lint chart train docs quality bench bench-quick

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BOOTSTRAP ?=
DATA ?= data
SIMULATED := .cache/simulated.parquet

# Compiled modules halve the start of every process. They are kept apart from the sources, so that they can be written
# also where PYTHONDONTWRITEBYTECODE is set.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode
export PYTHONDONTWRITEBYTECODE :=

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml uv.lock ops/uv.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: --requirement ops/uv.txt
	$(BIN)/uv sync --quiet --locked --inexact --all-extras --all-groups --no-group peers --no-group chart --no-group image
	touch $@

# Installs the programs that check chart, Dockerfile and compose.yaml. They are large, and only tests need them.
checks: $(VENV)/.checks

$(VENV)/.checks: $(VENV)/.ready
	$(BIN)/uv sync --quiet --locked --inexact --all-extras --all-groups --no-group peers
	touch $@

demo: setup
	$(BIN)/fraud-service demo $(if $(BOOTSTRAP),--bootstrap $(BOOTSTRAP))

# Slow tests run first (tests/durations.json). All tests of a module run on one worker.
WORKERS ?= 2
PYTEST = $(BIN)/pytest --dist loadscope --no-loadscope-reorder -n $(WORKERS)

# Runs the unit tests, some simulation seeds, and the demo on the embedded broker. Takes minutes.
test: setup
	$(PYTEST) --ignore=tests/deploy -m "not slow and not kafka"

# Runs all tests, also those on Apache Kafka.
test-all: checks
	$(PYTEST)

# Runs the tests that `make test` leaves out.
test-rest: checks
	$(PYTEST) -m "slow or kafka"

# Runs all tests and records their durations, which set the order of later runs.
test-durations: checks
	$(PYTEST) --write-durations

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python ops/dashboards.py --check
	$(BIN)/python helm/generate.py --check
	$(MAKE) --no-print-directory site

# Renders the Helm chart for each feature and for mixes of them, and checks the result with chart tools.
chart: checks
	$(BIN)/pytest -v tests/deploy/helm

# Builds the committed model again. The same commands give the same files.
train: setup
	mkdir -p .cache
	$(BIN)/fraud-service simulate $(SIMULATED) --seed 1
	$(BIN)/fraud-service train $(SIMULATED) --out models/pretrained \
	  --source '`fraud-service simulate --seed 1`: 2,000 cards, 1,000 merchants, 60 days'

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/python ops/dashboards.py
	$(BIN)/python helm/generate.py

# Builds the docs site (site/index.html) from the pages that GitHub shows. A broken link fails the build.
.PHONY: site
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Measures detection quality (an hour). The data sets are not part of the repository.
quality: setup
	$(BIN)/python benchmarks/quality.py $(DATA)

# Measures every figure of docs/performance.md (half an hour on a quiet machine). After an interruption it continues; to
# start again, remove .cache/bench. BENCH names parts or sizes, as in BENCH="scale --million-cards 1".
BENCH ?=
bench: setup
	$(BIN)/uv sync --quiet --locked --inexact --all-extras --all-groups
	PYTHONPATH=tests $(BIN)/python benchmarks/performance.py $(BENCH)

# Compares the speed of this tree with the commit BASE in alternating runs, in some four minutes. The last line is JSON.
# Exits with 1 if the tree is slower.
BASE ?= HEAD
bench-quick: setup
	PYTHONPATH=tests $(BIN)/python benchmarks/quick.py --base $(BASE)

# Builds both images. Runs them, and the pods of the chart, against Apache Kafka: without root, without capabilities and on a
# read-only root. Prints the measurements at the end. BASE_IMAGE names another base than the Debian that the target makes.
# On a Debian, root installs the programs that it needs.
.PHONY: image
image: checks
	podman --version >/dev/null 2>&1 && mmdebstrap --version >/dev/null 2>&1 || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
	  podman runc netavark catatonit mmdebstrap; }
	FRAUD_TEST_IMAGE=1 FRAUD_TEST_REQUIRE_KAFKA=1 $(BIN)/pytest tests/deploy/image tests/deploy/helm/test_pods_run.py
	cat .cache/image.json

# Writes the bill of materials of the service (CycloneDX, from the lock) and the licences of the packages in its image.
# Runs two scanners, each in its own environment, all attack tests that need no broker, and short fuzzing. The attacks on
# Apache Kafka are in tests/broker and in `make faults-quick`.
.PHONY: security
LICENCES = Apache;BSD;ISC;MIT;MPL;PSF;Python;Unlicense;Zlib
security: checks
	mkdir -p .cache
	$(BIN)/uv export --quiet --locked --no-default-groups --no-emit-project --format cyclonedx1.5 --output-file .cache/sbom.cdx.json
	UV_PROJECT_ENVIRONMENT=.cache/service $(BIN)/uv sync --quiet --locked --no-default-groups --no-install-project
	$(BIN)/uv tool run --quiet pip-licenses@5.5.5 --python .cache/service/bin/python --partial-match \
	  --allow-only "$(LICENCES)" --order license --format markdown --output-file .cache/licences.md
	{ printf '# Licences\n\n`make security` lists here the packages in the image of the service, with their licences. It fails on a\n'; \
	  printf 'licence that is not permissive (MPL excepted).\n\n'; cat .cache/licences.md; } >docs/licences.md
	$(BIN)/uv tool run --quiet bandit@1.9.4 --quiet --configfile pyproject.toml --recursive fraud_service
	$(BIN)/uv tool run --quiet semgrep@1.185.0 scan --metrics=off --disable-version-check --error --quiet \
	  --config ops/semgrep.yml fraud_service
	$(PYTEST) --quiet -m attack
	$(MAKE) fuzz SECONDS=5
	@echo "nothing found; bill of materials: .cache/sbom.cdx.json, licences: docs/licences.md"

# Fuzzes every decoder with atheris for SECONDS each. The last line is JSON. Findings are in .cache/fuzz.
.PHONY: fuzz
SECONDS ?= 30
fuzz: setup
	PYTHONPATH=tests $(BIN)/uv run --quiet --no-sync --with atheris==3.0.0 python -W ignore -m fuzz $(SECONDS)

# Causes faults around a running service on Apache Kafka. `faults-quick` runs a sample of each fault. `faults` runs all, with
# 200 kills, and writes docs/faults.md. `soak` runs for HOURS with random faults, and writes docs/soak.md. The last line of
# each is JSON. SEED repeats a run.
.PHONY: faults faults-quick soak
SEED ?=
HOURS ?= 1
RATE ?= 300
FAULTS = PYTHONPATH=tests $(BIN)/python -m

faults-quick: setup
	$(FAULTS) faults.run $(if $(SEED),--seed $(SEED))

faults: setup
	$(FAULTS) faults.run --full $(if $(SEED),--seed $(SEED))

soak: setup
	$(FAULTS) faults.soak --hours $(HOURS) --rate $(RATE) $(if $(SEED),--seed $(SEED))

# Starts Kafka, the service, Prometheus, Alertmanager and Grafana (http://localhost:3000) in Docker. PROFILE=demo also sends
# simulated payments.
PROFILE ?=
.PHONY: stack
stack:
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || { \
	  echo "make stack needs Docker with Compose, but they do not answer on this machine. Use \`make demo\` instead, which needs no Docker" >&2; exit 1; }
	docker compose $(if $(PROFILE),--profile $(PROFILE)) up --build --detach

# Runs the real scorer and the real learner on a broker in their process. Each seed decides at which calls to the broker a
# crash, delay or error happens. The last line is JSON. SEED repeats one seed and prints its events.
.PHONY: simulate-faults
SEEDS ?= 2000
simulate-faults: setup
	PYTHONPATH=tests $(BIN)/python -W ignore -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
