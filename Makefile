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

# What checks chart, Dockerfile and compose.yaml: large programs, which only the tests need.
checks: $(VENV)/.checks

$(VENV)/.checks: $(VENV)/.ready
	$(BIN)/uv sync --quiet --locked --inexact --all-extras --all-groups --no-group peers
	touch $@

demo: setup
	$(BIN)/fraud-service demo $(if $(BOOTSTRAP),--bootstrap $(BOOTSTRAP))

# Two workers; the slow tests first, by tests/durations.json; the tests of a module on one worker.
PYTEST = $(BIN)/pytest --dist loadscope --no-loadscope-reorder

# The unit tests, some seeds of the simulation, and the whole loop on the embedded broker: minutes.
test: setup
	$(PYTEST) -n 2 --ignore=tests/deploy -m "not slow and not kafka"

# Everything, on Apache Kafka too.
test-all: checks
	$(PYTEST) -n 2

# What `make test` leaves out.
test-rest: checks
	$(PYTEST) -n 2 -m "slow or kafka"

# Everything, and how long it took, for the order of the next runs.
test-durations: checks
	$(PYTEST) -n 2 --write-durations

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python ops/dashboards.py --check
	$(BIN)/python helm/generate.py --check
	$(MAKE) --no-print-directory site

# The Helm chart: rendered for every feature and any mix of them, and judged by the tools that judge charts.
chart: checks
	$(BIN)/pytest -v tests/deploy/helm

# The committed model, rebuilt from nothing: the same commands give the same files.
train: setup
	mkdir -p .cache
	$(BIN)/fraud-service simulate $(SIMULATED) --seed 1
	$(BIN)/fraud-service train $(SIMULATED) --out models/pretrained \
	  --source '`fraud-service simulate --seed 1`: 2,000 cards, 1,000 merchants, 60 days'

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/python ops/dashboards.py
	$(BIN)/python helm/generate.py

# The docs site, from the pages that GitHub shows: site/index.html. A broken link fails the build.
.PHONY: site
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Detection quality, measured from nothing (an hour); the data are not part of the repository.
quality: setup
	$(BIN)/python benchmarks/quality.py $(DATA)

# Everything that docs/performance.md says, measured side by side (half an hour, a quiet machine); goes on where it was
# cut off, and anew when .cache/bench is removed. BENCH names parts or sizes, as in BENCH="scale --million-cards 1".
BENCH ?=
bench: setup
	$(BIN)/uv sync --quiet --locked --inexact --all-extras --all-groups
	PYTHONPATH=tests $(BIN)/python benchmarks/performance.py $(BENCH)

# Compares this tree with the commit BASE, in turns, in some four minutes; ends with one JSON line, exits 1 if it is slower.
BASE ?= HEAD
bench-quick: setup
	PYTHONPATH=tests $(BIN)/python benchmarks/quick.py --base $(BASE)

# Both images built and run for real, without root, capabilities or a writable root, against Apache Kafka, and the
# pods of the chart; ends with what was measured. BASE_IMAGE names another base than the Debian that is made here. What
# it needs is installed on a Debian by root.
.PHONY: image
image: checks
	podman --version >/dev/null 2>&1 && mmdebstrap --version >/dev/null 2>&1 || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
	  podman runc netavark catatonit mmdebstrap; }
	FRAUD_TEST_IMAGE=1 FRAUD_TEST_REQUIRE_KAFKA=1 $(BIN)/pytest tests/deploy/image tests/deploy/helm/test_pods_run.py
	cat .cache/image.json

# What is inside, and what may be wrong with it: the bill of materials of the service (CycloneDX, from the lock), the
# licences of what its image holds, two scanners, each in an environment of its own, every attack that needs no broker,
# and a little fuzzing. The attacks on Apache Kafka are tests in tests/broker and faults in `make faults-quick`.
.PHONY: security
LICENCES = Apache;BSD;ISC;MIT;MPL;PSF;Python;Unlicense;Zlib
security: checks
	mkdir -p .cache
	$(BIN)/uv export --quiet --locked --no-default-groups --no-emit-project --format cyclonedx1.5 --output-file .cache/sbom.cdx.json
	UV_PROJECT_ENVIRONMENT=.cache/service $(BIN)/uv sync --quiet --locked --no-default-groups --no-install-project
	$(BIN)/uv tool run --quiet pip-licenses@5.5.5 --python .cache/service/bin/python --partial-match \
	  --allow-only "$(LICENCES)" --order license --format markdown --output-file docs/licences.md
	$(BIN)/uv tool run --quiet bandit@1.9.4 --quiet --configfile pyproject.toml --recursive fraud_service
	$(BIN)/uv tool run --quiet semgrep@1.185.0 scan --metrics=off --disable-version-check --error --quiet \
	  --config ops/semgrep.yml fraud_service
	$(PYTEST) --quiet -n 2 -m attack
	$(MAKE) fuzz SECONDS=5
	@echo "nothing found; bill of materials: .cache/sbom.cdx.json, licences: docs/licences.md"

# Every decoder under atheris, so many seconds each; ends with one JSON line, and what was found lies in .cache/fuzz.
.PHONY: fuzz
SECONDS ?= 30
fuzz: setup
	PYTHONPATH=tests $(BIN)/uv run --quiet --no-sync --with atheris==3.0.0 python -W ignore -m fuzz $(SECONDS)

# What happens to a running service when everything around it fails, on Apache Kafka. `faults-quick` does a sample of each
# fault; `faults` does all, a hundred kills among them, and writes docs/faults.md; `soak` goes on for hours with a random
# fault now and then, and writes docs/soak.md. Each ends with one JSON line; SEED repeats one.
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

# Kafka, the service, Prometheus, Alertmanager and Grafana (http://localhost:3000) in Docker; PROFILE=demo feeds it.
PROFILE ?=
.PHONY: stack
stack:
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || { \
	  echo "make stack needs Docker with Compose, and neither answers here; \`make demo\` needs none" >&2; exit 1; }
	docker compose $(if $(PROFILE),--profile $(PROFILE)) up --build --detach

# The real scorer, and the real learner, on a broker in their process, with a crash, delay or error at any call to it, by
# seed. Ends with one JSON line; SEED repeats one and tells its story.
.PHONY: simulate-faults
SEEDS ?= 2000
simulate-faults: setup
	PYTHONPATH=tests $(BIN)/python -W ignore -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
