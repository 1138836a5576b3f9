#!/usr/bin/env bash
# The whole distributed system on this machine, as processes: Kafka, store, two receivers, two workers, a captured mesh replayed into them.
#   deploy/local.sh           until Ctrl-C
#   deploy/local.sh --check   one replay, its answers compared with Envoy's own numbers; 0: right, 1: not
# Needs java 17 and, for the first start, mvn (Kafka comes from Maven Central into a cache).
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || make install
exec .venv/bin/python -m deploy.local "$@"
