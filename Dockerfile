# One image for every pod: the graph, the API and Ray. Non-root, and its file system may be read-only but for /tmp.
#   docker build --target cpu -t aiprod:0.1.0-cpu .
#   docker build --target gpu -t aiprod:0.1.0-gpu --build-arg EXTRAS=gpu,ltx2,postgresql,c2pa,telemetry --build-arg TORCH_INDEX=https://pypi.org/simple .
# torch of PyPI is the one for CUDA, and names its CUDA packages and triton exactly; everything else is pinned by constraints.txt.
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRAS=postgresql,c2pa,telemetry
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app
# Packages first: they are gigabytes and change seldom, the source is not and does.
COPY constraints.txt pyproject.toml ./
RUN python -m venv /opt/venv \
    && python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
       print(*project['dependencies'], *sum((project['optional-dependencies'][name] for name in '${EXTRAS}'.split(',') if name), []), sep='\n')" \
       > /tmp/requirements.txt \
    && pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" --constraint constraints.txt torch \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt setuptools
COPY LICENSE NOTICE README.md serve_config.yaml ./
COPY aiprod_components aiprod_components
COPY deployments deployments
COPY aiprod_client aiprod_client
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && python -m compileall -q /app
COPY k8s/drain.sh k8s/drain.sh
COPY k8s/overlays k8s/overlays

FROM python:${PYTHON} AS cpu
LABEL org.opencontainers.image.title="AIPROD" \
      org.opencontainers.image.description="Two-stage video diffusion served as a Ray Serve model graph" \
      org.opencontainers.image.vendor="Averroes" \
      org.opencontainers.image.licenses="LicenseRef-Averroes"
RUN groupadd --gid 10001 aiprod \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin aiprod
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# Nobody reaches Ray's ports without a token: a container that is started without one does not start.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp AIPROD_DATA=/tmp/aiprod RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8000 9000
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/-/healthz', timeout=4)"]
CMD ["aiprod", "serve"]

FROM cpu AS gpu
# Triton compiles a launcher for each kernel where it runs.
USER 0:0
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc=4:12.2.0-3 libc6-dev=2.36-9+deb12u* \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TRITON_CACHE_DIR=/tmp/triton TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
USER 10001:10001
