"""The constant scripts of injected containers. Users' text reaches them in environment variables only."""

# Databases stand one a line in LITESTREAM_DATABASES; none of them has a line break or is a pattern.
_EACH = """\
set -f
IFS='
'
# shellcheck disable=SC2086 # one word a line
set -- ${LITESTREAM_DATABASES-}
unset IFS
set +f
"""

# The newest transaction of a replica (in all levels or in one), as 16 hexadecimal digits; empty if it has no backup.
_REPLICA = """\
config=/etc/litestream/litestream.yml

list_replica() {
  output=$(/usr/local/bin/litestream ltx -config "$config" -no-expand-env -level "$2" "$1" 2>&1) || return 1
  listed=$(printf '%s\\n' "$output" |
    awk 'table && NF >= 4 { print $1, $2, $3, $4 } $1 == "level" && $2 == "min_txid" { table = 1 }')
  remote=$(printf '%s\\n' "$listed" | awk '{ print $3 }' | sort | tail -n 1)
}

newer() {
  [ "$1" != "$2" ] && [ "$(printf '%s\\n' "$1" "$2" | sort | tail -n 1)" = "$1" ]
}
"""

# None of these scripts asks Litestream to sync: the transaction that keeps others from resetting the WAL ends with
# the request that began it (db.go: BeginTx with the request's context), and the replica is corrupt from then on.

# Litestream looks for new databases once a second, and its final sync leaves out one that it has not yet seen: without
# this, a Pod that ends within a second of its start (a short Job) would lose every row. An ordinary sidecar first
# lets the time go by in which the application may still write.
SEEN = (
    _EACH
    + """
never() {
  listed=$(/usr/local/bin/litestream list -timeout 2 -socket /etc/litestream/litestream.sock) || return 0
  case "
$listed
" in *"
$1 [replicating] (last sync: never)
"*) return 0 ;; esac
  return 1
}

sleep "${LITESTREAM_DRAIN_SECONDS:-0}"
left=$LITESTREAM_SECONDS
for database do
  [ -e "$database" ] || continue
  while [ "$left" -gt 0 ] && never "$database"; do
    sleep 1
    left=$((left - 1))
  done
done
"""
)

# Litestream begins each life on an empty volume by uploading the restored database as a whole, and what is written
# meanwhile waits for its end: then the replica has a transaction that was not there before the restore.
# The shell, as the first process, would ignore SIGTERM without the trap.
FIRST_SYNC = (
    _EACH
    + _REPLICA
    + """
trap 'exit 143' TERM
for database do
  note="${database%/*}/.${database##*/}-litestream/restored-txid"
  { [ -e "$database" ] && [ -e "$note" ]; } || continue
  restored=$(cat "$note")
  echo "waiting until $database is in its replica again, after transaction $restored"
  while :; do
    if ! list_replica "$database" 0; then
      echo "$output" >&2
    elif newer "$remote" "$restored"; then
      break
    fi
    sleep 1 &
    wait $!
  done
  echo "$database is in its replica (transaction $remote)"
done
"""
)

_ASIDE = """\
now=$(date -u +%Y%m%dT%H%M%SZ)

aside() {
  to="$1.$now"
  while [ -e "$to" ]; do to="$to.1"; done
  mv "$1" "$to"
  echo "moved $1 aside, to $to"
}
"""

# What would defeat the restore: an empty database counts as present, and SQLite would replay a journal that
# another life of the database left behind.
INIT = (
    """\
umask 077
directory=/etc/litestream

write() {
  printf '%s' "$2" > "$directory/$1.new"
  mv -f "$directory/$1.new" "$directory/$1"
}

write litestream.yml "$LITESTREAM_CONFIG"
if [ -n "${LITESTREAM_RESTORE_FROM-}" ]; then
  write restore-from.yml "$LITESTREAM_RESTORE_FROM"
fi

"""
    + _EACH
    + _ASIDE
    + """
for database do
  if [ -f "$database" ] && [ ! -s "$database" ]; then
    rm -f "$database"
    echo "removed the empty database $database"
  fi
  [ ! -e "$database" ] || continue
  name=${database##*/}
  for left in "$database-wal" "$database-shm" "$database-journal" "${database%/*}/.$name-litestream"; do
    [ ! -e "$left" ] || aside "$left"
  done
done
"""
)

