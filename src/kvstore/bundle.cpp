#include "kvstore/bundle.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/entry_batch.h"
#include "kvstore/session_store.h"
#include "kvstore/store_context.h"
#include "kvstore/wire.h"

namespace ds4::kvstore {

namespace {

constexpr std::array<char, 8> kMagic = {'D', 'S', '4', 'K', 'V', 'X', 'P', '\x1a'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kEntriesMax = 1U << 20;
constexpr std::size_t kTableRecordBytes = 8;
constexpr std::size_t kChecksumOffset = 56;

void require(bool condition, std::string_view what) {
  if (!condition)
    throw Error(ErrorCode::kBadFormat, fmt::format("damaged session export: {}", what));
}

std::uint64_t preface_checksum(std::span<const std::byte> preface) {
  std::vector<std::byte> covered(preface.begin(), preface.begin() + kChecksumOffset);
  covered.insert(covered.end(), preface.begin() + kBundleHeaderBytes, preface.end());
  return xxh3(covered);
}

KeyContext context_of(const EntryHeader& header,
                      const Sha256Digest& salt,
                      std::string_view name_space) {
  return {.fingerprint = header.fingerprint,
          .layout_digest = header.layout_digest,
          .salt = salt,
          .chunk_tokens = header.chunk_tokens,
          .name_space = std::string(name_space)};
}

// An entry's sections as an export carries them.  Aliases stay behind: their keys are those of one
// directory, and their texts are not kept.
std::vector<Section> portable_sections(const EntryInfo& info) {
  std::vector<Section> sections = info.sections;
  if (info.header.has_aliases) sections.pop_back();
  return sections;
}

std::uint64_t plain_file_bytes(std::span<const Section> sections) {
  std::uint64_t bytes = kEntryHeaderBytes;
  for (const Section& section : sections)
    bytes += kSectionRecordBytes + section.bytes;
  return bytes;
}

BundleInfo read_bundle_info(const InputFile& file) {
  require(file.bytes() >= kBundleHeaderBytes, "shorter than its header");
  std::vector<std::byte> preface(kBundleHeaderBytes);
  file.read_at(0, preface);
  preface.resize(bundle_preface_bytes(preface, file.bytes()));
  file.read_at(kBundleHeaderBytes, std::span(preface).subspan(kBundleHeaderBytes));
  return decode_bundle_preface(preface, file.bytes());
}

}  // namespace

std::vector<std::byte> encode_bundle_preface(std::uint64_t session_bytes,
                                             std::span<const std::uint64_t> entry_bytes) {
  std::vector<std::byte> bytes(kBundleHeaderBytes + entry_bytes.size() * kTableRecordBytes);
  FieldWriter out(bytes);
  out.put(0, kMagic);
  out.put(8, kVersion);
  out.put(12, static_cast<std::uint32_t>(entry_bytes.size()));
  out.put(16, session_bytes);
  for (std::size_t i = 0; i < entry_bytes.size(); ++i)
    out.put(kBundleHeaderBytes + i * kTableRecordBytes, entry_bytes[i]);
  out.put(kChecksumOffset, preface_checksum(bytes));
  return bytes;
}

std::size_t bundle_preface_bytes(std::span<const std::byte> header, std::uint64_t file_bytes) {
  require(header.size() >= kBundleHeaderBytes, "shorter than its header");
  const FieldReader in(header);
  require(in.get<std::array<char, 8>>(0) == kMagic, "not a session export");
  const auto version = in.get<std::uint32_t>(8);
  if (version != kVersion)
    throw Error(ErrorCode::kUnsupported,
                fmt::format("session export of version {}; this program reads version {}", version,
                            kVersion));
  const auto entry_count = in.get<std::uint32_t>(12);
  require(entry_count <= kEntriesMax, "too many entries");
  const std::size_t bytes = kBundleHeaderBytes + entry_count * kTableRecordBytes;
  require(bytes <= file_bytes, "its table reaches past the end");
  return bytes;
}

BundleInfo decode_bundle_preface(std::span<const std::byte> preface, std::uint64_t file_bytes) {
  require(bundle_preface_bytes(preface, file_bytes) == preface.size(), "a short table");
  const FieldReader in(preface);
  require(in.get<std::uint64_t>(kChecksumOffset) == preface_checksum(preface),
          "the header's checksum is wrong");
  require(in.is_zero(24, kChecksumOffset - 24), "a reserved field is set");
  BundleInfo info;
  std::uint64_t offset = preface.size();
  const auto take = [&](std::uint64_t bytes) {
    require(bytes <= file_bytes - offset, "a part reaches past the end");
    offset += bytes;
    return offset - bytes;
  };
  info.session_bytes = in.get<std::uint64_t>(16);
  info.session_offset = take(info.session_bytes);
  for (std::size_t at = kBundleHeaderBytes; at < preface.size(); at += kTableRecordBytes) {
    info.entry_bytes.push_back(in.get<std::uint64_t>(at));
    info.entry_offsets.push_back(take(info.entry_bytes.back()));
  }
  require(offset == file_bytes, "bytes after the last part");
  return info;
}

ChainTranscoder::ChainTranscoder(const KeyContext& target, const Cipher* cipher)
    : target_(target),
      cipher_(cipher),
      keys_(target),
      parent_(root_id(target)) {}

std::span<const std::byte> ChainTranscoder::add(const EntryReader& entry) {
  const EntryHeader& source = entry.header();
  require(first_ ? source.token_begin == 0 && source.byte_begin == 0
                 : source.parent == source_parent_ && source.token_begin == header_.token_end &&
                       source.byte_begin == header_.byte_end && header_.kind == EntryKind::kChunk,
          "its entries do not follow each other");
  require(source.fingerprint == target_.fingerprint &&
              source.layout_digest == target_.layout_digest &&
              source.chunk_tokens == target_.chunk_tokens,
          "entries of several models or layouts");
  const std::vector<std::byte> own_tokens = entry.section(0);
  const std::vector<std::byte> own_text = entry.section(1);
  const std::size_t before = tokens_.size();
  tokens_.resize(before + own_tokens.size() / sizeof(TokenId));
  if (!own_tokens.empty())
    std::memcpy(tokens_.data() + before, own_tokens.data(), own_tokens.size());
  text_.append(reinterpret_cast<const char*>(own_text.data()), own_text.size());
  keys_.append(own_text);

  EntryHeader header = source;
  header.key = keys_.key();
  header.parent = parent_;
  header.id = entry_id(header.kind, parent_, header.key, std::span(tokens_).subspan(before));
  header.name_space = target_.name_space;
  header.text_check = text_check(target_.salt, own_text);
  header.has_aliases = false;
  header.salt = {};
  if (cipher_ != nullptr) fill_random(header.salt);
  const std::vector<Section> sections = portable_sections(entry.info());
  EntryEncoder encoder(header, sections, cipher_, storage_);
  for (std::size_t index = 0; index < sections.size(); ++index) {
    const std::vector<std::byte> plain = entry.section(index);
    std::copy(plain.begin(), plain.end(), encoder.section(index).begin());
  }
  const std::span<const std::byte> file = encoder.finish();
  header_ = encoder.header();
  parent_ = header_.id;
  source_parent_ = source.id;
  first_ = false;
  return file;
}

void SessionStore::export_file(std::string_view id, const std::filesystem::path& path) {
  const StoreContext& context = store_.context();
  const SessionContent content = read(id);
  const std::optional<Hit> hit =
      content.info.tail ? store_.hit_of(*content.info.tail) : std::nullopt;
  const Lease lease = hit ? store_.hold(*hit) : Lease();
  SessionRecord record{.info = content.info,
                       .keep_tokens = 0,
                       .keep_bytes = 0,
                       .new_tokens = content.tokens,
                       .new_text = content.text};
  record.info.name_space.clear();
  std::vector<std::uint64_t> sizes;
  const std::size_t entry_count = hit ? hit->chain.size() : 0;
  const auto open = [&](std::size_t index) {
    const bool last = index + 1 == entry_count;
    return EntryReader(context.path_of(last ? hit->kind : EntryKind::kChunk, hit->chain[index]),
                       context.cipher_or_null());
  };
  for (std::size_t i = 0; i < entry_count; ++i) {
    sizes.push_back(plain_file_bytes(portable_sections(open(i).info())));
  }
  std::filesystem::path temporary = path;
  temporary += fmt::format(".{}.tmp", random_hex(4));
  TemporaryFile file(temporary, context.options.step_hook);
  // The names of plain entries differ from those of encrypted ones, and the session refers to one.
  std::optional<ChainTranscoder> transcoder;
  std::vector<std::byte> session;
  if (entry_count == 0) record.info.tail.reset();
  session = encode_session(record, nullptr);
  file.write(encode_bundle_preface(session.size(), sizes));
  file.write(session);
  for (std::size_t i = 0; i < entry_count; ++i) {
    const EntryReader entry = open(i);
    if (!transcoder) transcoder.emplace(context_of(entry.header(), {}, ""), nullptr);
    file.write(transcoder->add(entry));
  }
  file.sync();
  file.publish_over(path);
}

SessionInfo SessionStore::import_file(const std::filesystem::path& path,
                                      std::string_view name_space) {
  StoreContext& context = store_.context();
  context.require_writable();
  context.require_key();
  check_name_space(name_space);
  const InputFile file(path);
  const BundleInfo bundle = read_bundle_info(file);
  std::vector<std::byte> session(bundle.session_bytes);
  file.read_at(bundle.session_offset, session);
  SessionContent content = decode_session(session, nullptr).content;
  SessionInfo& info = content.info;
  info.tail.reset();
  info.name_space = std::string(name_space);
  std::optional<ChainTranscoder> transcoder;
  EntryBatch batch(context);
  std::uint64_t total = 0;
  for (const std::uint64_t bytes : bundle.entry_bytes)
    total += bytes;
  if (!context.make_room(total)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the session takes {} bytes, which the budget of {} bytes has no room "
                            "for; raise the budget",
                            total, context.options.bytes_max));
  }
  for (std::size_t i = 0; i < bundle.entry_offsets.size(); ++i) {
    const EntryReader entry(path, bundle.entry_offsets[i], bundle.entry_bytes[i], nullptr);
    require(!entry.header().encrypted, "an encrypted entry");
    if (!transcoder) {
      if (entry.header().chunk_tokens != context.options.chunk_tokens)
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("the session has chunks of {} tokens, this directory of {}",
                                entry.header().chunk_tokens, context.options.chunk_tokens));
      transcoder.emplace(context_of(entry.header(), context.prefix_salt(), name_space),
                         context.cipher_or_null());
    }
    const std::span<const std::byte> bytes = transcoder->add(entry);
    if (!store_.contains(transcoder->header().id)) batch.add(transcoder->header(), bytes);
  }
  if (transcoder) {
    const auto& tokens = transcoder->tokens();
    require(tokens.size() <= content.tokens.size() &&
                std::equal(tokens.begin(), tokens.end(), content.tokens.begin()) &&
                content.text.starts_with(transcoder->text()),
            "its state is of another text than its session");
    require(transcoder->header().has_state, "its last entry carries no state");
    batch.publish();
    info.tail = transcoder->header().id;
  }
  const FileLock lock(context.options.directory / "session-lock");
  if (std::filesystem::exists(context.session_path(info.id)))
    info.id = random_hex(kSessionIdDigits / 2);
  write({.info = info,
         .keep_tokens = 0,
         .keep_bytes = 0,
         .new_tokens = content.tokens,
         .new_text = content.text},
        std::nullopt);
  if (info.tail) {
    const std::lock_guard catalogue_lock(context.catalogue_mutex);
    context.catalogue->set_reference(info.id, *info.tail);
  }
  return info;
}

}  // namespace ds4::kvstore
