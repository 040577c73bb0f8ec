#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kvstore/state_io.h"
#include "tensor/strong.h"

// States for tests: bytes that are a function of (tokens so far, array, row), so that a restored
// row of the wrong place, length or conversation differs.  Used by this module's tests and benches.
namespace ds4::kvstore {

// DeepSeek V4 Flash: 43 layers, the first two of window alone, then ratio 4 and ratio 128 in turn.
inline StateLayout flash_layout() {
  StateLayout layout{.version = 1, .codec = "packed-584-68", .rows = {}, .carries = {}};
  constexpr auto kEvery = CarryPlace::kEveryState;
  for (std::uint32_t layer = 0; layer < 43; ++layer) {
    const std::uint32_t ratio = layer < 2 ? 0 : layer % 2 == 0 ? 4 : 128;
    layout.carries.push_back(
        {ArrayKind::kWindow, layer, CarryRule::kComplete, kEvery, 1, 128, 584});
    if (ratio == 0) continue;
    layout.rows.push_back({ArrayKind::kCompressedRows, layer, ratio, 584});
    if (ratio == 128) {
      layout.carries.push_back(
          {ArrayKind::kFrontierCurrent, layer, CarryRule::kPartial, kEvery, 128, 0, 2 * 512 * 4});
      continue;
    }
    layout.rows.push_back({ArrayKind::kIndexKeys, layer, 4, 68});
    // A token of a complete window still matters by its first half of columns alone.
    layout.carries.push_back(
        {ArrayKind::kFrontierPrevious, layer, CarryRule::kComplete, kEvery, 4, 4, 2 * 512 * 4});
    layout.carries.push_back(
        {ArrayKind::kFrontierCurrent, layer, CarryRule::kPartial, kEvery, 4, 0, 2 * 1024 * 4});
    layout.carries.push_back({ArrayKind::kIndexFrontierPrevious, layer, CarryRule::kComplete,
                              kEvery, 4, 4, 2 * 128 * 4});
    layout.carries.push_back(
        {ArrayKind::kIndexFrontierCurrent, layer, CarryRule::kPartial, kEvery, 4, 0, 2 * 256 * 4});
  }
  layout.carries.push_back(
      {ArrayKind::kLogits, 0, CarryRule::kComplete, CarryPlace::kTailOnly, 1, 1, 129280 * 4});
  return layout;
}

// The same shape with three layers and rows of a few bytes.
inline StateLayout small_layout() {
  constexpr auto kEvery = CarryPlace::kEveryState;
  StateLayout layout{.version = 1, .codec = "test", .rows = {}, .carries = {}};
  layout.rows = {{ArrayKind::kCompressedRows, 1, 4, 24},
                 {ArrayKind::kIndexKeys, 1, 4, 8},
                 {ArrayKind::kCompressedRows, 2, 128, 24}};
  layout.carries = {{ArrayKind::kWindow, 0, CarryRule::kComplete, kEvery, 1, 16, 2},
                    {ArrayKind::kWindow, 1, CarryRule::kComplete, kEvery, 1, 16, 2},
                    {ArrayKind::kFrontierPrevious, 1, CarryRule::kComplete, kEvery, 4, 4, 16},
                    {ArrayKind::kFrontierCurrent, 1, CarryRule::kPartial, kEvery, 4, 0, 32},
                    {ArrayKind::kFrontierCurrent, 2, CarryRule::kPartial, kEvery, 128, 0, 4},
                    {ArrayKind::kWindow, 3, CarryRule::kComplete, kEvery, 1, 16, 2, 1},
                    {ArrayKind::kLogits, 0, CarryRule::kComplete, CarryPlace::kTailOnly, 1, 1, 40}};
  return layout;
}

// A conversation of synthetic tokens: each renders to 1 to 7 bytes.
struct Conversation {
  std::vector<TokenId> tokens;
  std::vector<std::uint32_t> token_bytes;
  std::string text;

  std::size_t size() const { return tokens.size(); }

  // Appends tokens that depend on `seed` and on their place.
  Conversation& grow(std::size_t token_count, std::uint32_t seed) {
    for (std::size_t i = 0; i < token_count; ++i) {
      const std::uint64_t mixed =
          (tokens.size() + 1) * 0x9e3779b97f4a7c15ULL ^ seed * 0x85ebca6bULL;
      const auto id = static_cast<std::int32_t>((mixed >> 24) % 50000);
      tokens.emplace_back(id);
      const std::uint32_t bytes = 1 + static_cast<std::uint32_t>(id) % 7;
      for (std::uint32_t k = 0; k < bytes; ++k)
        text.push_back(static_cast<char>('!' + (id / (1 + k * 13)) % 90));
      token_bytes.push_back(bytes);
    }
    return *this;
  }
  Conversation prefix(std::size_t token_count) const {
    Conversation part;
    part.tokens.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(token_count));
    part.token_bytes.assign(token_bytes.begin(),
                            token_bytes.begin() + static_cast<std::ptrdiff_t>(token_count));
    std::size_t bytes = 0;
    for (const std::uint32_t count : part.token_bytes)
      bytes += count;
    part.text = text.substr(0, bytes);
    return part;
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(text)); }
};

