#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/hash.h"
#include "kvstore/state_io.h"
#include "tensor/strong.h"

// How prefixes are named.  Two names, for two questions:
//   key   SHA-256 over the model, layout, namespace and the rendered bytes of a whole prefix: what
//   a
//         prompt is looked up by, however it would be tokenised
//   id    SHA-256 over the entry before, the key and the exact token ids: what an entry is, and the
//         name of its file.  Rows depend on the ids, so entries hang together by ids alone.
namespace ds4::kvstore {

// The name of an entry, or of the root that the first entries of a key space hang on.
struct EntryId {
  Sha256Digest digest{};

  auto operator<=>(const EntryId&) const = default;
  std::string hex() const { return to_hex(digest); }
  // Empty unless `text` is 64 hexadecimal digits.
  static std::optional<EntryId> from_hex(std::string_view text);
};

enum class EntryKind : std::uint32_t {
  kChunk = 1,  // a fixed number of tokens; others may hang on it
  kTail = 2,   // an exact resume point; nothing hangs on it
};

// Everything besides the text that a key covers.
struct KeyContext {
  Sha256Digest fingerprint{};    // ModelIdentity::fingerprint
  Sha256Digest layout_digest{};  // codec, version and sizes of every array
  Sha256Digest salt{};           // Cipher::prefix_salt(), or zeros
  std::uint32_t chunk_tokens = 0;
  std::string name_space;
};

// Runs along a prefix and gives the key of any point of it.  Confined to one thread.
class KeyChain {
 public:
  explicit KeyChain(const KeyContext& context);

  // Appends rendered bytes.
  void append(std::span<const std::byte> text);
  // The key of everything appended so far.
  Sha256Digest key() const { return hash_.digest_so_far(); }

 private:
  Sha256 hash_;
};

// The id that the first chunks and tails of a key space name as the entry before.
EntryId root_id(const KeyContext& context);
EntryId entry_id(EntryKind kind,
                 const EntryId& parent,
                 const Sha256Digest& key,
                 std::span<const TokenId> tokens);

// A cheap filter of candidates before a key is computed: depends on the last bytes of an entry's
// own text.
std::uint64_t text_check(const Sha256Digest& salt, std::span<const std::byte> own_text);

// Letters, digits, '.', '_' and '-', at most 63; throws Error(kInvalidArgument) otherwise.
void check_name_space(std::string_view name_space);

}  // namespace ds4::kvstore

template <>
struct std::hash<ds4::kvstore::EntryId> {
  std::size_t operator()(const ds4::kvstore::EntryId& id) const noexcept {
    std::size_t value = 0;
    std::memcpy(&value, id.digest.data(), sizeof value);  // a hash already
    return value;
  }
};
