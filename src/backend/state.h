#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace ds4 {

// How rows of the past are stored.
enum class RowCodec {
  kPacked,  // what the model was trained with: E4M3 codes, 16-bit rotary values, E2M1 index keys
  kExact,   // f32 and no rounding anywhere: for comparisons with unrounded references only
};

// The parts of a sequence's state.  Rows of every part are addressed by an absolute number, so that
// what a length needs follows from the length alone:
//
//   part             row number             row content in the portable layout
//   kWindow          position               one attention row (AttentionRow or f32 [head_dim])
//   kCompressed      position / ratio       one attention row
//   kIndexKeys       position / 4           one index key (IndexKey or f32 [index_dim])
//   kFrontier        position               f32 [2, W]: projection and gate score of the token
//   kIndexFrontier   position               f32 [2, 2 * index_dim]
//   kStreams         position               f32 [stream_count * width]; only models with an MTP
//   block
//
// The MTP block's window is kWindow of layer ModelConfig::mtp_index(); its row e is made when token
// e + 1 is known, so it ends one row earlier.
enum class StatePart { kWindow, kCompressed, kIndexKeys, kFrontier, kIndexFrontier, kStreams };

// Lower-case name, for files and messages.
const char* state_part_name(StatePart part);

// A packed attention row: lossless for rounded values (docs/model.md, key/value rows).  Scales are
// E8M0 codes.  head_dim 512: 448 E4M3 codes, 7 scales of theirs, the rotary values' scale, 64
// signed 16-bit rotary codes: 584 bytes.
struct PackedRowLayout {
  std::size_t nope_dim;
  std::size_t rope_dim;
  std::size_t scale_offset() const { return nope_dim; }
  std::size_t scale_count() const { return (nope_dim + 63) / 64; }
  std::size_t rope_scale_offset() const { return scale_offset() + scale_count(); }
  std::size_t rope_offset() const { return (rope_scale_offset() + 1 + 7) / 8 * 8; }
  std::size_t bytes() const { return rope_offset() + rope_dim * 2; }
};

// A packed index key: two E2M1 codes a byte (low nibble first), then one E8M0 scale per 32 values.
// index_dim 128: 68 bytes.
constexpr std::size_t packed_index_key_bytes(std::size_t index_dim) {
  return index_dim / 2 + index_dim / 32;
}

// One contiguous run of rows of one part.
struct StateSection {
  StatePart part;
  LayerIndex layer;     // 0 for kStreams
  std::uint32_t first;  // row number
  std::uint32_t count;
  std::size_t row_bytes;  // in the portable layout
  std::size_t bytes() const { return count * row_bytes; }
};

// The shape of the state of any sequence of one model under one codec.  Immutable value.
class StateLayout {
 public:
  StateLayout(const ModelConfig& config, RowCodec codec, bool has_mtp);

  // Everything that a sequence of `length` tokens needs to continue exactly: the last window rows,
  // all compressed rows and index keys, and the frontier rows that a later row still pools.
  std::vector<StateSection> sections(std::uint32_t length) const;

  // The same without the append-only parts (compressed rows, index keys): what a rewind inside a
  // live sequence must restore.
  std::vector<StateSection> frontier_sections(std::uint32_t length) const;
  // The same into a vector that is reused; allocates nothing once it has had a length as large.
  void frontier_sections(std::uint32_t length, std::vector<StateSection>& out) const;

  // The append-only rows that tokens [from, to) completed.
  std::vector<StateSection> appended_sections(std::uint32_t from, std::uint32_t to) const;

  std::size_t row_bytes(StatePart part, LayerIndex layer) const;
  RowCodec codec() const { return codec_; }

 private:
  void push(std::vector<StateSection>& out,
            StatePart part,
            std::uint32_t layer,
            std::uint32_t first,
            std::uint32_t end) const;

  ModelConfig config_;
  RowCodec codec_;
  bool has_mtp_;
};

}  // namespace ds4
