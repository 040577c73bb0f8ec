// Attention of a chunk and the indexer's choice, at the state that a long prompt leaves.
//
//   reference   on the host, in f64, for three rows
//   tiles       src/cuda/attend.cu, src/cuda/select.cu by warps' matrix instructions
//   groups      the former by warpgroups', where the card has them
#include <cmath>
#include <numeric>
#include <random>
#include <string>

#include "cuda/attend.h"
#include "cuda/select.h"
#include "cuda/tile_product.h"
#include "ladder.h"
#include "tensor/float16.h"

namespace ds4::ladder {

namespace {

using cuda::kHeadDim;
using cuda::kIndexDim;
using cuda::kNopeDim;
using cuda::kRopeDim;
using cuda::kRowBytes;

constexpr std::uint32_t kHeads = 64, kWindow = 128, kTopK = 512;
constexpr std::uint32_t kWindowCapacity = kWindow + 2 * cuda::kRewindMax;
constexpr std::uint32_t kChecked[3] = {0, 77, 1500};

std::vector<float> random_floats(std::size_t count, std::uint32_t seed) {
  std::vector<float> all(count);
  std::uint32_t state = seed * 747796405U + 7;
  for (float& v : all) {
    state = state * 1664525U + 1013904223U;
    v = static_cast<float>(state >> 8) * 0x1p-23F - 1.0F;
  }
  return all;
}

// Packed rows of plausible numbers.
std::vector<std::byte> random_rows(std::size_t count, std::uint32_t seed) {
  std::vector<std::byte> all(count * kRowBytes);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::size_t r = 0; r < count; ++r) {
    std::byte* row = &all[r * kRowBytes];
    for (std::uint32_t i = 0; i < kRowBytes; ++i) {
      state = state * 1664525U + 1013904223U;
      const std::uint32_t byte = state >> 24;
      row[i] = static_cast<std::byte>((byte & 127) == 127 ? byte - 1 : byte);
    }
    for (std::uint32_t i = 0; i < 7; ++i)
      row[kNopeDim + i] = static_cast<std::byte>(127 - 8);
    row[kNopeDim + 7] = static_cast<std::byte>(127 - 15);
  }
  return all;
}

std::vector<double> unpack(const std::byte* row) {
  std::vector<double> v(kHeadDim);
  for (std::uint32_t c = 0; c < kNopeDim; ++c) {
    const int code = static_cast<int>(row[c]);
    const int exponent = (code >> 3) & 15;
    const double magnitude =
        exponent == 0 ? std::ldexp(code & 7, -9) : std::ldexp(8 + (code & 7), exponent - 10);
    v[c] = ((code & 128) != 0 ? -magnitude : magnitude) *
           std::ldexp(1.0, static_cast<int>(row[kNopeDim + c / 64]) - 127);
  }
  for (std::uint32_t c = 0; c < kRopeDim; ++c) {
    const std::byte* at = row + kNopeDim + 8 + 2 * c;
    const auto bits =
        static_cast<std::uint16_t>(static_cast<int>(at[0]) | (static_cast<int>(at[1]) << 8));
    v[kNopeDim + c] = static_cast<std::int16_t>(bits) *
                      std::ldexp(1.0, static_cast<int>(row[kNopeDim + 7]) - 127);
  }
  return v;
}

void turn(std::vector<double>& v,
          std::uint32_t position,
          const std::vector<float>& frequencies,
          double direction) {
  for (std::uint32_t i = 0; i < kRopeDim / 2; ++i) {
    const double angle = static_cast<float>(position) * frequencies[i];
    const double cosine = std::cos(angle);
    const double sine = std::sin(angle) * direction;
    double& a = v[kNopeDim + 2 * i];
    double& b = v[kNopeDim + 2 * i + 1];
    const double x = a;
    a = x * cosine - b * sine;
    b = x * sine + b * cosine;
  }
}

// A chunk of one sequence that starts at `first` and the state before it.
struct Chunk {
  std::uint32_t rows;
  std::uint32_t first;
  std::uint32_t ratio;
  std::vector<cuda::StepRow> host_rows;
  std::vector<std::byte> fresh, window, compressed;
  Device<cuda::StepRow> step_rows;
  Device<std::byte> fresh_rows, window_rows, compressed_rows;
  std::vector<std::byte> codes, scales;
  Device<std::byte> key_codes, key_scales;
  Device<cuda::LayerState> states;

