# shellcheck shell=sh disable=SC2034 # whoever includes it reads what it sets
# The newest transaction of a replica (in all levels or in one), as 16 hexadecimal digits; empty if it has no backup.
# Litestream is never asked to sync: the transaction that keeps others from resetting the WAL ends with the request
# that began it (db.go: BeginTx with the request's context), and the replica is corrupt from then on.
config=/etc/litestream/litestream.yml

list_replica() {
  output=$(/usr/local/bin/litestream ltx -config "$config" -no-expand-env -level "$2" "$1" 2>&1) || return 1
  listed=$(printf '%s\n' "$output" |
    awk 'table && NF >= 4 { print $1, $2, $3, $4 } $1 == "level" && $2 == "min_txid" { table = 1 }')
  remote=$(printf '%s\n' "$listed" | awk '{ print $3 }' | sort | tail -n 1)
}

# The note $1 of what a restore began with, if it is one: the volume is the application's, and may hold anything.
noted() {
  [ ! -f "$1" ] || [ -L "$1" ] || sed -n '1s/^\([0-9a-f]\{16\}\)$/\1/p' "$1"
}

newer() {
  [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort | tail -n 1)" = "$1" ]
}
