#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"

// What the store asks of whoever owns a sequence's state, as plain data and two callbacks.  The
// store moves bytes: it knows how many rows of how many bytes a sequence of a given length has and
// nothing of what is in them.  The engine describes its state once by a StateLayout, exports
// through a StateSource and imports through a StateSink.  All sizes follow from the layout and the
// number of tokens, so that a file's declared sizes are checked before anything is allocated.
namespace ds4::kvstore {

// What an array of rows is.  The values are written to disk and never change meaning.
enum class ArrayKind : std::uint16_t {
  kCompressedRows = 16,    // a compressor's pooled rows; append only
  kIndexKeys = 17,         // the indexer's keys; append only
  kWindow = 32,            // attention rows of the most recent tokens
  kFrontierPrevious = 33,  // compressor inputs of the last complete window that still matter
  kFrontierCurrent = 34,   // compressor inputs of the window not complete yet
  kIndexFrontierPrevious = 35,
  kIndexFrontierCurrent = 36,
  kStreams = 37,  // residual streams of the last token (what a draft layer starts from)
  kLogits = 38,   // next-token logits
};

// Stable lower-case name, e.g. "compressed_rows"; "unknown" for a value of a later version.
std::string_view array_kind_name(ArrayKind kind);

// Rows that are only ever appended: row r belongs to tokens
// [r * tokens_per_row, (r + 1) * tokens_per_row) and exists once the last of these is known.
struct RowArray {
  ArrayKind kind;
  std::uint32_t layer;  // 0-based; draft layers follow the main ones
  std::uint32_t tokens_per_row;
  std::uint32_t row_bytes;

  bool operator==(const RowArray&) const = default;
};

// How many rows an overwritten array holds at a length of `token_count` tokens.
enum class CarryRule : std::uint16_t {
  // min(rows_max, tokens of complete periods): the newest rows_max of them.  A 128-row attention
  // window has period 1 and rows_max 128; the previous window of a ratio-4 compressor has period 4
  // and rows_max 4.
  kComplete = 1,
  // token_count % period: the inputs of a window that is not complete yet.
  kPartial = 2,
};

// Where a carry array is stored.
enum class CarryPlace : std::uint16_t {
  kEveryState = 1,  // in tails and in the sparse chunks that carry a resume state
  kTailOnly = 2,    // in tails alone; next-token logits
};

// Rows that later tokens overwrite, so that they exist for the current length alone.  Rows go from
// the oldest token to the newest.
struct CarryArray {
  ArrayKind kind;
  std::uint32_t layer;
  CarryRule rule;
  CarryPlace place;
  std::uint32_t period;
  std::uint32_t rows_max;  // kComplete alone; 0 for kPartial
  std::uint32_t row_bytes;
  // Tokens by which its rows come later: a draft layer's row of a token is made with the next one.
  // The rule counts token_count - lag tokens, and none before there are as many.
  std::uint32_t lag = 0;

  bool operator==(const CarryArray&) const = default;
};

// The whole state of a sequence.  Immutable once handed to a Store.
struct StateLayout {
  std::uint32_t version = 1;   // raised by the engine when the meaning of any row's bytes changes
  std::string codec;           // how rows are packed, e.g. "packed-584-68"; at most 31 bytes
  std::vector<RowArray> rows;  // order is part of the format
  std::vector<CarryArray> carries;  // order is part of the format
};

// Rows of `array` that exist at a length of `token_count` tokens.
std::uint64_t row_count(const RowArray& array, std::uint64_t token_count);
std::uint64_t row_count(const CarryArray& array, std::uint64_t token_count);
// The token of the oldest row that `array` holds at `token_count` tokens.
std::uint64_t first_row(const CarryArray& array, std::uint64_t token_count);

// Bytes of every row array for tokens [token_begin, token_end).
std::uint64_t rows_bytes(const StateLayout& layout,
                         std::uint64_t token_begin,
                         std::uint64_t token_end);
// Bytes of the carry arrays at `token_count`, those of kTailOnly included when `place` is that.
std::uint64_t carry_bytes(const StateLayout& layout, std::uint64_t token_count, CarryPlace place);

// SHA-256 over a canonical form of everything in the layout.
Sha256Digest layout_digest(const StateLayout& layout);

// Throws Error(kInvalidArgument) when the layout cannot be stored in chunks of `chunk_tokens`: a
// ratio or period that does not divide it, a row of zero bytes, too many arrays, a bad codec name.
void check_layout(const StateLayout& layout, std::uint32_t chunk_tokens);

// Whose state it is.  States of two models, quantisations or layouts never meet: all of this is
// part of every key.
struct ModelIdentity {
  Sha256Digest fingerprint{};  // the weights and how they are quantised
  std::string name;            // for people; at most 63 bytes
  StateLayout layout;
};

// A sequence's state being exported.  Called from the thread that calls Store::save, array by array
// in the layout's order; the state must not change meanwhile.  May throw; the save then stops and
// leaves only complete files.
class StateSource {
 public:
  virtual ~StateSource() = default;

  // Copies rows [row_begin, row_begin + out.size() / row_bytes) of layout.rows[array_index].
  virtual void read_rows(std::size_t array_index,
                         std::uint64_t row_begin,
                         std::span<std::byte> out) = 0;

  // True when every carry array of kEveryState can be given for the first `token_count` tokens: at
  // the current length always, at an earlier one when a checkpoint was kept there.
  virtual bool has_carry(std::uint64_t token_count) const = 0;

  // True when the arrays of kTailOnly can be given too.
  virtual bool has_logits(std::uint64_t token_count) const = 0;

  // Copies layout.carries[array_index] as of `token_count` tokens; out has exactly its bytes.
  virtual void read_carry(std::size_t array_index,
                          std::uint64_t token_count,
                          std::span<std::byte> out) = 0;
};

// A sequence's state being imported.  Called from the thread that calls Store::restore: begin()
// once, then rows of ascending row_begin for each array, then every carry array that is stored.
// Every byte handed over has passed its checksum.  When restore() throws, what arrived so far is to
// be thrown away: the sequence is empty again.
class StateSink {
 public:
  virtual ~StateSink() = default;

  // A state of `token_count` tokens follows.  May throw Error(kContextOverflow) to refuse it.
  virtual void begin(std::uint64_t token_count) = 0;
  virtual void write_rows(std::size_t array_index,
                          std::uint64_t row_begin,
                          std::span<const std::byte> bytes) = 0;
  virtual void write_carry(std::size_t array_index, std::span<const std::byte> bytes) = 0;
};

}  // namespace ds4::kvstore
