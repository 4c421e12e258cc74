#!/usr/bin/env bash
# What an incremental checkpoint costs as the state grows: a line every ten seconds with the newest checkpoints.
# Usage: checkpoint-cost.sh FLOTT [SECONDS]. Needs about 2 GB of disk for three minutes.
set -euo pipefail
flott=$1 seconds=${2:-200}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
start_cluster
job=$(submit "$here/checkpoint-cost.sql" -p 2 -D execution.checkpointing.interval=1s)

echo "checkpoint: state bytes, uploaded bytes, milliseconds"
for ((elapsed = 10; elapsed <= seconds; elapsed += 10)); do
  sleep 10
  "$flott" checkpoints "$job" | awk '$3 == "COMPLETED" { print $1 ": " $6 ", " $7 ", " $5; if (++n == 5) exit }'
done
"$flott" cancel "$job"
