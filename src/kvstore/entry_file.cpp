#include "kvstore/entry_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/wire.h"

namespace ds4::kvstore {

namespace {

constexpr std::array<char, 8> kMagic = {'D', 'S', '4', 'K', 'V', '\r', '\n', '\x1a'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kFlagEncrypted = 1;
constexpr std::uint32_t kFlagState = 2;
constexpr std::uint32_t kFlagLogits = 4;
constexpr std::uint32_t kFlagAliases = 8;
constexpr std::uint32_t kFlagsKnown = 15;
constexpr std::size_t kChecksumOffset = 504;
constexpr std::size_t kReservedOffset = 448;
constexpr std::uint64_t kTokensMax = std::uint64_t{1} << 31;
constexpr std::uint64_t kTextBytesMax = std::uint64_t{1} << 40;
constexpr std::size_t kAliasFixedBytes = 52;
constexpr std::size_t kAssociatedRecordBytes = 40;  // a section's record without its checksum

[[noreturn]] void bad(std::string_view what) {
  throw Error(ErrorCode::kBadFormat, fmt::format("damaged kv entry: {}", what));
}

void require(bool condition, std::string_view what) {
  if (!condition) bad(what);
}

// The checksum of everything before the sections but the checksum itself.
std::uint64_t preface_checksum(std::span<const std::byte> preface) {
  std::vector<std::byte> covered(preface.begin(), preface.begin() + kChecksumOffset);
  covered.insert(covered.end(), preface.begin() + kEntryHeaderBytes, preface.end());
  return xxh3(covered);
}

void put_section(FieldWriter& out, std::size_t at, const Section& section) {
  out.put(at, section.kind);
  out.put(at + 2, std::uint16_t{0});
  out.put(at + 4, section.layer);
  out.put(at + 8, section.row_begin);
  out.put(at + 16, section.row_bytes);
  out.put(at + 20, std::uint32_t{0});
  out.put(at + 24, section.offset);
  out.put(at + 32, section.bytes);
  out.put(at + 40, section.checksum);
}

Section get_section(const FieldReader& in, std::size_t at) {
  require(in.is_zero(at + 2, 2) && in.is_zero(at + 20, 4), "a reserved field is set");
  Section section;
  section.kind = in.get<std::uint16_t>(at);
  section.layer = in.get<std::uint32_t>(at + 4);
  section.row_begin = in.get<std::uint64_t>(at + 8);
  section.row_bytes = in.get<std::uint32_t>(at + 16);
  section.offset = in.get<std::uint64_t>(at + 24);
  section.bytes = in.get<std::uint64_t>(at + 32);
  section.checksum = in.get<std::uint64_t>(at + 40);
  return section;
}

void put_header(FieldWriter& out, const EntryHeader& header, std::size_t section_count) {
  out.put(0, kMagic);
  out.put(8, kVersion);
  out.put(12, static_cast<std::uint32_t>(header.kind));
  out.put(16, static_cast<std::uint32_t>(section_count));
  out.put(20, (header.encrypted ? kFlagEncrypted : 0) | (header.has_state ? kFlagState : 0) |
                  (header.has_logits ? kFlagLogits : 0) | (header.has_aliases ? kFlagAliases : 0));
  out.put(24, header.token_begin);
  out.put(32, header.token_end);
  out.put(40, header.byte_begin);
  out.put(48, header.byte_end);
  out.put(56, header.file_bytes);
  out.put(64, header.created_s);
  out.put(72, header.recompute_us);
  out.put(80, header.text_check);
  out.put(88, header.key_id);
  out.put(96, header.chunk_tokens);
  out.put(100, header.layout_version);
  out.put(104, static_cast<std::uint32_t>(header.role));
  out.put(108, std::uint32_t{0});
  out.put(112, header.fingerprint);
  out.put(144, header.layout_digest);
  out.put(176, header.parent.digest);
  out.put(208, header.key);
  out.put(240, header.id.digest);
  out.put(272, header.salt);
  out.put_text(288, header.codec, 32);
  out.put_text(320, header.name_space, 64);
  out.put_text(384, header.model, 64);
}

EntryHeader get_header(const FieldReader& in) {
  EntryHeader header;
  const auto kind = in.get<std::uint32_t>(12);
  require(kind == 1 || kind == 2, "neither a chunk nor a tail");
  header.kind = static_cast<EntryKind>(kind);
  const auto flags = in.get<std::uint32_t>(20);
  require((flags & ~kFlagsKnown) == 0, "an unknown flag is set");
  header.encrypted = (flags & kFlagEncrypted) != 0;
  header.has_state = (flags & kFlagState) != 0;
  header.has_logits = (flags & kFlagLogits) != 0;
  header.has_aliases = (flags & kFlagAliases) != 0;
  header.token_begin = in.get<std::uint64_t>(24);
  header.token_end = in.get<std::uint64_t>(32);
  header.byte_begin = in.get<std::uint64_t>(40);
  header.byte_end = in.get<std::uint64_t>(48);
  header.file_bytes = in.get<std::uint64_t>(56);
  header.created_s = in.get<std::int64_t>(64);
  header.recompute_us = in.get<std::uint64_t>(72);
  header.text_check = in.get<std::uint64_t>(80);
  header.key_id = in.get<std::uint64_t>(88);
  header.chunk_tokens = in.get<std::uint32_t>(96);
  header.layout_version = in.get<std::uint32_t>(100);
  const auto role = in.get<std::uint32_t>(104);
  require(role <= static_cast<std::uint32_t>(EntryRole::kEvicted), "an unknown role");
  header.role = static_cast<EntryRole>(role);
  require(in.is_zero(108, 4) && in.is_zero(kReservedOffset, kChecksumOffset - kReservedOffset),
          "a reserved field is set");
  header.fingerprint = in.get<Sha256Digest>(112);
  header.layout_digest = in.get<Sha256Digest>(144);
  header.parent.digest = in.get<Sha256Digest>(176);
  header.key = in.get<Sha256Digest>(208);
  header.id.digest = in.get<Sha256Digest>(240);
  header.salt = in.get<CipherSalt>(272);
  header.codec = in.get_text(288, 32);
  header.name_space = in.get_text(320, 63);
  header.model = in.get_text(384, 63);
  return header;
}

void check_ranges(const EntryHeader& header) {
  require(header.token_begin <= header.token_end && header.token_end <= kTokensMax,
          "the token range is impossible");
  require(header.byte_begin <= header.byte_end && header.byte_end <= kTextBytesMax,
          "the text range is impossible");
  require(header.chunk_tokens > 0 && header.token_begin % header.chunk_tokens == 0,
          "it does not start at a chunk's edge");
  if (header.kind == EntryKind::kChunk)
    require(header.token_count() == header.chunk_tokens, "a chunk of the wrong length");
  else
    require(header.token_count() < header.chunk_tokens, "a tail of the wrong length");
  require(!header.has_aliases || (header.kind == EntryKind::kTail && header.has_state),
          "aliases of an entry that is no tail");
  require(header.encrypted == (header.key_id != 0), "cipher and key id disagree");
  require(header.recompute_us < (std::uint64_t{1} << 50), "the recompute time is impossible");
}

void check_sections(const EntryInfo& info, std::uint64_t preface_bytes, std::uint64_t file_bytes) {
  const EntryHeader& header = info.header;
  require(info.sections.size() >= 2 && info.sections[0].kind == kSectionTokens &&
              info.sections[1].kind == kSectionText,
          "tokens and text must come first");
  require(info.sections[0].bytes == header.token_count() * sizeof(TokenId),
          "the number of token ids is wrong");
  require(info.sections[1].bytes == header.byte_end - header.byte_begin,
          "the size of the text is wrong");
  std::uint64_t offset = preface_bytes;
  for (std::size_t index = 0; index < info.sections.size(); ++index) {
    const Section& section = info.sections[index];
    const bool last = index + 1 == info.sections.size();
    require((section.kind == kSectionAliases) == (last && header.has_aliases),
            "aliases out of their place");
    require(section.offset == offset, "sections do not follow each other");
    require(section.bytes <= file_bytes && info.stored_bytes(index) <= file_bytes - offset,
            "a section reaches past the end");
    require(section.row_bytes > 0 && section.bytes % section.row_bytes == 0,
            "a section ends inside a row");
    offset += info.stored_bytes(index);
  }
  require(offset == file_bytes, "bytes after the last section");
}

// What encryption authenticates besides a section: the header and the section's own record.
std::vector<std::byte> associated_bytes(std::span<const std::byte> preface, std::size_t index) {
  const std::size_t record = kEntryHeaderBytes + index * kSectionRecordBytes;
  const auto own = preface.subspan(record, kAssociatedRecordBytes);
  std::vector<std::byte> bytes(kChecksumOffset + own.size());
  std::copy_n(preface.begin(), kChecksumOffset, bytes.begin());
  std::copy(own.begin(), own.end(), bytes.begin() + kChecksumOffset);
  return bytes;
}

}  // namespace

std::string_view entry_role_name(EntryRole role) {
  switch (role) {
    case EntryRole::kContinued:
      return "continued";
    case EntryRole::kAnchor:
      return "anchor";
    case EntryRole::kSession:
      return "session";
    case EntryRole::kEvicted:
      return "evicted";
  }
  return "unknown";
}

std::string_view section_kind_name(std::uint16_t kind) {
  if (kind == kSectionTokens) return "tokens";
  if (kind == kSectionText) return "text";
  if (kind == kSectionAliases) return "aliases";
  return array_kind_name(static_cast<ArrayKind>(kind));
}

std::vector<std::byte> encode_aliases(std::span<const AliasRecord> aliases) {
  std::size_t bytes = 4;
  for (const AliasRecord& alias : aliases)
    bytes += kAliasFixedBytes + alias.bridge.size() * sizeof(TokenId);
  std::vector<std::byte> out(bytes);
  FieldWriter fields(out);
  fields.put(0, static_cast<std::uint32_t>(aliases.size()));
  std::size_t at = 4;
  for (const AliasRecord& alias : aliases) {
    fields.put(at, alias.key);
    fields.put(at + 32, alias.byte_end);
    fields.put(at + 40, alias.text_check);
    fields.put(at + 48, static_cast<std::uint32_t>(alias.bridge.size()));
    at += kAliasFixedBytes;
    for (const TokenId token : alias.bridge) {
      fields.put(at, token);
      at += sizeof(TokenId);
    }
  }
  return out;
}

std::vector<AliasRecord> decode_aliases(std::span<const std::byte> bytes) {
  const FieldReader fields(bytes);
  require(bytes.size() >= 4, "aliases without a count");
  const auto count = fields.get<std::uint32_t>(0);
  require(count <= kAliasesMax, "too many aliases");
  std::vector<AliasRecord> aliases;
  std::size_t at = 4;
  for (std::uint32_t i = 0; i < count; ++i) {
    require(bytes.size() - at >= kAliasFixedBytes, "an alias is cut short");
    AliasRecord& alias = aliases.emplace_back();
    alias.key = fields.get<Sha256Digest>(at);
    alias.byte_end = fields.get<std::uint64_t>(at + 32);
    alias.text_check = fields.get<std::uint64_t>(at + 40);
    const auto bridge = fields.get<std::uint32_t>(at + 48);
    at += kAliasFixedBytes;
    require(alias.byte_end <= kTextBytesMax && bridge <= kBridgeTokensMax &&
                bridge * sizeof(TokenId) <= bytes.size() - at,
            "an alias is impossible");
    for (std::uint32_t k = 0; k < bridge; ++k, at += sizeof(TokenId))
      alias.bridge.push_back(fields.get<TokenId>(at));
  }
  require(at == bytes.size(), "bytes after the last alias");
  return aliases;
}

std::size_t entry_preface_bytes(std::span<const std::byte> header, std::uint64_t file_bytes) {
  require(header.size() >= kEntryHeaderBytes && file_bytes >= kEntryHeaderBytes,
          "shorter than its header");
  const FieldReader in(header);
  require(in.get<std::array<char, 8>>(0) == kMagic, "not a kv entry");
  const auto version = in.get<std::uint32_t>(8);
  if (version != kVersion) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("kv entry of version {}; this program reads version {}", version, kVersion));
  }
  const auto section_count = in.get<std::uint32_t>(16);
  require(section_count <= kSectionsMax, "too many sections");
  const std::size_t bytes = kEntryHeaderBytes + section_count * kSectionRecordBytes;
  require(bytes <= file_bytes, "the section table reaches past the end");
  return bytes;
}

