#!/bin/sh
# The command line of ds4-kv: exit codes and first lines.  $1: the program.
set -eu
kv=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

expect() {  # status, then the command
  wanted=$1
  shift
  status=0
  "$@" >"$dir/out" 2>&1 || status=$?
  if [ "$status" -ne "$wanted" ]; then
    echo "expected exit $wanted, got $status: $*"
    cat "$dir/out"
    exit 1
  fi
}

contains() {
  grep -q -- "$1" "$dir/out" || { echo "no '$1' in the output:"; cat "$dir/out"; exit 1; }
}

mkdir -m 700 "$dir/kv"
expect 0 "$kv" --help
expect 2 "$kv" list
expect 2 "$kv" --dir "$dir/kv"
expect 2 "$kv" bogus --dir "$dir/kv"
expect 1 "$kv" list --dir "$dir/absent"
contains "not a directory"
expect 0 "$kv" list --dir "$dir/kv" --entries
contains "0 entries"
expect 0 "$kv" verify --dir "$dir/kv"
contains "0 problems"
expect 0 "$kv" gc --dir "$dir/kv" --max-bytes 1GiB
expect 0 "$kv" rebuild --dir "$dir/kv"
expect 1 "$kv" show 00 --dir "$dir/kv"
expect 1 "$kv" export 00 "$dir/x" --dir "$dir/kv"
expect 1 "$kv" import "$dir/absent" --dir "$dir/kv"
expect 2 "$kv" purge --dir "$dir/kv"
contains "--yes"
expect 0 "$kv" purge --yes --dir "$dir/kv"
echo junk >"$dir/junk"
expect 1 "$kv" import "$dir/junk" --dir "$dir/kv"
contains "damaged"
expect 2 "$kv" list --dir "$dir/kv" --key-file "$dir/junk"
