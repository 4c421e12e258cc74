# Sourced by the benchmarks that need a cluster, with `flott` set: starts one with these further arguments in a directory
# `dir`, which goes with it at the end, and has FLOTT_JOBMANAGER name it.
dir=$(mktemp -d)
cluster=
finish() {
  [ -z "$cluster" ] || { kill "$cluster" && wait "$cluster"; } 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

start_cluster() {
  : >"$dir/out"
  "$flott" local --dir "$dir/cluster" "$@" >"$dir/out" 2>"$dir/err" &
  cluster=$!
  until grep -q '^ready' "$dir/out"; do
    is_alive
    sleep 0.1
  done
  FLOTT_JOBMANAGER=$(sed -n 's/.*export FLOTT_JOBMANAGER=//p' "$dir/err")
  export FLOTT_JOBMANAGER
}

# Ends with what the cluster said if it has ended.
is_alive() {
  kill -0 "$cluster" 2>/dev/null || { cat "$dir/err" >&2; exit 1; }
}

# Submits a SQL file with these further arguments; prints the job's id.
submit() {
  "$flott" run -d -o json -f "$@" | sed -n 's/.*"id": *"\([0-9a-f]*\)".*/\1/p'
}

# Of the newest completed checkpoint of the job `job`: its id, milliseconds, bytes of state, bytes uploaded.
newest() { "$flott" checkpoints "$job" | awk '$3 == "COMPLETED" { print $1, $5, $6, $7; exit }'; }

# Waits until the job's state has so many megabytes; `state` says how many it has then.
grow_to() {
  local id bytes
  until read -r id _ bytes _ < <(newest) && [ "${bytes:-0}" -ge $(($1 * 1000000)) ]; do
    is_alive
    echo "state of $((${bytes:-0} / 1000000)) MB so far" >&2
    sleep 5
  done
  state=$((bytes / 1000000))
}

# Writes `$dir/job.sql`: the job of checkpoint-cost.sql as fast as the machine makes it, over so many pairs of auction and
# bidder that its state goes on growing.
fast_job() {
  sed -e "s/'nexmark.events-per-second' = '[0-9]*'/'nexmark.events-per-second' = '1000000'/" \
    -e "s/'nexmark.active-people' = '[0-9]*'/'nexmark.active-people' = '100000'/" "$here/checkpoint-cost.sql" >"$dir/job.sql"
}
