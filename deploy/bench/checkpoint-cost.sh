#!/usr/bin/env bash
# What an incremental checkpoint costs as the state grows: a line every ten seconds with the newest checkpoints.
# Usage: checkpoint-cost.sh FLOTT [SECONDS]. Needs about 2 GB of disk for three minutes.
set -euo pipefail
flott=$1 seconds=${2:-200}
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
cluster=
finish() {
  [ -z "$cluster" ] || { kill "$cluster" && wait "$cluster"; } 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

"$flott" local --dir "$dir/cluster" >"$dir/out" 2>"$dir/err" &
cluster=$!
until grep -q '^ready' "$dir/out"; do
  kill -0 "$cluster" 2>/dev/null || { cat "$dir/err" >&2; exit 1; }
  sleep 0.1
done
FLOTT_JOBMANAGER=$(sed -n 's/.*export FLOTT_JOBMANAGER=//p' "$dir/err")
export FLOTT_JOBMANAGER
job=$("$flott" run -d -f "$here/checkpoint-cost.sql" -p 2 -D execution.checkpointing.interval=1s -o json |
  sed -n 's/.*"id": *"\([0-9a-f]*\)".*/\1/p')

echo "checkpoint: state bytes, uploaded bytes, milliseconds"
for ((elapsed = 10; elapsed <= seconds; elapsed += 10)); do
  sleep 10
  "$flott" checkpoints "$job" | awk '$3 == "COMPLETED" { print $1 ": " $6 ", " $7 ", " $5; if (++n == 5) exit }'
done
"$flott" cancel "$job"