EntryInfo decode_entry(std::span<const std::byte> preface, std::uint64_t file_bytes) {
  require(entry_preface_bytes(preface, file_bytes) == preface.size(), "a short section table");
  const FieldReader in(preface);
  require(in.get<std::uint64_t>(kChecksumOffset) == preface_checksum(preface),
          "the header's checksum is wrong");
  EntryInfo info;
  info.header = get_header(in);
  require(in.get<std::uint64_t>(56) == file_bytes, "the file has the wrong size");
  check_ranges(info.header);
  for (std::size_t at = kEntryHeaderBytes; at < preface.size(); at += kSectionRecordBytes)
    info.sections.push_back(get_section(in, at));
  check_sections(info, preface.size(), file_bytes);
  return info;
}

EntryEncoder::EntryEncoder(EntryHeader header,
                           std::vector<Section> sections,
                           const Cipher* cipher,
                           std::vector<std::byte>& storage)
    : info_{std::move(header), std::move(sections)},
      storage_(storage) {
  DS4_CHECK(info_.sections.size() <= kSectionsMax);
  info_.header.encrypted = cipher != nullptr;
  info_.header.key_id = cipher != nullptr ? cipher->key_id() : 0;
  if (cipher != nullptr) cipher_ = cipher->file_cipher(info_.header.salt);
  std::uint64_t offset = kEntryHeaderBytes + info_.sections.size() * kSectionRecordBytes;
  for (std::size_t index = 0; index < info_.sections.size(); ++index) {
    info_.sections[index].offset = offset;
    offset += info_.stored_bytes(index);
  }
  info_.header.file_bytes = offset;
  storage_.resize(offset);
}

