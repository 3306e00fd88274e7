#!/bin/sh
# Build a stand-in for the Go base image from what this machine has: its Go
# toolchain, its module cache and a static busybox. For machines that cannot
# pull images; the Dockerfile itself is the same.
#
#   standin.sh NAME[:TAG]      needs docker, go, busybox (static), and a filled
#                              module cache (go mod download)
set -eu
name=${1:?image name}
goroot=$(go env GOROOT)
modcache=$(go env GOMODCACHE)
busybox=$(command -v busybox)
root=$(mktemp -d)
trap 'chmod -R u+w "$root" && rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/usr/local" "$root/go/pkg/mod/cache" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for tool in sh mkdir cp ls; do ln -s busybox "$root/bin/$tool"; done
cp -a "$goroot" "$root/usr/local/go"
cp -a "$modcache/cache/download" "$root/go/pkg/mod/cache/download"
tar -C "$root" -c . | docker import \
	--change 'ENV PATH=/usr/local/go/bin:/bin' \
	--change 'ENV GOPATH=/go' \
	--change 'ENV GOPROXY=off' \
	--change 'ENV GONOSUMDB=*' \
	--change 'ENV GOFLAGS=-mod=mod' \
	--change 'ENV GOTOOLCHAIN=local' \
	--change 'ENV HOME=/tmp' \
	- "$name" >/dev/null
echo "$name"
