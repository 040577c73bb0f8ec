#pragma once
#include <cstddef>

namespace ds4::cpu {

// The inner loops that every instruction set gets its own build of.  All take f32, sum in a fixed
// order that depends on the count alone, and tolerate any alignment.
struct Kernels {
  const char* name;  // "portable", "avx2", "avx512"
  // sum over i of a[i] * b[i]
  float (*dot)(const float* a, const float* b, std::size_t count);
  // sum[i] += scale * a[i]
  void (*add_scaled)(float* sum, const float* a, float scale, std::size_t count);
};

// The portable build: the reference for the others.
const Kernels& portable_kernels();

// The best build that this processor runs.  Cost: one CPUID query on first use.
const Kernels& best_kernels();

}  // namespace ds4::cpu
