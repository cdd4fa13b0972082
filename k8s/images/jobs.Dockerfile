# syntax=docker/dockerfile:1
# The images of all that runs beside the service, which `bentoml containerize` makes. From the project's root:
#
#   docker build -f k8s/images/jobs.Dockerfile --target stream    -t tollgate/stream .     what runs all day
#   docker build -f k8s/images/jobs.Dockerfile --target batch     -t tollgate/batch .      what trains, audits and judges
#   docker build -f k8s/images/jobs.Dockerfile --target mlflow    -t tollgate/mlflow .     the tracking server
#   docker build -f k8s/images/jobs.Dockerfile --target workflows -t tollgate/workflows .  Airflow beside `batch`
#
# Each has the groups of pyproject.toml that it needs, at the versions of requirements.lock, compiled to bytecode; runs
# as a user without a name's rights or a writable root; and writes to /var/lib/tollgate and /tmp alone.
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS base
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PATH=/opt/tollgate/bin:$PATH \
    FRAUD_HOME=/var/lib/tollgate NUMBA_CACHE_DIR=/var/lib/tollgate/numba MPLCONFIGDIR=/tmp/matplotlib
# What is mounted over a folder of the image takes its owner from it.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/tollgate tollgate \
 && install -d -o tollgate -g tollgate -m 0750 /var/lib/tollgate

# --- builders: no compiler, no index settings and no cache of theirs reaches an image --------------------------------
FROM base AS builder
ENV UV_CACHE_DIR=/var/cache/uv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 && uv venv /opt/tollgate
WORKDIR /build
COPY pyproject.toml requirements.lock k8s/images/overrides.txt ./

FROM builder AS stream-libraries
RUN --mount=type=cache,target=/var/cache/uv uv pip install --python /opt/tollgate --constraints requirements.lock \
    --overrides overrides.txt -r pyproject.toml --extra streaming --extra full

FROM builder AS batch-libraries
RUN --mount=type=cache,target=/var/cache/uv uv pip install --python /opt/tollgate --constraints requirements.lock \
    --overrides overrides.txt -r pyproject.toml --extra streaming --extra full --extra embedded --extra training \
    --extra monitoring

FROM builder AS mlflow-libraries
COPY k8s/images/mlflow-requirements.txt ./
RUN --mount=type=cache,target=/var/cache/uv uv pip install --python /opt/tollgate -r mlflow-requirements.txt

FROM builder AS code
COPY feature_repo /app/feature_repo
COPY monitoring /app/monitoring
COPY stream_jobs /app/stream_jobs
# By content: a copy has another time of change, and nothing could be compiled anew where root is read-only.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM code AS batch-code
COPY training /app/training
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/training

# --- images ----------------------------------------------------------------------------------------------------------
FROM base AS stream
COPY --from=stream-libraries /opt/tollgate /opt/tollgate
COPY --from=code /app /app
ENV PYTHONPATH=/app
WORKDIR /app
USER 10001:10001
# The velocity job serves its metrics once it has connected and begun; another job says where it is started what to ask.
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:3011/metrics', timeout=4)"]
CMD ["python", "-m", "bytewax.run", "stream_jobs.velocity"]

FROM base AS batch
# LightGBM's wheel counts on the system's OpenMP.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=batch-libraries /opt/tollgate /opt/tollgate
COPY --from=batch-code /app /app
ENV PYTHONPATH=/app
WORKDIR /app
USER 10001:10001
# Its commands end by themselves; what waits for them reads their exit code.
HEALTHCHECK NONE
CMD ["python", "-m", "training.retrain", "--help"]

FROM base AS mlflow
COPY --from=mlflow-libraries /opt/tollgate /opt/tollgate
WORKDIR /var/lib/tollgate
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=5 CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--serve-artifacts"]

# Airflow has an environment of its own: its libraries and ours do not agree, and need not. At the versions that
# `make test-ops` runs the workflows with.
FROM batch AS workflows
USER 0
COPY k8s/images/airflow-requirements.txt /opt/airflow-requirements.txt
RUN --mount=type=cache,target=/var/cache/uv pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 \
 && uv venv /opt/airflow && UV_CACHE_DIR=/var/cache/uv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy uv pip install \
    --python /opt/airflow -r /opt/airflow-requirements.txt \
 && pip uninstall --yes uv
ENV PATH=/opt/airflow/bin:$PATH AIRFLOW_HOME=/var/lib/tollgate/airflow
USER 10001:10001
CMD ["airflow", "version"]