  Chunk(std::uint32_t row_count, std::uint32_t first_position, std::uint32_t layer_ratio)
      : rows(row_count),
        first(first_position),
        ratio(layer_ratio),
        host_rows(make_rows(row_count, first_position)),
        fresh(random_rows(row_count, 1)),
        window(random_rows(kWindowCapacity, 2)),
        compressed(random_rows((first_position + row_count) / layer_ratio + 1, 3)),
        step_rows(host_rows),
        fresh_rows(fresh),
        window_rows(window),
        compressed_rows(compressed),
        codes(make_codes(compressed.size() / kRowBytes)),
        scales(compressed.size() / kRowBytes * cuda::kKeyScaleBytes, std::byte{127}),
        key_codes(codes),
        key_scales(scales),
        states(std::vector<cuda::LayerState>{{.window = window_rows.get(),
                                              .compressed = compressed_rows.get(),
                                              .key_codes = key_codes.get(),
                                              .key_scales = key_scales.get()}}) {}

  static std::vector<cuda::StepRow> make_rows(std::uint32_t count, std::uint32_t first_position) {
    std::vector<cuda::StepRow> all(count);
    for (std::uint32_t r = 0; r < count; ++r)
      all[r] = {.token = 0,
                .position = first_position + r,
                .sequence = 0,
                .run_first_row = 0,
                .run_first_position = first_position,
                .run_count = count,
                .wants_logits = 0,
                .padding = 0};
    return all;
  }
  static std::vector<std::byte> make_codes(std::size_t count) {
    std::vector<std::byte> all(count * cuda::kKeyCodeBytes);
    std::mt19937 random(4);
    for (auto& b : all)
      b = static_cast<std::byte>(random() & 255);
    return all;
  }
  cuda::Step step() const {
    return {.rows = step_rows.get(),
            .count = rows,
            .states = states.get(),
            .layers = 1,
            .window = kWindow,
            .window_capacity = kWindowCapacity};
  }
  const std::byte* window_row(std::uint32_t position) const {
    return position >= first ? &fresh[std::size_t{position - first} * kRowBytes]
                             : &window[std::size_t{position % kWindowCapacity} * kRowBytes];
  }
};

// Random ascending rows for every row that sees more than the indexer takes.
std::vector<std::int32_t> random_selection(const Chunk& chunk) {
  std::vector<std::int32_t> all(std::size_t{chunk.rows} * kTopK);
  std::mt19937 random(9);
  for (std::uint32_t r = 0; r < chunk.rows; ++r) {
    const std::uint32_t visible = (chunk.first + r + 1) / chunk.ratio;
    std::int32_t* to = &all[std::size_t{r} * kTopK];
    for (std::uint32_t k = 0; k < kTopK; ++k)
      to[k] = static_cast<std::int32_t>(random() % std::max(visible, 1U));
    std::sort(to, to + kTopK);
  }
  return all;
}

std::vector<double> attended(const Chunk& chunk,
                             const std::vector<std::int32_t>& selection,
                             const std::vector<float>& query,
                             const std::vector<float>& frequencies,
                             std::uint32_t r,
                             std::uint32_t head) {
  const std::uint32_t position = chunk.first + r;
  std::vector<std::vector<double>> visible;
  for (std::uint32_t p = position < kWindow ? 0 : position + 1 - kWindow; p <= position; ++p)
    visible.push_back(unpack(chunk.window_row(p)));
  const std::uint32_t compressed = (position + 1) / chunk.ratio;
  const bool selected = chunk.ratio == 4 && compressed > kTopK;
  for (std::uint32_t i = 0; i < (selected ? kTopK : compressed); ++i) {
    const std::size_t number =
        selected ? static_cast<std::size_t>(selection[std::size_t{r} * kTopK + i]) : i;
    visible.push_back(unpack(&chunk.compressed[number * kRowBytes]));
  }
  const float* from = &query[(std::size_t{r} * kHeads + head) * kHeadDim];
  std::vector<double> q(from, from + kHeadDim);
  const double square = std::inner_product(q.begin(), q.end(), q.begin(), 0.0);
  for (double& v : q)
    v /= std::sqrt(square / kHeadDim + 1e-6);
  turn(q, position, frequencies, 1.0);
  std::vector<double> out(kHeadDim);
  std::vector<double> score;
  for (const auto& row : visible)
    score.push_back(std::inner_product(q.begin(), q.end(), row.begin(), 0.0) / std::sqrt(512.0));
  double sum = 1.0;  // the sink is 0
  for (std::size_t i = 0; i < visible.size(); ++i) {
    const double weight = std::exp(score[i]);
    sum += weight;
    for (std::uint32_t c = 0; c < kHeadDim; ++c)
      out[c] += weight * visible[i][c];
  }
  for (double& v : out)
    v /= sum;
  turn(out, position, frequencies, -1.0);
  return out;
}

void print(const std::string& name,
           double seconds,
           double flops,
           const Ceilings& most,
           double error,
           double limit) {
  std::printf("%-40s %9.1f us  floor %8.1f us  %5.0f TF/s  error %.1e%s\n", name.c_str(),
              seconds * 1e6, flops / most.flops * 1e6, flops / seconds * 1e-12, error,
              verdict(error, limit));
}

void attend_case(cuda::Stream& stream, const Ceilings& most, const Chunk& chunk) {
  const std::vector<float> query = random_floats(std::size_t{chunk.rows} * kHeads * kHeadDim, 6);
  const Device<float> query_rows(query);
  std::vector<float> frequencies(kRopeDim / 2);
  for (std::uint32_t i = 0; i < kRopeDim / 2; ++i)
    frequencies[i] = std::pow(10000.0F, -2.0F * static_cast<float>(i) / kRopeDim);
  const Device<float> turns(frequencies);
  const Device<float> sinks(std::vector<float>(kHeads, 0.0F));
  const std::vector<std::int32_t> selection = random_selection(chunk);
  const Device<std::int32_t> selected(selection);
  Device<std::uint16_t> heads(query.size());
  double tiles = 0;
  for (std::uint32_t r = 0; r < chunk.rows; ++r) {
    const std::uint32_t position = chunk.first + r;
    std::uint32_t count = (position + 1) / chunk.ratio;
    if (chunk.ratio == 4) count = std::min(count, kTopK);
    tiles += std::min(position + 1, kWindow) + count;
  }
  for (const bool portable : {true, false}) {
    heads.poison();
    cuda::DeviceInfo device;
    device.shared_bytes_max = 227 * 1024;
    device.multiprocessors = 132;
    const double seconds = median_seconds(stream, [&] {
      cuda::attend_rows(stream, device,
                        {.step = chunk.step(),
                         .ratio = chunk.ratio,
                         .head_count = kHeads,
                         .top_k = kTopK,
                         .frequencies = turns.get(),
                         .sinks = sinks.get(),
                         .query = query_rows.get(),
                         .raw_query = true,
                         .epsilon = 1e-6F,
                         .fresh_rows = chunk.fresh_rows.get(),
                         .selection = selected.get(),
                         .heads_rounded = heads.get(),
                         .portable = portable});
    });
    const std::vector<std::uint16_t> all = heads.download();
    double error = 0;
    double size = 0;
    for (const std::uint32_t r : kChecked)
      for (const std::uint32_t head : {0U, 17U, 63U}) {
        const auto expected = attended(chunk, selection, query, frequencies, r, head);
        const std::size_t at = (std::size_t{r} * kHeads + head) * kHeadDim;
        for (std::uint32_t c = 0; c < kHeadDim; ++c) {
          const std::size_t place = at + c / 32 * 32 + cuda::operand_pair(c % 32 / 2) * 2 + c % 2;
          const double difference = expected[c] - f16_to_f32(all[place]);
          error += std::isfinite(difference) ? difference * difference : 1e30;
          size += expected[c] * expected[c];
        }
      }
    print("attention, ratio " + std::to_string(chunk.ratio) + ", " + std::to_string(chunk.rows) +
              " rows from " + std::to_string(chunk.first) + (portable ? ", tiles" : ", groups"),
          seconds, tiles * kHeads * kHeadDim * 4, most, std::sqrt(error / size), 3e-3);
  }
}

void select_case(cuda::Stream& stream, const Ceilings& most, const Chunk& chunk) {
  constexpr std::uint32_t kIndexHeads = 64;
  const std::uint32_t stride = (chunk.first + chunk.rows) / 4 + 1;
  // Queries are E2M1 values: quarters serve.
  std::vector<float> query = random_floats(std::size_t{chunk.rows} * kIndexHeads * kIndexDim, 7);
  for (float& v : query)
    v = std::rint(v * 2.0F);
  const std::vector<float> weights = random_floats(std::size_t{chunk.rows} * kIndexHeads, 8);
  const Device<float> query_rows(query);
  const Device<float> query_weights(weights);
  Device<float> scores(std::size_t{chunk.rows} * stride);
  Device<std::int32_t> selection(std::size_t{chunk.rows} * kTopK);
  const cuda::SelectJob job{.step = chunk.step(),
                            .row_count = chunk.rows,
                            .top_k = kTopK,
                            .head_count = kIndexHeads,
                            .visible_max = stride,
                            .query = query_rows.get(),
                            .weights = query_weights.get(),
                            .scores = scores.get(),
                            .selection = selection.get()};
  const double score_seconds = median_seconds(stream, [&] { cuda::score_keys(stream, job, 4); });
  const double select_seconds = median_seconds(stream, [&] { cuda::select_top(stream, job); });
  const std::vector<float> found = scores.download();
  const std::vector<std::int32_t> taken = selection.download();
  double error = 0;
  double wrong = 0;
  double keys = 0;
  for (std::uint32_t r = 0; r < chunk.rows; ++r)
    keys += (chunk.first + r + 1) / 4;
  for (const std::uint32_t r : kChecked) {
    const std::uint32_t visible = (chunk.first + r + 1) / 4;
    const float* row = &found[std::size_t{r} * stride];
    for (std::uint32_t c = 0; c < visible; c += 97) {
      double score = 0;
      double size = 0;
      for (std::uint32_t h = 0; h < kIndexHeads; ++h) {
        double dot = 0;
        for (std::uint32_t d = 0; d < kIndexDim; ++d) {
          constexpr double kValues[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
          const int byte = static_cast<int>(chunk.codes[c * cuda::kKeyCodeBytes + d / 2]);
          const int code = d % 2 == 0 ? byte & 15 : byte >> 4;
          dot += ((code & 8) != 0 ? -kValues[code & 7] : kValues[code & 7]) *
                 query[(std::size_t{r} * kIndexHeads + h) * kIndexDim + d];
        }
        score += weights[std::size_t{r} * kIndexHeads + h] * std::max(0.0, dot);
        size += std::abs(weights[std::size_t{r} * kIndexHeads + h] * dot);
      }
      error = std::max(error, std::abs(score - row[c]) / size);
    }
    std::vector<std::int32_t> order(visible);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int32_t a, std::int32_t b) { return row[a] > row[b]; });
    std::sort(order.begin(), order.begin() + kTopK);
    for (std::uint32_t k = 0; k < kTopK; ++k)
      if (order[k] != taken[std::size_t{r} * kTopK + k]) wrong += 1;
  }
  const std::string suffix =
      ", " + std::to_string(chunk.rows) + " rows from " + std::to_string(chunk.first);
  print("index scores" + suffix, score_seconds, keys * kIndexHeads * kIndexDim * 2, most, error,
        1e-4);
  print("index choice" + suffix, select_seconds, 0, most, wrong, 0.5);
}

}  // namespace

void attend_ladder(cuda::Stream& stream,
                   const Ceilings& most,
                   const std::vector<std::uint32_t>& firsts) {
  for (const std::uint32_t first : firsts)
    for (const std::uint32_t ratio : {4U, 128U}) {
      const Chunk chunk(2048, first, ratio);
      attend_case(stream, most, chunk);
      if (ratio == 4 && first != 0) select_case(stream, most, chunk);
    }
}

}  // namespace ds4::ladder
