#!/usr/bin/env bash
# What a change of parallelism costs a job with much state: 1 to 2 to 4 to 3 tasks.
# Usage: rescale.sh FLOTT [MEGABYTES]. Needs about five times as much disk as MEGABYTES (500).
set -euo pipefail
flott=$1 megabytes=${2:-500}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
start_cluster --slots 4
fast_job
job=$(submit "$dir/job.sql" -p 1 -D execution.checkpointing.interval=2s)

grow_to "$megabytes"

echo "state of $state MB"
echo "| tasks | asked to all tasks running, ms | of which without tasks, ms | next checkpoint: ms, MB uploaded of MB |"
echo "|---|---|---|---|"
for parallelism in 2 4 3; do
  asked=$(date +%s%3N)
  "$flott" rescale "$job" -p "$parallelism" >/dev/null
  # Every task of the new attempt has its state and runs.
  until "$flott" info "$job" | awk -v want="$parallelism" '
    NF >= 5 && $(NF - 3) ~ "/" want "$" { tasks++; running += $(NF - 2) == "RUNNING" } END { exit !(tasks > 0 && tasks == running) }'; do :; done
  now=$(date +%s%3N)
  stopped=$("$flott" info "$job" | awk '$3 == "RESTARTING" { at = $1 } END { print at }')
  read -r before _ < <(newest)
  until read -r id took bytes uploaded < <(newest) && [ "$id" -gt "$before" ]; do sleep 0.2; done
  echo "| $parallelism | $((now - asked)) | $((now - $(date -d "$stopped" +%s%3N))) | $took, $((uploaded / 1000000)) of $((bytes / 1000000)) |"
done
# How long each task of them took for its state: to bring the files here, to check them and to open the databases.
grep -rh --include='*.log' 'state restored' "$dir/cluster" | sort
"$flott" cancel "$job" >/dev/null
