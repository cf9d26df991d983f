# The sidecar: `sidecar.sh run` is its first process; the kubelet calls `started`, `alive` and `ready`. The restore of a
# database that may be large is `restore`. LITESTREAM_DATABASES has one absolute path a line. What the modes tell each
# other lies beside this file, where no other container can write; beside the database lies a note of an end in order,
# for the next start on the same volume.
# Litestream is never asked to sync: the transaction that keeps SQLite from beginning its WAL anew would end with the
# request (db.go: BeginTx with the request's context), and the replica of a busy database is corrupt from then on.
# shellcheck shell=sh disable=SC2015,SC2034,SC2086,SC3013,SC3067 # a word is a line; dash, busybox and bash have -ef and -O
set -Cfu
export HOME=/
nl='
'
IFS=$nl
c=/etc/litestream
l=/usr/local/bin/litestream
dbs=${LITESTREAM_DATABASES-}
stop='' asked='' listed='' pid='' shut=0

say() {
  printf 'litestream-hook: %s\n' "$1"
}

# Whether $1 has a line that begins with $2.
has() {
  case $nl$1$nl in *"$nl$2"*) ;; *) false ;; esac
}

# Whether process $1 has file $2 open; `fd` is where.
opened() {
  set +f
  for fd in "/proc/$1/fd"/*; do
    [ "$2" -ef "$fd" ] && set -f && return
  done
  set -f
  false
}

# What database $1 is now: whatever differs at the next start was written while no Litestream ran.
state() {
  stat -c '%i %s %y' "$1" "$1-wal" 2> /dev/null
}

# Where Litestream's metadata of database $1 are, and among them the note of its end in order.
noted() {
  m="${1%/*}/.${1##*/}-litestream"
  n=$m/ended-in-order
}

# The volume is the application's too: nothing is written through what it may have put there.
note() {
  noted "$1"
  [ -L "$m" ] || [ ! -d "$m" ] || {
    rm -rf "$n" "$n.new"
    state "$1" > "$n.new"
    mv "$n.new" "$n"
  }
}

# If SQLite begins its WAL anew while Litestream is away and Litestream's last frame is still there, Litestream goes on
# at the new start, and what was written in between is missing in the replica for good. After an emptied WAL it uploads
# the whole database.
heal() {
  noted "$1"
  [ -s "$1-wal" ] && [ ! -L "$1-wal" ] || return 0
  [ ! -f "$n" ] || [ -L "$n" ] || [ "$(head -c 400 "$n")" != "$(state "$1")" ] || return 0
  for try in 1 2 3 4 5 6; do
    r=$(timeout 60 sqlite3 -cmd '.timeout 5000' "$1" 'PRAGMA wal_checkpoint(TRUNCATE)' 2>&1)
    case $r in
      0*) say "$1: WAL emptied, so that all of it is uploaded" && return ;;
      1* | *locked*) ;;
      *) break ;;
    esac
  done
  say "$1: its WAL can't be emptied (${r:-no answer}), so rows of the time without Litestream may be missing in the replica"
}

sqlite() {
  [ "$(head -c 15 "$1")" = 'SQLite format 3' ]
}

