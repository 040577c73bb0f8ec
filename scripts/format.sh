#!/usr/bin/env bash
# Formats the tree with clang-format 14; with --check, only says what it would change.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "") mode=(-i) ;;
  --check) mode=(--dry-run -Werror) ;;
  *)
    echo "usage: scripts/format.sh [--check]"
    [ "$1" = --help ] && exit 0 || exit 2
    ;;
esac

files() {
  find src apps include tests bench -type f \
    \( -name '*.h' -o -name '*.cpp' -o -name '*.c' -o -name '*.cu' -o -name '*.cuh' \) -print0 2>/dev/null
}
files | xargs -0 -r -P "$(nproc)" -n 16 clang-format-14 "${mode[@]}"
