#!/usr/bin/env bash
# Bring the docker-compose cluster up from its Dockerfile, use it through two
# nodes, kill one container and use it again, restart it from its volume, and
# take everything down. Starts an engine of its own where none runs (root), and
# builds the Go base image from this machine (standin.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
engine=""
project=redynamo-test
cleanup() {
	status=$?
	if [ $status -ne 0 ]; then docker-compose -p "$project" logs --tail 40 2>/dev/null || true; fi
	docker-compose -p "$project" down --volumes --timeout 5 >/dev/null 2>&1 || true
	if [ -n "$engine" ]; then
		kill "$engine" 2>/dev/null || true
		for _ in $(seq 100); do kill -0 "$engine" 2>/dev/null || break; sleep 0.1; done
	fi
	rm -rf "$work" 2>/dev/null || true
	exit $status
}
trap cleanup EXIT

if [ -z "${DOCKER_HOST:-}" ]; then
	export DOCKER_HOST="unix://$work/docker.sock"
	dockerd --data-root "$work/root" --exec-root "$work/exec" --pidfile "$work/docker.pid" -H "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
	engine=$!
	for _ in $(seq 100); do docker version >/dev/null 2>&1 && break; sleep 0.2; done
	docker version >/dev/null || { tail -20 "$work/dockerd.log"; exit 1; }
fi

GO_IMAGE=$(integration/docker/standin.sh redynamo-go:local)
export GO_IMAGE
docker-compose -p "$project" build --quiet n1
docker-compose -p "$project" up --detach

wait_for() { # wait_for SECONDS COMMAND...
	local i
	for ((i = 0; i < $1 * 5; i++)); do "${@:2}" >/dev/null 2>&1 && return 0; sleep 0.2; done
	echo "not within $1 s: ${*:2}" >&2
	return 1
}
healthy() { [ "$(docker ps --filter "label=com.docker.compose.project=$project" --filter health=healthy -q | wc -l)" -eq "$1" ]; }
wait_for 90 healthy 5

cli() { redis-cli -p "$@"; }
same() { [ "$1" = "$2" ] || { echo "got '$1', want '$2'" >&2; exit 1; }; }
same "$(cli 7001 set cart milk)" OK
same "$(cli 7005 get cart)" milk
for i in $(seq 200); do echo "SET key:$i value:$i"; done | cli 7002 >/dev/null
victim=$(docker-compose -p "$project" ps -q n3)
docker kill "$victim" >/dev/null
for i in $(seq 200); do same "$(cli 7004 get "key:$i")" "value:$i"; done
same "$(cli 7001 set during outage)" OK
docker start "$victim" >/dev/null
wait_for 60 healthy 5
same "$(cli 7003 get during)" outage
same "$(cli 7003 get key:77)" value:77
docker-compose -p "$project" restart --timeout 15 >/dev/null 2>&1
wait_for 60 healthy 5
same "$(cli 7002 get cart)" milk
docker run --rm --entrypoint /redynamo redynamo:local --version >/dev/null
echo "docker-compose: 5 healthy nodes, one killed and back, all restarted, nothing lost"
