#!/usr/bin/env bash
# Runs clang-tidy 14 over the C++ sources: those that differ from the main branch or from the last
# commit first, then the others until the time is up.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

usage() {
  cat <<'TEXT'
usage: scripts/lint.sh [--build DIR] [--seconds N] [FILE...]

DIR must be configured with CMAKE_EXPORT_COMPILE_COMMANDS (every preset is; default build/dev).
Without FILE: all sources under src/ and apps/.  Without --seconds: no limit.
TEXT
}

build=build/dev
seconds=86400
files=()
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) files+=("$1") ;;
  esac
  shift
done

tidy=clang-tidy-14
command -v $tidy >/dev/null || tidy=clang-tidy
version=$($tidy --version 2>/dev/null | sed -nE 's/.*version ([0-9]+).*/\1/p' | head -n 1)
if [ "$version" != 14 ]; then
  echo "0 files linted: the checks are those of clang-tidy 14, this machine has ${version:-none}"
  exit 0
fi

# Everything in the compilation database under src/ and apps/, tests left out.
all_files() {
  sed -nE 's/^ *"file": "(.*)",?$/\1/p' "$build/compile_commands.json" |
    grep -E "^$PWD/(src|apps)/" | grep -vE '_test\.cpp$|\.cu$' | sed "s|^$PWD/||" | sort -u
}

changed_files() {
  {
    git diff --name-only HEAD
    git diff --name-only HEAD~1 HEAD
    git diff --name-only "$(git merge-base HEAD origin/main)" HEAD
  } 2>/dev/null | sort -u
}

# Changed ones first; the rest in an order that the commit decides, so that a run that ends early
# ends elsewhere next time.
ordered_files() {
  local all changed seed
  all=$(all_files)
  changed=$(grep -Fxf <(changed_files) <<<"$all")
  seed=$(git rev-parse HEAD 2>/dev/null || echo 0)
  [ -n "$changed" ] && echo "$changed"
  grep -vFxf <(echo "$changed") <<<"$all" | sort -R --random-source=<(yes "$seed")
}

if [ ${#files[@]} -eq 0 ]; then mapfile -t files < <(ordered_files); fi
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
deadline=$((SECONDS + seconds))

lint_one() {
  local out="$results/${1//\//_}"
  # The build may be GCC's, with warning options that clang does not know.
  if $tidy -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option "$1" >"$out.log" 2>/dev/null; then
    echo ok >"$out.ok"
  else
    cat "$out.log"
    echo bad >"$out.bad"
  fi
}

for file in "${files[@]}"; do
  [ $SECONDS -lt $deadline ] || break
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  lint_one "$file" &
done
wait
ok=$(find "$results" -name '*.ok' | wc -l)
bad=$(find "$results" -name '*.bad' | wc -l)
echo "$((ok + bad)) of ${#files[@]} files linted, $bad with findings"
[ "$bad" -eq 0 ]
