# The part of litestream-hook-init for volumes that outlive the Pod. A database there may be older than its replica, or
# another one, and Litestream would make it the replica's newest state without a word. Positions are Litestream's
# transaction ids: the local one is the highest in the names of its LTX files, or what was noted before a restore; the
# replica's is listed.
# shellcheck shell=sh disable=SC2154,SC2034 # it is put before init.sh, whose functions and variables it uses

# Notes go into a directory of metadata that was made just now: what was there is aside.
note() {
  mkdir -p "$metadata"
  printf '%s\n' "$2" > "$metadata/$1"
}
# The first bytes of a note, if it is one.
noted() {
  [ ! -f "$metadata/$1" ] || [ -L "$metadata/$1" ] || head -c "$2" "$metadata/$1"
}
# What the database begins with: its own replica, or a moment of another one, once, however often the Pod starts before
# its own replica has a backup.
note_begin() {
  if [ "$newest" ]; then
    note restored-txid "$newest"
  elif [ "${LITESTREAM_MOMENT-}" ]; then
    note restored-from "$moment"
  fi
}

# Whether the directory can be written and the database belongs to whom Litestream runs as. Both are judged by what is
# made here: root without capabilities, and some file systems, tell otherwise.
ours() {
  directory=${db%/*}
  until [ -d "${directory:-/}" ]; do directory=${directory%/*}; done
  probe=$directory/.litestream-hook
  rmdir "$probe" 2> /dev/null || :
  if ! why=$(mkdir "$probe" 2>&1); then
    refuse "Litestream can't write there ($why): set fsGroup, or init-first: \"false\" if an init container of yours changes the owner"
    return 1
  fi
  uid=$(stat -c %u "$probe")
  rmdir "$probe"
  [ -e "$db" ] || return 0
  owner=$(stat -L -c %u "$db")
  [ "$owner" != "$uid" ] || return 0
  refuse "the file belongs to uid $owner, Litestream runs as $uid: write run-as-user: \"$owner\", or init-first: \"false\" if an init container of yours changes the owner"
  return 1
}

# Sets `wrong` to what makes it no whole database: no SQLite file, or shorter than its header says, with no log that
# could hold the rest.
whole() {
  wrong=''
  if [ ! -f "$db" ]; then
    wrong='is no file'
    return
  fi
  unset IFS
  # shellcheck disable=SC2046 # a word for each byte
  set -- $(od -An -v -tu1 -N32 "$db")
  case "$*" in
  '83 81 76 105 116 101 32 102 111 114 109 97 116 32 51 0 '*) ;;
  *) wrong='is not an SQLite database' ;;
  esac
  IFS=$n
  if [ "$wrong" ] || [ $# != 32 ] || [ -s "$db-wal" ] || [ -s "$db-journal" ]; then return; fi
  page=$((${17} * 256 + ${18}))
  [ "$page" != 1 ] || page=65536
  [ "$(stat -L -c %s "$db")" -ge $((page * (((${29} * 256 + ${30}) * 256 + ${31}) * 256 + ${32}))) ] ||
    wrong='is cut off: it is shorter than its header says'
}

# Sets `position`: the newest transaction that was here.
locate() {
  noted=$(noted restored-txid 17)
  position=''
  set +f
  for file in "$noted-$noted.ltx" "$metadata/ltx/0"/*.ltx; do
    file=${file##*/}
    to=${file#*-}
    to=${to%.ltx}
    case $file in
    *[!0-9a-f]*-* | *-*[!0-9a-f]*.ltx) ;;
    ????????????????-????????????????.ltx)
      # shellcheck disable=SC3012 # dash, busybox and bash have it
      [ ! "$to" \> "$position" ] || position=$to
      ;;
    esac
  done
  set -f
}

# Whether an LTX file that both sides have differs: the database took another course.
diverged() {
  set +f
  here=$(stat -c '%n %s' "$metadata/ltx/0"/*.ltx 2> /dev/null) || :
  set -f
  last=''
  for line in $(printf '%s\n' "$level0$here" | sort -u); do
    [ "${line% *}" != "$last" ] || return 0
    last=${line% *}
  done
  return 1
}

check() {
  ours || return 0
  moment="${LITESTREAM_MOMENT-}$n$LITESTREAM_CONFIG"
  if [ ! -e "$db" ]; then
    note_begin
    return
  fi
  whole
  if [ -z "$newest" ]; then
    [ -z "$wrong" ] || refuse "$wrong, so Litestream can't replicate it"
    if [ "${LITESTREAM_MOMENT-}" ] && [ "$(noted restored-from "${#moment}")" != "$moment" ]; then
      wrong="is there already, and restore-from ($LITESTREAM_MOMENT) restores only what is missing"
    else
      say "$db has no replica yet"
      return
    fi
  elif [ -z "$wrong" ]; then
    locate
    # shellcheck disable=SC3012 # as above
    if [ -z "$position" ]; then
      wrong="shows no sign of having been replicated, but its replica holds a backup (transaction $newest)"
    elif [ "$newest" \> "$position" ]; then
      wrong="is older (transaction $position) than its replica (transaction $newest)"
    elif diverged; then
      wrong='took another course than its replica'
    else
      say "$db (transaction $position) continues its replica (transaction $newest)"
      return
    fi
  fi
  case $LITESTREAM_LOCAL_DATABASE in
  keep)
    # Without its old LTX files Litestream begins with a snapshot; with them it could make the replica unreadable.
    aside "$metadata"
    note_begin
    say "$db $wrong: it is kept, and becomes the newest state of the replica"
    ;;
  replace)
    for left in "$db" "$db-wal" "$db-shm" "$db-journal" "$metadata"; do aside "$left"; done
    note_begin
    say "$db $wrong: it is replaced"
    ;;
  *)
    say "$db $wrong. Nothing was changed. Set the annotation local-database to \"replace\" to move it aside and restore the replica, or to \"keep\" to make it the newest state of the replica." >&2
    blocked=1
    ;;
  esac
}
