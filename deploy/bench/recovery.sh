#!/usr/bin/env bash
# What the loss of a TaskManager costs a job with much state: SIGKILL to one of two that have a task each, with a third to
# take over.
# Usage: recovery.sh FLOTT [MEGABYTES [STORAGE]]. Needs about four times as much disk as MEGABYTES (500). STORAGE is the
# directory or s3:// address for checkpoints, whose credentials the environment has.
set -euo pipefail
flott=$1 megabytes=${2:-500} storage=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
start_cluster --taskmanagers 3 --slots 1
fast_job
job=$(submit "$dir/job.sql" -p 2 -D execution.checkpointing.interval=2s ${storage:+-D execution.checkpointing.dir="$storage"})
grow_to "$megabytes"

# What each TaskManager that answers has restored, from its own disk and from storage.
restored() {
  sed -n '/"taskmanagers"/,$ s/.*"http": "\(.*\)".*/\1/p' "$dir/cluster/cluster.json" | while read -r http; do
    curl -sf "http://$http/metrics" | awk -v of="$http" '
      /^flott_state_local_bytes_total/ { local += $2 } /^flott_state_downloaded_bytes_total/ { downloaded += $2 }
      END { printf "TaskManager at %s: %d MB were there, %d MB downloaded\n", of, local / 1000000, downloaded / 1000000 }' || true
  done
}

victim=$("$flott" info "$job" | awk 'NF >= 5 && $(NF - 3) == "0/2" { print $NF; exit }')
pid=$(awk -v id="\"$victim\"," '$1 == "\"id\":" { is_it = $2 == id } is_it && $1 == "\"pid\":" { print $2 }' "$dir/cluster/cluster.json")
killed=$(date +%s%3N)
kill -9 "$pid"
until "$flott" info "$job" | awk '
  NF >= 5 && $(NF - 3) ~ "/2$" { tasks++; running += $(NF - 2) == "RUNNING" && $(NF - 1) > 1 } END { exit !(tasks > 0 && tasks == running) }'; do :; done
now=$(date +%s%3N)
"$flott" info "$job" | awk '$1 ~ "T" && $2 ~ "^[0-9]+$"' >&2
echo "state of $state MB: all tasks run again $((now - killed)) ms after the SIGKILL"
restored
# How long each task of it took for its state: to bring the files here, to check them and to open the database.
grep -rh --include='*.log' 'state restored' "$dir/cluster" | sort | tail -n 2
"$flott" cancel "$job" >/dev/null