std::span<std::byte> EntryEncoder::section(std::size_t index) {
  const Section& section = info_.sections[index];
  return std::span(storage_).subspan(section.offset, section.bytes);
}

void EntryEncoder::encode_preface() {
  const std::size_t bytes = kEntryHeaderBytes + info_.sections.size() * kSectionRecordBytes;
  const std::span<std::byte> preface = std::span(storage_).first(bytes);
  std::memset(preface.data(), 0, kEntryHeaderBytes);
  FieldWriter out(preface);
  put_header(out, info_.header, info_.sections.size());
  for (std::size_t index = 0; index < info_.sections.size(); ++index)
    put_section(out, kEntryHeaderBytes + index * kSectionRecordBytes, info_.sections[index]);
  out.put(kChecksumOffset, preface_checksum(preface));
}

std::span<const std::byte> EntryEncoder::finish() {
  if (cipher_) {
    encode_preface();  // the header is part of what each section's tag covers
    for (std::uint32_t index = 0; index < info_.sections.size(); ++index) {
      const std::span<std::byte> plain = section(index);
      const std::span<std::byte> tag = std::span(storage_).subspan(
          info_.sections[index].offset + info_.sections[index].bytes, kCipherTagBytes);
      cipher_->seal(section_nonce(index), associated_bytes(storage_, index), plain, tag);
    }
  }
  for (std::size_t index = 0; index < info_.sections.size(); ++index) {
    Section& section = info_.sections[index];
    section.checksum = xxh3(std::span(storage_).subspan(section.offset, info_.stored_bytes(index)));
  }
  encode_preface();
  return storage_;
}