# A database on a volume that outlives the Pod may be older than its replica, or another one: Litestream would
# make it the replica's newest state without a word. Positions are Litestream's transaction ids: the local one
# is the highest in the names of its LTX files (or what was noted before a restore), the replica's is listed.
CHECK = (
    _EACH
    + _ASIDE
    + _REPLICA
    + """
number() {
  od -An -v -tu1 -j"$2" -N"$3" "$1" | awk '{ n = 0; for (i = 1; i <= NF; i++) n = n * 256 + $i; printf "%.0f", n }'
}

# Shorter than its header says, with no log that could hold the rest.
cut_off() {
  [ ! -s "$1-wal" ] && [ ! -s "$1-journal" ] || return 1
  page=$(number "$1" 16 2)
  [ "$page" != 1 ] || page=65536
  awk -v page="$page" -v pages="$(number "$1" 28 4)" -v size="$(wc -c < "$1")" 'BEGIN { exit !(size < page * pages) }'
}

# An LTX file that both sides have, and that differs: the local database took another course.
diverged() {
  for file in "$metadata/ltx/0"/*.ltx; do
    [ -e "$file" ] || continue
    name=${file##*/}
    name=${name%.ltx}
    size=$(printf '%s\\n' "$listed" |
      awk -v from="${name%-*}" -v to="${name#*-}" '$1 == 0 && $2 == from && $3 == to { print $4 }')
    if [ -n "$size" ] && [ "$size" -ne "$(wc -c < "$file")" ]; then return 0; fi
  done
  return 1
}

note_restored() {
  mkdir -p "$metadata"
  printf '%s\\n' "${remote:-0000000000000000}" > "$metadata/restored-txid"
}

blocked=0
for database do
  metadata="${database%/*}/.${database##*/}-litestream"
  if ! list_replica "$database" all; then
    echo "$database: its replica can't be listed: $output" >&2
    blocked=1
    continue
  fi
  if [ ! -e "$database" ]; then
    note_restored
    continue
  fi
  position=$({
    ls "$metadata/ltx/0" 2> /dev/null | sed -n 's/^[0-9a-f]\\{16\\}-\\([0-9a-f]\\{16\\}\\)\\.ltx$/\\1/p'
    cat "$metadata/restored-txid" 2> /dev/null || :
  } | sort | tail -n 1)
  why=
  if [ "$(head -c 15 "$database")" != "SQLite format 3" ]; then
    why="is not an SQLite database"
  elif cut_off "$database"; then
    why="is cut off: it is shorter than its header says"
  elif [ -z "$remote" ]; then
    echo "$database has no replica yet"
  elif [ -z "$position" ]; then
    why="shows no sign of having been replicated, but its replica holds a backup (transaction $remote)"
  elif newer "$remote" "$position"; then
    why="is older (transaction $position) than its replica (transaction $remote)"
  elif diverged; then
    why="took another course than its replica"
  else
    echo "$database (transaction $position) continues its replica (transaction $remote)"
  fi
  [ -n "$why" ] || continue
  case $LITESTREAM_LOCAL_DATABASE in
    keep)
      # Without its old LTX files Litestream begins with a snapshot; with them it could make the replica unreadable.
      [ ! -e "$metadata" ] || aside "$metadata"
      note_restored
      echo "$database $why: it is kept, and becomes the newest state of the replica"
      ;;
    replace)
      for left in "$database" "$database-wal" "$database-shm" "$database-journal" "$metadata"; do
        [ ! -e "$left" ] || aside "$left"
      done
      note_restored
      echo "$database $why: it is replaced by its replica"
      ;;
    *)
      echo "$database $why. Nothing was changed. Set the annotation local-database to \\"replace\\" to move it aside" \\
        "and restore the replica, or to \\"keep\\" to make it the newest state of the replica." >&2
      blocked=1
      ;;
  esac
done
exit "$blocked"
"""
)
