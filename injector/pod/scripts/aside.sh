# shellcheck shell=sh
now=$(date -u +%Y%m%dT%H%M%SZ)

aside() {
  to="$1.$now"
  while [ -e "$to" ] || [ -L "$to" ]; do to="$to.1"; done
  mv "$1" "$to"
  say "moved $1 aside, to $to"
}
