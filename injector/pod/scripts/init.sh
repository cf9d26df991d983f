# shellcheck shell=sh
# What would defeat the restore: an empty database counts as present, and SQLite would replay a journal that
# another life of the database left behind.
umask 077
directory=/etc/litestream

write() {
  printf '%s' "$2" > "$directory/$1.new"
  mv -f "$directory/$1.new" "$directory/$1"
}

write litestream.yml "$LITESTREAM_CONFIG"
if [ -n "${LITESTREAM_SIDECAR_SCRIPT-}" ]; then
  write sidecar.sh "$LITESTREAM_SIDECAR_SCRIPT"
  write restore.sh "$LITESTREAM_RESTORE_SCRIPT"
fi
# The same for each database alone, as a final sync of its own takes one config and must leave the port and the socket to
# others: the lines of the config are a head, port and socket, one for each database, and an end.
number=0 head=
printf '%s\n' "$LITESTREAM_CONFIG" | while IFS= read -r line; do
  case $line in
    '{"path":'*)
      write "database-$number.yml" "$head${line%,}]}"
      number=$((number + 1))
      ;;
    '"addr":'* | '"socket":'* | ']'*) ;;
    *) head=$head$line ;;
  esac
done
if [ -n "${LITESTREAM_RESTORE_FROM-}" ]; then
  write restore-from.yml "$LITESTREAM_RESTORE_FROM"
fi

. ./each.sh
. ./aside.sh

for database do
  if [ -f "$database" ] && [ ! -s "$database" ]; then
    rm -f "$database"
    say "removed the empty database $database"
  fi
  [ ! -e "$database" ] || continue
  name=${database##*/}
  for left in "$database-wal" "$database-shm" "$database-journal" "${database%/*}/.$name-litestream"; do
    [ ! -e "$left" ] || aside "$left"
  done
done
