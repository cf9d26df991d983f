# shellcheck shell=sh
# What the Jobs of the commands `verify` and `restore` run, beside a workload: `restore.sh verify` restores each database
# of LITESTREAM_DATABASES (one absolute path a line) into a volume of its own, checks it, tells what is in it, and takes
# it away again; `restore.sh hold` keeps it, and waits for whoever fetches it; `restore.sh fill` puts it in its place on
# a volume. Nothing is ever written to a replica.
#
# What is told stands in lines of JSON, each about one database by its number. Before one that says `failed` stand
# Litestream's own words.
# shellcheck disable=SC2086,SC2013 # a word is a line
set -f
n='
'
IFS=$n
export HOME=/
mode=$1
work=/restored
config=$work/litestream.yml
litestream=/usr/local/bin/litestream
trap 'exit 143' TERM
# One stream: a container runtime may mix up two.
exec 2>&1

for tool in cat date mkdir mv rm sha256sum sleep stat tail timeout; do
  command -v "$tool" > /dev/null || {
    printf '%s\n' "The image has no $tool: use one with coreutils or busybox." >&2
    exit 1
  }
done
printf '%s' "$LITESTREAM_CONFIG" > "$config"

fail() {
  printf '{"database":%d,"failed":"%s"}\n' "$i" "$1"
  failed=1
}

# What the replica holds: `files` has level, first and last transaction, size and time of each, `newest` the last
# transaction of all.
look() {
  timeout "$LITESTREAM_PATIENCE" "$litestream" ltx -config "$config" -no-expand-env -level all "$db" > "$work/list" 2>&1 &
  if wait "$!"; then :; else
    case $? in
    124 | 143) reason=unreachable ;; # as older releases of busybox have it
    *) reason=unreadable ;;
    esac
    cat "$work/list" >&2
    return 1
  fi
  files='' newest=''
  for line in $(cat "$work/list"); do
    IFS=' '
    set -- $line
    IFS=$n
    case ${3-}${4-} in
    '' | *[!0-9a-f]*) continue ;;
    esac
    files="$files$1 $2 $3 $4 ${5-}$n"
    # shellcheck disable=SC3012 # dash, busybox and bash have it
    [ ! "$3" \> "$newest" ] || newest=$3
  done
}

# Whether a file that was there before is there no longer. Litestream plans a restore once and then reads file by file;
# meanwhile the writer's retention deletes those that are in larger ones by then (upstream's issues 1270 and 1450).
overtaken() {
  look || return 1
  for line in $before; do
    case $n$files in
    *"$n$line$n"*) ;;
    *) return 0 ;;
    esac
  done
  return 1
}

# When the restored transaction was committed, as far as the replica's files tell.
dated() {
  changed=''
  for line in $files; do
    IFS=' '
    set -- $line
    IFS=$n
    if [ "$3" = "$txid" ]; then
      changed=$5
      return
    fi
  done
}

# Restores the database to $out; the transaction is `txid`.
restore() {
  try=0
  set -- restore -config "$config" -no-expand-env -json -integrity-check "$LITESTREAM_CHECK" -o "$out"
  [ -z "${LITESTREAM_TIMESTAMP-}" ] || set -- "$@" -timestamp "$LITESTREAM_TIMESTAMP"
  while :; do
    look || return 1
    before=$files
    try=$((try + 1))
    "$litestream" "$@" "$db" > "$work/result" 2> "$work/said" &
    ! wait "$!" || break
    rm -f "$out" "$out.tmp" "$out-wal" "$out-shm"
    if [ -z "$before" ]; then
      reason=empty
    else
      reason=broken
      [ "$try" -ge 5 ] || ! overtaken || continue
    fi
    cat "$work/said" >&2
    return 1
  done
  rm -f "$out-wal" "$out-shm"
  txid=$(cat "$work/result")
  txid=${txid#*'"txid": "'}
  txid=${txid%%'"'*}
  dated
  # A commit of the last moment, after the listing.
  [ "$changed" ] || { look && dated; } || :
}

# A line for each table, with its rows.
count() {
  command -v sqlite3 > /dev/null || return 0
  # The texts are SQLite's to quote: tables have any name.
  sqlite3 "file:$work/$i.db?immutable=1" "SELECT 'SELECT json_object(''database'',$i,''table'',' || quote(name) ||
    ',''rows'',count(*)) FROM ' || '\"' || replace(name, '\"', '\"\"') || '\";' FROM pragma_table_list
    WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    AND name NOT IN ('_litestream_lock', '_litestream_seq') ORDER BY name" > "$work/counts" &&
    sqlite3 "file:$work/$i.db?immutable=1" < "$work/counts" || :
}

there() { [ -e "$1" ] || [ -L "$1" ]; }
aside() {
  there "$1" || return 0
  to=$1.$now k=0
  while there "$to"; do
    k=$((k + 1))
    to=$1.$now.$k
  done
  mv "$1" "$to" || return 1
  printf '%s\n' "moved $1 aside, to $to"
}

# Puts the restored database where the application has it. Its volume gets the same note as from the init container, so
# that the next Pod knows that this is the newest state of the replica; a moment of the past is not, and has none.
place() {
  metadata=${db%/*}/.${db##*/}-litestream
  now=$(date -u +%Y%m%dT%H%M%SZ)
  for left in "$db-wal" "$db-shm" "$db-journal" "$metadata" "$db"; do
    aside "$left" || return 1
  done
  mv "$out" "$db" || return 1
  [ -z "${LITESTREAM_TIMESTAMP-}" ] || return 0
  mkdir "$metadata"
  printf '%s\n' "$txid" > "$metadata/restored-txid"
}

i=-1 failed=0
for db in $LITESTREAM_DATABASES; do
  i=$((i + 1))
  out=$work/$i.db
  if [ "$mode" = fill ]; then
    out=$db.restored
    if ! why=$({ mkdir -p "${db%/*}" && rm -f "$out.tmp" && : > "$out"; } 2>&1); then
      printf '%s\n' "$why" >&2
      fail unwritable
      continue
    fi
    rm -f "$out"
    if [ -z "${LITESTREAM_OVERWRITE-}" ] && { [ -s "$db" ] || [ -s "$db-wal" ]; }; then
      fail exists
      continue
    fi
  fi
  began=$(date +%s)
  restore || {
    fail "$reason"
    continue
  }
  bytes=$(stat -c %s "$out")
  sum=''
  case $mode in
  verify) count ;;
  hold)
    sum=$(sha256sum "$out")
    sum=${sum%% *}
    ;;
  fill)
    place || {
      rm -f "$out"
      fail unwritable
      continue
    }
    ;;
  esac
  printf '{"database":%d,"txid":"%s","changed":"%s","bytes":%d,"seconds":%d,"tries":%d,"sha256":"%s"}\n' \
    "$i" "$txid" "$changed" "$bytes" "$(($(date +%s) - began))" "$try" "$sum"
  [ "$mode" != verify ] || rm -f "$out"
done
if [ "$mode" = hold ] && [ "$failed" = 0 ]; then
  sleep "$LITESTREAM_HOLD" &
  wait "$!"
fi
exit "$failed"
