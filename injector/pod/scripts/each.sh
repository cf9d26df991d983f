# shellcheck shell=sh
# Databases stand one a line in LITESTREAM_DATABASES; none of them has a line break or is a pattern.
set -f
IFS='
'
# shellcheck disable=SC2086 # one word a line
set -- ${LITESTREAM_DATABASES-}
unset IFS
set +f

# Not echo, which in some shells reads a backslash of a name as the start of something else.
say() {
  printf '%s\n' "$*"
}
