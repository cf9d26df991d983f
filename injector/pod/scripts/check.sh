# shellcheck shell=sh
# A database on a volume that outlives the Pod may be older than its replica, or another one: Litestream would
# make it the replica's newest state without a word. Positions are Litestream's transaction ids: the local one
# is the highest in the names of its LTX files (or what was noted before a restore), the replica's is listed.
# It runs behind init.sh, in one shell.
LITESTREAM_DATABASES=$LITESTREAM_LASTING
. ./each.sh
. ./replica.sh

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
    size=$(printf '%s\n' "$listed" |
      awk -v from="${name%-*}" -v to="${name#*-}" '$1 == 0 && $2 == from && $3 == to { print $4 }')
    if [ -n "$size" ] && [ "$size" -ne "$(wc -c < "$file")" ]; then return 0; fi
  done
  return 1
}

note_restored() {
  [ ! -L "$metadata" ] || aside "$metadata"
  mkdir -p "$metadata"
  rm -rf "$metadata/restored-txid" "$metadata/restored-txid.new"
  printf '%s\n' "${remote:-0000000000000000}" > "$metadata/restored-txid.new"
  mv "$metadata/restored-txid.new" "$metadata/restored-txid"
  rm -rf "$metadata/restored-from"
  printf '%s\n' "${LITESTREAM_MOMENT-}" > "$metadata/restored-from"
}

# Whether restore-from has had its turn here: a moment is restored once, however often the Pod starts before its own
# replica has a backup.
had_its_turn() {
  [ -f "$metadata/restored-from" ] && [ ! -L "$metadata/restored-from" ] &&
    [ "$(head -c 4096 "$metadata/restored-from")" = "$LITESTREAM_MOMENT" ]
}

blocked=0
for database do
  metadata="${database%/*}/.${database##*/}-litestream"
  if ! list_replica "$database" all; then
    say "$database: its replica can't be listed: $output" >&2
    blocked=1
    continue
  fi
  if [ ! -e "$database" ]; then
    note_restored
    continue
  fi
  position=$({
    # shellcheck disable=SC2012 # names of another form are left out
    ls "$metadata/ltx/0" 2> /dev/null | sed -n 's/^[0-9a-f]\{16\}-\([0-9a-f]\{16\}\)\.ltx$/\1/p'
    noted "$metadata/restored-txid"
  } | sort | tail -n 1)
  why=
  if [ ! -f "$database" ]; then
    why="is not a file"
  elif [ "$(head -c 15 "$database")" != "SQLite format 3" ]; then
    why="is not an SQLite database"
  elif cut_off "$database"; then
    why="is cut off: it is shorter than its header says"
  elif [ -z "$remote" ] && [ -n "${LITESTREAM_MOMENT-}" ] && ! had_its_turn; then
    why="is there already, and restore-from ($LITESTREAM_MOMENT) restores only what is missing"
  elif [ -z "$remote" ]; then
    say "$database has no replica yet"
  elif [ -z "$position" ]; then
    why="shows no sign of having been replicated, but its replica holds a backup (transaction $remote)"
  elif newer "$remote" "$position"; then
    why="is older (transaction $position) than its replica (transaction $remote)"
  elif diverged; then
    why="took another course than its replica"
  else
    say "$database (transaction $position) continues its replica (transaction $remote)"
  fi
  [ -n "$why" ] || continue
  case $LITESTREAM_LOCAL_DATABASE in
    keep)
      # Without its old LTX files Litestream begins with a snapshot; with them it could make the replica unreadable.
      [ ! -e "$metadata" ] || aside "$metadata"
      note_restored
      say "$database $why: it is kept, and becomes the newest state of the replica"
      ;;
    replace)
      for left in "$database" "$database-wal" "$database-shm" "$database-journal" "$metadata"; do
        [ ! -e "$left" ] || aside "$left"
      done
      note_restored
      say "$database $why: it is replaced by its replica"
      ;;
    *)
      say "$database $why. Nothing was changed. Set the annotation local-database to \"replace\" to move it aside" \
        "and restore the replica, or to \"keep\" to make it the newest state of the replica." >&2
      blocked=1
      ;;
  esac
done
exit "$blocked"
