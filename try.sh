#!/usr/bin/env bash
# Builds ds4 and runs it, from nothing: installs missing Debian packages, compiles, answers.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/packages.sh

usage() {
  cat <<'TEXT'
usage: ./try.sh "PROMPT" [OPTION...]   answer one prompt
       ./try.sh [OPTION...]            chat

Installs the Debian packages that are missing (as root or with sudo), builds build/release, and runs
ds4 with the options given, e.g. -m FILE for a model of yours. `ds4 --help` lists them:
  ./try.sh --ds4-help
Running it again builds only what has changed.
TEXT
}

build() {
  local log=build/try.log
  mkdir -p build
  if [ ! -f build/release/build.ninja ]; then
    echo "Configuring (build/release) ..." >&2
    cmake --preset release >"$log" 2>&1 || fail "$log"
  fi
  if [ -t 2 ]; then
    # Ninja rewrites one status line on a terminal.
    NINJA_STATUS='Building [%f/%t] ' cmake --build build/release --target ds4 -j "$(ds4_build_jobs)" >&2 ||
      { echo "The build failed; see above." >&2; exit 1; }
  else
    echo "Building ds4 (log: $log) ..." >&2
    cmake --build build/release --target ds4 -j "$(ds4_build_jobs)" >"$log" 2>&1 || fail "$log"
  fi
}

fail() {
  tail -n 40 "$1" >&2
  echo "Failed; the whole log is in $1" >&2
  exit 1
}

case "${1:-}" in
  -h | --help)
    usage
    exit 0
    ;;
esac

ds4_install_packages build >&2
build
ds4=build/release/apps/ds4/ds4
case "${1:-}" in
  --ds4-help) exec "$ds4" --help ;;
  "" | -*) exec "$ds4" "$@" ;;
  *)
    prompt=$1
    shift
    exec "$ds4" -p "$prompt" "$@"
    ;;
esac
