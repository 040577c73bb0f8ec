// The tokens of a row that a draw depends on (sample.h), in three launches over 64 parts of a row:
//
// survey_logits   the largest finite logit of every part
// weigh_logits    with the largest of all: a histogram of (largest - logit) / temperature in bins
//                 of 1/64, and the parts' sums of e^-that in f64, each in a fixed order
// gather_tokens   every block finds, from the histogram, the bin up to which tokens are needed, and
//                 appends its part's to the row's list
//
// A bin is a step of a monotone function of the logit, computed by the same f32 operations in both
// kernels, so "up to bin b" is a threshold on logits and what is kept a superset of what the cuts
// keep: min-p by a margin of one bin, top-p by a lower bound of each bin's weight, top-k by counts.
// Rows of temperature 0 end after the second launch.  Memory: 4 bytes a logit three times, from L2.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "cuda/platform.cuh"
#include "cuda/sample.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kThreadBins = kSampleBins / kThreads;
constexpr float kBinsPerUnit = 64.0F;
constexpr std::uint32_t kLastBin = kSampleBins - 1;  // everything further away, too
// Slack of the lower bound of the head's weight, far above the rounding of the bins' weights.
constexpr double kMassSlack = 1.001;
constexpr float kWeightUnit =
    4294967296.0F;  // 2^32: weights of bins as integers, so sums are exact

struct PartBest {
  float logit;
  std::int32_t token;  // -1: none is finite
};

struct SampleJob {
  const float* logits;  // [rows, vocab_size]
  std::uint32_t vocab_size;
  const SampleQuery* queries;  // [rows]
  PartBest* best;              // [rows, kSampleChunks]
  double* sums;                // [rows, kSampleChunks]
  std::uint32_t* histogram;    // [rows, kSampleBins]
  SampleResult* results;       // [rows]
};

DS4_DEVICE bool is_finite(float value) {
  return (bits_of_float(value) & 0x7F800000U) != 0x7F800000U;
}

