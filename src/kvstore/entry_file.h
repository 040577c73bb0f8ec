#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "kvstore/cipher.h"
#include "kvstore/disk.h"
#include "kvstore/key_chain.h"

// The container of chunks and tails, to the byte as docs/formats/kv-chunk.md has it.  It describes
// itself: a reader that knows no model can check every byte of it.
namespace ds4::kvstore {

// Sections besides the arrays of state_io.h, whose kinds are 16 and above.
constexpr std::uint16_t kSectionTokens = 1;   // token ids, i32
constexpr std::uint16_t kSectionText = 2;     // rendered bytes
constexpr std::uint16_t kSectionAliases = 3;  // of a tail, last

constexpr std::size_t kEntryHeaderBytes = 512;
constexpr std::size_t kSectionRecordBytes = 48;
constexpr std::size_t kSectionsMax = 4096;

// Why an entry was written; scored apart from each other.
enum class EntryRole : std::uint32_t {
  kContinued = 0,  // the growing end of a conversation
  kAnchor = 1,     // a prefix expected to be shared, such as a system prompt
  kSession = 2,    // a named session
  kEvicted = 3,    // state that left memory
};
std::string_view entry_role_name(EntryRole role);

struct EntryHeader {
  EntryKind kind = EntryKind::kChunk;
  EntryRole role = EntryRole::kContinued;
  bool encrypted = false;
  bool has_state = false;    // carries every array of CarryPlace::kEveryState: a resume point
  bool has_logits = false;   // carries the arrays of CarryPlace::kTailOnly too
  bool has_aliases = false;  // its last section is kSectionAliases
  std::uint64_t token_begin = 0;
  std::uint64_t token_end = 0;
  std::uint64_t byte_begin = 0;  // of the rendered text
  std::uint64_t byte_end = 0;
  std::uint64_t file_bytes = 0;
  std::int64_t created_s = 0;      // Unix time
  std::uint64_t recompute_us = 0;  // time that computing its tokens took
  std::uint64_t text_check = 0;
  std::uint64_t key_id = 0;  // Cipher::key_id(), or 0
  std::uint32_t chunk_tokens = 0;
  std::uint32_t layout_version = 0;
  Sha256Digest fingerprint{};
  Sha256Digest layout_digest{};
  EntryId parent;
  Sha256Digest key{};
  EntryId id;
  CipherSalt salt{};
  std::string codec;
  std::string name_space;
  std::string model;

  std::uint64_t token_count() const { return token_end - token_begin; }
};

// One section.  Rows of an array follow each other; `bytes` is a multiple of `row_bytes`.
struct Section {
  std::uint16_t kind = 0;
  std::uint32_t layer = 0;
  std::uint64_t row_begin = 0;
  std::uint32_t row_bytes = 0;
  std::uint64_t bytes = 0;     // before encryption
  std::uint64_t offset = 0;    // in the file
  std::uint64_t checksum = 0;  // XXH3 of the bytes as stored
};

// Another text by which a tail is found: the same conversation as someone shows it who leaves its
// hidden parts out.  Of the text only its key is kept.
struct AliasRecord {
  Sha256Digest key{};
  std::uint64_t byte_end = 0;    // bytes of that text
  std::uint64_t text_check = 0;  // of it, as of a first entry's own text
  std::vector<TokenId> bridge;   // tokens between the tail's and what follows that text

  bool operator==(const AliasRecord&) const = default;
};
constexpr std::size_t kAliasesMax = 16;
constexpr std::size_t kBridgeTokensMax = 256;

// The bytes of section kSectionAliases.
std::vector<std::byte> encode_aliases(std::span<const AliasRecord> aliases);
// Throws Error(kBadFormat).
std::vector<AliasRecord> decode_aliases(std::span<const std::byte> bytes);

struct EntryInfo {
  EntryHeader header;
  std::vector<Section> sections;

  // Bytes that section `index` takes in the file.
  std::uint64_t stored_bytes(std::size_t index) const {
    return sections[index].bytes + (header.encrypted ? kCipherTagBytes : 0);
  }
};

// "compressed_rows", "tokens" and so on.
std::string_view section_kind_name(std::uint16_t kind);

// Bytes of header and section table together, from the header's first bytes.  Throws
// Error(kBadFormat), or Error(kUnsupported) for a version or cipher of another time.
std::size_t entry_preface_bytes(std::span<const std::byte> header, std::uint64_t file_bytes);
// Decodes header and table, and checks all that can be checked without the sections: the checksum,
// every declared size against `file_bytes`, the sizes of tokens and text.  Throws as above.
EntryInfo decode_entry(std::span<const std::byte> preface, std::uint64_t file_bytes);

// Builds an entry in memory.  Confined to one thread.
class EntryEncoder {
 public:
  // `sections` need kind, layer, row_begin, row_bytes and bytes.  `storage` is reused.
  // `cipher` null: not encrypted; else header.salt must be random and fresh.
  EntryEncoder(EntryHeader header,
               std::vector<Section> sections,
               const Cipher* cipher,
               std::vector<std::byte>& storage);

  // Where section `index` goes; to be filled before finish().
  std::span<std::byte> section(std::size_t index);
  // The whole file.  Valid until `storage` changes.
  std::span<const std::byte> finish();
  const EntryHeader& header() const { return info_.header; }

 private:
  void encode_preface();

  EntryInfo info_;
  std::optional<FileCipher> cipher_;
  std::vector<std::byte>& storage_;
};

// Reads an entry from a file, or from a part of one.  Confined to one thread.
class EntryReader {
 public:
  // Reads and checks header and table.  `cipher` may be null: sections of an encrypted entry can
  // then be checked, not read.  Throws Error(kNotFound | kIo | kBadFormat | kUnsupported).
  EntryReader(const std::filesystem::path& path, const Cipher* cipher);
  EntryReader(const std::filesystem::path& path,
              std::uint64_t offset,
              std::uint64_t byte_count,
              const Cipher* cipher);

  const EntryInfo& info() const { return info_; }
  const EntryHeader& header() const { return info_.header; }

  // Reads the stored bytes of `count` sections from `first` into `storage`, with one read.
  void read_sections(std::size_t first, std::size_t count, std::vector<std::byte>& storage) const;
  // Checks section `index`, whose stored bytes start at `stored`, decrypts in place and returns the
  // plain bytes.  Throws Error(kBadFormat) when they are not what was written.
  std::span<std::byte> open_section(std::size_t index, std::span<std::byte> stored) const;
  // What the last section says; nothing without one, or without the key.
  std::vector<AliasRecord> aliases() const;
  // Reads and opens one section.
  std::vector<std::byte> section(std::size_t index) const;
  // Checks the stored bytes of every section, without needing a key.
  void check_all() const;

 private:
  void read_preface();

  InputFile file_;
  std::uint64_t base_ = 0;
  std::uint64_t bytes_ = 0;
  std::optional<FileCipher> cipher_;
  EntryInfo info_;
  std::vector<std::byte> preface_;
};

}  // namespace ds4::kvstore
