#!/usr/bin/env bash
# Flott's key-value space beside etcd and ZooKeeper: three members each on this machine, fsync on, the same load.
# Usage: metadata.sh FLOTT BENCH_PEERS [OUT]. Prints a table; OUT (default bench-metadata.json) gets it as JSON.
#
# How it is kept fair:
# - The systems are measured in alternation, ROUNDS times (default 2); the table has the medians. All servers of the
#   other systems are stopped meanwhile (SIGSTOP): they use no CPU, and the JVM stays warm. Before a system is measured
#   again it has to answer at every member, and gets SETTLE seconds (2) to calm down; every measurement begins with a
#   warm-up of its own.
# - The load generator is the same code for all, on one thread. Flott is driven over FLOTT_SESSIONS connections
#   (default 1: its client gathers what waits, and follows the leader); etcd and ZooKeeper over PEER_SESSIONS (default 12)
#   connections spread over all members, which forward to the leader; a single request in flight goes to the leader.
#   Set both alike to see what that makes.
# - All data is on the same disk. etcd runs with its defaults, but for a larger quota (nothing is compacted meanwhile,
#   and it must not run full); ZooKeeper as Debian's, with tickTime 2000, initLimit 10, syncLimit 5, -Xmx512m.
# A linearizable read of ZooKeeper is sync and getData, which promises less than the other two.
#
# Further settings: IN_FLIGHT (1,16,64,256), VALUES (256,4096), MEASURE (5 seconds each), WARMUP (1.5), SYSTEMS
# ("flott etcd zookeeper"), BENCH_DIR (where the data goes; a real disk).
set -euo pipefail

flott=$1 peers=$2 out=${3:-bench-metadata.json}
rounds=${ROUNDS:-2} settle=${SETTLE:-2} systems=${SYSTEMS:-flott etcd zookeeper}
load=(--in-flight "${IN_FLIGHT:-1,16,64,256}" --value "${VALUES:-256,4096}" --seconds "${MEASURE:-5}" --warmup "${WARMUP:-1.5}")

