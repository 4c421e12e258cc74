#!/usr/bin/env bash
# How long a checkpoint takes from its trigger while sources wait for sinks that take 10,000 rows a second each: aligned, and
# with barriers that overtake. Usage: backpressure.sh FLOTT
set -euo pipefail
flott=$1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
start_cluster
sed "s/'nexmark.events-per-second' = '[0-9]*'/'nexmark.events-per-second' = '400000'/" "$here/checkpoint-cost.sql" >"$dir/job.sql"
key=execution.checkpointing
echo "| unaligned | checkpoints: ms, bytes in flight |"
echo "|---|---|"
for mode in never 1s 0s; do
  settings=(-D $key.aligned-checkpoint-timeout="$mode")
  [ "$mode" != never ] || settings=(-D $key.unaligned.enabled=false)
  job=$(submit "$dir/job.sql" -p 2 -D pipeline.sink.rows-per-second=10000 -D $key.interval=500ms "${settings[@]}")
  completed() { "$flott" checkpoints "$job" | awk '$3 == "COMPLETED" { print $5, $9 }'; }
  # The first ones come before the rows are held up.
  until [ "$(completed | wc -l)" -ge 7 ]; do is_alive; sleep 0.5; done
  echo "| after $mode | $(completed | head -n 4 | sed 's/ /, /' | paste -sd ';' | sed 's/;/; /g') |"
  "$flott" cancel "$job" >/dev/null
done
