# What the command `status` asks a sidecar: its arguments are the databases. It writes nothing. Each part of the answer
# begins with a line of its own: an ASCII record separator, the part's name and the exit code of what follows.
# shellcheck shell=sh disable=SC2015
set -fu
c=/etc/litestream
l=/usr/local/bin/litestream
away=''

part() {
  name=$1
  shift
  said=$("$@" 2>&1)
  code=$?
  printf '\036%s %s\n%s\n' "$name" "$code" "$said"
}

# The newest transaction in the replica of database $1, as the last row of Litestream's table. A bucket that does not
# answer is asked once.
replica() {
  [ -z "$away" ] || return 124
  rows=$(timeout 8 "$l" ltx -config "$c/litestream.yml" -no-expand-env "$1" 2>&1)
  code=$?
  [ "$code" = 0 ] && printf '%s\n' "$rows" | tail -n 1 || printf '%s\n' "$rows"
  [ "$code" != 143 ] || code=124 # as older releases of busybox have it
  return "$code"
}

# The newest transaction of database $1 that Litestream has seen, uploaded or not: a file named after it, and when.
# shellcheck disable=SC2012 # the names are Litestream's; others are not believed
seen() {
  cd "${1%/*}/.${1##*/}-litestream/ltx/0" && stat -c 'file %n %Y' -- "$(ls | tail -n 1)"
}

part now date +%s
part info "$l" info -json -timeout 4 -socket "$c/litestream.sock"
part list "$l" list -json -timeout 4 -socket "$c/litestream.sock"
part ready /bin/sh "$c/sidecar.sh" ready
for d do
  part size stat -L -c %s "$d"
  # First the replica, as the database may grow meanwhile.
  part replica replica "$d"
  [ "$code" != 124 ] || away=1
  part seen seen "$d"
done
