#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/state_io.h"

namespace ds4::kvstore {

namespace {

constexpr std::size_t kArraysMax = 2048;
constexpr std::size_t kCodecBytesMax = 31;
constexpr std::uint32_t kRowBytesMax = std::uint32_t{1} << 26;
constexpr std::uint32_t kRowsMax = std::uint32_t{1} << 20;

// Feeds integers to a hash in one fixed byte order.
class CanonicalHash {
 public:
  void add(std::uint64_t value) {
    std::byte bytes[8];
    for (int i = 0; i < 8; ++i)
      bytes[i] = static_cast<std::byte>(value >> (8 * i));
    hash_.update(bytes);
  }
  void add(std::string_view text) {
    add(text.size());
    hash_.update(std::as_bytes(std::span(text)));
  }
  Sha256Digest finish() { return hash_.finish(); }

 private:
  Sha256 hash_;
};

void require(bool condition, std::string_view what) {
  if (!condition) throw Error(ErrorCode::kInvalidArgument, fmt::format("state layout: {}", what));
}

}  // namespace

std::string_view array_kind_name(ArrayKind kind) {
  switch (kind) {
    case ArrayKind::kCompressedRows:
      return "compressed_rows";
    case ArrayKind::kIndexKeys:
      return "index_keys";
    case ArrayKind::kWindow:
      return "window";
    case ArrayKind::kFrontierPrevious:
      return "frontier_previous";
    case ArrayKind::kFrontierCurrent:
      return "frontier_current";
    case ArrayKind::kIndexFrontierPrevious:
      return "index_frontier_previous";
    case ArrayKind::kIndexFrontierCurrent:
      return "index_frontier_current";
    case ArrayKind::kStreams:
      return "streams";
    case ArrayKind::kLogits:
      return "logits";
  }
  return "unknown";
}

std::uint64_t row_count(const RowArray& array, std::uint64_t token_count) {
  return token_count / array.tokens_per_row;
}

std::uint64_t row_count(const CarryArray& array, std::uint64_t token_count) {
  const std::uint64_t counted = token_count > array.lag ? token_count - array.lag : 0;
  const std::uint64_t partial = counted % array.period;
  if (array.rule == CarryRule::kPartial) return partial;
  return std::min<std::uint64_t>(array.rows_max, counted - partial);
}

std::uint64_t first_row(const CarryArray& array, std::uint64_t token_count) {
  const std::uint64_t counted = token_count > array.lag ? token_count - array.lag : 0;
  const std::uint64_t complete = counted - counted % array.period;
  if (array.rule == CarryRule::kPartial) return complete;
  return complete - row_count(array, token_count);
}

std::uint64_t rows_bytes(const StateLayout& layout,
                         std::uint64_t token_begin,
                         std::uint64_t token_end) {
  std::uint64_t total = 0;
  for (const RowArray& array : layout.rows)
    total += (row_count(array, token_end) - row_count(array, token_begin)) * array.row_bytes;
  return total;
}

std::uint64_t carry_bytes(const StateLayout& layout, std::uint64_t token_count, CarryPlace place) {
  std::uint64_t total = 0;
  for (const CarryArray& array : layout.carries) {
    if (array.place == CarryPlace::kTailOnly && place != CarryPlace::kTailOnly) continue;
    total += row_count(array, token_count) * array.row_bytes;
  }
  return total;
}

Sha256Digest layout_digest(const StateLayout& layout) {
  CanonicalHash hash;
  hash.add("ds4 state layout");
  hash.add(layout.version);
  hash.add(layout.codec);
  hash.add(layout.rows.size());
  for (const RowArray& array : layout.rows) {
    hash.add(static_cast<std::uint64_t>(array.kind));
    hash.add(array.layer);
    hash.add(array.tokens_per_row);
    hash.add(array.row_bytes);
  }
  hash.add(layout.carries.size());
  for (const CarryArray& array : layout.carries) {
    hash.add(static_cast<std::uint64_t>(array.kind));
    hash.add(array.layer);
    hash.add(static_cast<std::uint64_t>(array.rule));
    hash.add(static_cast<std::uint64_t>(array.place));
    hash.add(array.period);
    hash.add(array.rows_max);
    hash.add(array.row_bytes);
    hash.add(array.lag);
  }
  return hash.finish();
}

void check_layout(const StateLayout& layout, std::uint32_t chunk_tokens) {
  require(chunk_tokens > 0, "a chunk must hold at least one token");
  require(!layout.codec.empty() && layout.codec.size() <= kCodecBytesMax,
          "the codec's name must have 1 to 31 bytes");
  require(layout.rows.size() + layout.carries.size() <= kArraysMax, "too many arrays");
  for (const RowArray& array : layout.rows) {
    require(array.row_bytes > 0 && array.row_bytes <= kRowBytesMax, "a row's size is out of range");
    require(array.tokens_per_row > 0 && chunk_tokens % array.tokens_per_row == 0,
            "tokens_per_row must divide the tokens of a chunk");
  }
  for (const CarryArray& array : layout.carries) {
    require(array.row_bytes > 0 && array.row_bytes <= kRowBytesMax, "a row's size is out of range");
    require(array.period > 0 && array.period <= kRowsMax, "a period is out of range");
    require(array.rows_max <= kRowsMax, "rows_max is out of range");
    require((array.rule == CarryRule::kComplete) == (array.rows_max > 0),
            "rows_max goes with the rule kComplete alone");
  }
}

}  // namespace ds4::kvstore
