# shellcheck shell=sh
# litestream-hook-restore-{n}: restores a database by the flags it is given, the path last. On a volume that ends with
# the Pod the replica then lacks what is written until Litestream has uploaded the database as a whole again, which for
# a large one takes seconds: it is done here, before the application starts, and the sidecar goes on from there.
say() {
  printf '%s\n' "$*"
}

# The shell, as the first process, would ignore SIGTERM without the trap.
trap 'kill "$child" && exit 143' TERM
run() {
  "$@" &
  child=$!
  wait "$child"
}

run /usr/local/bin/litestream "$@" || exit
[ -n "${LITESTREAM_FIRST_SYNC-}" ] || exit 0
for database do :; done
metadata="${database%/*}/.${database##*/}-litestream"
# Where there are LTX files, Litestream goes on and uploads nothing anew.
{ [ -f "$database" ] && [ ! -L "$metadata" ] && [ ! -e "$metadata/ltx" ]; } || exit 0
size=$(stat -c %s "$database")
[ "$size" -gt "$LITESTREAM_FIRST_SYNC" ] || exit 0
seconds=$((60 + size / 4000000))
say "uploading $database ($((size >> 20)) MiB) before the application starts, for $seconds s at most"
if run timeout "$seconds" /usr/local/bin/litestream replicate -config "$LITESTREAM_CONFIG_FILE" -no-expand-env -once; then
  rm -rf "$metadata/ended-in-order" "$metadata/ended-in-order.new"
  stat -c '%i %s %y' "$database" "$database-wal" > "$metadata/ended-in-order.new" 2> /dev/null || :
  mv "$metadata/ended-in-order.new" "$metadata/ended-in-order"
  say "$database is in its replica again"
else
  say "$database is not in its replica again (exit $?): the application starts all the same. Until the sidecar has" \
    "uploaded it, a node that dies takes what is written meanwhile; if S3 was slow, see its log"
fi