DS4_DEVICE bool is_better(const PartBest& a, const PartBest& b) {
  if (a.token < 0 || b.token < 0) return a.token >= 0 && b.token < 0;
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The part of the row that this block has: [first, end).
struct Part {
  std::uint32_t first;
  std::uint32_t end;
};

DS4_DEVICE Part block_part(std::uint32_t vocab_size) {
  const std::uint32_t size = (vocab_size + kSampleChunks - 1) / kSampleChunks;
  const std::uint32_t first = blockIdx.x * size;
  return {first < vocab_size ? first : vocab_size,
          first + size < vocab_size ? first + size : vocab_size};
}

DS4_KERNEL void survey_logits(SampleJob job) {
  DS4_SHARED PartBest warp_best[kThreads / 32];
  wait_for_inputs();
  const std::uint32_t row = blockIdx.y;
  const float* logits = job.logits + std::size_t{row} * job.vocab_size;
  const std::int32_t excluded = job.queries[row].excluded;
  const Part part = block_part(job.vocab_size);
  PartBest best = {0, -1};
  for (std::uint32_t i = part.first + threadIdx.x; i < part.end; i += kThreads) {
    const PartBest candidate = {logits[i], static_cast<std::int32_t>(i)};
    if (is_finite(candidate.logit) && candidate.token != excluded && is_better(candidate, best))
      best = candidate;
  }
#pragma unroll
  for (int mask = 16; mask != 0; mask /= 2) {
    const PartBest other = {shuffle_xor(best.logit, mask), shuffle_xor(best.token, mask)};
    if (is_better(other, best)) best = other;
  }
  if (threadIdx.x % 32 == 0) warp_best[threadIdx.x / 32] = best;
  // What the next launches count in.
  constexpr std::uint32_t kSlice = kSampleBins / kSampleChunks;
  if (threadIdx.x < kSlice)
    job.histogram[std::size_t{row} * kSampleBins + blockIdx.x * kSlice + threadIdx.x] = 0;
  block_sync();
  if (threadIdx.x != 0) return;
  for (std::uint32_t w = 1; w < kThreads / 32; ++w)
    if (is_better(warp_best[w], best)) best = warp_best[w];
  job.best[std::size_t{row} * kSampleChunks + blockIdx.x] = best;
  if (blockIdx.x == 0) job.results[row].count = 0;
}

// The best of all parts, in every thread.
DS4_DEVICE PartBest row_best(const SampleJob& job, std::uint32_t row, PartBest* shared) {
  if (threadIdx.x < kSampleChunks)
    shared[threadIdx.x] = job.best[std::size_t{row} * kSampleChunks + threadIdx.x];
  block_sync();
  PartBest best = shared[0];
  for (std::uint32_t i = 1; i < kSampleChunks; ++i)
    if (is_better(shared[i], best)) best = shared[i];
  return best;
}

DS4_DEVICE std::uint32_t bin_of(float logit, float largest, float temperature) {
  const float bins = (largest - logit) / temperature * kBinsPerUnit;
  return bins < static_cast<float>(kLastBin) ? static_cast<std::uint32_t>(bins) : kLastBin;
}

DS4_KERNEL void weigh_logits(SampleJob job) {
  DS4_SHARED PartBest parts[kSampleChunks];
  DS4_SHARED std::uint32_t counts[kSampleBins];
  DS4_SHARED double sums[kThreads];
  wait_for_inputs();
  const std::uint32_t row = blockIdx.y;
  const SampleQuery query = job.queries[row];
  const PartBest best = row_best(job, row, parts);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    SampleResult& result = job.results[row];
    result.largest = best.logit;
    result.best = best.token;
    result.total = 0;
  }
  if (query.temperature <= 0 || best.token < 0) return;
  for (std::uint32_t b = threadIdx.x; b < kSampleBins; b += kThreads)
    counts[b] = 0;
  block_sync();
  const float* logits = job.logits + std::size_t{row} * job.vocab_size;
  const Part part = block_part(job.vocab_size);
  double sum = 0;
  for (std::uint32_t i = part.first + threadIdx.x; i < part.end; i += kThreads) {
    const float logit = logits[i];
    if (!is_finite(logit) || static_cast<std::int32_t>(i) == query.excluded) continue;
    shared_add(&counts[bin_of(logit, best.logit, query.temperature)], 1);
    sum += exp((static_cast<double>(logit) - static_cast<double>(best.logit)) /
               static_cast<double>(query.temperature));
  }
  sums[threadIdx.x] = sum;
  block_sync();
  for (std::uint32_t half = kThreads / 2; half != 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    block_sync();
  }
  if (threadIdx.x == 0) job.sums[std::size_t{row} * kSampleChunks + blockIdx.x] = sums[0];
  for (std::uint32_t b = threadIdx.x; b < kSampleBins; b += kThreads)
    if (counts[b] != 0) shared_add(&job.histogram[std::size_t{row} * kSampleBins + b], counts[b]);
}

// What the bins up to one hold: tokens, and a lower bound of their weight.
struct Mass {
  std::uint64_t weight;  // in 1 / kWeightUnit of the likeliest token's
  std::uint32_t count;
};

DS4_DEVICE void add_bin(Mass* mass, std::uint32_t bin, std::uint32_t count) {
  const float weight = expf(-static_cast<float>(bin + 1) / kBinsPerUnit) * kWeightUnit;
  mass->count += count;
  mass->weight += count * static_cast<std::uint64_t>(weight);
}

// Inclusive sums over the threads of the block; every thread's in `shared`.
DS4_DEVICE void block_scan(Mass mine, Mass* shared) {
  shared[threadIdx.x] = mine;
  block_sync();
  for (std::uint32_t step = 1; step < kThreads; step *= 2) {
    Mass sum = shared[threadIdx.x];
    if (threadIdx.x >= step) {
      sum.count += shared[threadIdx.x - step].count;
      sum.weight += shared[threadIdx.x - step].weight;
    }
    block_sync();
    shared[threadIdx.x] = sum;
    block_sync();
  }
}