say() { printf 'bench: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

dir=$(mktemp -d "${BENCH_DIR:-.}/bench-metadata.XXXXXX")
dir=$(cd "$dir" && pwd)
declare -A pids=() members=()
local_pid=

finish() {
  trap - EXIT INT TERM
  local pid all="${pids[*]:-} $local_pid"
  # A stopped process hears of its end only when it goes on.
  for pid in $all; do kill -CONT "$pid" 2>/dev/null || true; done
  for pid in $all; do kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

case $(stat -f -c %T "$dir") in
  tmpfs | ramfs) fail "$dir is in memory, where fsync costs nothing; set BENCH_DIR to a directory on a disk" ;;
esac

as_root() {
  if [ "$(id -u)" = 0 ]; then DEBIAN_FRONTEND=noninteractive "$@"
  elif command -v sudo >/dev/null; then sudo -n DEBIAN_FRONTEND=noninteractive "$@"
  else return 1
  fi
}

# Sets etcd to the program, or fails. Unpacked only: an installed package would start a service.
find_etcd() {
  etcd=$(command -v etcd) && return
  command -v apt-get >/dev/null || return 1
  mkdir "$dir/package"
  (
    cd "$dir/package"
    apt-get download -qq -o APT::Sandbox::User=root etcd-server >&2 || { as_root apt-get update -qq >&2 && apt-get download -qq -o APT::Sandbox::User=root etcd-server >&2; }
    dpkg-deb -x etcd-server_*.deb .
  ) || return 1
  etcd=$dir/package/usr/bin/etcd
}

zookeeper_jar=/usr/share/java/zookeeper.jar
find_zookeeper() {
  [ -e $zookeeper_jar ] && command -v java >/dev/null && return
  command -v apt-get >/dev/null || return 1
  local packages="libzookeeper-java default-jre-headless"
  say "installing $packages"
  # shellcheck disable=SC2086 # a list of words on purpose
  as_root apt-get install -y -qq --no-install-recommends $packages >&2 ||
    { as_root apt-get update -qq >&2 && as_root apt-get install -y -qq --no-install-recommends $packages >&2; }
}

# Prints N free loopback ports. Below the range from which outgoing connections take theirs.
free_ports() {
  local port=$((16000 + $$ % 8000)) found=0
  while [ $found -lt "$1" ]; do
    port=$((port + 1))
    [ $port -lt 32000 ] || fail "no free ports"
    grep -qx $port "$dir/ports" 2>/dev/null && continue
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo $port | tee -a "$dir/ports"
      found=$((found + 1))
    fi
  done
}

start_flott() {
  "$flott" local --dir "$dir/flott" --jobmanagers 3 --taskmanagers 0 >"$dir/flott.out" 2>"$dir/flott.err" &
  local_pid=$!
  until grep -q '^ready' "$dir/flott.out"; do
    kill -0 "$local_pid" 2>/dev/null || { cat "$dir/flott.err" >&2; fail "flott did not start"; }
    sleep 0.1
  done
  members[flott]=$(sed -n 's/.*export FLOTT_JOBMANAGER=//p' "$dir/flott.err")
  pids[flott]=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$dir/flott/cluster.json" | tr '\n' ' ')
}

start_etcd() {
  local ports cluster="" i
  mapfile -t ports < <(free_ports 6)
  for i in 0 1 2; do cluster+="n$i=http://127.0.0.1:${ports[i + 3]},"; done
  for i in 0 1 2; do
    local client=http://127.0.0.1:${ports[i]} peer=http://127.0.0.1:${ports[i + 3]}
    "$etcd" --name "n$i" --data-dir "$dir/etcd-$i" --quota-backend-bytes $((8 << 30)) \
      --listen-client-urls "$client" --advertise-client-urls "$client" \
      --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
      --initial-cluster "${cluster%,}" --initial-cluster-state new >"$dir/etcd-$i.log" 2>&1 &
    pids[etcd]+="$! "
    members[etcd]+="127.0.0.1:${ports[i]},"
  done
  members[etcd]=${members[etcd]%,}
}

start_zookeeper() {
  local ports i j
  mapfile -t ports < <(free_ports 9)
  for i in 0 1 2; do
    mkdir "$dir/zookeeper-$i"
    echo $((i + 1)) >"$dir/zookeeper-$i/myid"
    {
      printf '%s\n' tickTime=2000 initLimit=10 syncLimit=5 "dataDir=$dir/zookeeper-$i" "clientPort=${ports[i]}" \
        clientPortAddress=127.0.0.1 admin.enableServer=false 4lw.commands.whitelist=srvr
      for j in 0 1 2; do echo "server.$((j + 1))=127.0.0.1:${ports[j + 3]}:${ports[j + 6]}"; done
    } >"$dir/zookeeper-$i.cfg"
    java -Xmx512m -cp "$zookeeper_jar:/usr/share/java/slf4j-simple.jar" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
      org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zookeeper-$i.cfg" >"$dir/zookeeper-$i.log" 2>&1 &
    pids[zookeeper]+="$! "
    members[zookeeper]+="127.0.0.1:${ports[i]},"
  done
  members[zookeeper]=${members[zookeeper]%,}
}

await() {
  case $1 in
    flott) "$flott" kv put flott-bench-ready now -m "${members[flott]}" >/dev/null ;;
    *) "$peers" "wait-$1" --servers "${members[$1]}" ;;
  esac || { tail -n 5 "$dir/$1"*.log "$dir/$1".err >&2 2>/dev/null; fail "$1 does not serve"; }
}

signal() {
  local pid
  for pid in ${pids[$2]}; do kill "-$1" "$pid"; done
}

measure() {
  local system=$1 flag=$2 file=$3
  case $system in
    flott)
      "$flott" bench metadata -m "${members[flott]}" -o json --sessions "${FLOTT_SESSIONS:-1}" "${load[@]}" $flag >"$file"
      ;;
    *) "$peers" "$system" --servers "${members[$system]}" --sessions "${PEER_SESSIONS:-12}" "${load[@]}" $flag >"$file" ;;
  esac
}

resident() {
  local pid mib=()
  for pid in ${pids[$1]}; do mib+=($(($(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status") / 1024))); done
  (IFS=,; echo "${mib[*]}")
}

read -r busy _ </proc/loadavg
[ "${busy%.*}" = 0 ] || say "the machine is busy (load $busy): the figures will be worse than they could be"
for system in $systems; do
  case $system in
    flott) ;;
    etcd | zookeeper) "find_$system" || { say "SKIPPED: $system is not here and could not be got"; systems=${systems/$system/}; } ;;
    *) fail "unknown system $system" ;;
  esac
done
for system in $systems; do
  say "starting $system"
  "start_$system"
  await "$system"
  signal STOP "$system"
done
for ((round = 1; round <= rounds; round++)); do
  for system in $systems; do
    say "round $round of $rounds: $system"
    signal CONT "$system"
    await "$system"
    sleep "$settle"
    measure "$system" "" "$dir/$system-$round-write.json"
    measure "$system" --read "$dir/$system-$round-read.json"
    [ $round -lt "$rounds" ] || memory+=(--memory "$system=$(resident "$system")")
    signal STOP "$system"
  done
done
"$peers" compare --json "$out" "${memory[@]}" "$dir"/*-*-{write,read}.json
say "JSON in $out"
