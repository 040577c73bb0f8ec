#!/usr/bin/env bash
# Builds the CPU kernels and their tests for aarch64 and runs them under QEMU: every NEON build
# against the portable one and f64.  Skips, with a line that says why, where the cross compiler, the
# emulator or the sources of GoogleTest are missing (Debian: g++-aarch64-linux-gnu, qemu-user,
# googletest).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != "" ]; then
  echo "usage: scripts/test_aarch64.sh"
  [ "$1" = --help ] && exit 0 || exit 2
fi

compiler=aarch64-linux-gnu-g++
emulator=qemu-aarch64
gtest=/usr/src/googletest/googletest
for tool in "$compiler" "$emulator"; do
  command -v "$tool" >/dev/null || { echo "aarch64 tests skipped: no $tool"; exit 0; }
done
[ -d "$gtest" ] || { echo "aarch64 tests skipped: no $gtest"; exit 0; }

out=build/aarch64
mkdir -p "$out/include"
# fmt is used as headers alone; only its own directory, since the host's others do not fit.
ln -sfn /usr/include/fmt "$out/include/fmt"
flags=(-std=c++20 -O2 -DNDEBUG -DFMT_HEADER_ONLY=1 -DDS4_ARM_KERNELS=1 -Isrc -Iinclude
  -isystem "$out/include" -isystem "$gtest/include")

objects=()
compile() { # compile SOURCE [FLAG...]: leaves the object and notes its name
  local source=$1 object
  shift
  object=$out/$(basename "$source").o
  objects+=("$object")
  "$compiler" "${flags[@]}" "$@" -c "$source" -o "$object"
}

compile src/cpu/kernels_neon.cpp -O3 -march=armv8.2-a+dotprod
compile src/cpu/kernels_neon_i8mm.cpp -O3 -march=armv8.2-a+dotprod+i8mm
for source in src/cpu/{kernels,kernels_portable,matmul,kernels_test,matmul_test}.cpp \
  src/base/{error,thread_pool,topology}.cpp src/tensor/element_type.cpp src/quant/*.cpp; do
  case $source in src/quant/*_test.cpp) continue ;; esac
  compile "$source"
done
compile "$gtest/src/gtest-all.cc" -I"$gtest"
compile "$gtest/src/gtest_main.cc"
"$compiler" -static -o "$out/kernel_tests" "${objects[@]}" -lpthread
"$emulator" -cpu max "$out/kernel_tests" --gtest_brief=1
