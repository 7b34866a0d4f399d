#!/bin/bash
# Build the image with docker or buildah: image/build.sh [TAG]
#
# BUILD_BASE, RUNTIME_BASE  base images, if not the Dockerfile's; without a registry, make one by
#                           image/debootstrap-base.sh and give its name for both.
# BUILDER                   docker or buildah; found by itself if not set.
#
# How this machine reaches package registries (pip's and apt's configuration, a CA bundle of its own, proxies)
# is handed to the build as secrets, so that it works where pip and apt-get work, and leaves no trace in a layer.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-dsr-operator:$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}

builder() {
    if docker info >/dev/null 2>&1; then echo docker
    elif command -v buildah >/dev/null; then echo buildah
    else
        echo "error: no docker daemon answers and buildah is missing: install one of them" >&2
        return 1
    fi
}
builder=${BUILDER:-$(builder)}

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
arguments=(--tag "$tag" --file Dockerfile)

secret() {  # ID FILE: pass it if it exists
    if [[ -s $2 ]]; then arguments+=(--secret "id=$1,src=$2"); fi
}
secret pip-config "${PIP_CONFIG_FILE:-/etc/pip.conf}"
secret ca "${PIP_CERT:-${SSL_CERT_FILE:-}}"
if command -v apt-config >/dev/null; then
    for option in Check-Date Check-Valid-Until Retries http https; do
        apt-config dump "Acquire::$option" --format '%F "%v";%n'
    done | { grep -v '""' || true; } > "$secrets/apt-config"
    secret apt-config "$secrets/apt-config"
fi
for name in BUILD_BASE RUNTIME_BASE; do
    if [[ -n ${!name:-} ]]; then arguments+=(--build-arg "$name=${!name}"); fi
done
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [[ -n ${!name:-} ]]; then arguments+=(--build-arg "$name"); fi
done

case $builder in
    docker) build=(docker build) ;;
    buildah) build=(buildah build --isolation chroot --layers) ;;
    *) echo "error: BUILDER is '$builder'; it must be docker or buildah" >&2; exit 1 ;;
esac
if ! DOCKER_BUILDKIT=1 "${build[@]}" "${arguments[@]}" .; then
    echo "error: the image was not built. If a base image cannot be pulled, give others by BUILD_BASE and" \
        "RUNTIME_BASE, or make one by image/debootstrap-base.sh" >&2
    exit 1
fi
echo "built $tag"
