#!/usr/bin/env bash
# Checks everything that can be checked on this machine, from nothing.  See usage below.
set -uo pipefail
cd "$(dirname "$0")" || exit
. scripts/packages.sh

usage() {
  cat <<'TEXT'
usage: ./test.sh [--quick | --full] [--lint-seconds N]

Installs the Debian packages that are missing (as root or with sudo), then:
  format    every source file is as clang-format 14 leaves it
  dev       build with assertions, every test, every header compiled alone
  release   the program that users build answers a prompt
and with --full:
  asan      the unit tests under the address and undefined-behaviour sanitizers
  tsan      the threaded tests under the thread sanitizer
  fuzz      a short run of every fuzz target from fixed seeds
  lint      clang-tidy 14: changed files first, then others until the time is up
  cuda      only where nvcc is installed: the CUDA backend compiles; with a GPU, its tests
--quick stops after format and dev.  --full takes about an hour on two cores.  --lint-seconds sets lint's time (default 180; 0 leaves it out).
The last line is "N passed, N failed"; the exit status is 0 when none failed.
TEXT
}

quick=no
full=no
lint_seconds=180
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --full) full=yes ;;
    --lint-seconds)
      lint_seconds=${2:?--lint-seconds needs a number}
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift
done

passed=0
failed=0
failures=()
logs=build/test-logs
mkdir -p "$logs"
jobs=$(ds4_build_jobs)

say() { printf '%s\n' "$*"; }

# Runs a command as one check: NAME COMMAND...  Its output goes to a log, shown when it fails.
check() {
  local name=$1 log="$logs/${1// /-}.log" begin=$SECONDS
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    say "ok     $name ($((SECONDS - begin)) s)"
    return 0
  fi
  failed=$((failed + 1))
  failures+=("$name")
  say "FAILED $name ($((SECONDS - begin)) s), log $log:"
  tail -n 60 "$log"
  return 1
}

# Runs CTest as many checks, one a test: NAME DIR ARGS...
tests() {
  local name=$1 dir=$2 log="$logs/${1// /-}.log" begin=$SECONDS summary total bad
  shift 2
  ctest --test-dir "$dir" --output-on-failure -j "$jobs" "$@" >"$log" 2>&1
  summary=$(grep -E 'tests passed, [0-9]+ tests? failed out of [0-9]+' "$log")
  total=$(sed -nE 's/.* out of ([0-9]+).*/\1/p' <<<"$summary")
  bad=$(sed -nE 's/.*passed, ([0-9]+) tests? failed.*/\1/p' <<<"$summary")
  if [ -z "$total" ] || [ "$total" -eq 0 ]; then
    failed=$((failed + 1))
    failures+=("$name: no tests ran")
    tail -n 20 "$log"
    return
  fi
  passed=$((passed + total - bad))
  failed=$((failed + bad))
  say "$([ "$bad" -eq 0 ] && echo 'ok    ' || echo FAILED) $name: $((total - bad)) of $total tests ($((SECONDS - begin)) s)"
  if [ "$bad" -ne 0 ]; then
    failures+=("$name: $(sed -n '/The following tests FAILED/,$p' "$log" | sed -nE 's/.* - ([^ ]+) .*/\1/p' | tr '\n' ' ')")
    grep -nE 'Failure|ERROR|error:|FAILED|runtime error|WARNING: ThreadSanitizer' "$log" | head -n 40
    say "       log $log"
  fi
}

configure() { cmake --preset "$1" "${@:2}"; }
build() { cmake --build "build/$1" -j "$jobs" "${@:2}"; }

finish() {
  local failure
  for failure in "${failures[@]+"${failures[@]}"}"; do
    say "failed: $failure"
  done
  say "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
  say "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

step_dev() {
  check "dev configure" configure dev || finish
  check "dev build" build dev -- -k 0
  check "dev headers" build dev --target ds4_headers_alone -- -k 0
  tests "dev tests" build/dev -LE 'slow|device'
}

# Sanitizer builds are compiled quickly rather than well, and by clang where there is one: it is
# quicker at this, and the whole tree passes through a second compiler.  Warnings are errors only in
# the version that the tree is kept clean for.
sanitizer_options=(-DCMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -g1')
if command -v clang++ >/dev/null; then
  sanitizer_options+=(-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++)
  clang++ --version | grep -q 'version 14' || sanitizer_options+=(-DDS4_WERROR=OFF)
fi

step_asan() {
  check "asan configure" configure asan "${sanitizer_options[@]}" || return
  check "asan build" build asan --target ds4_unit_tests || return
  tests "asan tests" build/asan -L unit -LE 'slow|device'
}

step_tsan() {
  check "tsan configure" configure tsan "${sanitizer_options[@]}" || return
  check "tsan build" build tsan --target ds4_thread_tests || return
  tests "tsan tests" build/tsan -L threads -LE 'slow|device'
}

step_fuzz() {
  if ! command -v clang++ >/dev/null; then
    say "skip   fuzz: no clang++"
    return
  fi
  check "fuzz configure" configure fuzz "${sanitizer_options[@]}" || return
  check "fuzz build" build fuzz --target ds4_fuzz_targets || return
  tests "fuzz runs" build/fuzz -L fuzz
}

step_lint() {
  if [ "$lint_seconds" -eq 0 ]; then return; fi
  check "lint" scripts/lint.sh --build build/dev --seconds "$lint_seconds"
  tail -n 1 "$logs/lint.log"
}

answer() {
  local text
  text=$(build/release/apps/ds4/ds4 -p 'Say hello.' -n 16 --temp 0) && [ -n "$text" ]
}

step_release() {
  check "release configure" configure release || return
  if [ ! -f apps/ds4/main.cpp ]; then
    say "skip   release: no apps/ds4"
    return
  fi
  check "release build" build release --target ds4 || return
  check "release answers" answer
}

step_cuda() {
  if ! command -v nvcc >/dev/null || [ ! -f src/cuda/CMakeLists.txt ]; then
    say "skip   cuda: no nvcc, or no src/cuda"
    return
  fi
  check "cuda configure" configure cuda || return
  check "cuda build" build cuda --target ds4_cuda || return
  if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    say "skip   cuda tests: no GPU"
    return
  fi
  check "cuda test build" build cuda || return
  tests "cuda tests" build/cuda -L device
}

say "Checking packages ..."
if [ "$full" = yes ]; then kind=check; else kind=build; fi
ds4_install_packages "$kind" || exit 1
if command -v clang-format-14 >/dev/null; then
  check "format" scripts/format.sh --check
else
  say "skip   format: no clang-format-14"
fi
step_dev
if [ "$quick" = no ]; then
  step_release
fi
if [ "$full" = yes ]; then
  step_asan
  step_tsan
  step_fuzz
  step_cuda
  step_lint
fi
finish
