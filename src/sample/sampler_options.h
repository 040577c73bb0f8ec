#pragma once

namespace ds4::sample {

// More than this many candidates of a top-k cut are never kept.
inline constexpr int kTopKMax = 1024;

// How to draw.  The defaults are the product's.
struct SamplingOptions {
  float temperature = 1.0F;  // 0: always the most likely token, no draw; else > 0
  int top_k = 0;             // 0: no cut; else keep that many, at most kTopKMax
  float top_p = 1.0F;        // in (0, 1]: keep the smallest head of the ranking with this mass
  float min_p = 0.05F;       // in [0, 1]: drop tokens below this share of the likeliest one's

  // Throws Error(kInvalidArgument) with the field's name, its value and its range.
  void validate() const;

  // Always the most likely token.
  static SamplingOptions greedy() { return {.temperature = 0, .top_k = 0, .top_p = 1, .min_p = 0}; }
};

}  // namespace ds4::sample