EntryReader::EntryReader(const std::filesystem::path& path, const Cipher* cipher)
    : file_(path),
      bytes_(file_.bytes()) {
  read_preface();
  if (cipher != nullptr && info_.header.encrypted && cipher->key_id() == info_.header.key_id)
    cipher_ = cipher->file_cipher(info_.header.salt);
}

EntryReader::EntryReader(const std::filesystem::path& path,
                         std::uint64_t offset,
                         std::uint64_t byte_count,
                         const Cipher* cipher)
    : file_(path),
      base_(offset),
      bytes_(byte_count) {
  require(offset <= file_.bytes() && byte_count <= file_.bytes() - offset,
          "it reaches past the end of the file that holds it");
  read_preface();
  if (cipher != nullptr && info_.header.encrypted && cipher->key_id() == info_.header.key_id)
    cipher_ = cipher->file_cipher(info_.header.salt);
}

void EntryReader::read_preface() {
  require(bytes_ >= kEntryHeaderBytes, "shorter than its header");
  preface_.resize(kEntryHeaderBytes);
  file_.read_at(base_, preface_);
  const std::size_t bytes = entry_preface_bytes(preface_, bytes_);
  preface_.resize(bytes);
  file_.read_at(base_ + kEntryHeaderBytes, std::span(preface_).subspan(kEntryHeaderBytes));
  info_ = decode_entry(preface_, bytes_);
}

