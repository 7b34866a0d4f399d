#!/bin/bash
# Make a base image of Debian 12 without a registry, by debootstrap and buildah: image/debootstrap-base.sh [NAME]
#
# Then: BUILD_BASE=NAME RUNTIME_BASE=NAME image/build.sh
# MIRROR  where Debian's packages come from; this machine's own source of them if not set.
set -euo pipefail

name=${1:-localhost/dsr-base:debian-12}
release=bookworm

mirror() {
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Release: $release" 2>/dev/null | head -1
}
mirror=${MIRROR:-$(mirror)}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates "$release" "$root" ${mirror:+"$mirror"}
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*

container=$(buildah from scratch)
trap 'rm -rf "$root"; buildah rm "$container" >/dev/null' EXIT
buildah add -q "$container" "$root" / >/dev/null
buildah config --cmd /bin/bash "$container"
buildah commit -q "$container" "$name"
echo "made $name"
