# shellcheck shell=sh
# litestream-hook-init: writes the config, clears away what would defeat a restore, and asks what the replicas hold.
#
# All that a user wrote comes in environment variables: a config with a line for each database, and lists with a line
# for each. What lies in the volumes is the application's, and may be anything: nothing is read, written or moved
# before it is known what it is.
set -f
n='
'
IFS=$n
config=/etc/litestream
litestream=/usr/local/bin/litestream
trap 'exit 143' TERM

say() { printf '%s\n' "$1"; }
die() {
  say "$1" >&2
  exit 1
}

# `kubectl debug --copy-to` leaves annotations out, and the copy would be a second writer on the replica.
[ "$LITESTREAM_STATUS" ] || die 'The Pod has no status annotation, as a copy of another Pod: it would spoil the replica of that. Remove its containers litestream-hook-...'

# The sidecar's too, which could only be told by what it does not do.
sidecar=${LITESTREAM_SIDECAR_SCRIPT:+head id sleep stat timeout} checks=${LITESTREAM_LOCAL_DATABASE:+mkdir od rmdir sort}
IFS=' '
# shellcheck disable=SC2086 # a word for each tool
for tool in cat date mv rm $sidecar $checks; do
  command -v "$tool" > /dev/null || die "The image has no $tool: use one with coreutils or busybox."
done
IFS=$n

# Nobody may write them again, Litestream neither: where the application puts a link in the place of the next LTX file,
# Litestream writes the application's bytes to where it leads, and a script that is run here must not be there.
umask 377
write() {
  [ "$2" ] || return 0
  rm -f "$config/$1.new"
  printf '%s' "$2" > "$config/$1.new"
  mv -f "$config/$1.new" "$config/$1"
}

write litestream.yml "$LITESTREAM_CONFIG"
write restore-from.yml "${LITESTREAM_RESTORE_FROM-}"
write sidecar.sh "${LITESTREAM_SIDECAR_SCRIPT-}"
# The same for each database alone, as a final sync of its own takes one config and must leave the port and the socket
# to others: the lines of the config are a head, port and socket, one for each database, and an end.
i=0 head=''
for line in $LITESTREAM_CONFIG; do
  case $line in
  '{"path"'*)
    write "database-$i.yml" "$head${line%,}]}"
    i=$((i + 1))
    ;;
  '"addr":'* | '"socket":'* | ']'*) ;;
  *) head=$head$line ;;
  esac
done
umask 022

now=$(date -u +%Y%m%dT%H%M%SZ)
there() { [ -e "$1" ] || [ -L "$1" ]; }
aside() {
  there "$1" || return 0
  to=$1.$now i=0
  while there "$to"; do
    i=$((i + 1))
    to=$1.$now.$i
  done
  mv "$1" "$to"
  say "moved $1 aside, to $to"
}

# Litestream tries for two minutes without a word; its client for WebDAV says at once what is wrong.
late() {
  sleep 5 > /dev/null 2>&1
  why=${LITESTREAM_BUCKET##* }
  case $why in
  http*) why=$(timeout 4 "$litestream" ltx "webdav${why#http}" 2>&1) || : ;;
  *) why='' ;;
  esac
  case $why in
  '') why='no answer' ;;
  *'cannot connect'*) why=${why##*\": } ;;
  *) why='it answers, but not to this' ;;
  esac
  say "Still asking what bucket $LITESTREAM_BUCKET holds: $why"
}

# The newest transaction of the replica, the size of its largest file, and its files of level 0.
look() {
  timeout 130 "$litestream" ltx -config "$config/litestream.yml" -no-expand-env -level all "$db" > "$config/list" 2>&1 &
  wait "$!" || {
    why=$(cat "$config/list")
    # Azure's answer as a whole follows its summary.
    why=${why%%'<?xml'*}
    die "$db: bucket $LITESTREAM_BUCKET can't be read: ${why:-no answer within 130 s}"
  }
  newest='' largest=0 level0=''
  # shellcheck disable=SC2013 # IFS makes it lines; `read` is ten times as slow
  for line in $(cat "$config/list"); do
    IFS=' '
    # shellcheck disable=SC2086 # a word for each column
    set -- $line
    IFS=$n
    case ${3-}${4-} in
    '' | *[!0-9a-f]*) continue ;;
    esac
    # shellcheck disable=SC3012 # dash, busybox and bash have it
    [ ! "$3" \> "$newest" ] || newest=$3
    [ "$4" -le "$largest" ] || largest=$4
    [ "$1" != 0 ] || level0="$level0$metadata/ltx/0/$2-$3.ltx $4$n"
  done
  case $n${LITESTREAM_STORAGE-}$n in
  *"$n$db$n"*)
    needed=$((largest * 2))
    [ "$needed" -le "${LITESTREAM_STORAGE%%"$n"*}" ] ||
      refuse "its volume is too small: a file of its replica has $((largest >> 20)) MiB, and as much again is needed: write storage: \"$(((needed >> 30) + 1))Gi\""
    ;;
  esac
}

# What is wrong holds up the Pod only where there is a backup to lose.
refuse() {
  if [ "$newest" ]; then
    say "$db: $1" >&2
    blocked=1
  else
    say "$db: $1 (its replica is empty, so the Pod goes on)"
  fi
}

blocked=0
if [ "${LITESTREAM_BUCKET-}" ]; then
  late &
  late=$!
  trap 'kill "$late" 2> /dev/null' EXIT
fi
for db in ${LITESTREAM_DATABASES-}; do
  metadata=${db%/*}/.${db##*/}-litestream
  # An empty database counts as present, and SQLite would replay the journal of another life into a restored one.
  if [ -f "$db" ] && [ ! -s "$db" ]; then
    rm -f "$db"
    say "removed the empty database $db"
  fi
  if [ ! -e "$db" ]; then
    for left in "$db-wal" "$db-shm" "$db-journal" "$metadata"; do aside "$left"; done
    # What a restore that was killed left of its own.
    for left in "$db.tmp" "$db.tmp-wal" "$db.tmp-shm"; do
      [ ! -d "$left" ] || aside "$left"
      rm -f "$left"
    done
  fi
  [ "${LITESTREAM_BUCKET-}" ] || continue
  look
  [ "${LITESTREAM_LOCAL_DATABASE-}" ] || continue
  check
done
exit "$blocked"