// The bin that holds the lowest logit that min-p may keep, and one for the rounding.
DS4_DEVICE std::uint32_t min_p_bin(float min_p) {
  if (min_p <= 0) return kLastBin;
  const float bins = -logf(min_p) * kBinsPerUnit + 1.0F;
  return bins < static_cast<float>(kLastBin) ? static_cast<std::uint32_t>(bins) : kLastBin;
}

DS4_DEVICE bool is_enough(const SampleQuery& query,
                          std::uint32_t bin,
                          const Mass& mass,
                          double wanted_weight) {
  if (bin == kLastBin) return true;
  if (query.top_k > 0) return mass.count >= query.top_k;
  if (bin >= min_p_bin(query.min_p)) return true;
  return query.top_p < 1 && static_cast<double>(mass.weight) >= wanted_weight;
}

// The first bin up to which the draw needs tokens, and how many those are; in every thread.
struct Cut {
  std::uint32_t bin;
  std::uint32_t count;
};

DS4_DEVICE Cut find_cut(const SampleQuery& query,
                        const std::uint32_t* histogram,
                        double total,
                        Mass* shared,
                        Cut* result) {
  const double wanted =
      static_cast<double>(query.top_p) * total * kMassSlack * static_cast<double>(kWeightUnit);
  Mass mine = {0, 0};
  for (std::uint32_t i = 0; i < kThreadBins; ++i) {
    const std::uint32_t bin = threadIdx.x * kThreadBins + i;
    add_bin(&mine, bin, histogram[bin]);
  }
  block_scan(mine, shared);
  // The thread whose bins hold the first that is enough walks them.
  Mass mass = {0, 0};
  if (threadIdx.x > 0) mass = shared[threadIdx.x - 1];
  const std::uint32_t before = threadIdx.x * kThreadBins;
  const bool earlier = threadIdx.x > 0 && is_enough(query, before - 1, mass, wanted);
  const bool here =
      !earlier && is_enough(query, before + kThreadBins - 1, shared[threadIdx.x], wanted);
  if (here) {
    for (std::uint32_t bin = before; bin < before + kThreadBins; ++bin) {
      add_bin(&mass, bin, histogram[bin]);
      if (!is_enough(query, bin, mass, wanted)) continue;
      *result = {bin, mass.count};
      break;
    }
  }
  block_sync();
  return *result;
}

DS4_KERNEL void gather_tokens(SampleJob job) {
  DS4_SHARED double sums[kSampleChunks];
  DS4_SHARED Mass masses[kThreads];
  DS4_SHARED Cut shared_cut;
  wait_for_inputs();
  const std::uint32_t row = blockIdx.y;
  const SampleQuery query = job.queries[row];
  SampleResult& result = job.results[row];
  const float largest = result.largest;
  if (query.temperature <= 0 || result.best < 0) return;
  if (threadIdx.x < kSampleChunks)
    sums[threadIdx.x] = job.sums[std::size_t{row} * kSampleChunks + threadIdx.x];
  block_sync();
  double total = 0;
  for (std::uint32_t i = 0; i < kSampleChunks; ++i)
    total += sums[i];
  const Cut cut =
      find_cut(query, job.histogram + std::size_t{row} * kSampleBins, total, masses, &shared_cut);
  const bool fits = cut.count <= sample::kCandidatesMax;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    result.total = total;
    result.complete = fits ? 1 : 0;
    result.holds_min_p = cut.bin >= min_p_bin(query.min_p) ? 1 : 0;
  }
  if (!fits) return;
  const float* logits = job.logits + std::size_t{row} * job.vocab_size;
  const Part part = block_part(job.vocab_size);
  for (std::uint32_t i = part.first + threadIdx.x; i < part.end; i += kThreads) {
    const float logit = logits[i];
    if (!is_finite(logit) || static_cast<std::int32_t>(i) == query.excluded) continue;
    if (bin_of(logit, largest, query.temperature) > cut.bin) continue;
    const std::uint32_t at = shared_add(&result.count, 1);
    result.entries[at] = {static_cast<std::int32_t>(i), logit};
  }
}

constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// Walks the parts of the memory: calls place(pointer, count) for each.
template <class Place>
void visit(SampleJob& job, std::size_t rows, Place&& place) {
  place(job.queries, rows);
  place(job.best, rows * kSampleChunks);
  place(job.sums, rows * kSampleChunks);
  place(job.histogram, rows * kSampleBins);
  place(job.results, rows);
}

SampleQuery query_of(const sample::CandidateQuery& query) {
  const sample::SamplingOptions& o = query.options;
  return {.temperature = o.temperature,
          .top_p = o.top_p > 0 && o.top_p <= 1 ? o.top_p : 1.0F,
          .min_p = o.min_p > 0 ? std::min(o.min_p, 1.0F) : 0.0F,
          .top_k = static_cast<std::uint32_t>(std::clamp(o.top_k, 0, sample::kTopKMax)),
          .excluded = query.excluded.value()};
}

void fill_set(const SampleResult& result, bool greedy, sample::CandidateSet& set) {
  set.entries.clear();
  set.total = result.total;
  set.complete = greedy || result.best < 0 || result.complete != 0;
  set.holds_min_p = !greedy && result.best >= 0 && result.holds_min_p != 0;
  if (result.best < 0 || !set.complete) return;
  if (greedy) {
    set.entries.push_back({TokenId{result.best}, result.largest});
    return;
  }
  for (std::uint32_t i = 0; i < result.count; ++i)
    set.entries.push_back({TokenId{result.entries[i].token}, result.entries[i].logit});
  std::sort(set.entries.begin(), set.entries.end(),
            [](const auto& a, const auto& b) { return a.token < b.token; });
}

}  // namespace

std::uint64_t SampleBuffers::planned_bytes(std::uint32_t rows) {
  SampleJob none{};
  std::uint64_t total = 0;
  visit(none, rows,
        [&](auto*& pointer, std::size_t count) { total += aligned(count * sizeof *pointer); });
  return total;
}

SampleBuffers::SampleBuffers(std::uint32_t rows)
    : rows_(rows),
      memory_(planned_bytes(rows), "sampling"),
      queries_(rows * sizeof(SampleQuery)),
      results_(rows * sizeof(SampleResult)) {}

void SampleBuffers::collect(Stream& stream,
                            const float* logits,
                            std::uint32_t vocab_size,
                            std::span<const sample::CandidateQuery> queries,
                            std::span<sample::CandidateSet> sets) {
  const auto rows = static_cast<std::uint32_t>(queries.size());
  DS4_CHECK(rows <= rows_ && sets.size() == queries.size());
  SampleJob job{};
  std::byte* next = memory_.data();
  visit(job, rows_, [&](auto*& pointer, std::size_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next);
    next += aligned(count * sizeof *pointer);
  });
  job.logits = logits;
  job.vocab_size = vocab_size;
  bool greedy = true;
  for (std::uint32_t r = 0; r < rows; ++r) {
    const SampleQuery query = query_of(queries[r]);
    greedy = greedy && query.temperature <= 0;
    std::memcpy(queries_.data() + r * sizeof query, &query, sizeof query);
  }
  stream.upload(memory_.data(), queries_.data(), rows * sizeof(SampleQuery));
  const LaunchShape shape{.grid_x = kSampleChunks, .grid_y = rows, .threads = kThreads};
  launch(stream, "finding the largest logit", shape, survey_logits, job);
  launch(stream, "weighing logits", shape, weigh_logits, job);
  // A greedy row is its result's first bytes.
  const std::size_t row_bytes = greedy ? offsetof(SampleResult, entries) : sizeof(SampleResult);
  if (!greedy) launch(stream, "gathering tokens to draw from", shape, gather_tokens, job);
  stream.copy_rows(results_.data(), sizeof(SampleResult), job.results, sizeof(SampleResult),
                   row_bytes, rows);
  stream.synchronize("a step");
  for (std::uint32_t r = 0; r < rows; ++r) {
    const auto* result = reinterpret_cast<const SampleResult*>(results_.data()) + r;
    fill_set(*result, queries[r].options.temperature <= 0, sets[r]);
  }
}

}  // namespace ds4::cuda