// The state that a sequence of these tokens would have: every row starts with a hash of all tokens
// up to its last one, then bytes that depend on array and row.  Carry rows are like it.
class SyntheticState final : public StateSource {
 public:
  // `checkpoints`: earlier lengths whose carries it can still give.
  SyntheticState(const StateLayout& layout,
                 std::span<const TokenId> tokens,
                 std::set<std::uint64_t> checkpoints = {})
      : layout_(layout),
        checkpoints_(std::move(checkpoints)) {
    prefix_hash_.push_back(0x243f6a8885a308d3ULL);
    for (const TokenId token : tokens) {
      const std::uint64_t last = prefix_hash_.back();
      prefix_hash_.push_back((last ^ static_cast<std::uint32_t>(token.value())) *
                             0x9e3779b97f4a7c15ULL);
    }
  }

  std::uint64_t token_count() const { return prefix_hash_.size() - 1; }

  void read_rows(std::size_t array_index,
                 std::uint64_t row_begin,
                 std::span<std::byte> out) override {
    const RowArray& array = layout_.rows[array_index];
    for (std::uint64_t row = row_begin; !out.empty(); ++row) {
      fill(out.first(array.row_bytes), array_index, (row + 1) * array.tokens_per_row);
      out = out.subspan(array.row_bytes);
    }
  }
  bool has_carry(std::uint64_t token_count_asked) const override {
    return token_count_asked == token_count() || checkpoints_.contains(token_count_asked);
  }
  bool has_logits(std::uint64_t token_count_asked) const override {
    return has_carry(token_count_asked);
  }
  void read_carry(std::size_t array_index,
                  std::uint64_t token_count_asked,
                  std::span<std::byte> out) override {
    const CarryArray& array = layout_.carries[array_index];
    const std::uint64_t rows = row_count(array, token_count_asked);
    const std::uint64_t first = first_row(array, token_count_asked);
    for (std::uint64_t row = 0; row < rows; ++row)
      fill(out.subspan(row * array.row_bytes, array.row_bytes), 1000 + array_index,
           first + row + 1);
  }

 private:
  void fill(std::span<std::byte> row, std::size_t array_index, std::uint64_t token_end) const {
    std::uint64_t state = prefix_hash_[token_end] + array_index * 0xc2b2ae3d27d4eb4fULL;
    for (std::size_t i = 0; i < row.size(); i += 8) {
      state = (state ^ (state >> 29)) * 0xbf58476d1ce4e5b9ULL;
      std::memcpy(row.data() + i, &state, std::min<std::size_t>(8, row.size() - i));
    }
  }

  const StateLayout& layout_;
  std::set<std::uint64_t> checkpoints_;
  std::vector<std::uint64_t> prefix_hash_;
};

// Collects what a restore delivers.
class CollectingSink final : public StateSink {
 public:
  explicit CollectingSink(const StateLayout& layout) : layout_(layout) {}

  void begin(std::uint64_t token_count) override {
    tokens_ = token_count;
    rows_.assign(layout_.rows.size(), {});
    carries_.assign(layout_.carries.size(), {});
  }
  void write_rows(std::size_t array_index,
                  std::uint64_t row_begin,
                  std::span<const std::byte> bytes) override {
    in_order_ =
        in_order_ && rows_[array_index].size() == row_begin * layout_.rows[array_index].row_bytes;
    rows_[array_index].insert(rows_[array_index].end(), bytes.begin(), bytes.end());
  }
  void write_carry(std::size_t array_index, std::span<const std::byte> bytes) override {
    carries_[array_index].assign(bytes.begin(), bytes.end());
  }

  // True when all that arrived is what `state` has at its length of `token_count`.
  bool equals(SyntheticState& state, std::uint64_t token_count, bool with_logits) const {
    if (!in_order_ || tokens_ != token_count) return false;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      std::vector<std::byte> expected(row_count(layout_.rows[i], token_count) *
                                      layout_.rows[i].row_bytes);
      state.read_rows(i, 0, expected);
      if (expected != rows_[i]) return false;
    }
    for (std::size_t i = 0; i < carries_.size(); ++i) {
      const bool stored = with_logits || layout_.carries[i].place == CarryPlace::kEveryState;
      std::vector<std::byte> expected(
          stored ? row_count(layout_.carries[i], token_count) * layout_.carries[i].row_bytes : 0);
      if (stored) state.read_carry(i, token_count, expected);
      if (expected != carries_[i]) return false;
    }
    return true;
  }

 private:
  const StateLayout& layout_;
  std::uint64_t tokens_ = 0;
  bool in_order_ = true;
  std::vector<std::vector<std::byte>> rows_;
  std::vector<std::vector<std::byte>> carries_;
};

inline ModelIdentity test_model(StateLayout layout) {
  ModelIdentity model;
  model.fingerprint.fill(7);
  model.name = "synthetic";
  model.layout = std::move(layout);
  return model;
}

}  // namespace ds4::kvstore
