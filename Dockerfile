# One image, two entry points: dsr-operator and dsr-node. Built by image/build.sh (`make image`).
#
# Both bases must be of one Debian release: the virtual environment is copied from one to the other. They are
# arguments, so that a mirror, a digest or a base made by image/debootstrap-base.sh can take their place.
ARG BUILD_BASE=debian:12-slim
ARG RUNTIME_BASE=debian:12-slim

FROM ${BUILD_BASE} AS build
ENV DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=apt-config,target=/etc/apt/apt.conf.d/99-build \
    apt-get update -q && apt-get install -qy --no-install-recommends \
    clang gcc libbpf-dev libc6-dev linux-libc-dev make python3-venv
WORKDIR /src
# The build backend: what the lock says it needs ("# via hatchling"), with its hashes.
# The secrets are the building machine's own access to a package registry; none of them stays in a layer.
COPY requirements.txt requirements-dev.txt ./
RUN --mount=type=secret,id=pip-config,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/ca.crt \
    if test -s /run/ca.crt; then export PIP_CERT=/run/ca.crt; fi && \
    python3 -m venv /opt/dsr && \
    /opt/dsr/bin/pip install -q --no-cache-dir --require-hashes --no-compile -r requirements.txt && \
    awk '/^[a-z0-9]/ {if (entry ~ /hatchling/) printf "%s", entry; entry = ""} {entry = entry $0 "\n"}' \
        requirements-dev.txt > build-requirements.txt && \
    python3 -m venv /opt/build && \
    /opt/build/bin/pip install -q --no-cache-dir --require-hashes -r build-requirements.txt
COPY . .
RUN make bpf native && \
    /opt/build/bin/pip wheel -q --no-deps --no-build-isolation --wheel-dir /wheels . && \
    /opt/dsr/bin/pip install -q --no-deps --no-index --no-compile /wheels/*.whl && \
    /opt/dsr/bin/pip uninstall -qy pip setuptools && \
    python3 -m compileall -q /opt/dsr/lib

FROM ${RUNTIME_BASE}
LABEL org.opencontainers.image.title="dsr-operator" \
      org.opencontainers.image.description="Direct Server Return load balancing for any Kubernetes cluster" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN --mount=type=secret,id=apt-config,target=/etc/apt/apt.conf.d/99-build \
    export DEBIAN_FRONTEND=noninteractive && \
    apt-get update -q && apt-get install -qy --no-install-recommends libbpf1 python3 && \
    apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* && \
    groupadd --gid 65532 dsr && useradd --uid 65532 --gid dsr --no-create-home --shell /usr/sbin/nologin dsr
COPY --from=build /opt/dsr /opt/dsr
COPY LICENSE /usr/share/doc/dsr-operator/LICENSE
ENV PATH=/opt/dsr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# The node daemon runs as root: its DaemonSet says so.
USER 65532:65532
CMD ["dsr-operator"]