void EntryReader::read_sections(std::size_t first,
                                std::size_t count,
                                std::vector<std::byte>& storage) const {
  DS4_CHECK(first + count <= info_.sections.size());
  if (count == 0) return storage.clear();
  const std::size_t last = first + count - 1;
  const std::uint64_t begin = info_.sections[first].offset;
  const std::uint64_t end = info_.sections[last].offset + info_.stored_bytes(last);
  storage.resize(end - begin);
  file_.read_at(base_ + begin, storage);
}

std::span<std::byte> EntryReader::open_section(std::size_t index,
                                               std::span<std::byte> stored) const {
  const Section& section = info_.sections[index];
  DS4_CHECK(stored.size() == info_.stored_bytes(index));
  if (xxh3(stored) != section.checksum)
    bad(fmt::format("the checksum of {} of layer {} is wrong", section_kind_name(section.kind),
                    section.layer));
  const std::span<std::byte> plain = stored.first(section.bytes);
  if (!info_.header.encrypted) return plain;
  if (!cipher_) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is encrypted with another key; give the key file that it was "
                            "written with",
                            file_.path().string()));
  }
  if (!cipher_->open(section_nonce(static_cast<std::uint32_t>(index)),
                     associated_bytes(preface_, index), plain, stored.subspan(section.bytes)))
    bad("a section does not decrypt");
  return plain;
}

std::vector<AliasRecord> EntryReader::aliases() const {
  if (!info_.header.has_aliases || (info_.header.encrypted && !cipher_)) return {};
  return decode_aliases(section(info_.sections.size() - 1));
}

std::vector<std::byte> EntryReader::section(std::size_t index) const {
  std::vector<std::byte> bytes;
  read_sections(index, 1, bytes);
  bytes.resize(open_section(index, bytes).size());
  return bytes;
}

void EntryReader::check_all() const {
  std::vector<std::byte> bytes;
  for (std::size_t index = 0; index < info_.sections.size(); ++index) {
    read_sections(index, 1, bytes);
    if (cipher_ || !info_.header.encrypted)
      open_section(index, bytes);
    else
      require(xxh3(bytes) == info_.sections[index].checksum, "a section's checksum is wrong");
  }
}

}  // namespace ds4::kvstore
