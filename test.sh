#!/usr/bin/env bash
# Checks everything that can be checked on this machine, from nothing.  See usage below.
set -uo pipefail
cd "$(dirname "$0")" || exit
. scripts/packages.sh

usage() {
  cat <<'TEXT'
usage: ./test.sh [--quick] [--clients] [--lint-seconds N]

Installs the Debian packages that are missing (as root or with sudo), then:
  format    every source file is as clang-format 14 leaves it
  dev       build with assertions, every test, every header compiled alone
  release   the program that users build answers a prompt
  asan      the unit tests under the address and undefined-behaviour sanitizers
  fuzz      a short run of every fuzz target from fixed seeds, in the same build
  tsan      the threaded tests under the thread sanitizer
  cuda      only where nvcc is installed: the CUDA backend compiles; with a GPU, its tests
--quick stops after format and dev.
--lint-seconds N adds clang-tidy 14: changed files first, then others until N seconds are up (scripts/lint.sh: all files).
--clients adds five coding agents from the npm registry (1.2 GB; node 20), each on a small task against the server.
The last line is "N passed, N failed"; the exit status is 0 when none failed.
TEXT
}

clients=no
quick=no
lint_seconds=0
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --clients) clients=yes ;;
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

# What CTest is started with; see sanitizer_launcher.
launcher=()

# Runs CTest as many checks, one a test: NAME DIR ARGS...
tests() {
  local name=$1 dir=$2 log="$logs/${1// /-}.log" begin=$SECONDS summary total bad
  shift 2
  "${launcher[@]+"${launcher[@]}"}" ctest --test-dir "$dir" --output-on-failure -j "$jobs" "$@" >"$log" 2>&1
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
  if [ "$clients" = yes ]; then tests "clients" build/dev -L agents; fi
}

# The sanitizer builds are clang's, so that the whole tree passes through a second compiler.  Their
# runtimes of version 14 expect no more randomness in addresses than this.
sanitizer_launcher=()
if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ] && setarch -R true 2>/dev/null; then
  sanitizer_launcher=(setarch -R)
fi

# server_load is run by hand there (docs/testing.md): its clients' time-outs suit no such build.
step_asan() {
  local launcher=("${sanitizer_launcher[@]+"${sanitizer_launcher[@]}"}")
  check "asan configure" configure asan || return
  check "asan build" build asan --target ds4_unit_tests ds4_fuzz_targets -- -k 0 || return
  tests "asan tests" build/asan -L unit -LE 'slow|device' -E server_load
  tests "fuzz runs" build/asan -L fuzz
}

step_tsan() {
  local launcher=("${sanitizer_launcher[@]+"${sanitizer_launcher[@]}"}")
  check "tsan configure" configure tsan || return
  check "tsan build" build tsan --target ds4_thread_tests -- -k 0 || return
  tests "tsan tests" build/tsan -L threads -LE 'slow|device' -E server_load
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
  if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    # Up to the virtual instruction set: what only a card runs needs no assembling.
    check "cuda configure" configure cuda -B build/cuda-ptx -DCMAKE_CUDA_ARCHITECTURES=90a-virtual || return
    check "cuda build" build cuda-ptx --target ds4_cuda || return
    say "skip   cuda tests: no GPU"
    return
  fi
  check "cuda configure" configure cuda || return
  check "cuda build" build cuda || return
  tests "cuda tests" build/cuda -L device
}

say "Checking packages ..."
ds4_install_packages check || exit 1
check "format" scripts/format.sh --check
step_dev
if [ "$quick" = no ]; then
  step_release
  step_asan
  step_tsan
  step_cuda
fi
step_lint
finish
