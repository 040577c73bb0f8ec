#include "kvstore/key_chain.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::kvstore {

namespace {

constexpr std::size_t kCheckedTextBytes = 32;
constexpr std::size_t kNameSpaceBytesMax = 63;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
std::span<const std::byte> bytes_of(const Sha256Digest& digest) {
  return std::as_bytes(std::span(digest));
}

std::array<std::byte, 4> little_endian(std::uint32_t value) {
  std::array<std::byte, 4> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(value >> (8 * i));
  return bytes;
}

}  // namespace

std::optional<EntryId> EntryId::from_hex(std::string_view text) {
  EntryId id;
  if (text.size() != 2 * id.digest.size()) return std::nullopt;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char digit = text[i];
    int value = 0;
    if (digit >= '0' && digit <= '9')
      value = digit - '0';
    else if (digit >= 'a' && digit <= 'f')
      value = digit - 'a' + 10;
    else
      return std::nullopt;
    id.digest[i / 2] = static_cast<std::uint8_t>(id.digest[i / 2] << 4 | value);
  }
  return id;
}

KeyChain::KeyChain(const KeyContext& context) {
  hash_.update(bytes_of("ds4 kv prefix 1"));
  hash_.update(bytes_of(context.fingerprint));
  hash_.update(bytes_of(context.layout_digest));
  hash_.update(bytes_of(context.salt));
  hash_.update(little_endian(context.chunk_tokens));
  hash_.update(little_endian(static_cast<std::uint32_t>(context.name_space.size())));
  hash_.update(bytes_of(context.name_space));
}

void KeyChain::append(std::span<const std::byte> text) {
  hash_.update(text);
}

EntryId root_id(const KeyContext& context) {
  return EntryId{KeyChain(context).key()};
}

EntryId entry_id(EntryKind kind,
                 const EntryId& parent,
                 const Sha256Digest& key,
                 std::span<const TokenId> tokens) {
  static_assert(sizeof(TokenId) == 4);
  Sha256 hash;
  hash.update(bytes_of(kind == EntryKind::kChunk ? "ds4 kv chunk 1" : "ds4 kv tail 1"));
  hash.update(bytes_of(parent.digest));
  hash.update(bytes_of(key));
  hash.update(std::as_bytes(tokens));
  return EntryId{hash.finish()};
}

std::uint64_t text_check(const Sha256Digest& salt, std::span<const std::byte> own_text) {
  const std::span<const std::byte> end =
      own_text.last(std::min(own_text.size(), kCheckedTextBytes));
  std::array<std::byte, 32 + kCheckedTextBytes> salted;
  std::memcpy(salted.data(), salt.data(), salt.size());
  if (!end.empty()) std::memcpy(salted.data() + salt.size(), end.data(), end.size());
  return xxh3(std::span(salted).first(salt.size() + end.size()));
}

void check_name_space(std::string_view name_space) {
  const bool known = std::all_of(name_space.begin(), name_space.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (!known || name_space.size() > kNameSpaceBytesMax) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("namespace '{}': use at most 63 letters, digits, '.', '_' or '-'", name_space));
  }
}

}  // namespace ds4::kvstore