# Why database $1 can't be replicated, whatever S3 does; nothing if nothing is known.
fault() (
  exec 2> /dev/null
  if [ ! -e "$1" ]; then
    set +f
    i=0
    for f in "${1%/*}"/*; do
      [ $((i += 1)) -lt 50 ] || break
      ! has "$f" "$1" && ! has "$dbs" "$f$nl" && [ -f "$f" ] && sqlite "$f" || continue
      # Whoever writes the volume chooses this name.
      case $f in *[[:cntrl:]]*) continue ;; esac
      say "$1 is missing, but $f is there: if that is the database, write its path"
      break
    done
  elif [ ! -O "$1" ]; then
    u=$(stat -c %u "$1")
    say "$1 belongs to uid $u, Litestream runs as $(id -u): write run-as-user: \"$u\""
  elif [ ! -f "$1" ] || { [ -s "$1" ] && ! sqlite "$1"; }; then
    say "$1 is encrypted or no SQLite database: write the path of one that is"
  else
    case $(timeout 10 sqlite3 -readonly "$1" 'PRAGMA schema_version' 2>&1) in
      *locked*) say "$1 is locked by its application: take out locking_mode=EXCLUSIVE" ;;
      *) [ $shut -lt 20 ] || say "$1 is not opened by Litestream: its log says why" ;;
    esac
  fi
)

# Kills Litestream when a path is another file than before: it would mix the pages of the old one with the WAL of the
# new one. Every 20 s it looks for what can't be replicated, and tells what it finds twice.
watch() {
  look=0 last='' told=''
  while :; do
    i=0
    for d in $dbs; do
      i=$((i + 1))
      eval "inode=\${inode$i-} fd=\${fd$i-} shut=\${shut$i-0}"
      [ -e "$d" ] && [ ! "$d" -ef "${fd:-/}" ] && now=$(stat -Lc %i "$d") || continue
      if [ "$now" != "${inode:-$now}" ]; then
        say "$d is another file now"
        kill -KILL "$pid"
        exit
      fi
      opened "$pid" "$d" && shut=0 || fd='' shut=$((shut + 1))
      eval "inode$i=\$now fd$i=\$fd shut$i=\$shut"
    done
    [ $((look += 1)) -lt 10 ] || {
      look=0
      why=$(
        i=0
        for d in $dbs; do
          eval "shut=\${shut$((i += 1))-0}"
          fault "$d"
        done
      )
      [ "$why" != "$last" ] || [ "$why" = "$told" ] || {
        told=$why
        printf %s "$why" >| $c/fault
        printf '%s\n' "${why:-litestream-hook: nothing is wrong any more}"
      }
      last=$why
    }
    sleep 2
  done
}

# Passes SIGTERM on, once: a second one would skip the final sync. Before that it asks what Litestream has synced: its
# final sync leaves out what it has not yet opened, and it ends with 0 all the same.
term() {
  [ -n "$pid" ] && [ -z "$asked" ] || return 0
  asked=1
  listed=$($l list -timeout 2 -socket $c/litestream.sock 2> /dev/null)
  kill "$pid"
}

# Starts a process, and tells it to end if that has been asked for meanwhile; `await` waits for it, through signals.
begin() {
  "$@" &
  pid=$!
  [ -z "$stop" ] || term
}

await() {
  while wait "$pid"; status=$?; kill -0 "$pid"; do :; done 2> /dev/null
  pid=''
}

# The last of database $2, number $1: noted if Litestream has done its final sync, else that is done by another one.
# Fails if it is to be tried again.
finish() {
  if ! has "$listed" "$2 [replicating] (" || has "$listed" "$2 [replicating] (last sync: never)"; then
    heal "$2"
    $l replicate -config "$c/database-$1.yml" -no-expand-env -once || {
      [ -z "$(fault "$2")" ] && ! has "$(cat $c/fault 2> /dev/null)" "litestream-hook: $2 is not opened" || return 0
      say "$2: its final sync failed and is tried again"
      return 1
    }
  fi
  note "$2"
}

# The last of every fourth database, until all are done or the kubelet's patience ends: one that can't be synced holds up
# no other one.
lane() {
  i=0 left=''
  for d in $dbs; do
    [ $((i % 4)) != "$1" ] || left=$left$i:$d$nl
    i=$((i + 1))
  done
  while [ -n "$left" ]; do
    tried=$left left=''
    for d in $tried; do
      [ ! -f "${d#*:}" ] || finish "${d%%:*}" "${d#*:}" || left=$left$d$nl
    done
    [ -z "$left" ] || sleep 1
  done
}

run() {
  trap 'stop=1; term' TERM
  set --
  rm -f $c/pid $c/fault $c/deaths
  while :; do
    for d in $dbs; do heal "$d" & done
    until wait; do :; done
    [ -z "$stop" ] || break
    begin $l replicate -config $c/litestream.yml -no-expand-env
    printf %s "$pid" >| $c/pid
    watch &
    await
    ended=$status
    rm -f $c/pid
    pid=$!
    # Until it has begun, the trap that it inherits would swallow another signal.
    kill -KILL "$pid" 2> /dev/null
    await
    [ -n "$asked" ] && [ "$ended" = 0 ] || listed=''
    [ -z "$stop" ] || break
    command -v sqlite3 > /dev/null || exit "$ended"
    [ "$status" != 0 ] || continue
    now=$(date +%s)
    set -- "$@" "$now"
    while [ $((now - $1)) -gt 600 ]; do shift; done
    pause=$(($# > 6 ? 30 : (1 << $#) / 4))
    why="litestream-hook: Litestream ended with $ended, $# times in ten minutes"
    printf '%s\n' "$why: it starts again in $pause s"
    [ $# -lt 5 ] || printf '%s\n' "$1" "$why: its log says why; after 137 write a higher memory-limit" >| $c/deaths
    begin sleep $pause
    await
  done
  # Four at a time, for the memory's sake.
  for i in 0 1 2 3; do lane $i & done
  until wait; do :; done
}

# Restores a database by Litestream's flags, the path last; $1 is a config of the database alone. On a volume that ends
# with the Pod the replica then lacks what is written until Litestream has uploaded the database as a whole again, which
# takes seconds for one of more than $2 bytes: it is done here, before the application starts, and the sidecar goes on.
restore() {
  alone=$1 least=$2
  shift 2
  # The shell, as the first process, would ignore SIGTERM without the trap.
  trap 'kill "$pid"; exit 143' TERM
  begin $l "$@"
  await
  for d do :; done
  noted "$d"
  # Where there are LTX files, Litestream goes on and uploads nothing anew.
  [ "$status" = 0 ] && [ -f "$d" ] && [ ! -L "$m" ] && [ ! -e "$m/ltx" ] || exit "$status"
  size=$(stat -c %s "$d")
  [ "$size" -gt "$least" ] || return 0
  limit=$((60 + size / 4000000))
  say "uploading $d ($((size >> 20)) MiB) before the application starts, for $limit s at most"
  begin timeout $limit $l replicate -config "$alone" -no-expand-env -once
  await
  if [ "$status" = 0 ]; then
    note "$d"
    say "$d is in its replica again"
  else
    say "$d is not in its replica again (exit $status), and the application starts all the same: until the sidecar has uploaded it, a node that dies takes what is written meanwhile"
  fi
}

# Holds the application back until Litestream has open what it is to go on with (with the rest it begins anew), 5 s at
# most: who deletes the Pod waits for this too.
started() {
  end=$(($(date +%s) + 4))
  for d in $dbs; do
    noted "$d"
    [ -e "$d" ] && [ -d "$m/ltx" ] || continue
    until opened "$(cat $c/pid)" "$d"; do
      [ "$(date +%s)" -lt $end ] || return 0
      sleep 0.1
    done
  done 2> /dev/null
}

# Litestream is away between its lives only, and that is no fault.
alive() {
  [ ! -e $c/pid ] || exec $l info -timeout 9 -socket $c/litestream.sock
}

# Says what is wrong. It never restarts the container: a Pod that is deleted while the kubelet lets one wait loses what
# was written meanwhile.
ready() {
  wrong=''
  [ ! -s $c/fault ] || wrong=$(cat $c/fault)$nl
  if [ -e $c/deaths ]; then
    { read -r first && read -r why; } < $c/deaths
    [ "$first" -lt $(($(date +%s) - 600)) ] || wrong=$wrong$why$nl
  fi
  printf %s "$wrong"
  [ -z "$wrong" ]
}

"$@"
