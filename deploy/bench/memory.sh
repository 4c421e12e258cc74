#!/usr/bin/env bash
# The memory of a TaskManager whose state is many times what it may take: a line for each 500 MB of state, then one each ten
# seconds for a minute. Usage: memory.sh FLOTT [MEGABYTES [BUDGET]] (4000, 512mb). Needs about four times as much disk.
set -euo pipefail
flott=$1 megabytes=${2:-4000} budget=${3:-512mb}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
start_cluster --taskmanagers 1 --slots 2 -D taskmanager.memory.managed.size="$budget"
fast_job
job=$(submit "$dir/job.sql" -p 2 -D execution.checkpointing.interval=5s)
pid=$(awk '$1 == "\"taskmanagers\":" { is_it = 1 } is_it && $1 == "\"pid\":" { print $2 + 0; exit }' "$dir/cluster/cluster.json")

# Megabytes of the process: all that it holds, and how much of that is not files that are mapped.
resident() { awk '$1 == "VmRSS:" { all = $2 } $1 == "RssAnon:" { own = $2 } END { printf "%d | %d", all / 1000, own / 1000 }' "/proc/$pid/status"; }

echo "| state, MB | resident, MB | of that its own |"
echo "|---|---|---|"
for ((goal = 500; goal <= megabytes; goal += 500)); do
  grow_to "$goal" 2>/dev/null
  echo "| $state | $(resident) |"
done
for _ in 1 2 3 4 5 6; do
  sleep 10
  grow_to "$megabytes" 2>/dev/null
  echo "| $state | $(resident) |"
done
kill -0 "$pid"
"$flott" info "$job" | awk '$1 ~ "T" && $2 ~ "^[0-9]+$"' >&2
"$flott" cancel "$job" >/dev/null
