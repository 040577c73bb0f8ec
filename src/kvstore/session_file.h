#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "kvstore/cipher.h"
#include "kvstore/disk.h"
#include "kvstore/key_chain.h"
#include "tensor/strong.h"

// The file of a named session: its title, token ids and text, and which tail it resumes from.  A
// log of records: a save appends only what is new, and a record that was cut short by a crash is as
// if it had never been begun.  docs/formats/kv-chunk.md has it to the byte.
namespace ds4::kvstore {

// What is known about a session besides its text.
struct SessionInfo {
  std::string id;  // 32 hexadecimal digits
  std::string title;
  std::string model;
  std::string name_space;
  std::string note;  // the application's own; at most kSessionNoteBytesMax
  Sha256Digest fingerprint{};
  Sha256Digest layout_digest{};
  std::uint32_t chunk_tokens = 0;
  std::int64_t created_s = 0;
  std::int64_t updated_s = 0;
  std::uint64_t token_count = 0;
  std::uint64_t text_bytes = 0;
  std::optional<EntryId> tail;  // empty: stripped to text
};

struct SessionContent {
  SessionInfo info;
  std::vector<TokenId> tokens;
  std::string text;
};

// One record: the first `keep` tokens and bytes of what the records before hold, then new ones.
struct SessionRecord {
  SessionInfo info;  // id, token_count and text_bytes are not stored
  std::uint64_t keep_tokens = 0;
  std::uint64_t keep_bytes = 0;
  std::span<const TokenId> new_tokens;
  std::string_view new_text;
};

struct SessionRead {
  SessionContent content;
  std::uint64_t file_bytes = 0;
  std::uint64_t sound_bytes = 0;   // up to the end of the last sound record
  std::uint32_t record_count = 0;  // sound ones
};

constexpr std::size_t kSessionTitleBytesMax = 512;
constexpr std::size_t kSessionNoteBytesMax = 65536;
constexpr std::size_t kSessionIdDigits = 32;

// Throws Error(kInvalidArgument) unless `id` is 32 lower-case hexadecimal digits.
void check_session_id(std::string_view id);

// Decodes a whole file.  What follows the last sound record is ignored.  Throws Error(kBadFormat)
// when not even the first record is sound, Error(kInvalidArgument) when the key is missing or
// another one, Error(kUnsupported) for another version.
SessionRead decode_session(std::span<const std::byte> file, const Cipher* cipher);
SessionRead read_session(const std::filesystem::path& path, const Cipher* cipher);

// A new file with one record.
std::vector<std::byte> encode_session(const SessionRecord& record, const Cipher* cipher);
// Appends a record to a file that `read` describes; cuts off what was not sound.  Synced on return.
void append_session(const std::filesystem::path& path,
                    const SessionRead& read,
                    const SessionRecord& record,
                    const Cipher* cipher,
                    const StepHook& hook);

}  // namespace ds4::kvstore
