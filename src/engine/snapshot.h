#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/executor.h"
#include "base/hash.h"

namespace ds4 {

// The exact state of a session as one run of bytes (docs/formats/snapshot.md).  Little-endian:
//
//   offset  bytes  field
//   0       8      magic "DS4STATE"
//   8       4      version, 1
//   12      4      row codec: 0 packed, 1 exact
//   16      32     fingerprint of the model
//   48      4      tokens
//   52      4      logits: 0 or the vocabulary size
//   56      4      sections
//   60      4      0
//   64      ...    i32 tokens; f32 logits; per section { u32 part, u32 layer, u32 first row,
//                  u32 rows, u64 row bytes, then the rows }
//   end     8      XXH3 of everything before
//
// The sections are exactly those of StateLayout::sections(): anything else is refused.

struct SnapshotContents {
  Sha256Digest fingerprint;
  std::span<const TokenId> tokens;
  std::span<const float> logits;  // empty or [vocab_size]
};

std::vector<std::byte> write_snapshot(const SnapshotContents& contents,
                                      const Executor& executor,
                                      SequenceId sequence);

// A snapshot checked as a whole: the constructor throws Error(kBadFormat | kUnsupported |
// kContextOverflow) and afterwards restore() cannot meet bad bytes.  Views the bytes it was given.
class Snapshot {
 public:
  Snapshot(std::span<const std::byte> bytes,
           const Sha256Digest& fingerprint,
           const Executor& executor,
           std::uint32_t context);

  const std::vector<TokenId>& tokens() const { return tokens_; }
  const std::vector<float>& logits() const { return logits_; }
  // Fills an empty sequence.
  void restore(Executor& executor, SequenceId sequence) const;

 private:
  struct Section {
    StateSection shape;
    std::span<const std::byte> bytes;
  };
  std::vector<TokenId> tokens_;
  std::vector<float> logits_;
  std::vector<Section> sections_;
};

}  // namespace ds4
