#!/usr/bin/env bash
# Runs every test that needs a card, then a small selection under compute-sanitizer, and prints a table.
#
#   scripts/device_check.sh [BUILD]     BUILD: a build folder of the cuda preset; default build/cuda
#
# Needs the built test programs, the repository and a driver, nothing else: programs built elsewhere
# run with their libraries beside them (LD_LIBRARY_PATH).  Output of each program: BUILD/device_check/,
# or the folder that DS4_CHECK_OUT names.  Exit status: 0 when everything that ran passed.
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/cuda}
out=${DS4_CHECK_OUT:-$build/device_check}
mkdir -p "$out"
failed=0
table=()

# What is small enough for a tool that makes every memory access some hundred times slower.
small='*FewRows/Q8_0:*FewRows/IQ2_XXS:*ManyRows/Q8_0:*ManyRows/IQ2_XXS:*ARowOfAStep*:*DraftsAndTheirCache*:*ShortRows/0'

# run NAME PROGRAM ARG...: one line of the table.
run() {
  local name=$1 program=$2 start seconds code passed lost skipped result
  shift 2
  if [ ! -x "$program" ]; then
    table+=("$(printf '%-34s %8s  %s' "$name" - "missing: $program")")
    failed=1
    return
  fi
  start=$(date +%s.%N)
  ${tool:-} "$program" "$@" >"$out/$name.log" 2>&1
  code=$?
  seconds=$(echo "$(date +%s.%N) $start" | awk '{printf "%.1f", $1 - $2}')
  passed=$(grep -c '^\[       OK \]' "$out/$name.log")
  skipped=$(grep -c '^\[  SKIPPED \].*ms)$' "$out/$name.log")
  lost=$(grep -c '^\[  FAILED  \].*ms)$' "$out/$name.log")
  result="$passed passed, $lost failed, $skipped skipped"
  [ -z "${tool:-}" ] || result="$result; $(grep -h 'ERROR SUMMARY\|RACECHECK SUMMARY' "$out/$name.log" | tail -1 | sed 's/=* *//')"
  [ $code -eq 0 ] || { result="$result; EXIT $code"; failed=1; }
  table+=("$(printf '%-34s %7ss  %s' "$name" "$seconds" "$result")")
}

find_sanitizer() {
  command -v compute-sanitizer && return
  local place
  for place in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer /usr/local/cuda/extras/compute-sanitizer; do
    [ -x "$place/compute-sanitizer" ] && echo "$place/compute-sanitizer" && return
  done
  return 1
}

tests=$build/tests/device
run contract "$tests/ds4_cuda_test"
run model "$tests/ds4_cuda_model_test"
if sanitizer=$(find_sanitizer); then
  tool="$sanitizer --tool memcheck --error-exitcode 9 --leak-check no"
  run memcheck "$tests/ds4_cuda_test" "--gtest_filter=$small"
  tool="$sanitizer --tool racecheck --error-exitcode 9"
  run racecheck "$tests/ds4_cuda_test" "--gtest_filter=$small"
  tool=
else
  table+=("$(printf '%-34s %8s  %s' 'memcheck, racecheck' - 'skipped: compute-sanitizer is not installed')")
fi

grep -h 'choices differ\|drafts: \|margin\|^position ' "$out"/*.log | sort | uniq | head -60
printf '\n%-34s %8s  %s\n' program time result
printf '%s\n' "${table[@]}"
[ $failed -eq 0 ] && echo "device check: passed" || echo "device check: FAILED; logs in $out"
exit $failed
