# Two images: the service (scorer, learner, tools), and with `--target refit` the service with training libraries.
#
# The base is a Debian image with Python 3.11 or newer. Pin it with BASE_IMAGE=…/python:3.13-slim@sha256:…
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-trixie


# hadolint ignore=DL3006 -- the tag or digest is in BASE_IMAGE
FROM ${BASE_IMAGE} AS build
# Package index for pip and uv during the build. By default, PyPI.
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV UV_PROJECT_ENVIRONMENT=/opt/fraud-service \
    UV_PYTHON=python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    UV_SYSTEM_CERTS=1
# uv is pinned by hash, like everything that it installs.
COPY ops/uv.txt /opt/uv.txt
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --no-cache-dir --require-hashes --only-binary=:all: --requirement /opt/uv.txt
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN /opt/uv/bin/uv sync --locked --no-default-groups --no-install-project


FROM build AS build-service
COPY fraud_service fraud_service
COPY models models
RUN /opt/uv/bin/uv sync --locked --no-default-groups --no-editable \
    && find /opt/fraud-service -type d -name tests -prune -exec rm -r {} +


FROM build AS build-refit
RUN /opt/uv/bin/uv sync --locked --no-default-groups --no-install-project --extra training
COPY fraud_service fraud_service
COPY models models
RUN /opt/uv/bin/uv sync --locked --no-default-groups --no-editable --extra training \
    && find /opt/fraud-service -type d -name tests -prune -exec rm -r {} +


# hadolint ignore=DL3006 -- as above
FROM ${BASE_IMAGE} AS runtime
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fraud-service" \
      org.opencontainers.image.description="Real-time card fraud detection on Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# One thread: a pod scores on one core, and more threads make a row about a hundred times slower.
# PYTHONDONTWRITEBYTECODE: the root file system is read-only, and uv has compiled everything.
ENV PATH=/opt/fraud-service/bin:$PATH \
    FRAUD_STATE_DIR=/var/lib/fraud-service \
    OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN install -d -o 10001 -g 10001 /var/lib/fraud-service
USER 10001:10001
WORKDIR /var/lib/fraud-service
ENTRYPOINT ["fraud-service"]


FROM runtime AS refit
COPY --from=build-refit /opt/fraud-service /opt/fraud-service
CMD ["refit"]
HEALTHCHECK NONE


FROM runtime AS service
COPY --from=build-service /opt/fraud-service /opt/fraud-service
EXPOSE 8000
CMD ["score"]
# /livez checks only the poll loop, because a restart would not repair a broker.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["/opt/fraud-service/bin/python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('FRAUD_HTTP_PORT', 8000)}/livez\", timeout=4)"]
