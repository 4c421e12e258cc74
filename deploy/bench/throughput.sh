#!/usr/bin/env bash
# What checkpoints cost a job that runs as fast as it can: the same bounded job with a checkpoint each second, and with none
# but the last, in turns. Usage: throughput.sh FLOTT [EVENTS [PARALLELISM]] (12 million, 1). Needs 1 GB of disk.
set -euo pipefail
flott=$1 events=${2:-12000000} parallelism=${3:-1}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
start_cluster
sed "s/'nexmark.events-per-second' = '[0-9]*'/'nexmark.events' = '$events'/" "$here/checkpoint-cost.sql" >"$dir/job.sql"

# Milliseconds from the submission to the end of a job with this interval.
run() {
  local began
  began=$(date +%s%3N)
  "$flott" run -f "$dir/job.sql" -p "$parallelism" -D execution.checkpointing.interval="$1" >"$dir/run" 2>&1 || { cat "$dir/run" >&2; exit 1; }
  echo $(($(date +%s%3N) - began))
}

run 1s >/dev/null # What follows finds files and memory as they are after some work.
with=0 without=0
echo "| turn | rows/s with a checkpoint each second | with none |"
echo "|---|---|---|"
for turn in 1 2 3; do
  # The order changes: what a run leaves to be done is paid for by the next.
  if ((turn % 2)); then a=$(run 1s) b=$(run 1h); else b=$(run 1h) a=$(run 1s); fi
  echo "| $turn | $((events * 1000 / a)) | $((events * 1000 / b)) |"
  with=$((with + a)) without=$((without + b))
done
echo "with checkpoints each second the job has $((without * 1000 / with)) thousandths of the rows that it has without"
