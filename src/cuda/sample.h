#pragma once
#include <cstdint>
#include <span>

#include "cuda/device.h"
#include "sample/candidates.h"

namespace ds4::cuda {

// From the logits of some rows to the few tokens that a draw depends on, so that a step hands the
// host kilobytes and not whole rows.  What it keeps is a superset of what sample::Sampler needs:
// the draw itself is the Sampler's, on the host.

inline constexpr std::uint32_t kSampleChunks = 64;  // parts of a row, a block each
inline constexpr std::uint32_t kSampleBins = 2048;  // of a row's histogram

// How one row is to be drawn; sample::CandidateQuery for kernels.
struct SampleQuery {
  float temperature;
  float top_p;
  float min_p;
  std::uint32_t top_k;
  std::int32_t excluded;
};

// What is handed over of one row.
struct SampleResult {
  struct Entry {
    std::int32_t token;
    float logit;
  };
  double total;
  float largest;
  std::int32_t best;  // the first token with the largest logit; -1: no logit is finite
  std::uint32_t count;
  std::uint32_t complete;
  std::uint32_t holds_min_p;
  std::uint32_t padding;
  Entry entries[sample::kCandidatesMax];  // the first `count`, in no order
};

// Memory for up to `rows` rows at a time, on the card and page-locked on the host.  Confined to one
// thread.
class SampleBuffers {
 public:
  explicit SampleBuffers(std::uint32_t rows);
  static std::uint64_t planned_bytes(std::uint32_t rows);
  std::uint64_t bytes() const { return memory_.bytes(); }

  // logits: f32 [queries.size(), vocab_size] on the card.  Fills `sets`, one a query; waits for the
  // stream.  Copies 8 KiB a row to the host.
  void collect(Stream& stream,
               const float* logits,
               std::uint32_t vocab_size,
               std::span<const sample::CandidateQuery> queries,
               std::span<sample::CandidateSet> sets);

 private:
  std::uint32_t rows_;
  DeviceBuffer memory_;
  PinnedBuffer queries_;
  PinnedBuffer results_;
};

}  // namespace ds4::cuda
